"""Chunked log-probabilities against torch's log_softmax, values and gradients; reductions against plain loops."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from teloi import losses


def problem(n: int, d: int, v: int, dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, targets, bias; as leaves that want gradients."""
    random = torch.Generator().manual_seed(n + 100 * v)
    hidden = (scale * torch.randn(n, d, generator=random)).to(dtype)
    weight, bias = torch.randn(v, d, generator=random).to(dtype), torch.randn(v, generator=random).to(dtype)
    targets = torch.randint(v, (n,), generator=random)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, bias.requires_grad_()


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
    return linear(hidden, weight, bias).log_softmax(1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 3, 5, 64])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_log_softmax(dtype: torch.dtype, chunk: int, with_bias: bool) -> None:
    hidden, weight, targets, bias = problem(11, 6, 17, dtype)
    leaves = [hidden, weight, bias] if with_bias else [hidden, weight]
    upstream = torch.randn(11, dtype=dtype, generator=torch.Generator().manual_seed(0))
    ours = losses.token_logps(hidden, weight, targets, bias if with_bias else None, chunk=chunk)
    theirs = plain(hidden, weight, targets, bias if with_bias else None)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream)
    )


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
@pytest.mark.parametrize("trained", ["h", "w", "b", "hw", "hb", "wb", "hwb"])
def test_gradients_are_those_of_finite_differences(chunk: int, trained: str) -> None:
    hidden, weight, targets, bias = problem(5, 3, 7, torch.float64)
    for name, leaf in (("h", hidden), ("w", weight), ("b", bias)):
        leaf.requires_grad_(name in trained)
    assert torch.autograd.gradcheck(
        lambda h, w, b: losses.token_logps(h, w, targets, b, chunk=chunk), (hidden, weight, bias)
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_bfloat16_is_as_good_as_its_product(frozen: bool) -> None:
    hidden, weight, targets, bias = problem(40, 64, 300, torch.bfloat16, scale=0.5)
    weight.requires_grad_(not frozen)
    leaves = [hidden] if frozen else [hidden, weight, bias]
    exact = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight, bias)]
    truth = plain(exact[0], exact[1], targets, exact[2])
    ours = losses.token_logps(hidden, weight, targets, bias if not frozen else bias.detach(), chunk=16)
    assert ours.dtype == torch.float32
    # Logits of 8 to 16 are rounded by up to 1/32; the target's own is not.
    rounded = plain(hidden, weight, targets, bias).double()
    assert (ours - truth).abs().mean() < 0.6 * (rounded - truth).abs().mean()
    assert (ours - truth).abs().max() < 1 / 32
    truths = torch.autograd.grad(truth.sum(), exact[: len(leaves)])
    for gradient, true in zip(torch.autograd.grad(ours.sum(), leaves), truths, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert (gradient.double() - true).norm() < 0.03 * true.norm()


def test_bfloat16_certain_tokens_stay_at_or_below_zero() -> None:
    """Rounding a logit of 300 alone moves it by up to 1: ratios of a confident policy must not see that."""
    weight = torch.eye(8, 64, dtype=torch.bfloat16)
    hidden = (299.0 + torch.arange(8)[:, None] * 0.3) * weight.float()
    logps = losses.token_logps(hidden.to(torch.bfloat16), weight, torch.arange(8))
    torch.testing.assert_close(logps, torch.zeros(8))


@pytest.mark.parametrize("frozen", [True, False])
def test_no_gradient_is_made_that_nobody_wants(frozen: bool) -> None:
    hidden, weight, targets, _ = problem(6, 4, 9, torch.float32)
    hidden.requires_grad_(frozen)
    weight.requires_grad_(not frozen)
    losses.token_logps(hidden, weight, targets).sum().backward()
    assert (weight.grad is None) == frozen
    assert (hidden.grad is None) != frozen


def test_without_gradients_nothing_is_kept() -> None:
    hidden, weight, targets, bias = problem(6, 4, 9, torch.float32)
    with torch.no_grad():
        logps = losses.token_logps(hidden, weight, targets, bias, chunk=4)
    assert not logps.requires_grad
    torch.testing.assert_close(logps, plain(hidden, weight, targets, bias).detach())
    assert not losses.token_logps(hidden.detach(), weight.detach(), targets).requires_grad


class Largest(TorchDispatchMode):
    """The size of the largest tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("frozen", [True, False])
def test_no_more_logits_exist_than_a_chunk_holds(frozen: bool) -> None:
    hidden, weight, targets, _ = problem(96, 4, 500, torch.float32)
    weight.requires_grad_(not frozen)
    with Largest() as largest:
        losses.token_logps(hidden, weight, targets, chunk=16).sum().backward()
    assert largest.elements == 16 * 500


@pytest.mark.parametrize("frozen", [True, False])
def test_autocast_changes_neither_values_nor_gradients(frozen: bool) -> None:
    hidden, weight, targets, _ = problem(9, 16, 20, torch.float32)
    weight.requires_grad_(not frozen)
    with torch.autocast("cpu", torch.bfloat16):
        logps = losses.token_logps(hidden, weight, targets)
    expected = plain(hidden, weight, targets, None)
    torch.testing.assert_close(logps, expected)
    ours, theirs = (torch.autograd.grad(values.sum(), hidden)[0] for values in (logps, expected))
    torch.testing.assert_close(ours, theirs)


def test_weight_of_another_dtype_follows_hidden_and_still_learns() -> None:
    hidden, weight, targets, _ = problem(9, 16, 20, torch.float32)
    losses.token_logps(hidden.bfloat16(), weight, targets).sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_no_positions_give_no_values() -> None:
    hidden, weight, targets, bias = problem(0, 4, 9, torch.float32)
    logps = losses.token_logps(hidden, weight, targets, bias)
    assert logps.shape == (0,)
    logps.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_wrong_arguments_are_refused() -> None:
    hidden, weight, targets, _ = problem(6, 4, 9, torch.float32)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        losses.token_logps(hidden, weight, targets, chunk=0)
    with pytest.raises(TypeCheckError):
        losses.token_logps(hidden, weight, targets[:5])
    with pytest.raises((RuntimeError, IndexError)):
        losses.token_logps(hidden, weight, torch.full_like(targets, -100))


def test_from_logits_keeps_float64_and_widens_bfloat16() -> None:
    logits, targets = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    expected = torch.stack([logits[i, t] - logits[i].exp().sum().log() for i, t in enumerate(targets)])
    torch.testing.assert_close(losses.logps_from_logits(logits, targets), expected)
    assert losses.logps_from_logits(logits.bfloat16(), targets).dtype == torch.float32


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.float64])
def test_sequence_logps_shifts_by_one_and_ignores_what_is_masked(mask_dtype: torch.dtype) -> None:
    logits = torch.randn(3, 6, 8, dtype=torch.float64)
    labels = torch.randint(8, (3, 6))
    mask = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    labels[mask == 0] = -100
    expected = [
        sum(math.log(logits[b, t - 1].softmax(0)[labels[b, t]]) for t in range(1, 6) if mask[b, t]) for b in range(3)
    ]
    ours = losses.sequence_logps(logits, labels, mask.to(mask_dtype))
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


segments = st.lists(st.tuples(st.integers(0, 4), st.floats(-50, 0)), max_size=20)


@given(segments)
def test_segments_sum_and_mean_like_a_loop(pairs: list[tuple[int, float]]) -> None:
    ids = torch.tensor([i for i, _ in pairs], dtype=torch.int64)
    values = torch.tensor([x for _, x in pairs], dtype=torch.float64)
    groups = [[x for i, x in pairs if i == k] for k in range(5)]
    sums = torch.tensor([math.fsum(group) for group in groups], dtype=torch.float64)
    means = torch.tensor([math.fsum(group) / max(len(group), 1) for group in groups], dtype=torch.float64)
    torch.testing.assert_close(losses.segment_sum(values, ids, 5), sums)
    torch.testing.assert_close(losses.segment_mean(values, ids, 5), means)


def test_perplexity_weights_tokens_or_means() -> None:
    logps = torch.tensor([[-1.0, -3.0, -99.0], [-2.0, -2.0, -5.0]], dtype=torch.float64)
    lengths = torch.tensor([2, 3])
    assert losses.perplexity(logps, lengths).item() == pytest.approx(math.exp(13 / 5))
    assert losses.perplexity(logps, lengths, "official").item() == pytest.approx(math.exp((2 * 1 + 3 * 2) / 3))
    uniform = torch.full((4, 6), -math.log(10.0), dtype=torch.float64)
    assert losses.perplexity(uniform, torch.tensor([6, 1, 3, 2])).item() == pytest.approx(10)


@pytest.mark.parametrize(("lengths", "variant"), [([], "paper"), ([0, 0], "paper"), ([1, 1], "official")])
def test_perplexity_of_nothing_is_an_error(lengths: list[int], variant: Any) -> None:
    with pytest.raises(ValueError, match="without a token that counts"):
        losses.perplexity(torch.zeros(len(lengths), 3), torch.tensor(lengths, dtype=torch.int64), variant)


def test_importing_losses_does_not_import_torch() -> None:
    code = (
        "import sys, teloi.losses; assert 'torch' not in sys.modules; teloi.losses.dpo; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves_to_a_function_so_called() -> None:
    assert all(getattr(losses, name).__name__ == name for name in losses.__all__)
    with pytest.raises(AttributeError, match=r"No teloi\.losses attribute nothing"):
        _ = losses.nothing  # type: ignore[attr-defined]

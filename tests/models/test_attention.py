"""Attention within trees against each sequence alone, by the definition in float64: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from teloi.batch.structure import SegmentStructure, Span, TreeStructure
from teloi.models import attention
from teloi.models.attention import BLOCK, tree_attention
from teloi.models.flex import blocks, flex

WIDTH = 8

TREES: dict[str, list[tuple[int, tuple[int, ...]]]] = {
    "pairs": [(5, (3, 4)), (7, (2, 6))],
    "one branch each": [(5, (3,)), (2 * BLOCK + 3, (9,))],
    "long": [(BLOCK + 20, (BLOCK + 5, 3))],
    "a group": [(6, (4,) * 8)],
    "no prompt": [(0, (3, 4))],
    "an empty branch": [(4, (0, 3, 2))],
    "a prompt alone": [(9, ())],
}


def spans_of(trees: list[tuple[int, tuple[int, ...]]]) -> tuple[Span, ...]:
    """The trees one behind the other."""
    spans: list[Span] = []
    for prompt, branches in trees:
        spans.append(Span(spans[-1].start + spans[-1].size if spans else 0, prompt, branches))
    return tuple(spans)


def alone(q: Tensor, k: Tensor, v: Tensor, span: Span, window: int | None) -> Tensor:
    """The output at each position of a tree, every branch behind its prompt as a sequence of its own: [h t d]."""
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    prompt = list(range(span.start, span.start + span.prompt))
    outputs: list[Tensor] = []
    begin = span.start + span.prompt
    for length in span.branches or (0,):
        own = list(range(begin, begin + length))
        begin += length
        rows = [*prompt, *own]
        distance = torch.arange(len(rows))[:, None] - torch.arange(len(rows))
        visible = (distance >= 0) & (distance < (window or len(rows) + 1))
        scores = q[:, rows] @ k[:, rows].transpose(1, 2) * WIDTH**-0.5
        found = scores.masked_fill(~visible, float("-inf")).softmax(-1) @ v[:, rows]
        outputs.append(found[:, len(prompt) :] if outputs else found)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("name", TREES)
def test_a_branch_sees_its_prompt_and_itself(name, dtype, tolerance, heads, window) -> None:
    spans = spans_of(TREES[name])
    start = spans[-1].start + spans[-1].size
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(n, start, WIDTH, generator=generator).to(dtype) for n in (heads[0], heads[1], heads[1])]
    upstream = torch.randn(heads[0], start, WIDTH, generator=generator).to(dtype)
    inputs = [state[None].clone().requires_grad_() for state in states]
    tree = TreeStructure(spans, torch.device("cpu"))
    q, k, v = inputs
    found, _ = tree_attention(torch.nn.Identity(), q, k, v, None, tree=tree, sliding_window=window)
    gradients = torch.autograd.grad(found, inputs, upstream.transpose(0, 1)[None])
    exact = [state.double().requires_grad_() for state in states]
    q, k, v = exact
    wanted = torch.cat([alone(q, k, v, span, window) for span in spans], dim=1)
    expected = torch.autograd.grad(wanted, exact, upstream.double())
    assert found.shape == (1, start, heads[0], WIDTH)
    torch.testing.assert_close(found[0].transpose(0, 1).double(), wanted, atol=tolerance, rtol=tolerance)
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient[0].double(), right, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("name", TREES)
def test_one_kernel_for_the_whole_row_gives_the_same(name, heads, window) -> None:
    """What a GPU computes, by the forward pass that the same function has on the CPU."""
    spans = spans_of(TREES[name])
    q, k, v = (torch.randn(1, n, spans[-1].start + spans[-1].size, 2 * WIDTH) for n in (heads[0], heads[1], heads[1]))
    tree = TreeStructure(spans, torch.device("cpu"))
    wanted, _ = tree_attention(torch.nn.Identity(), q, k, v, None, tree=tree, sliding_window=window)
    with torch.no_grad():
        torch.testing.assert_close(flex(q, k, v, tree, None, window).transpose(1, 2), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
def test_one_kernel_knows_segments_read_in_both_directions(window: int | None) -> None:
    tree = SegmentStructure([7, 5, 9], [True, False, True], torch.device("cpu"))
    q, k, v = torch.randn(3, 1, 2, 21, 2 * WIDTH).unbind()
    wanted, _ = tree_attention(torch.nn.Identity(), q, k, v, None, tree=tree, sliding_window=window)
    with torch.no_grad():
        torch.testing.assert_close(flex(q, k, v, tree, None, window).transpose(1, 2), wanted, atol=1e-5, rtol=1e-5)


def test_blocks_that_see_nothing_are_not_computed() -> None:
    tree = TreeStructure(spans_of([(100, (28,)), (100, (28,)), (100, (28,))]), torch.device("cpu"))
    assert blocks(tree, None).sparsity() == pytest.approx(100 * 6 / 9)
    assert blocks(tree, None) is blocks(tree, None)


def test_beyond_a_length_no_score_matrix_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PLAIN", 10)
    monkeypatch.setattr(attention, "_plain", None)

    def attend(length: int) -> Tensor:
        states = torch.randn(1, 2, length, WIDTH, dtype=torch.bfloat16)
        tree = TreeStructure((Span(0, length, ()),), torch.device("cpu"))
        return tree_attention(torch.nn.Identity(), states, states, states, None, tree=tree)[0]

    assert attend(11).isfinite().all()
    with pytest.raises(TypeError):
        attend(10)

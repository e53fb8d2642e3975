"""What only a GPU can show: its attention kernel, forward and backward. Skipped elsewhere."""

from __future__ import annotations

import pytest
import torch

from teloi.batch.structure import TreeStructure
from teloi.models.attention import tree_attention
from tests.models.test_attention import TREES, WIDTH, spans_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(("heads", "groups", "width"), [(6, 2, 2 * WIDTH), (4, 2, 2 * WIDTH), (4, 2, WIDTH)])
@pytest.mark.parametrize("name", TREES)
def test_attention_and_its_gradients_are_the_cpus(
    name: str, heads: int, groups: int, width: int, window: int | None
) -> None:
    """Heads narrower than the kernel takes too: they are computed tree by tree."""
    spans = spans_of(TREES[name])
    size = spans[-1].start + spans[-1].size
    states = [torch.randn(1, n, size, width) for n in (heads, groups, groups)]
    upstream = torch.randn(1, size, heads, width)
    found = {}
    for device in ("cpu", "cuda"):
        q, k, v = inputs = [state.to(device).requires_grad_() for state in states]
        tree = TreeStructure(spans, torch.device(device))
        out, _ = tree_attention(torch.nn.Identity(), q, k, v, None, tree=tree, sliding_window=window)
        found[device] = [out, *torch.autograd.grad(out, inputs, upstream.to(device))]
    for ours, right in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(ours.cpu(), right, atol=2e-3, rtol=2e-3)

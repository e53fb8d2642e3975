"""Losses of single tokens against torch's own functions."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from teloi.losses.tokens import nll_and_z


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nll_and_z_loss_from_one_pass(dtype) -> None:
    torch.manual_seed(0)
    logits, targets = (3 * torch.randn(7, 11)).to(dtype), torch.randint(0, 11, (7,))
    found = nll_and_z(logits, targets)
    wide = logits if dtype == torch.float64 else logits.float()
    torch.testing.assert_close(found[:, 0], cross_entropy(wide, targets, reduction="none"))
    torch.testing.assert_close(found[:, 1], torch.log(wide.exp().sum(-1)) ** 2)
    shifted = nll_and_z(logits.double() + 5, targets)
    torch.testing.assert_close(shifted[:, 0], nll_and_z(logits.double(), targets)[:, 0])
    assert (shifted[:, 1] > found[:, 1]).all(), "only the z-loss sees a shift"

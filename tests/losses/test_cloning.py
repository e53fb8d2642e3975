from __future__ import annotations

import torch
from torch.distributions import Independent, Normal

from teloi import losses


def test_half_the_squared_distance_is_the_negative_log_likelihood_but_for_a_constant() -> None:
    means, actions = torch.randn(2, 5, 3, dtype=torch.float64)
    nll = -Independent(Normal(means, 1.0), 1).log_prob(actions)
    constant = 1.5 * torch.tensor(2 * torch.pi).log()
    torch.testing.assert_close(
        losses.gaussian_nll(means.float(), actions.float()).double(), nll - constant, atol=1e-5, rtol=1e-5
    )

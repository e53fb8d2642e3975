"""An add-on to any objective of an encoder: its outputs shall not change when its embeddings are moved a little."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi import losses
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.models.roles import Models

SPREAD = 0.01
"""Standard deviation of a first perturbation, which is cut at twice that."""


@dataclass(frozen=True)
class Adversarial(Objective, ABC):
    """Put before another objective's class, adds scale-invariant fine-tuning (SiFT: He et al., 2021) to its loss.

        class AdversarialMLM(Adversarial, MLM):
            def outputs(self, models, batch):
                return models.policy.logits(batch)

    The normalised embeddings get a small random perturbation, which takes one step of `rate` to where the outputs
    change most. Loss: the other's + adversarial * the mean symmetric cross-entropy between the outputs with and without
    the perturbation (`kl`, the KL divergence that is meant, is logged). `outputs` says which logits those are. On
    held-out examples the other's loss is measured alone. Models need a layer norm behind their embeddings, as BERT's
    kind has.
    """

    adversarial: float = 1.0
    """Factor of the adversarial loss."""
    rate: float = 1e-4
    """Length of the adversarial step, in units of normalised embeddings."""

    def __post_init__(self) -> None:
        if others := getattr(super(), "__post_init__", None):
            others()
        if self.adversarial < 0 or self.rate <= 0:
            raise UsageError("adversarial must not be negative, and rate must be above 0")

    def collate(self, examples: Sequence[Any], now: Now, device: Any) -> Any:
        """With a seed for each example's first perturbation."""
        import torch

        batch = super().collate(examples, now, device)
        seeds = [int(now.rng("perturbation", i).integers(2**62)) for i in range(len(examples))]
        batch.columns["seed"] = torch.as_tensor(seeds, device=device)
        return batch

    @abstractmethod
    def outputs(self, models: Models, batch: Any) -> Tensor:
        """The logits [n c] that shall not change: one row an example, or a scored token."""

    def loss(self, models: Models, batch: Any, now: Now) -> dict[str, Term]:
        terms = super().loss(models, batch, now)
        return terms | self.smoothness(models, batch, self.outputs(models, batch))

    def smoothness(self, models: Models, batch: Any, clean: Tensor) -> dict[str, Term]:
        """The terms of the adversarial loss, given the outputs without a perturbation."""
        import torch

        from teloi.batch.sequence import SCORED
        from teloi.models.perturb import embedding_norm, perturbed

        if not self.adversarial or not torch.is_grad_enabled():
            return {}
        policy: Any = models.policy

        def divergence(delta: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
            with perturbed(policy.inner, delta):
                moved = self.outputs(models, batch)
            return losses.symmetric_cross_entropy(moved, clean), losses.symmetric_kl(moved, clean).detach()

        (width,) = embedding_norm(policy.inner).normalized_shape
        start = _first(batch.columns["seed"], batch.ids["input_ids"].shape[1], width).requires_grad_()
        slope = models.slopes(divergence(start, clean.detach())[0], start)
        values, kl = divergence(losses.ascend(start, slope, self.rate), clean)
        per = "tokens" if any(name in batch.ids for name in SCORED) else "rows"
        return {"sift": Term(values, per, self.adversarial), "kl": Term(kl, per, weight=0.0)}


def _first(seeds: Any, length: int, width: int) -> Any:
    """The first perturbation of each token [b t h]: a row's is the same however its batch is padded."""
    import torch

    drawn = [np.random.default_rng(int(seed)).normal(0, SPREAD, (length, width)) for seed in seeds]
    found = torch.as_tensor(np.stack(drawn), dtype=torch.float32, device=seeds.device)
    return found.clamp(-2 * SPREAD, 2 * SPREAD)

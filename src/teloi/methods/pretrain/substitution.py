"""Token-level pretraining of encoders: tokens are replaced in place, and the model says which were, or what they were.

Four objectives over one corruption (Di Liello et al., 2022; Di Liello, 2023, part 1): mlm, the baseline with a mask
token, slm without one, rts, which only detects, and c-rts, whose replacements come from the clusters that fool it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.corruption.clusters import Clusters, cluster_probabilities, count_update, substitute_by_cluster
from teloi.data.corruption.ragged import Array, Bools
from teloi.data.corruption.tokens import detection_labels, draw_positions, mask_tokens, recovery_labels, substitute
from teloi.data.formats import LanguageModeling
from teloi.data.vocabulary import mask_id, ordinary_ids
from teloi.engine.objective import Architecture, Now, Objective, Term
from teloi.errors import UsageError
from teloi.methods.pretrain.segments import Segments

if TYPE_CHECKING:
    from torch import nn

    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models


class Substitution(Segments, Objective):
    """Draws positions of a segment and replaces what stands there; special tokens are never drawn."""

    reads = LanguageModeling
    architecture: ClassVar[Architecture] = "masked"
    defaults: ClassVar[Mapping[str, Any]] = {"model": "scratch:small", "learning_rate": 5e-4, "batch_size": 32}
    probability: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.probability < 1:
            raise UsageError(f"probability must be above 0 and below 1, not {self.probability}")

    def cost(self, example: Sequence) -> int:
        """With the special tokens at both ends that BERT's kind puts there."""
        return example.size + 2

    def rollout(self, models: Models, examples: Several[Sequence], now: Now) -> list[Sequence]:
        from teloi.batch.sequence import Sequence

        assert models.processor is not None
        ordinary = ordinary_ids(models.processor.tokenizer)
        corrupt = self.corruption(models)
        made = []
        for i, example in enumerate(examples):
            rng = now.rng("substitution", i)
            ids = np.asarray(models.processor.sentence_ids(example.ids["input_ids"].tolist()), np.int32)
            chosen = draw_positions(np.isin(ids, ordinary), self.probability, rng)
            corrupted = corrupt(ids, chosen, rng)
            labels = self.labels(ids, corrupted, chosen).astype(np.int32)
            made.append(Sequence({"input_ids": corrupted, "labels": labels, "originals": ids}))
        return made

    def corruption(self, models: Models) -> Any:
        """A function (ids, chosen, rng) -> corrupted ids, for one step."""
        raise TypeError(f"{type(self).__name__} must define corruption(models)")

    def labels(self, ids: Array, corrupted: Array, chosen: Bools) -> Array:
        """What the model is to say at each position, -100 where nothing."""
        raise TypeError(f"{type(self).__name__} must define labels(ids, corrupted, chosen)")

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        return SequenceBatch(examples, device=device)


@dataclass(frozen=True)
class MLM(Substitution):
    """Masked language modelling (BERT: Devlin et al., 2019, section 3.1).

    Each token is drawn with a probability, independently; a drawn one becomes the mask token, a random token or stays,
    by the mix. Loss: the mean of -log p(original token) over the drawn positions of the step. Only these reach the
    vocabulary head. Positions are drawn anew each time a segment comes up.

    Use it to pretrain an encoder or to adapt one to a domain, as the baseline of its kind. Not for the cheapest
    pretraining: rts has no vocabulary head.
    """

    probability: float = 0.15
    """Chance of a token to be drawn."""
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of the drawn tokens that become the mask, a random token, or stay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.mix) < 0 or not np.isclose(sum(self.mix), 1):
            raise UsageError(f"the mix of masked, random and kept tokens must sum to 1, not {self.mix}")

    def corruption(self, models: Models) -> Any:
        assert models.processor is not None
        tokenizer = models.processor.tokenizer
        mask = mask_id(tokenizer) if self.mix[0] else -1
        return lambda ids, chosen, rng: mask_tokens(ids, chosen, mask, ordinary_ids(tokenizer), rng, mix=self.mix)

    def encode(self, row: Any, processor: Processor) -> list[Sequence]:
        if self.mix[0]:
            mask_id(processor.tokenizer)  # refused before anything else is done
        return super().encode(row, processor)

    def labels(self, ids: Array, corrupted: Array, chosen: Bools) -> Array:
        return recovery_labels(ids, chosen)

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """At the mask, where one was trained."""
        from teloi.data.scoring import Scoring

        return (Scoring("masked", length=self.length),) if self.mix[0] else ()

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        return {"nll": Term(-policy.logps(batch), per="tokens")}


@dataclass(frozen=True)
class SLM(MLM):
    """Swapped language modelling (Di Liello et al., 2022): masked language modelling without a mask token.

    Every drawn token is replaced by a random one, and the model recovers the original: mlm with the mix (0, 1, 0), so
    that no token is seen in pretraining that a task never shows. Loss: the mean of -log p(original token) over the
    drawn positions of the step.

    Use it where mlm would do, at the same cost; the authors find it better on several tasks. Not where filling masks is
    the task itself.
    """

    mix: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Shares of the drawn tokens that become the mask, a random token, or stay."""


@dataclass(frozen=True)
class RTS(Substitution):
    """Random token substitution (Di Liello et al., 2022): detect which tokens were replaced by random ones.

    Each token is drawn with a probability and replaced by a uniformly drawn one. A head with two outputs (linear, GELU,
    layer norm, linear) on the encoder says of every token whether it was. Loss: weight times the mean cross-entropy
    over all tokens of the step, special ones included. Watch `f1` of the replaced: with 15% of them, a loss of 0.42
    means that nothing has been learned.

    Use it for cheap pretraining of an encoder: no vocabulary head is computed, so a step costs less than mlm's. Not
    where the model shall predict tokens; the masked model's vocabulary head is left as it was.
    """

    probability: float = 0.15
    """Chance of a token to be replaced."""
    weight: float = 1.0
    """Factor of the loss (50 in the authors' script, where it stands beside others)."""
    relabel: bool = False
    """Count a token whose replacement happens to be the same as kept; matters in tiny vocabularies."""

    def build(self, models: Models) -> nn.Module:
        from torch import nn

        from teloi.models.heads import DetectionHead

        inner = models.policy.inner
        return nn.ModuleDict({"head": DetectionHead(inner.config.hidden_size).to(inner.dtype)})

    def corruption(self, models: Models) -> Any:
        assert models.processor is not None
        ordinary = ordinary_ids(models.processor.tokenizer)
        return lambda ids, chosen, rng: substitute(ids, chosen, ordinary, rng)

    def labels(self, ids: Array, corrupted: Array, chosen: Bools) -> Array:
        return detection_labels(chosen, ids=ids, corrupted=corrupted) if self.relabel else detection_labels(chosen)

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        from teloi.batch.sequence import IGNORED

        policy: Any = models.policy
        parts: Any = models.parts
        labels = batch.ids["labels"][batch.ids["labels"] != IGNORED]
        logits = parts["head"](policy.hidden(batch))
        said = batch.notes["predictions"] = logits.detach().argmax(-1)
        return {
            "detection": Term(losses.token_cross_entropy(logits, labels), per="tokens", weight=self.weight),
            "f1": Term(2.0 * said * labels, per=(said + labels).float(), weight=0.0),
        }

    def export(self, models: Models, path: Path) -> None:
        """The detector's head, and c-rts's clusters and counts, beside the encoder: detector.safetensors."""
        from safetensors.torch import save_file

        assert models.parts is not None
        state = models.parts.state_dict()
        save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, path / "detector.safetensors")


@dataclass(frozen=True)
class CRTS(RTS):
    """Cluster-based random token substitution (Di Liello et al., 2022): replacements come from what fools the detector.

    The vocabulary is divided into clusters. A matrix N of counts, original's cluster by replacement's, starts with
    ones; a replacement's cluster is drawn from softmax(beta * minmax(N[cluster of the original])), the token uniformly
    in it. After each step N rises by one where the detector was wrong and falls by one where it was right, over all
    tokens of the step: replacements get harder as the model learns. The matrix is part of every checkpoint. Loss as in
    rts.

    Use it instead of rts where random replacements are found too easily. Not with random embeddings and no
    `cluster_file`: clusters of untrained vectors mean nothing, though it runs.
    """

    clusters: int = 100
    """Clusters of the vocabulary, by k-means of the start model's input embeddings (100 for 30,000 tokens)."""
    cluster_file: Path | None = None
    """The cluster of each token of the vocabulary instead: .npy, or text with one number a line."""
    beta: float = 2.0
    """How closely the draws follow the counts; 0: all clusters are equally likely."""
    only_changed: bool = False
    """Count only tokens that were replaced by another one, not those that were left alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 1 or self.beta < 0:
            raise UsageError("clusters must be at least 1, and beta must not be negative")

    def build(self, models: Models) -> nn.Module:
        import torch

        from teloi.models.clusters import assign, read

        assert models.processor is not None
        tokenizer, inner = models.processor.tokenizer, models.policy.inner
        ordinary = ordinary_ids(tokenizer)
        if self.cluster_file is not None:
            found = Clusters.without(read(self.cluster_file, len(tokenizer)), _others(ordinary, len(tokenizer)))
        else:
            embeddings: Any = inner.get_input_embeddings()
            found = Clusters(assign(embeddings.weight, ordinary, self.clusters), self.clusters)
        parts = super().build(models)
        parts.register_buffer("clusters", torch.as_tensor(found.of))
        parts.register_buffer("counts", torch.ones(found.count, found.count, dtype=torch.int64))
        return parts

    def corruption(self, models: Models) -> Any:
        clusters, counts = _state(models)
        probabilities = cluster_probabilities(counts, self.beta)
        return lambda ids, chosen, rng: substitute_by_cluster(ids, chosen, clusters, probabilities, rng)

    def after_step(self, models: Models, batches: Several[SequenceBatch], now: Now) -> None:
        import torch

        clusters, _ = _state(models)
        update = np.zeros((clusters.count, clusters.count), np.int64)
        for batch in batches:
            real = batch.mask["input_ids"] == 1
            names = ("originals", "input_ids", "labels")
            ids, corrupted, labels = (batch.ids[name][real].cpu().numpy() for name in names)
            update += count_update(
                ids,
                corrupted,
                labels,
                batch.notes["predictions"].cpu().numpy(),
                clusters,
                included=np.ones(len(ids), bool),
                only_changed=self.only_changed,
            )
        counts: Any = models.parts.counts  # type: ignore[union-attr]  # built above
        counts += models.gather(torch.as_tensor(update, device=counts.device)[None]).sum(0)


def _state(models: Models) -> tuple[Clusters, Array]:
    """The clusters and counts of c-rts."""
    parts: Any = models.parts
    counts = parts.counts.cpu().numpy()
    return Clusters(parts.clusters.cpu().numpy(), len(counts)), counts


def _others(ids: Array, size: int) -> Array:
    """The numbers below `size` that are not among the ids."""
    return np.setdiff1d(np.arange(size), ids)

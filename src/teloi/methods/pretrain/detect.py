"""Replaced-token detection: a small masked model fills gaps, and the encoder finds which tokens it got wrong.

rtd is the objective of ELECTRA and DeBERTaV3; vega, the second phase of Vega v1, adds SimCSE's contrast."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from teloi import losses
from teloi.engine.objective import Now, Term
from teloi.errors import UsageError
from teloi.methods.pretrain.substitution import MLM

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.models.roles import Models

DETECTOR = "detector.safetensors"


@dataclass(frozen=True)
class RTD(MLM):
    """Replaced-token detection with a generator (ELECTRA: Clark et al., 2020, section 2; DeBERTaV3: He et al., 2023).

    A generator, a masked model of the same width and fewer layers, predicts the drawn tokens of a segment. One sample
    of its prediction stands at each of them in what the encoder reads, whose head says of every token whether it
    differs from the original; a sample that hits the original counts as kept. Loss: the mean of the generator's -log
    p(original) over the drawn tokens of the step + weight * the mean cross-entropy of the head over all its tokens,
    special ones included. No gradient reaches the generator through its samples. Watch `f1`: most tokens are kept.

    The generator starts from the first layers of the start model. `share` says what becomes of its word embeddings:
    "full", both models have one matrix (ELECTRA); "disentangled", the encoder adds a matrix of its own, 0 at the start,
    to the generator's, which the detection loss does not move (DeBERTaV3); "none", each has its own. What comes out is
    the encoder with the sum of its embeddings; generator and head are beside it in detector.safetensors, for a run that
    `continues` this one. Tokens are counted once, though the generator computes them too.

    Use it to pretrain an encoder that is fine-tuned: every token teaches, not 15% of them. Not where the model shall
    predict tokens: the encoder's vocabulary head is not trained for it.
    """

    mix: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Shares of the drawn tokens that the generator sees as the mask, as a random token, or as they are."""
    weight: float = 50.0
    """Factor of the detection loss."""
    generator_depth: float = 0.5
    """Layers of the generator for each of the encoder's."""
    share: Literal["disentangled", "full", "none"] = "disentangled"
    """What of the word embeddings encoder and generator have in common."""
    continues: Path | None = None
    """What an earlier run left, its model the start of this one: generator and head go on from there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.generator_depth <= 1:
            raise UsageError(f"generator_depth must be above 0 and at most 1, not {self.generator_depth}")

    def build(self, models: Models) -> nn.Module:
        from torch import nn

        from teloi.models.heads import DetectionHead

        inner: Any = models.policy.inner
        config = copy.deepcopy(inner.config)
        config.num_hidden_layers = max(1, round(config.num_hidden_layers * self.generator_depth))
        generator: Any = type(inner)._from_config(config).to(inner.dtype)
        own = generator.state_dict()
        start = {name.replace(".base_layer", ""): tensor for name, tensor in inner.state_dict().items()}
        generator.load_state_dict({name: tensor for name, tensor in start.items() if name in own}, strict=False)
        parts = nn.ModuleDict({"generator": generator, "head": DetectionHead(config.hidden_size).to(inner.dtype)})
        if self.continues is not None:
            self._go_on(parts, self.continues / DETECTOR)
        ours, theirs = inner.get_input_embeddings(), generator.get_input_embeddings()
        if self.share == "disentangled":
            parts["own"] = nn.Embedding.from_pretrained((ours.weight - theirs.weight).detach(), freeze=False)
            ours.weight.data.copy_(theirs.weight)
        if self.share != "none":
            generator.set_input_embeddings(ours)
            generator.tie_weights()
        return parts

    def _go_on(self, parts: nn.ModuleDict, path: Path) -> None:
        from safetensors.torch import load_file

        if not path.is_file():
            raise UsageError(f"continues: {path.parent} has no {DETECTOR}, so no run of rtd or vega left it")
        try:
            parts.load_state_dict(load_file(path))
        except RuntimeError:
            raise UsageError(f"continues: {path} fits neither this model nor this generator_depth") from None

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SequenceBatch:
        """With a number for each drawn token, by which the generator's prediction is sampled."""
        import torch

        from teloi.batch.sequence import IGNORED

        batch = super().collate(examples, now, device)
        counts = [int((example.ids["labels"] != IGNORED).sum()) for example in examples]
        drawn = [now.rng("generator", i).random(count) for i, count in enumerate(counts)]
        batch.columns["uniform"] = torch.as_tensor(np.concatenate(drawn), dtype=torch.float32, device=device)
        return batch

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        from teloi.batch.sequence import IGNORED

        labels = batch.ids["labels"]
        guesses, found, replaced = self.detected(models, batch)
        said = found.detach().argmax(-1)
        return {
            "generator": Term(losses.token_cross_entropy(guesses, labels[labels != IGNORED]), per="tokens"),
            "detection": Term(losses.token_cross_entropy(found, replaced), per="positions", weight=self.weight),
            "f1": Term(2.0 * said * replaced, per=(said + replaced).float(), weight=0.0),
        }

    def detected(self, models: Models, batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The generator's logits at the drawn tokens [m v]; of all tokens the head's logits [n 2], and whether each is
        a replaced one [n]."""
        from teloi.batch.sequence import IGNORED
        from teloi.models.sequences import ScoredModel

        parts: Any = models.parts
        originals, real = batch.ids["originals"], batch.mask["input_ids"].bool()
        guesses = ScoredModel(parts["generator"]).logits(batch)
        samples = losses.sample_tokens(guesses, batch.columns["uniform"])
        corrupted = originals.masked_scatter(batch.ids["labels"] != IGNORED, samples)
        found = parts["head"](self.states(models, corrupted, batch.mask["input_ids"])[real])
        return guesses, found, (corrupted != originals)[real].long()

    def states(self, models: Models, ids: Tensor, mask: Tensor) -> Tensor:
        """Last states of the encoder [b t d]."""
        inner: Any = models.policy.inner
        if self.share != "disentangled":
            states: Tensor = inner.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            return states
        parts: Any = models.parts
        summed = inner.get_input_embeddings()(ids).detach() + parts["own"](ids)
        states = inner.base_model(inputs_embeds=summed, attention_mask=mask).last_hidden_state
        return states

    def join(self, models: Models) -> None:
        """Add the encoder's own part to its word embeddings, after training: from then on it reads token ids."""
        import torch

        if self.share == "disentangled":
            parts: Any = models.parts
            inner: Any = models.policy.inner
            with torch.no_grad():
                inner.get_input_embeddings().weight += parts["own"].weight
                parts["own"].weight.zero_()

    def export(self, models: Models, path: Path) -> None:
        """The encoder with its embeddings joined; generator and head beside it: detector.safetensors."""
        from safetensors.torch import save_file

        parts: Any = models.parts
        kept = [(name, tensor) for name, tensor in parts.state_dict().items() if not name.startswith("own.")]
        state = {name: tensor.detach().clone() for name, tensor in kept}  # the generator's embeddings are ours
        self.join(models)
        models.policy.inner.save_pretrained(path)
        save_file(state, path / DETECTOR)


@dataclass(frozen=True)
class Vega(RTD):
    """The second phase of Vega v1 (Zhong et al., 2023): replaced-token detection and a contrast of sentences.

    Loss: rtd's + contrast_weight * SimCSE's (Gao et al., 2021, eq. 4): each segment, uncorrupted, is encoded twice with
    different dropout; -log softmax_j(cos(z_i, z'_j) / temperature) at j = i, one direction, mean over segments, z the
    mean state. A segment that comes twice in a batch is no negative of itself. The report's own text is not public, so
    that weight, pooling and length of sentences are choices made here; a disentangled attention is the start model's
    business. All rows of a step are one batch in memory; with several processes negatives are gathered from all.

    Use it after rtd, from its checkpoint (as `--model` and as `--continues`), for an encoder whose mean states shall be
    sentence vectors too: a step costs about twice rtd's. Not without dropout, and not with batches of a few segments.
    """

    coupled: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {**MLM.defaults, "batch_size": 64}

    contrast_weight: float = 1.0
    """Factor of the contrastive loss."""
    temperature: float = 0.05
    """What cosines are divided by."""
    dropout: float = 0.1
    """Dropout of the encoder while it is trained, whatever its configuration says: the two views differ by it alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dropout < 1:
            raise UsageError(f"dropout must be above 0, or both views are equal, and below 1, not {self.dropout}")
        if self.temperature <= 0:
            raise UsageError(f"temperature must be above 0, not {self.temperature}")

    def shape(self, model: Any, example: Any) -> None:
        from teloi.models.dropout import set_dropout

        set_dropout(model, self.dropout)

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SequenceBatch:
        batch = super().collate(examples, now, device)
        batch.columns["text"] = batch.identities("originals")
        return batch

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        mask = batch.mask["input_ids"]
        views = (losses.mean_pool(self.states(models, batch.ids["originals"], mask), mask) for _ in range(2))
        first, second = (models.gather(view) for view in views)
        values = losses.simcse(first, second, 1 / self.temperature, models.gather(batch.columns["text"]))
        return {
            **super().loss(models, batch, now),
            "contrast": Term(values, weight=self.contrast_weight, shared=True),
        }

    def export(self, models: Models, path: Path) -> None:
        """As rtd's, with what sentence-transformers needs: `SentenceTransformer(path)` loads it."""
        from teloi.models.sequences import write_pooling

        super().export(models, path)
        assert models.processor is not None
        write_pooling(path, models.policy.inner.config.hidden_size, models.processor.max_length)

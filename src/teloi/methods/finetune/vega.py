"""Fine-tuning with what Vega v1 adds to it: adversarial embeddings, self-calibrated labels, and pseudo-labels.

The first two are switches of one objective; transductive fine-tuning is a chain of two trainings in memory, of any
classifying objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.engine.objective import Now, Term
from teloi.errors import DataError, UsageError
from teloi.methods.adversarial import Adversarial
from teloi.methods.finetune.classify import Classify

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.sequence import Labelled, SequenceBatch
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import Fitted
    from teloi.engine.setup import Base
    from teloi.models.roles import Models


@dataclass(frozen=True)
class VegaFinetune(Adversarial, Classify):
    """Classification with Vega v1's adversarial and self-calibrated fine-tuning (Zhong et al., 2023).

    Loss: calibrated + adversarial * sift, means over the rows of the step.

    calibrated: cross-entropy of the label's one-hot vector mixed with what the model said of the row when it last
    trained on it, whose share rises from 0 at the first step to `calibration` at the last; a row that was not seen yet
    has its label alone. The memory rides in the checkpoint. The report's own form is not public: this one is ours.

    sift (He et al., 2021): the normalised embeddings get a small random perturbation, which takes one step of `rate` to
    where the output changes most; the loss is the symmetric cross-entropy between the outputs with and without it, as
    in the released code, which calls it a symmetric KL (that is logged as `kl`). Models need a layer norm behind their
    embeddings, as all of BERT's kind have, and float32: bfloat16 loses so small a step. Numbers as labels (regression)
    are not covered.

    Either weight at 0 switches its part off; both leave classify. On held-out rows the cross-entropy is measured alone.
    The report's third trick, training on pseudo-labels of unlabelled rows, is the function `transductive` beside this
    class.

    Use it for few or noisy labels, over several epochs, since only what was seen before is calibrated; with sift a step
    costs about three times classify's. Not where labels are clean and many: it changes little.
    """

    # A step of 1e-4 on numbers about 1 is lost in bfloat16.
    defaults: ClassVar[Mapping[str, Any]] = {**Classify.defaults, "dtype": "float32"}

    calibration: float = 0.3
    """Share of the model's earlier prediction in the target at the end of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.calibration < 1:
            raise UsageError(f"calibration must be from 0 to below 1, not {self.calibration}")

    def prepare(self, examples: Sequence[Labelled], seed: int) -> Sequence[Labelled]:
        """Each with its number, by which the memory knows it."""
        made = super().prepare(examples, seed)
        return [_with(example, index=i, rows=len(made)) for i, example in enumerate(made)]

    def prepare_held_out(
        self, examples: Sequence[Labelled], training: Sequence[Labelled], seed: int
    ) -> Sequence[Labelled]:
        made = super().prepare_held_out(examples, training, seed)
        return [_with(example, index=-1, rows=len(training)) for example in made]

    def build(self, models: Models) -> nn.Module:
        import torch
        from torch import nn

        parts = nn.Module()
        rows, classes = int(models.example.columns["rows"]), len(models.example.classes)
        parts.register_buffer("said", torch.zeros(rows, classes))
        return parts

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        memory: Any = models.parts
        logits, labels, index = self.outputs(models, batch), batch.columns["label"], batch.columns["index"]
        batch.notes["said"] = logits.detach().softmax(-1)
        before = memory.said[index.clamp(min=0)] * (index >= 0)[:, None]
        share = self.calibration * now.progress * (before.sum(1) > 0)
        terms = {
            "nll": Term(losses.calibrated_cross_entropy(logits, labels, before, share)),
            "accuracy": Term((logits.detach().argmax(-1) == labels).float(), weight=0.0),
        }
        return terms | self.smoothness(models, batch, logits)

    def outputs(self, models: Models, batch: SequenceBatch) -> Tensor:
        policy: Any = models.policy
        logits: Tensor = policy.logits(batch)
        return logits.float()

    def after_step(self, models: Models, batches: Sequence[SequenceBatch], now: Now) -> None:
        import torch

        memory: Any = models.parts
        new = torch.zeros_like(memory.said)
        for batch in batches:
            new.index_add_(0, batch.columns["index"], batch.notes["said"].to(new.dtype))
        new = models.gather(new[None]).sum(0)
        total = new.sum(1, keepdim=True)  # a row may come twice in a step, where two passes meet
        memory.said.copy_(torch.where(total > 0, new / total.clamp(min=1), memory.said))


def pseudo_labels(
    classifier: Base, rows: Sequence[Mapping[str, Any]], threshold: float = 0.0, most: int | None = None
) -> list[dict[str, Any]]:
    """Unlabelled rows (text and, of a pair, text_pair) with the class that a trained classifier finds likeliest.

    Args:
        threshold: probability that the class must have for a row to be kept.
        most: rows of a class that are kept, the surest first; None: all.

    A column `label` that the rows may have is not read.
    """
    from scipy.special import softmax

    from teloi.models.sequences import Classifier, class_logits

    paired = [row.get("text_pair") is not None for row in rows]
    if any(paired) != all(paired):
        raise DataError("some unlabelled rows are pairs and others are not")
    seconds = [str(row["text_pair"]) for row in rows] if any(paired) else None
    texts = [str(row["text"]) for row in rows]
    logits = class_logits(Classifier(classifier.model), classifier.processor, texts, seconds)
    chances = softmax(logits, axis=1)
    found, sure = chances.argmax(1), chances.max(1)
    kept = np.zeros(len(rows), bool)
    for number in range(chances.shape[1]):
        mine = np.flatnonzero((found == number) & (sure >= threshold))
        kept[mine[np.argsort(-sure[mine], kind="stable")][:most]] = True
    names = classifier.model.config.id2label
    return [
        {**row, "label": names[number]} for row, number, take in zip(rows, found.tolist(), kept, strict=True) if take
    ]


def transductive(
    objective: Classify,
    base: Base,
    labelled: Sequence[Mapping[str, Any]],
    unlabelled: Sequence[Mapping[str, Any]],
    config: TrainConfig,
    threshold: float = 0.0,
    most: int | None = None,
) -> Fitted:
    """Transductive fine-tuning: train on labelled rows, name the unlabelled ones, go on with all for one pass.

    The second training starts from the weights of the first, at half its learning rate. Where `unlabelled` are the
    inputs of the test, what is measured there is a transductive result, not comparable with inductive ones.

    Args: see `pseudo_labels` and `engine.fit.fit`.
    Source: Zhong et al. 2023 (Vega v1); its details are choices made here.
    """
    from teloi.engine.fit import fit

    first = fit(objective, base, [dict(row) for row in labelled], config)
    named = pseudo_labels(first.base, unlabelled, threshold, most)
    again = replace(config, num_train_epochs=1.0, learning_rate=config.learning_rate / 2)
    return fit(objective, first.base, [*(dict(row) for row in labelled), *named], again)


def _with(example: Labelled, **columns: int) -> Labelled:
    return replace(example, columns={**example.columns, **{name: np.int64(value) for name, value in columns.items()}})

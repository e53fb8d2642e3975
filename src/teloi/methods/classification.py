"""What the objectives that tell classes of texts, or of pairs of texts, apart have in common."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Any, ClassVar

from teloi import losses
from teloi.engine.objective import Architecture, Now, Objective, Term

if TYPE_CHECKING:
    from teloi.batch.sequence import Labelled, SequenceBatch
    from teloi.models.roles import Models


class Classification(Objective):
    """Examples are `Labelled`: what an encoder reads, its class, and all classes. The head is the architecture's own.

    Loss: the mean of -log p(class) over the rows of the step."""

    architecture: ClassVar[Architecture] = "classifier"

    def shape(self, model: Any, example: Labelled) -> None:
        from teloi.models.sequences import set_classes

        set_classes(model, example.classes)

    def collate(self, examples: Several[Labelled], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        return SequenceBatch(examples, device=device)

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        logits, labels = policy.logits(batch), batch.columns["label"]
        return {
            "nll": Term(losses.token_cross_entropy(logits, labels)),
            "accuracy": Term((logits.detach().argmax(-1) == labels).float(), weight=0.0),
        }

"""Supervised fine-tuning: imitate the completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from teloi.data.formats import LanguageModeling, PromptCompletion
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import RowError

if TYPE_CHECKING:
    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class SFT(Objective):
    """Cross-entropy on the tokens of the completion, the end token included; the prompt is read, not learnt.

    Loss: the sum of -log p(token | prompt, completion before it) over the step, divided by the number of completion
    tokens of the whole step (Tülu 3, Lambert et al., 2024, section 4.3: a mean of means would overweight short
    rows).

    Use it when there are good answers to imitate, and as the start of every preference method. Preference rows are
    cast to prompt and chosen completion. Not alone where bad answers are known too: dpo and its relatives learn
    what to avoid.
    """

    reads = (PromptCompletion, LanguageModeling)
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 2e-5}

    def encode(self, row: PromptCompletion | LanguageModeling, processor: Processor) -> Tree:
        from teloi.data.encode import conversation, tree

        if isinstance(row, PromptCompletion):
            return tree(processor, row.prompt, [row.completion])
        if isinstance(row.text, list):
            return conversation(processor, row.text)
        raise RowError("sft learns from answers; plain text without a prompt is for clm", row.where)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        return {"nll": Term(-batch.weight * models.policy.logps(batch), per="tokens")}

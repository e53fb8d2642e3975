"""SALT (Rawat et al., 2024): a small language model helps the training of a large one, at its beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.formats import LanguageModeling
from teloi.engine.objective import Now, Term
from teloi.errors import UsageError
from teloi.methods.pretrain.clm import CLM

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import LanguageModel, Models

PARTNER = "partner"
"""Column of an example that is not selected: the tokens of the selected one that stands in for it while distilling."""

SCORED = 2048
"""Tokens that are scored at a time."""


@dataclass(frozen=True)
class SALT(CLM):
    """SALT: distillation from a small model first, then next-token prediction (Rawat et al., 2024, algorithm 1).

    Loss of stage 1, the first steps of the run: (1 - weight) times the mean of -log p(token) plus weight times the mean
    of -sum over the vocabulary of q log p, where q is the softmax of the frozen teacher's logits over the temperature.
    The model's own softmax is not tempered, and there is no factor of temperature squared. Stage 2: the mean of -log
    p(token), in which the teacher is not asked. Optimiser and learning-rate schedule run through. `nll` is the same
    quantity in both stages; the loss is not.

    With a `scorer`, stage 1 trains on the texts that are challenging but learnable (SALT_DS): the score of a text is
    the median over its tokens of -log p under the scorer, 0 where the token is not among its k likeliest. Each text
    that is not selected has a selected one in its place until stage 2.

    Use it to pretrain a model where a smaller one with the same tokenizer is at hand (`--teacher runs/small`; a scratch
    model then takes the teacher's tokenizer). Not with a weak teacher throughout (`stage` 1): it holds the model back.
    The default teacher, the embedded model, is larger than the default model: it shows how the method runs, not what
    it is for.
    """

    roles: ClassVar[tuple[str, ...]] = ("policy", "teacher")
    defaults: ClassVar[Mapping[str, Any]] = {"model": "scratch:small", "learning_rate": 1e-3}

    teacher: str = "smollm2-135m-instruct"
    """The model that teaches, of the same tokenizer: a directory, a hub id or the embedded one."""
    weight: float = 0.667
    """Weight of the distillation in stage 1."""
    temperature: float = 0.25
    """Of the teacher; below 1 sharpens its labels."""
    stage: float = 0.173
    """Share of the run's steps that distil (36,000 of 208,000 in the paper); 0 is clm, 1 distils throughout."""
    scorer: str | None = None
    """An early checkpoint of the teacher, by which the texts of stage 1 are selected; a converged one prefers noise.
    Without, they are not selected."""
    selected: float = 0.5
    """Share of the texts that are selected, the highest scores first."""
    k: int = 10
    """A token that is not among so many likeliest ones counts as noise."""

    def __post_init__(self) -> None:
        for name, low in (("weight", 0.0), ("stage", 0.0), ("selected", 1e-9)):
            if not low <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be a share from 0 to 1, not {getattr(self, name)}")
        if self.temperature <= 0 or self.k < 1:
            raise UsageError("temperature must be above 0, and k at least 1")

    def encode(self, row: LanguageModeling, processor: Processor) -> Sequence[Tree]:
        from teloi.models.load import check_vocabulary

        if self.scorer is not None:
            check_vocabulary(processor.tokenizer, self.scorer)
        return super().encode(row, processor)

    def prepare(self, examples: Sequence[Tree], seed: int) -> Sequence[Tree]:
        """Give each example that is not selected a selected one, all of these equally often."""
        if self.scorer is None:
            return examples
        best = losses.highest(
            scores(scorer(self.scorer), examples, self.k), max(1, round(self.selected * len(examples)))
        )
        chosen = np.random.default_rng(seed).permutation(best.numpy())
        others = np.setdiff1d(np.arange(len(examples)), chosen)
        paired = list(examples)
        for place, index in enumerate(others):
            example, partner = examples[index], examples[chosen[place % len(chosen)]]
            ids = np.concatenate([partner.prompt, partner.branches[0].ids])
            paired[index] = replace(example, columns={**example.columns, PARTNER: ids})
        return paired

    def prepare_held_out(self, examples: Sequence[Tree], training: Sequence[Tree], seed: int) -> Sequence[Tree]:
        return examples

    def cost(self, example: Tree) -> int:
        return max(example.size, len(example.columns.get(PARTNER, ())))

    def distils(self, now: Now) -> float:
        """The weight of the distillation now."""
        return losses.distillation_weight(now.step, round(self.stage * now.total), self.weight)

    def rollout(self, models: Models, examples: Sequence[Tree], now: Now) -> Sequence[Tree]:
        return [_reading(example, bool(self.distils(now))) for example in examples]

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        import torch

        if not (weight := self.distils(now)):
            return super().loss(models, batch, now)
        teacher = models.teacher
        assert teacher is not None
        with torch.no_grad():
            states = teacher.hidden(batch)

        def both(logits: Tensor, states: Tensor, target: Tensor) -> Tensor:
            with torch.no_grad():
                taught = _as_wide(teacher.logits(states), logits.shape[1])
            values = losses.distillation(logits, taught, self.temperature)
            entropy = losses.label_entropy(taught, self.temperature)
            return torch.stack([-losses.logps_from_logits(logits, target), values, values.detach() - entropy], 1)

        nll, values, kl = (batch.weight[:, None] * models.policy.read(batch, both, states, batch.target)).T
        return {
            "nll": Term(nll, per="tokens", weight=1 - weight),
            "distillation": Term(values, per="tokens", weight=weight),
            "kl": Term(kl, per="tokens", weight=0.0),
        }


def scorer(name: str) -> LanguageModel:
    """A model by name, to score with."""
    from teloi.models.load import load_model
    from teloi.models.probe import lay_out
    from teloi.models.roles import LanguageModel

    model = load_model(name)
    return LanguageModel(model, lay_out(model))


def scores(model: LanguageModel, examples: Sequence[Tree], k: int) -> Tensor:
    """`losses.selection_score` of each example under the model, float32 [examples]."""
    import torch

    from teloi.batch.tree import TreeBatch
    from teloi.engine.plan import pack
    from teloi.engine.progress import track
    from teloi.models.roles import evaluation

    found = torch.empty(len(examples))
    sizes = [example.size for example in examples]
    with evaluation(model.model):
        for micro in track(pack(list(range(len(examples))), sizes, SCORED, model.layout), "scoring"):
            batch = TreeBatch([examples[i] for i in micro], model.model.device)
            hardness = model.read(
                batch, lambda logits, target: losses.learnable_hardness(logits, target, k), batch.target
            )
            for index, values in zip(micro, hardness.split(batch.lengths.tolist()), strict=True):
                found[index] = losses.selection_score(values)
    return found


def _reading(example: Tree, partner: bool) -> Tree:
    """The example, or its partner where it has one and that is asked for."""
    from teloi.batch.tree import Branch

    if PARTNER not in example.columns:
        return example
    columns = {name: value for name, value in example.columns.items() if name != PARTNER}
    if not partner:
        return replace(example, columns=columns)
    ids = example.columns[PARTNER]
    return replace(example, prompt=ids[:1], branches=(Branch.scored(ids[1:]),), columns=columns)


def _as_wide(logits: Tensor, width: int) -> Tensor:
    """A teacher's logits over the student's table, where one of them is padded behind the common vocabulary."""
    from torch.nn.functional import pad

    return pad(logits[:, :width], (0, max(0, width - logits.shape[1])), value=float("-inf"))

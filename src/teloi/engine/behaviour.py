"""What causal models do with held-out prompts, replies and preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.casts import as_format, choose
from teloi.data.encode import document, tree
from teloi.data.formats import Format, LanguageModeling, Preference, PromptCompletion, PromptOnly, Text
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.engine.metrics import KL_REPLIES, Measured
from teloi.engine.plan import pack
from teloi.engine.setup import Base
from teloi.errors import CastError, DataError, Overlong, RowError
from teloi.generate.local import Sample, sample
from teloi.models.attention import attention
from teloi.models.roles import LanguageModel, evaluation
from teloi.worlds.instructions import describe, satisfied

CHUNK = 256


class Behaviour:
    """Measures causal models on held-out rows with prompts. Pairs and KL are relative to the start model."""

    def __init__(self, base: Base, rows: Rows, prompts: int, max_new_tokens: int, micro_tokens: int) -> None:
        self.base = base
        self.start = LanguageModel(base.model, base.layout)
        self.max_new_tokens = max_new_tokens
        self.micro_tokens = micro_tokens
        self.pairs = _pairs(rows, base.processor)
        self.texts, self.characters = ([], []) if self.pairs else _texts(rows, base.processor)
        limit = getattr(base.model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        found = ((question, columns, base.processor.prompt_ids(question)) for question, columns in _prompts(rows))
        # A prompt without room for a reply is not asked.
        asked = list(islice((one for one in found if len(one[2]) + max_new_tokens <= limit), prompts))
        self.questions = [question for question, _, _ in asked]
        self.prompts = [ids for _, _, ids in asked]
        self.checks = [columns.get("checks") for _, columns, _ in asked]
        self.start_sums = self._branch_values(self.start, self.pairs)[0] if self.pairs else np.zeros((0, 2))

    @property
    def available(self) -> list[str]:
        """Names of the metrics these rows allow, the deciding one first."""
        names = []
        if self.prompts and all(self.checks):
            names.append("checks")
        if self.pairs:
            names += ["preference_accuracy", "reward_margin", "likelihood_accuracy"]
        else:
            names.append("bits_per_character")
        return names + (["kl", "reply_length", "finished"] if self.prompts else [])

    def measure(self, model: LanguageModel, measured: Measured) -> None:
        """Add all available metrics of a model."""
        with evaluation(model.model):
            if self.pairs:
                self._measure_pairs(model, measured)
            else:
                self._measure_texts(model, measured)
            if self.prompts:
                self._measure_replies(model, measured)

    def passes(self, index: int, reply: str) -> bool | None:
        """Whether a reply to a prompt satisfies all its checks; None where it has none."""
        checks = self.checks[index]
        return satisfied({"checks": checks}, reply) if checks else None

    def requirements(self, index: int) -> list[str]:
        """The checks of a prompt in words."""
        return [describe(check) for check in self.checks[index] or []]

    def _measure_pairs(self, model: LanguageModel, measured: Measured) -> None:
        sums, means = self._branch_values(model, self.pairs)
        gained = (sums - self.start_sums) @ np.array([1.0, -1.0])
        measured.add("preference_accuracy", (np.sign(gained) + 1) / 2)
        measured.add("reward_margin", gained)
        measured.add("likelihood_accuracy", (np.sign(means @ np.array([1.0, -1.0])) + 1) / 2)

    def _measure_texts(self, model: LanguageModel, measured: Measured) -> None:
        sums, _ = self._branch_values(model, self.texts)
        measured.metrics["bits_per_character"] = float(-sums.sum() / math.log(2) / sum(self.characters))

    def _measure_replies(self, model: LanguageModel, measured: Measured) -> None:
        tokenizer = self.base.processor.tokenizer
        with attention(model.inner, "sdpa"):
            samples = sample(model.model, tokenizer, self.prompts, self.max_new_tokens)
        replies = [row[0] for row in samples]
        measured.replies = [str(tokenizer.decode(reply.ids, skip_special_tokens=True)) for reply in replies]
        if all(self.checks):
            measured.add("checks", [bool(self.passes(i, text)) for i, text in enumerate(measured.replies)])
        measured.add("reply_length", [len(reply.ids) + reply.finished for reply in replies])
        measured.add("finished", [reply.finished for reply in replies])
        measured.metrics["kl"] = self._kl(model, replies[:KL_REPLIES])

    def _branch_values(self, model: LanguageModel, trees: Sequence[Tree]) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of every branch, summed and per token: two arrays [trees, k]."""
        sums = np.empty((len(trees), len(trees[0].branches)))
        means = np.empty_like(sums)
        with evaluation(model.model):
            for micro in pack(list(range(len(trees))), tuple(t.size for t in trees), self.micro_tokens, model.layout):
                batch = TreeBatch([trees[i] for i in micro], model.model.device)
                logps = model.logps(batch)
                sums[micro] = batch.branch_sums(logps).T.cpu()
                means[micro] = batch.branch_means(logps).T.cpu()
        return sums, means

    def _kl(self, model: LanguageModel, replies: Sequence[Sample]) -> float:
        end = self.base.processor.tokenizer.eos_token_id
        trees = [
            Tree(np.asarray(prompt, np.int32), (Branch.scored([*reply.ids, *([end] if reply.finished else [])]),))
            for prompt, reply in zip(self.prompts, replies, strict=False)
            if reply.ids or reply.finished
        ]
        total, tokens = 0.0, 0
        for micro in pack(list(range(len(trees))), tuple(t.size for t in trees), self.micro_tokens, model.layout):
            batch = TreeBatch([trees[i] for i in micro], model.model.device)
            mine, start = (torch.split(m.hidden(batch), CHUNK) for m in (model, self.start))
            for here, there in zip(mine, start, strict=True):
                total += float(_kl_divergence(model.logits(here), self.start.logits(there)).sum())
            tokens += len(batch.target)
        return total / max(tokens, 1)


def _kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(reference)) of each row, in float32."""
    logp = torch.log_softmax(logits.float(), -1)
    return (logp.exp() * (logp - torch.log_softmax(reference.float(), -1))).sum(-1)


def _pairs(rows: Rows, processor: Processor) -> list[Tree]:
    """Held-out preferences, as far as they fit the context; none when the rows are no preferences."""
    if not _readable(rows, Preference):
        return []
    trees = []
    for row in as_format(rows, Preference):
        assert isinstance(row, Preference)
        trees += _fitting(processor, row, [row.chosen, row.rejected])
    return _some(trees, rows, processor)


def _texts(rows: Rows, processor: Processor) -> tuple[list[Tree], list[int]]:
    """Held-out completions or texts with their length in characters."""
    trees: list[Tree] = []
    characters = []
    for row in as_format(rows, (PromptCompletion, LanguageModeling)):
        if isinstance(row, PromptCompletion):
            found, text = _fitting(processor, row, [row.completion]), row.completion
        else:
            assert isinstance(row, LanguageModeling)
            found, text = document(processor, row.text), row.text
        trees.extend(found)
        characters.append(_length(text) if found else 0)
    return _some(trees, rows, processor), characters


def _prompts(rows: Rows) -> list[tuple[Text, Mapping[str, Any]]]:
    """Each different prompt once, with the other columns of its first row; none where rows have no prompts."""
    if not _readable(rows, PromptOnly):
        return []
    found: dict[str, tuple[Text, Mapping[str, Any]]] = {}
    for row in as_format(rows, PromptOnly):
        assert isinstance(row, PromptOnly)
        found.setdefault(repr(row.prompt), (row.prompt, row.columns))
    return list(found.values())


def _readable(rows: Rows, target: type[Format]) -> bool:
    """Whether the columns of the rows are those of a format, or of one that is cast to it."""
    try:
        choose(rows[0], (target,))
    except (CastError, RowError):
        return False
    return True


def _fitting(processor: Processor, row: Preference | PromptCompletion, completions: Sequence[Text]) -> list[Tree]:
    """The tree of a row, if it fits the context."""
    try:
        return [tree(processor, row.prompt, completions)]
    except Overlong as error:
        if processor.overlong == "fail":
            raise error.at(row.where or "held-out row") from None
        return []


def _some(trees: list[Tree], rows: Rows, processor: Processor) -> list[Tree]:
    if not trees:
        raise DataError(
            f"{rows.name}: no held-out rows are left, all are longer than {processor.max_length} tokens; "
            "raise --max-length or choose --overlong truncate"
        )
    return trees


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)

"""GPT-BERT (Charpentier & Samuel, 2024): one decoder learns to predict the next token from its left, and masked tokens
from both sides."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.corruption.ragged import Ragged
from teloi.data.corruption.ranked import LONGEST, lowest, span_replacements, span_scores, span_tiles
from teloi.data.formats import LanguageModeling
from teloi.data.rows import SPARE, Row, Window, fill, next_token_row, pieces
from teloi.data.vocabulary import begin_id, end_id, given_mask_id, ordinary_ids
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from teloi.batch.segments import SegmentBatch
    from teloi.batch.sequence import Sequence
    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models

UNCOUNTED = -1
"""Place of a held-out segment, whose masks are not counted."""


@dataclass(frozen=True)
class GPTBERT(Objective):
    """GPT-BERT's hybrid of causal and masked next-token prediction in one decoder (Charpentier & Samuel, 2024).

    Most rows of a step are masked and read in both directions, the others are read causally; in both the hidden state
    at position t predicts the token at t + 1, so that one set of weights is a GPT, a BERT and a prefix LM. Loss:
    ratio * mean of -log p(masked token) + (1 - ratio) * mean of -log p(next token), each mean over its own targets of
    the step, plus z_weight times the same mix of the means of (log of the softmax's denominator) squared. A row is
    filled with segments of texts, each behind the begin token, that do not see each other. Masked are whole spans of
    one to three tokens, those first that have been masked seldom; the counts are part of every checkpoint. A tokenizer
    without a mask token is given one.

    Use it to pretrain a decoder on little text, where the same model shall continue texts, fill gaps and be
    fine-tuned. Not where training is too short for masked prediction, which learns from 15 to 30% of the tokens: clm
    is better at once. Give it steps of at least two rows.
    """

    reads = LanguageModeling
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "scratch:small",
        "learning_rate": 1e-3,
        "batch_size": 32,
        "weight_decay": 0.1,
        "adam_beta2": 0.98,
        "max_grad_norm": 2.0,
        "lr_scheduler_type": "cosine_with_cooldown",
        "warmup_ratio": 0.016,
    }

    ratio: float = 15 / 16
    """Weight of the masked part of the loss; the causal part has the rest."""
    masked_rows: float = 15 / 16
    """Share of a step's rows that are masked; if it is below 1, at least one row is causal."""
    length: int = 128
    """Positions of a row. Texts are cut into segments of at most two fewer; a rest of one token is dropped."""
    rate_start: float = 0.3
    """Share of the tokens that are masked at the start of the run."""
    rate_end: float = 0.15
    """Share of the tokens that are masked at its end; in between it falls linearly."""
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Chances of a masked span to become mask tokens, random tokens, or stay."""
    z_weight: float = 1e-4
    """Weight of the z-loss, which keeps the softmax's denominator near 1."""

    def __post_init__(self) -> None:
        for name in ("ratio", "masked_rows"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if (self.ratio == 1) != (self.masked_rows == 1) or (self.ratio == 0) != (self.masked_rows == 0):
            raise UsageError(
                f"with ratio {self.ratio:g} and masked_rows {self.masked_rows:g} a part of the loss has no rows, or "
                "rows have no weight: set both to 1, both to 0, or both in between"
            )
        for name in ("rate_start", "rate_end"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} must be above 0 and below 1, not {getattr(self, name)}")
        if self.length < 4:
            raise UsageError(f"length must be at least 4, not {self.length}: a segment has two tokens or more")
        if min(self.mix) < 0 or not np.isclose(sum(self.mix), 1):
            raise UsageError(f"the mix of masked, random and kept spans must sum to 1, not {self.mix}")
        if self.z_weight < 0:
            raise UsageError(f"z_weight must not be negative, not {self.z_weight}")

    def encode(self, row: LanguageModeling, processor: Processor) -> list[Sequence]:
        """The segments of a text, which ends with the end token."""
        from teloi.batch.sequence import Sequence
        from teloi.data.segments import stream

        if self.length > processor.max_length:
            raise UsageError(
                f"rows of {self.length} positions exceed the context of {processor.max_length}: "
                f"set --length {processor.max_length} or raise --max-length"
            )
        tokenizer = processor.tokenizer
        begin_id(tokenizer), end_id(tokenizer), given_mask_id(tokenizer)  # refused before anything else is done
        ids = [text.ids["input_ids"] for text in stream(processor, row.text, ended=True)]
        cut = [one[at : at + size] for one in ids for at, size in pieces(len(one), self.length)]
        return [Sequence({"input_ids": segment}, {"mask": np.int64(given_mask_id(tokenizer))}) for segment in cut]

    def prepare(self, examples: Several[Sequence], seed: int) -> list[Sequence]:
        return self._rows(examples, seed, counted=True)

    def prepare_held_out(self, examples: Several[Sequence], training: Several[Sequence], seed: int) -> list[Sequence]:
        return self._rows(examples, seed, counted=False)

    def _rows(self, segments: Several[Sequence], seed: int, counted: bool) -> list[Sequence]:
        """Rows of raw segments; `places` says where each begins in the corpus of all `tokens`."""
        from teloi.batch.sequence import Sequence

        lengths = [segment.size for segment in segments]
        starts = np.cumsum(lengths) - lengths
        columns = {"mask": segments[0].columns["mask"], "tokens": np.int64(sum(lengths))}

        def row(windows: Several[Window]) -> Sequence:
            parts = [segments[w.segment].ids["input_ids"][w.start : w.start + w.length] for w in windows]
            places = [int(starts[w.segment]) + w.start if counted else UNCOUNTED for w in windows]
            sizes = np.array([w.length for w in windows], np.int64)
            return Sequence(
                {"input_ids": np.concatenate(parts)}, {**columns, "lengths": sizes, "places": np.array(places)}
            )

        return [row(windows) for windows in fill(lengths, self.length, np.random.default_rng(seed))]

    def rate(self, progress: float) -> float:
        """Share of the tokens that is masked when this share of the run is done."""
        return self.rate_start + (self.rate_end - self.rate_start) * progress

    def cost(self, example: Sequence) -> int:
        """With the begin tokens."""
        return min(example.size + len(example.columns["lengths"]), self.length)

    def shape(self, model: Any, example: Sequence) -> None:
        """A row of the embeddings for a mask token that the model has not had."""
        from teloi.models.embeddings import add_tokens

        mask = int(example.columns["mask"])
        if mask >= model.get_input_embeddings().num_embeddings:
            add_tokens(model, [mask])

    def build(self, models: Models) -> nn.Module:
        """How often each token of the corpus has been masked."""
        import torch
        from torch import nn

        if models.layout != "packed":
            raise ModelError(
                "gpt-bert needs a decoder of full attention that takes packed rows, which can be read in both "
                f"directions; {type(models.policy.inner).__name__} is padded here"
            )
        counts = nn.Module()
        counts.register_buffer("masked", torch.zeros(int(models.example.columns["tokens"]), dtype=torch.int32))
        return counts

    def rollout(self, models: Models, examples: Several[Sequence], now: Now) -> list[Sequence]:
        from teloi.batch.sequence import Sequence

        assert models.processor is not None
        begin = begin_id(models.processor.tokenizer)
        parts: Any = models.parts
        counts = parts.masked.cpu().numpy()
        made = []
        for i, example in enumerate(examples):
            masked = not is_causal(now.places[i] if now.places else i, self.masked_rows)
            tokens = Ragged(example.ids["input_ids"], example.columns["lengths"])
            places = _places(example)
            if masked:
                row, chosen = self.corrupt(models, tokens, counts[places] * (places >= 0), begin, now, i)
                counted = places[chosen & (places >= 0)]
            else:
                row, counted = next_token_row(tokens.rows(), begin, self.length), places[:0]
            ids = {"input_ids": row.inputs.astype(np.int32), "labels": row.targets.astype(np.int32)}
            columns = {"lengths": row.lengths, "bidirectional": np.bool_(masked), "masked": counted}
            made.append(Sequence(ids, columns))
        return made

    def corrupt(
        self, models: Models, tokens: Ragged, counts: Any, begin: int, now: Now, example: int
    ) -> tuple[Row, Any]:
        """A masked row of these segments, and which of their tokens were masked."""
        assert models.processor is not None
        tokenizer, rng = models.processor.tokenizer, now.rng("masks", example)
        ordinary = ordinary_ids(tokenizer)
        spans = span_tiles(tokens.lengths, rng.integers(1, LONGEST + 1, (len(tokens), tokens.lengths.max())))
        eligible = np.isin(tokens.values, ordinary)
        first, second = rng.random((2, spans[-1] + 1))
        scores = span_scores(spans, first, Ragged(counts, tokens.lengths), eligible)
        chosen = lowest(Ragged(scores, tokens.lengths), self.rate(now.progress), rng.random(len(tokens)))
        mask = given_mask_id(tokenizer)
        masked = span_replacements(
            tokens.values, spans, second, mask, lambda size: rng.choice(ordinary, size), self.mix
        )
        corrupted = Ragged(np.where(chosen, masked, tokens.values), tokens.lengths)
        parts = Ragged(chosen, tokens.lengths).rows()
        return next_token_row(tokens.rows(), begin, self.length, corrupted.rows(), parts), chosen

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SegmentBatch:
        from teloi.batch.segments import SegmentBatch

        return SegmentBatch(examples, device)

    def loss(self, models: Models, batch: SegmentBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        values = policy.read(batch, losses.nll_and_z, batch.target)
        terms = {}
        for name, kind, weight in (
            ("masked", batch.bidirectional, self.ratio),
            ("causal", ~batch.bidirectional, 1 - self.ratio),
        ):
            if weight:
                nll, z = (values * kind[:, None]).T
                per = "bidirectional" if name == "masked" else "causal"
                terms[f"nll_{name}"] = Term(nll, per=per, weight=weight)
                terms[f"z_{name}"] = Term(z, per=per, weight=weight * self.z_weight)
        return terms

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """In either direction, as far as both were trained, in segments."""
        from teloi.data.scoring import Scoring

        given_mask_id(processor.tokenizer)
        causal = Scoring("causal", (begin_id(processor.tokenizer),), self.length - SPARE)
        masked = Scoring("masked", length=self.length - SPARE)
        return tuple(one for one, trained in ((causal, self.ratio < 1), (masked, self.ratio > 0)) if trained)

    def after_step(self, models: Models, batches: Several[SegmentBatch], now: Now) -> None:
        import torch

        parts: Any = models.parts
        counts = parts.masked
        mine = np.concatenate([row.columns["masked"] for batch in batches for row in batch.rows])
        places = models.gather(torch.as_tensor(mine, dtype=torch.int64, device=counts.device))
        counts.index_add_(0, places, torch.ones_like(places, dtype=counts.dtype))


def is_causal(place: int, masked_rows: float) -> bool:
    """Whether the row at this place of a step is read causally: every stretch has its share of them, place 0 first."""
    share = 1 - Fraction(masked_rows).limit_denominator(10_000)
    return ceil((place + 1) * share) > ceil(place * share)


def _places(example: Sequence) -> Any:
    """Where each token of a row stands in the corpus; negative where its masks are not counted."""
    lengths, places = example.columns["lengths"], example.columns["places"]
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    begins = np.repeat(places, lengths)
    return np.where(begins < 0, UNCOUNTED, begins + inside)

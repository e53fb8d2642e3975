"""Denoising: a corrupted text goes into the encoder, what is missing comes out of the decoder.

Span corruption, prefix language modelling and UL2's mixture are one objective over different `Denoiser`s."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from teloi.data.corruption.ragged import Array, Ragged
from teloi.data.corruption.spans import prefix_lengths, render_prefix, render_spans, span_counts, span_mask
from teloi.data.formats import LanguageModeling
from teloi.data.vocabulary import MODES, end_id, sentinel_ids
from teloi.engine.objective import Architecture, Now, Objective, Term
from teloi.errors import DataError, UsageError
from teloi.methods.pretrain.segments import Segments

if TYPE_CHECKING:
    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models

SplitAt = float | Literal["uniform"]


@dataclass(frozen=True)
class Denoiser:
    """One way to corrupt a segment.

    With a `mean_span`, `share` of the tokens is masked in spans of about that length. Without, the segment is split:
    its tail, `share` of it or from anywhere ("uniform"), is the target. `weight` is its chance among others, `mode`
    the number of its paradigm.
    """

    share: SplitAt
    mean_span: float | None = None
    weight: float = 1.0
    mode: int = 0

    def spans(self, length: int) -> int:
        """Sentinels that a segment of that length takes (one more where masks are rolled)."""
        return int(span_counts([length], self.share, self.mean_span)[1][0]) if self.mean_span else 0


class Denoising(Segments, Objective):
    """Draws a denoiser for each segment of a step, and trains the decoder to write what it removed."""

    reads = LanguageModeling
    architecture: ClassVar[Architecture] = "seq2seq"
    parted: ClassVar[bool] = False  # as in T5, texts follow each other without a mark
    defaults: ClassVar[Mapping[str, Any]] = {"model": "scratch:small", "learning_rate": 1e-3, "batch_size": 32}
    random_roll: bool = False

    @property
    def denoisers(self) -> tuple[Denoiser, ...]:
        """What a segment's corruption is drawn from."""
        raise TypeError(f"{type(self).__name__} must define denoisers")

    @property
    def modes(self) -> tuple[str, ...]:
        """What stands before the input, by the number of the mode; nothing where there are no modes."""
        return ()

    def added(self, processor: Processor) -> int:
        most = max(denoiser.spans(self.length) for denoiser in self.denoisers)
        if most and (most := most + self.random_roll) > (found := len(sentinel_ids(processor.tokenizer))):
            raise UsageError(
                f"segments of {self.length} tokens have up to {most} noise spans, but the vocabulary has {found} "
                "sentinels: choose a smaller --length, a lower rate or longer spans"
            )
        return 1 + max((len(processor.bare_ids(mode)) for mode in self.modes), default=0)

    def prepare(self, examples: Several[Sequence], seed: int) -> Several[Sequence]:
        longest = max(denoiser.mean_span or 0 for denoiser in self.denoisers)
        if 1 < (tokens := sum(example.size for example in examples)) <= longest:
            raise DataError(
                f"the texts have {tokens} tokens in all, not more than a span of {longest:g}: give more text or choose "
                "shorter spans"
            )
        return super().prepare(examples, seed)

    def cost(self, example: Sequence) -> int:
        """What denoisers make of it on average: each span costs two sentinels, and both sides end."""
        return _average(self.denoisers, len(example.ids["input_ids"])) + 2 * self.random_roll + bool(self.modes)

    def rollout(self, models: Models, examples: Several[Sequence], now: Now) -> list[Sequence]:
        from teloi.batch.sequence import Sequence

        assert models.processor is not None
        fronts = [models.processor.bare_ids(mode) for mode in self.modes] or [[]]
        denoisers = self.denoisers
        chances = np.cumsum([denoiser.weight for denoiser in denoisers])
        streams = [now.rng("denoising", i) for i in range(len(examples))]
        drawn = [denoisers[np.searchsorted(chances, chances[-1] * rng.random(), side="right")] for rng in streams]
        segments = [example.ids["input_ids"] for example in examples]
        made = []
        for denoiser, (source, target) in zip(
            drawn, self._pairs(segments, drawn, streams, models.processor.tokenizer), strict=True
        ):
            ids = np.concatenate([fronts[denoiser.mode if self.modes else 0], source]).astype(np.int32)
            sides = {"input_ids": ids, "targets": target.astype(np.int32)}
            made.append(Sequence(sides, {"mode": np.int64(denoiser.mode)}))
        return made

    def _pairs(
        self,
        segments: Several[Array],
        drawn: Several[Denoiser],
        streams: Several[np.random.Generator],
        tokenizer: Any,
    ) -> list[tuple[Array, Array]]:
        """Input and target of each segment; all that are masked are made at once, and all that are split alike."""
        pairs: dict[int, tuple[Array, Array]] = {}
        kinds = [None if denoiser.mean_span else denoiser.share for denoiser in drawn]
        for kind in dict.fromkeys(kinds):
            rows = [i for i, other in enumerate(kinds) if other == kind]
            tokens, rngs = Ragged.of([segments[i] for i in rows]), [streams[i] for i in rows]
            if kind is None:
                shares, spans = zip(*((drawn[i].share, drawn[i].mean_span) for i in rows), strict=True)
                mask = span_mask(tokens.lengths, shares, spans, rngs, roll=self.random_roll)
                sides = render_spans(tokens, mask, sentinel_ids(tokenizer), end_id(tokenizer))
            else:
                sides = render_prefix(tokens, prefix_lengths(tokens.lengths, kind, rngs), end_id(tokenizer))
            pairs |= zip(rows, zip(*(side.rows() for side in sides), strict=True), strict=True)
        return [pairs[i] for i in range(len(drawn))]

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """In gaps where spans are masked, and as a continuation where texts are split anywhere: a split at one place
        says nothing of a text's other parts. Each behind the mode it was trained in."""
        from teloi.data.scoring import Scoring

        found: dict[str, Scoring] = {}
        for denoiser in self.denoisers:
            front = tuple(processor.bare_ids(self.modes[denoiser.mode]) if self.modes else ())
            if denoiser.mean_span is not None:
                found.setdefault("gaps", Scoring("gaps", front, self.length))
            elif denoiser.share == "uniform":
                found["prefix"] = Scoring("prefix", front, self.length)
        return tuple(found.values())

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        return SequenceBatch(examples, device=device)

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        return {"nll": Term(-policy.logps(batch), per="tokens")}


@dataclass(frozen=True)
class SpanCorruption(Denoising):
    """Span corruption (T5: Raffel et al., 2020, section 3.1.4).

    A share of the tokens is masked in spans; each span becomes one sentinel in the input, and the target is sentinel,
    span, sentinel, span, ..., end. A segment of L tokens has round(L * rate) noise tokens in round(L * rate /
    mean_span) spans, whose places are drawn anew each time. Loss: the mean of -log p(target token) over the target
    tokens of the step.

    Use it to pretrain a sequence-to-sequence model, or to adapt one to a domain, for tasks that are fine-tuned. Not for
    a model that shall write long continuations without fine-tuning: prefix-lm, or ul2, which does both.
    """

    rate: float = 0.15
    """Share of the tokens that is masked."""
    mean_span: float = 3.0
    """Mean length of a masked span in tokens."""
    random_roll: bool = False
    """Rotate each mask by a random offset; otherwise a segment always ends with a masked span."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.rate, self.mean_span)

    @property
    def denoisers(self) -> tuple[Denoiser, ...]:
        return (Denoiser(self.rate, self.mean_span),)


@dataclass(frozen=True)
class PrefixLM(Denoising):
    """Prefix language modelling (T5's `prefix_lm`; UL2's S-denoiser): the tail of a segment given its head.

    The encoder reads the head in both directions, the decoder writes the tail. Loss: the mean of -log p(tail token)
    over the tails of the step.

    Use it for a sequence-to-sequence model that continues texts. Not where tasks fill gaps or classify: span-corruption
    teaches more from the same text, ul2 does both.
    """

    s_split: SplitAt = "uniform"
    """The tail's share of the segment, or uniform: the split lies anywhere with equal chances."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_split(self.s_split)

    @property
    def denoisers(self) -> tuple[Denoiser, ...]:
        return (Denoiser(self.s_split),)


@dataclass(frozen=True)
class UL2(Denoising):
    """UL2's mixture of denoisers (Tay et al., 2023, section 3.1, table 1).

    For each segment one of seven denoisers is drawn: R, T5's short spans at a low rate (two of them); X, short spans
    at a high rate or long spans (four); S, the tail given the head (one). A mode token before the input says which
    paradigm it was; at inference, put the mode that suits the task in front. Loss: the mean of -log p(target token)
    over all target tokens of the step, so that X and S, whose targets are longer, weigh more than R.

    Use it for one sequence-to-sequence model that must both fill gaps and continue texts, from scratch or as a short
    continuation of a pretrained one. Not where only one of the two is wanted: the specialist (span-corruption,
    prefix-lm) is a little better at its own task.
    """

    mixture: tuple[float, float, float] = (2.0, 4.0, 1.0)
    """Chances of R, X and S, relative to each other; within R and X all denoisers are equally likely. The default makes
    the seven equal; 2 2 1 is a common choice."""
    short_spans: tuple[float, ...] = (3.0, 8.0)
    """Mean lengths of the short spans of R and X, in tokens."""
    long_span: float = 64.0
    """Mean length of the long spans of X: about an eighth of the segment or more."""
    low_rate: float = 0.15
    """Share of masked tokens in R, and in one of X's long-span denoisers."""
    high_rate: float = 0.5
    """Share of masked tokens in the others of X."""
    s_split: SplitAt = 0.25
    """The tail's share of the segment in S, or uniform: the split lies anywhere with equal chances."""
    mode_tokens: tuple[str, ...] = MODES
    """What stands before the input in R, X and S (released checkpoints: [NLU] [NLG] [S2S]); a text that is no token of
    the vocabulary takes several. Nothing: no mode tokens."""
    random_roll: bool = False
    """Rotate each mask by a random offset; otherwise one long span is always the tail."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.mixture) < 0 or sum(self.mixture) <= 0:
            raise UsageError(f"mixture: the chances of R, X and S must not be negative, nor all 0, not {self.mixture}")
        if len(self.mode_tokens) not in (0, 3):
            raise UsageError(f"mode_tokens are three, for R, X and S, or none, not {len(self.mode_tokens)}")
        if not self.short_spans:
            raise UsageError("short_spans needs at least one length")
        for span in (*self.short_spans, self.long_span):
            _check(self.low_rate, span)
        _check(self.high_rate, self.long_span)
        _check_split(self.s_split)

    @property
    def modes(self) -> tuple[str, ...]:
        return self.mode_tokens

    @property
    def denoisers(self) -> tuple[Denoiser, ...]:
        low, high = self.low_rate, self.high_rate
        r = [(low, span) for span in self.short_spans]
        x = [*((high, span) for span in self.short_spans), (low, self.long_span), (high, self.long_span)]
        groups: tuple[list[tuple[Any, float | None]], ...] = (r, x, [(self.s_split, None)])  # type: ignore[assignment]  # lists
        return tuple(
            Denoiser(share, span, weight / len(group), mode)
            for mode, (weight, group) in enumerate(zip(self.mixture, groups, strict=True))
            for share, span in group
            if weight
        )

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        terms = super().loss(models, batch, now)
        nll = terms["nll"].values.detach()
        mode = batch.columns["mode"][batch.rows_of("targets")]
        for number, name in enumerate("rxs"):
            mine = (mode == number).float()
            terms[f"nll_{name}"] = Term(nll * mine, per=mine, weight=0.0)
        return terms


@lru_cache(maxsize=64)
def _average(denoisers: tuple[Denoiser, ...], length: int) -> int:
    weights = [denoiser.weight for denoiser in denoisers]
    return length + 2 + int(np.rint(2 * np.average([one.spans(length) for one in denoisers], weights=weights)))


def _check(rate: float, mean_span: float) -> None:
    if not 0 < rate < 1:
        raise UsageError(f"a corruption rate must be above 0 and below 1, not {rate}")
    if mean_span < 1:
        raise UsageError(f"a mean span length must be at least 1, not {mean_span}")


def _check_split(split: SplitAt) -> None:
    if split != "uniform" and not 0 < split < 1:
        raise UsageError(f"s_split must be uniform or a share above 0 and below 1, not {split}")

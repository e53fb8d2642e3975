"""CodeT5+'s first stage (Wang et al., 2023): one encoder-decoder learns from code alone to fill gaps, to continue a
prefix, and to write without one, so that its parts serve together and alone."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi.data.corruption.infilling import spans_of_tokens, word_edges
from teloi.data.corruption.ragged import Array, Ragged
from teloi.data.corruption.spans import render_spans, uniform_spans
from teloi.data.formats import LanguageModeling
from teloi.data.vocabulary import CLM, end_id, given_ids, sentinel_ids, word_begins
from teloi.engine.objective import Architecture, Now, Objective, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.batch.joint import JointBatch
    from teloi.batch.sequence import Sequence
    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models

TASKS = ("denoise", "seq2seq", "decoder")
PREFIX = (0.1, 0.9)
"""The shares of a sequence between which a prefix ends."""

STEP, PLACE = np.sqrt(2), (np.sqrt(5) - 1) / 2
"""By how much of a turn the tasks of a step are shifted against the step's before, and the place's before."""


@dataclass(frozen=True)
class CodeT5PUnimodal(Objective):
    """Unimodal pretraining of CodeT5+ (Wang et al., 2023, section 3.2): span denoising and two causal language models.

    Loss: w_1 denoise + w_2 seq2seq + w_3 decoder, each the mean of -log p over the target tokens of its rows, so that
    equal weights are equal weights of means, however long the targets are:

    - denoise: a share of the tokens is masked in spans of 1 to `longest` whole words with equal chances; each becomes a
      sentinel, and the target is sentinel, span, sentinel, span, ..., end;
    - seq2seq: the encoder reads the token [CLM] and a prefix, which ends anywhere between 10 and 90% of the sequence,
      the decoder writes the rest;
    - decoder: the encoder reads [CLM] alone, the decoder writes the whole sequence.

    Each row of a step gets one of the three, by `shares`, and its corruption is drawn anew each time. At the start of
    the run all rows are denoised. Texts longer than `length` are cut in pieces; short ones are not joined. A tokenizer
    without [CLM] is given it.

    Use it to pretrain one sequence-to-sequence model for code (or any text) whose encoder shall embed, whose decoder
    shall complete with [CLM] as its only input, and which shall be fine-tuned; codet5p-bimodal goes on from it. Not
    where only one of these is wanted: span-corruption, prefix-lm and clm are one part each. The paper's larger models
    keep a frozen causal model as decoder: `teloi.models.zoo.grafted` makes such ones, for prefix-lm.
    """

    reads = LanguageModeling
    architecture: ClassVar[Architecture] = "seq2seq"
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "scratch:small",
        "data": "functions",
        "learning_rate": 1e-3,
        "batch_size": 32,
        "weight_decay": 0.1,
    }

    shares: tuple[float, float, float] = (4.0, 1.0, 1.0)
    """Rows of a step that are denoised, continued by seq2seq and by the decoder, relative to each other (in the paper
    2048, 512 and 512)."""
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of the three losses."""
    denoise_first: float = 1 / 11
    """Share of the run's steps, its first, in which all rows are denoised (10,000 of 110,000)."""
    rate: float = 0.15
    """Share of the words that is masked for denoising."""
    longest: int = 5
    """Longest masked span in words; the mean is (1 + longest) / 2."""
    length: int = 128
    """Tokens of a sequence; longer texts are cut (512 to 1024 in the paper)."""

    def __post_init__(self) -> None:
        for name in ("shares", "weights"):
            if min(getattr(self, name)) < 0 or not sum(getattr(self, name)) > 0:
                raise UsageError(f"{name} must not be negative, nor all be 0, not {getattr(self, name)}")
        if not self.shares[0] and self.denoise_first:
            raise UsageError("with no share of denoising, set denoise_first to 0")
        if not 0 <= self.denoise_first < 1:
            raise UsageError(f"denoise_first must be from 0 to below 1, not {self.denoise_first}")
        if not 0 < self.rate < 1:
            raise UsageError(f"rate must be above 0 and below 1, not {self.rate}")
        if self.longest < 1 or self.length < 4:
            raise UsageError("longest must be at least 1, and length at least 4")

    def encode(self, row: LanguageModeling, processor: Processor) -> list[Sequence]:
        """The pieces of a text, which ends with the end token."""
        from teloi.batch.sequence import Sequence
        from teloi.data.segments import stream

        if self.length + 2 > processor.max_length:
            raise UsageError(
                f"sequences of {self.length} tokens, with [CLM] and an end, exceed the context of "
                f"{processor.max_length}: set --length {processor.max_length - 2} or raise --max-length"
            )
        sentinel_ids(processor.tokenizer)  # refused before anything else is done
        columns = {"clm": np.int64(given_ids(processor.tokenizer, (CLM,))[0])}
        pieces = [
            text.ids["input_ids"][at : at + self.length]
            for text in stream(processor, row.text, ended=True)
            for at in range(0, text.size, self.length)
        ]
        return [Sequence({"input_ids": piece}, columns) for piece in pieces if len(piece) > 1]

    def cost(self, example: Sequence) -> int:
        """Encoder and decoder, at most: a gap has a sentinel on either side; a task's token and an end come to it."""
        return int(example.size + 2 * np.ceil(example.size * self.rate) + 2)

    def shape(self, model: Any, example: Sequence) -> None:
        from teloi.models.embeddings import add_missing

        add_missing(model, [example.columns["clm"]])

    def rollout(self, models: Models, examples: Several[Sequence], now: Now) -> list[Sequence]:
        from teloi.batch.sequence import Sequence

        assert models.processor is not None
        made = []
        for i, example in enumerate(examples):
            number = self.task(now, i)
            ids, rng = example.ids["input_ids"], now.rng("unimodal", i)
            if TASKS[number] == "denoise":
                inputs, targets = self.denoised(ids, models.processor, rng)
            else:
                low, high = (round(share * len(ids)) for share in PREFIX)
                prefix = int(rng.integers(max(low, 1), max(high, 1) + 1)) if TASKS[number] == "seq2seq" else 0
                prefix = min(prefix, len(ids) - 1)
                inputs, targets = np.append(example.columns["clm"], ids[:prefix]), ids[prefix:]
            sequences = {"input_ids": inputs.astype(np.int32), "targets": targets.astype(np.int32)}
            made.append(Sequence(sequences, {"task": np.int64(number)}))
        return made

    def task(self, now: Now, example: int) -> int:
        """What becomes of the example at this place of a step: every stretch of places has each task's share."""
        if now.step < int(self.denoise_first * now.total):
            return 0
        turn = (0.5 + now.step * STEP + (now.places[example] if now.places else example) * PLACE) % 1
        return int(np.searchsorted(np.cumsum(self.shares) / sum(self.shares), turn, side="right"))

    def denoised(self, ids: Array, processor: Processor, rng: np.random.Generator) -> tuple[Array, Array]:
        """Input and target of span denoising."""
        tokenizer = processor.tokenizer
        ids = ids[ids != end_id(tokenizer)]  # both sides get it
        sentinels, begins = sentinel_ids(tokenizer), word_begins(tokenizer)[ids]
        if (words := len(word_edges(begins))) > 1:
            starts, widths = uniform_spans(words, self.rate, self.longest, rng, len(sentinels))
            starts, widths = spans_of_tokens(starts, widths, begins)
        else:  # one word: its tokens are the words
            starts, widths = uniform_spans(len(ids), self.rate, self.longest, rng, len(sentinels))
        edges = np.zeros(len(ids) + 1, np.int64)
        edges[starts], edges[starts + widths] = 1, -1
        sides = render_spans(Ragged.of([ids]), edges.cumsum()[:-1] > 0, sentinels, end_id(tokenizer))
        return sides[0].values, sides[1].values

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """In gaps, and as what follows [CLM] and a prefix, as far as both were trained."""
        from teloi.data.scoring import Scoring

        prefix = Scoring("prefix", given_ids(processor.tokenizer, (CLM,)), self.length)
        return tuple(
            one
            for one, share in zip((Scoring("gaps", length=self.length), prefix), self.shares[:2], strict=True)
            if share
        )

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> JointBatch:
        """One part a task: their inputs and targets differ most in length."""
        from teloi.batch.joint import JointBatch
        from teloi.batch.sequence import IGNORED, Sequence, SequenceBatch

        nothing = np.full(1, IGNORED, np.int32)
        idle = Sequence({"input_ids": examples[0].ids["input_ids"][:1], "targets": nothing})
        parts = {}
        for number, name in enumerate(TASKS):
            rows = [example for example in examples if example.columns["task"] == number]
            parts[name] = SequenceBatch([Sequence(row.ids) for row in rows] or [idle], device=device)
        return JointBatch(parts, examples)

    def loss(self, models: Models, batch: JointBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        return {
            f"nll_{name}": Term(-policy.logps(batch[name]), per=name, weight=weight)
            for name, weight, share in zip(TASKS, self.weights, self.shares, strict=True)
            if share
        }

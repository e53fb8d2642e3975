"""Text infilling, and E2S2, which has the encoder of such a model learn from the same corruption.

The decoder writes the whole text, whatever was done to what the encoder reads."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.corruption.infilling import (
    draw_share,
    infilling_spans,
    noise_labels,
    render_infilling,
    shuffled_order,
    spans_of_tokens,
    word_edges,
)
from teloi.data.corruption.ragged import Array
from teloi.data.corruption.tokens import substitute
from teloi.data.formats import LanguageModeling
from teloi.data.vocabulary import end_id, gap_id, ordinary_ids, word_begins
from teloi.engine.objective import Architecture, Now, Objective, Term
from teloi.errors import UsageError
from teloi.methods.pretrain.segments import Segments

if TYPE_CHECKING:
    from torch import nn

    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class Infilling(Segments, Objective):
    """Text infilling (BART: Lewis et al., 2020, section 2.2).

    Of the words of a segment a share is masked, in spans whose lengths come from a Poisson distribution; each span
    becomes one mask token, also one of length 0, and the decoder writes the whole text. Vocabularies without a mask
    token, as T5's, take their first sentinel. Spans are drawn anew each time a segment comes up. Loss: the mean of -log
    p(token) over all tokens of the texts of the step.

    Use it to pretrain a sequence-to-sequence model that rewrites texts (summaries, corrections), or to adapt one of
    BART's kind. Not where targets must be short: span-corruption's decoder writes what is missing alone.
    """

    reads = LanguageModeling
    architecture: ClassVar[Architecture] = "seq2seq"
    parted: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {"model": "scratch:small", "learning_rate": 1e-3, "batch_size": 32}

    rate: float = 0.15
    """Share of the words that is masked."""
    mean_span: float = 3.0
    """Mean length of a masked span in words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1:
            raise UsageError(f"rate must be above 0 and below 1, not {self.rate}")
        if self.mean_span <= 0:
            raise UsageError(f"mean_span must be above 0, not {self.mean_span}")

    def encode(self, row: LanguageModeling, processor: Processor) -> list[Sequence]:
        gap_id(processor.tokenizer)  # refused before anything else is done
        return super().encode(row, processor)

    def added(self, processor: Processor) -> int:
        return len(_whole([], processor))

    def cost(self, example: Sequence) -> int:
        """Encoder and decoder read it, with special tokens at both ends."""
        return 2 * (example.size + 2)

    def rollout(self, models: Models, examples: Several[Sequence], now: Now) -> list[Sequence]:
        from teloi.batch.sequence import Sequence

        assert models.processor is not None
        made = []
        for i, example in enumerate(examples):
            masked = self.masked(example, models.processor, now.rng("infilling", i))
            target = _whole(example.ids["input_ids"], models.processor)
            made.append(Sequence({"input_ids": masked, "targets": target}))
        return made

    def masked(self, example: Sequence, processor: Processor, rng: np.random.Generator) -> Array:
        """What the encoder reads of a segment, between the tokenizer's special tokens."""
        ids = example.ids["input_ids"]
        begins = word_begins(processor.tokenizer)[ids]
        if (words := len(word_edges(begins))) > 1:
            spans = spans_of_tokens(*infilling_spans(words, self.rate, self.mean_span, rng), begins)
        else:  # one word: its tokens are the words
            spans = infilling_spans(len(ids), self.rate, self.mean_span, rng)
        return _whole(render_infilling(ids, *spans, gap_id(processor.tokenizer)), processor)

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        return SequenceBatch(examples, device=device)

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        return {"nll": Term(-policy.logps(batch), per="tokens")}


@dataclass(frozen=True)
class E2S2(Infilling):
    """Encoding-enhanced sequence-to-sequence pretraining (Zhong et al., 2023): infilling and two losses on the encoder.

    Of each segment x the encoder reads two views: m(x), infilled as in infilling, and n(x), the same with some trigrams
    shuffled and some tokens replaced by random ones. Loss, per token of the texts:

        (nll(x | m) + nll(x | n)) / 2 + noise_weight * noise + contrast_weight * contrast

    noise: cross-entropy of a linear head on the encoder's states of n(x), which says of each token whether it is
    untouched, shuffled or replaced; its sum over the tokens of n(x) is divided by the tokens of the texts, as the
    authors' code does. contrast: mean over texts of the two-sided NT-Xent loss between the mean states of m(x) and n(x)
    at a temperature. Nothing is detached. All rows of a step are one batch in memory, since each is a negative of the
    others; with several processes negatives are gathered from all. Padding is neither pooled nor labelled, and shuffled
    tokens count: the released code drops them from its loss by an index that means padding. The sentence vector is the
    mean state; the paper's prompt around the text is not built.

    Use it to continue the pretraining of a sequence-to-sequence model whose encoder shall understand more (labels,
    probes, corrections); each text costs twice what infilling costs. At the temperature 1 cosines move the contrast
    little: 0.05 to 0.1 makes it one. Not for a model that only generates.
    """

    coupled: ClassVar[bool] = True

    shuffle: float = 0.05
    """Share of the tokens that may be the centre of a shuffled trigram; at most one in 18 words. 0: none is."""
    replace: float = 0.05
    """Share of the tokens that is replaced by random ones (0.15 in the released code)."""
    noise_weight: float = 0.05
    """Factor of the token classifier's loss."""
    contrast_weight: float = 0.05
    """Factor of the contrastive loss."""
    temperature: float = 1.0
    """What cosines are divided by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shuffle", "replace"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be from 0 to below 1, not {getattr(self, name)}")
        if self.temperature <= 0:
            raise UsageError(f"temperature must be above 0, not {self.temperature}")

    def cost(self, example: Sequence) -> int:
        """Two views of it."""
        return 2 * super().cost(example)

    def build(self, models: Models) -> nn.Module:
        from torch import nn

        inner: Any = models.policy.inner
        config = inner.config
        rate = getattr(config, "dropout_rate", getattr(config, "dropout", 0.0))  # T5's and BART's name for it
        width = inner.get_input_embeddings().embedding_dim
        head = nn.Sequential(nn.Dropout(rate), nn.Linear(width, 3)).to(inner.dtype)
        return nn.ModuleDict({"noise": head})

    def rollout(self, models: Models, examples: Several[Sequence], now: Now) -> list[Sequence]:
        """The two views of each example, as rows of their own."""
        from teloi.batch.sequence import Sequence

        assert models.processor is not None
        made = []
        for i, row in enumerate(super().rollout(models, examples, now)):
            masked = row.ids["input_ids"]
            noised, labels = self.noised(masked, models.processor, now.rng("noise", i))
            for ids, noise, view in ((masked, np.zeros_like(masked), False), (noised, labels, True)):
                columns = {"noised": np.bool_(view)}
                made.append(Sequence({"input_ids": ids, "noise": noise, "targets": row.ids["targets"]}, columns))
        return made

    def noised(self, masked: Array, processor: Processor, rng: np.random.Generator) -> tuple[Array, Array]:
        """n(x) of m(x), and what was done to each of its tokens: 0 nothing, 1 shuffled, 2 replaced."""
        ordinary = ordinary_ids(processor.tokenizer)
        eligible = np.isin(masked, ordinary)
        shuffled = masked
        if self.shuffle:
            shuffled = masked[shuffled_order(word_begins(processor.tokenizer)[masked], eligible, self.shuffle, rng)]
        drawn = draw_share(eligible, self.replace, rng)
        labels = noise_labels(masked, shuffled, drawn).astype(np.int32)
        return substitute(shuffled, drawn & (shuffled == masked), ordinary, rng), labels

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        parts: Any = models.parts
        states, real = policy.encoded(batch), batch.mask["input_ids"]
        nll = -policy.logps(batch, states)
        view = batch.columns["noised"]

        scored = real.bool() & view[:, None]
        logits, labels = parts["noise"](states[scored]), batch.ids["noise"][scored]
        said, touched = (logits.detach().argmax(-1) > 0).float(), (labels > 0).float()

        pooled = losses.mean_pool(states, real)
        masked, noised = (models.gather(pooled[rows]) for rows in (~view, view))
        in_noised = view[batch.rows_of("targets")].float()
        # A text is two rows, and each of its tokens counts in both: what it has once weighs twice.
        return {
            "nll": Term(nll, per="tokens"),
            "noise": Term(losses.token_cross_entropy(logits, labels), per="tokens", weight=2 * self.noise_weight),
            "contrast": Term(
                losses.two_view_nce(masked, noised, 1 / self.temperature), weight=2 * self.contrast_weight, shared=True
            ),
            "nll_noised": Term(nll.detach() * in_noised, per=in_noised, weight=0.0),
            "f1": Term(2 * said * touched, per=said + touched, weight=0.0),
        }


def _whole(ids: Any, processor: Processor) -> Array:
    """Ids between the tokenizer's special tokens, with the end token last also where the tokenizer adds nothing."""
    found, end = processor.sentence_ids(np.asarray(ids, np.int64).tolist()), end_id(processor.tokenizer)
    return np.asarray(found if found[-1:] == [end] else [*found, end], np.int32)

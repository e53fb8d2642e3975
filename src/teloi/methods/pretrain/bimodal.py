"""CodeT5+'s second stage (Wang et al., 2023): from pairs of a text and its code, one encoder-decoder learns to embed
them, to tell right pairs from wrong ones, and to write each from the other."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.batch.identity import identity
from teloi.data.formats import Pair
from teloi.data.vocabulary import PAIR_TOKENS, end_id, given_ids
from teloi.engine.objective import Architecture, Now, Objective, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.joint import JointBatch
    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models

COOLEST, HOTTEST = 0.001, 0.5
"""Bounds of the temperature."""


@dataclass(frozen=True)
class CodeT5PBimodal(Objective):
    """Bimodal pretraining of CodeT5+ (Wang et al., 2023, section 3.3): contrast, matching and two ways of writing.

    Loss: w_1 contrast + w_2 matching + w_3 text_to_code + w_4 code_to_text.

    - contrast: unit vectors are projections of the encoder's state at [CLS]. -log softmax of the right code's
      similarity to a text over a temperature, among the codes of the batch and of a queue, and the same from code to
      texts, averaged. Candidates are what a copy of the encoder says, which follows it with `momentum`; the queue holds
      what it said of earlier batches. Copy and queue are part of every checkpoint. The temperature is learned, between
      0.001 and 0.5. With `alpha`, the target is mixed with what the copy finds similar.
    - matching: the decoder reads [Match], code and end, and the text by cross-attention; a linear layer on its last
      state says whether they belong together. For each right pair one wrong code for its text and one wrong text for
      its code, drawn from the batch by softmax of their similarities. Cross-entropy, mean over the three.
    - text_to_code, code_to_text: the mean of -log p(token) of one side given the other, the decoder beginning with
      [CDec] or [TDec].

    Rows with an equal text or equal code are never each other's negatives, in the batch and in the queue; a place of
    the queue counts once it is filled. A row without a negative has no matching loss. All rows of a step are one batch
    in memory; with several processes negatives are those of all. A tokenizer is given the four tokens it lacks.

    Use it after codet5p-unimodal, for one model that finds code (or documents, or tables) by its vectors, ranks what
    was found by matching, and writes. Not for search alone: in-batch on an encoder costs a third.
    """

    reads = Pair
    architecture: ClassVar[Architecture] = "seq2seq"
    coupled: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "scratch:small",
        "data": "functions",
        "learning_rate": 5e-4,
        "batch_size": 32,
        "weight_decay": 0.1,
    }

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Factors of contrast, matching, text_to_code and code_to_text; what has 0 is not computed."""
    width: int = 256
    """Numbers of a vector."""
    queue: int = 4096
    """Earlier vectors of each side that are candidates; 0: the batch alone (57,600 in the recipe the paper cites)."""
    momentum: float = 0.995
    """How much of itself the copy keeps in each step."""
    temperature: float = 0.07
    """What similarities are divided by, at the start of training."""
    alpha: float = 0.0
    """Share of the contrastive target that is the copy's own similarities (0.4 in the recipe the paper cites)."""
    text_length: int = 128
    """Tokens of a text, which is cut."""
    code_length: int = 420
    """Tokens of its code, which is cut."""

    def __post_init__(self) -> None:
        if min(self.weights) < 0 or not sum(self.weights) > 0:
            raise UsageError(f"weights must not be negative, nor all be 0, not {self.weights}")
        for name in ("momentum", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if not COOLEST <= self.temperature <= HOTTEST:
            raise UsageError(f"temperature must be from {COOLEST} to {HOTTEST}, not {self.temperature}")
        if min(self.width, self.text_length, self.code_length) < 1 or self.queue < 0:
            raise UsageError("width, text_length and code_length must be at least 1, and queue not below 0")

    def encode(self, row: Pair, processor: Processor) -> Sequence:
        from teloi.batch.sequence import Sequence
        from teloi.data.segments import cut_ids

        room = processor.max_length - 2
        sides = (("text", row.anchor, self.text_length), ("code", row.positive, self.code_length))
        ids = {name: cut_ids(processor, text, min(length, room)) for name, text, length in sides}
        tokens = np.asarray(given_ids(processor.tokenizer, PAIR_TOKENS))
        same = np.asarray([identity(text.encode()) for _, text, _ in sides])
        return Sequence(ids, {"tokens": tokens, "same": same, "end": np.int64(end_id(processor.tokenizer))})

    def shape(self, model: Any, example: Sequence) -> None:
        from teloi.models.embeddings import add_missing

        add_missing(model, example.columns["tokens"].tolist())

    def build(self, models: Models) -> nn.Module:
        from torch import nn

        from teloi.models.momentum import Queue
        from teloi.models.pairs import Followers, PairHeads

        inner: Any = models.policy.inner
        heads = PairHeads(inner.get_input_embeddings().embedding_dim, self.width, self.temperature).to(inner.dtype)
        parts = {"heads": heads, "followers": Followers(inner.get_encoder(), heads)}
        # The numbers say of which text and which code a vector is.
        queues = {f"queue of {side}": Queue(self.queue, self.width, 2) for side in ("text", "code")}
        return nn.ModuleDict({**parts, **queues})

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> JointBatch:
        """Two parts: texts with their code as target, and the other way round."""
        from teloi.batch.joint import JointBatch
        from teloi.batch.sequence import Sequence, SequenceBatch
        from teloi.models.pairs import encoder_ids

        def row(i: int, source: str, target: str) -> Sequence:
            ids, columns = examples[i].ids, examples[i].columns
            front, _, to_code, to_text = columns["tokens"]
            sequences = {"input_ids": encoder_ids(ids[source], front, columns["end"]), "targets": ids[target]}
            more = {
                "start": to_code if target == "code" else to_text,
                "place": np.int64(now.places[i] if now.places else i),
                "draws": now.rng("hard negatives", i).random(2),
                "same": columns["same"],
            }
            return Sequence(sequences, more)

        parts = {
            f"{source}_to_{target}": SequenceBatch(
                [row(i, source, target) for i in range(len(examples))], device=device
            )
            for source, target in (("text", "code"), ("code", "text"))
        }
        return JointBatch(parts, examples)

    def loss(self, models: Models, batch: JointBatch, now: Now) -> dict[str, Term]:
        policy: Any = models.policy
        sides = {"text": batch["text_to_code"], "code": batch["code_to_text"]}
        states = {side: policy.encoded(part) for side, part in sides.items()}
        terms = {}
        if self.weights[0] or self.weights[1]:
            terms = self.compare(models, batch, states)
        for weight, side, other in ((self.weights[2], "text", "code"), (self.weights[3], "code", "text")):
            if weight:
                name = f"{side}_to_{other}"
                terms[name] = Term(-policy.logps(batch[name], states[side]), per=name, weight=weight)
        return terms

    def compare(self, models: Models, batch: JointBatch, states: Mapping[str, Tensor]) -> dict[str, Term]:
        """Contrast and matching, which need the other rows of the step: those of all processes, by their place."""
        import torch

        parts: Any = models.parts
        heads, texts = parts["heads"], batch["text_to_code"]
        everyone = Everyone(models, texts.columns["place"])
        same = everyone(texts.columns["same"])
        queued = torch.cat([same, parts["queue of text"].numbers])
        wrong = ~(losses.same_group(same[:, 0], queued[:, 0]) | losses.same_group(same[:, 1], queued[:, 1]))
        wrong &= queued[:, 0] >= 0
        own = torch.eye(*wrong.shape, dtype=torch.bool, device=wrong.device)
        scale = losses.inverse_temperature(heads.log_temperature[0].float(), COOLEST, HOTTEST)
        vectors = {side: everyone(heads.vectors(side, found)) for side, found in states.items()}
        followed = {}
        for side, part in (("text", texts), ("code", batch["code_to_text"])):
            said = parts["followers"].vectors(side, part.ids["input_ids"], part.mask["input_ids"])
            followed[side] = everyone(said)
        batch.notes["followed"] = followed, same

        terms, drawn = {}, {}
        values: Any = 0.0
        for number, (side, other) in enumerate((("text", "code"), ("code", "text"))):
            queue = parts[f"queue of {other}"].vectors
            values = values + 0.5 * losses.momentum_info_nce(
                *(vectors[side], followed[side], followed[other], queue, scale),
                alpha=self.alpha,
                candidates=own | wrong,
            )
            logits = losses.contrast(vectors[side].detach(), followed[other], scale.detach(), queue=queue)
            weights = losses.hard_negative_weights(logits, wrong[:, : len(same)])
            drawn[other] = losses.draw_weighted(weights, everyone(texts.columns["draws"])[:, number])
            best = logits.masked_fill(~(own | wrong), float("-inf")).argmax(1)
            right = (best == torch.arange(len(best), device=best.device)).float()
            terms[f"found_{other}"] = Term(right, weight=0.0, shared=True)
        if self.weights[0]:
            terms["contrast"] = Term(values, weight=self.weights[0], shared=True)
        if self.weights[1]:
            lonely = ~wrong[everyone.mine, : len(same)].any(1)
            terms |= self.match(models, batch, states["text"], everyone, drawn, lonely)
        return terms

    def match(
        self,
        models: Models,
        batch: JointBatch,
        states: Tensor,
        everyone: Everyone,
        drawn: Mapping[str, Tensor],
        lonely: Tensor,
    ) -> dict[str, Term]:
        """Right pairs and wrong ones. `drawn`: for all rows the wrong text and the wrong code, by their place in the
        step; `lonely`: which rows of this process have none. Wrong texts come as tokens and are encoded here."""
        import torch
        from torch.nn.functional import pad

        policy: Any = models.policy
        parts: Any = models.parts
        texts, text_mask = everyone.tokens(batch["text_to_code"])
        codes, code_mask = everyone.tokens(batch["code_to_text"])
        codes = codes.clone()
        codes[:, 0] = int(batch.sequences[0].columns["tokens"][1])
        mine, hard = everyone.mine, {side: rows[everyone.mine] for side, rows in drawn.items()}
        others = policy.encode(texts[hard["text"]], text_mask[hard["text"]])
        read = torch.cat([mine, hard["code"], mine])
        ours = pad(states, (0, 0, 0, texts.shape[1] - states.shape[1]))
        decoded = policy.decoded(
            codes[read],
            code_mask[read],
            torch.cat([ours, ours, others]),
            text_mask[torch.cat([mine, mine, hard["text"]])],
        )
        logits = parts["heads"].logits(decoded, code_mask[read])
        values = losses.matching(logits).view(3, -1).mean(0)
        right = logits.detach().argmax(1) == losses.matching_labels(len(mine)).to(logits.device)
        return {
            "matching": Term(values.masked_fill(lonely, 0.0), weight=self.weights[1]),
            "matched": Term(right.view(3, -1).float().mean(0) * ~lonely, per=(~lonely).float(), weight=0.0),
        }

    def after_step(self, models: Models, batches: Several[JointBatch], now: Now) -> None:
        """The queue takes what the copy said; then the copy follows the step's weights."""
        from teloi.engine.sharding import whole
        from teloi.models.momentum import follow

        if not (self.weights[0] or self.weights[1]):
            return
        parts: Any = models.parts
        for batch in batches:
            followed, same = batch.notes["followed"]
            for side, vectors in followed.items():
                parts[f"queue of {side}"].push(vectors, same)
        inner: Any = models.policy.inner
        heads, followers = parts["heads"], parts["followers"]
        for copy, original in (
            (followers.encoder, inner.get_encoder()),
            (followers.text, heads.text),
            (followers.code, heads.code),
        ):
            weights = {name: whole(parameter.detach()) for name, parameter in original.named_parameters()}
            follow(dict(copy.named_buffers()), weights, self.momentum)

    def export(self, models: Models, path: Path) -> None:
        """Beside the checkpoint, what `PairModel.load` needs: projections, classifier, and how texts are cut."""
        from teloi.models.pairs import save_heads

        parts: Any = models.parts
        save_heads(parts["heads"], path, {"text": self.text_length, "code": self.code_length})


class Everyone:
    """Values of the rows of all processes, in the order of their places in the step, so that how a step is shared out
    changes nothing. `mine` is where this process's own rows stand in it."""

    def __init__(self, models: Models, places: Tensor) -> None:
        import torch

        self.gather = models.gather
        everywhere = models.gather(places)
        self.order = everywhere.argsort()
        self.mine = torch.searchsorted(everywhere[self.order], places)

    def __call__(self, values: Tensor) -> Tensor:
        return self.gather(values)[self.order]

    def tokens(self, part: SequenceBatch) -> tuple[Tensor, Tensor]:
        """What the encoder reads, and its mask, as wide as the widest process's."""
        from torch.nn.functional import pad

        ids, mask = part.ids["input_ids"], part.mask["input_ids"]
        width = int(self.gather(ids.new_tensor([ids.shape[1]])).max())
        return self(pad(ids, (0, width - ids.shape[1]))), self(pad(mask, (0, width - ids.shape[1])))

"""What stands on an encoder-decoder that embeds two sides of a pair, and tells right pairs from wrong ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from teloi.batch.sequence import Sequence, SequenceBatch
from teloi.data.processor import Processor
from teloi.data.segments import cut_ids
from teloi.data.vocabulary import PAIR_TOKENS, end_id, given_ids
from teloi.models.load import load_model, load_tokenizer
from teloi.models.momentum import follower
from teloi.models.sequences import ScoredModel, in_batches

HEADS, SETTINGS = "pairs.safetensors", "pairs.json"


class PairHeads(nn.Module):
    """A projection of the encoder's first state for each side, a classifier of the decoder's last state, and a learned
    temperature. h: the model's width, d: that of a vector."""

    def __init__(self, hidden: int, width: int, temperature: float) -> None:
        super().__init__()
        self.text = nn.Linear(hidden, width)
        self.code = nn.Linear(hidden, width)
        self.match = nn.Linear(hidden, 2)
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))  # [1]: FSDP shards no scalars

    def vectors(self, side: str, states: Float[Tensor, "b t h"]) -> Float[Tensor, "b d"]:
        """Unit vectors of texts, or of code, from the encoder's states; float32."""
        return normalize(self.get_submodule(side)(states[:, 0]).float(), dim=1)

    def logits(self, states: Float[Tensor, "b t h"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b 2"]:
        """Wrong and right, from the decoder's state at the last token of each row, which is padded on the right."""
        last = mask.sum(1) - 1
        found: Tensor = self.match(states[torch.arange(len(states), device=states.device), last])
        return found


class Followers(nn.Module):
    """The encoder and the projections of the two sides as they follow the trained ones, in buffers (see `momentum`)."""

    def __init__(self, encoder: nn.Module, heads: PairHeads) -> None:
        super().__init__()
        self.encoder = follower(encoder)
        self.text, self.code = follower(heads.text), follower(heads.code)

    @torch.no_grad()
    def vectors(self, side: str, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Unit vectors of texts, or of code, without gradient."""
        states: Any = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return normalize(self.get_submodule(side)(states[:, 0]), dim=1)


class PairModel:
    """A trained model at work: vectors of texts and of code, and whether two belong together.

    `lengths`: tokens to which each side is cut."""

    def __init__(self, model: ScoredModel, heads: PairHeads, processor: Processor, lengths: Mapping[str, int]) -> None:
        self.model, self.heads, self.processor, self.lengths = model, heads, processor, lengths
        self.front, self.matching, *_ = given_ids(processor.tokenizer, PAIR_TOKENS)

    @classmethod
    def load(cls, path: str | Path) -> PairModel:
        """What `teloi train codet5p-bimodal` left in a directory."""
        state = load_file(Path(path) / HEADS)
        settings = json.loads((Path(path) / SETTINGS).read_text(encoding="utf-8"))
        width, hidden = state["text.weight"].shape
        heads = PairHeads(hidden, width, 1.0)
        heads.load_state_dict(state)
        processor = Processor(load_tokenizer(path), max(settings["lengths"].values()) + 2)
        return cls(ScoredModel(load_model(path, architecture="seq2seq")), heads.eval(), processor, settings["lengths"])

    def embed(self, side: str, texts: Several[str], tokens: int = 8192) -> NDArray[np.float32]:
        """Unit vectors [n d] of texts ("text") or of code ("code"): their product is the cosine that was trained."""
        made = [Sequence({"input_ids": self.ids(side, text)}) for text in texts]
        return in_batches(
            self.model.model, lambda batch: self.heads.vectors(side, self.model.encoded(batch)), made, tokens
        )

    def match(self, texts: Several[str], codes: Several[str], tokens: int = 8192) -> NDArray[np.float32]:
        """The classifier's logit [n] that each text and code belong together."""
        made = [
            Sequence({"input_ids": self.ids("text", text), "code": self.ids("code", code, self.matching)})
            for text, code in zip(texts, codes, strict=True)
        ]
        return in_batches(self.model.model, self._right, made, tokens)

    def ids(self, side: str, text: str, front: int | None = None) -> NDArray[np.int32]:
        """What is read of a text."""
        ids = cut_ids(self.processor, text, self.lengths[side])
        return encoder_ids(ids, self.front if front is None else front, end_id(self.processor.tokenizer))

    def _right(self, batch: SequenceBatch) -> Tensor:
        states = self.model.encoded(batch)
        decoded = self.model.decoded(batch.ids["code"], batch.mask["code"], states, batch.mask["input_ids"])
        return self.heads.logits(decoded, batch.mask["code"])[:, 1]


def encoder_ids(ids: NDArray[np.int32], front: int, end: int) -> NDArray[np.int32]:
    """A text between a token in front and the end token, which it has unless it was cut."""
    return np.asarray([front, *ids, *([end] if ids[-1] != end else [])], np.int32)


def save_heads(heads: PairHeads, path: Path, lengths: Mapping[str, int]) -> None:
    """Write what `PairModel.load` reads besides the checkpoint."""
    save_file({name: tensor.detach().float().contiguous() for name, tensor in heads.state_dict().items()}, path / HEADS)
    (path / SETTINGS).write_text(json.dumps({"lengths": dict(lengths)}) + "\n", encoding="utf-8")

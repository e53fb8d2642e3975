"""Encoders that judge the segments of a text, at separators that stand before these."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from teloi.batch.sequence import Sequence as Tokens
from teloi.batch.sequence import SequenceBatch
from teloi.data.formats import Text, plain
from teloi.data.processor import Processor
from teloi.data.segmentation import Density, with_separators
from teloi.errors import ModelError
from teloi.models.load import load_tokenizer
from teloi.models.sequences import in_batches

Judge = Callable[..., list[float | None]]

LABELS = ("right", "wrong")

DENSITY = "segment_density"
"""Name under which a checkpoint's configuration keeps what was judged."""


def judge_head(model: Any) -> nn.Linear:
    """A linear map from an encoder's states to two logits, float32, drawn as the encoder's own layers are."""
    head = nn.Linear(model.config.hidden_size, len(LABELS), device=model.device)
    nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(head.bias)
    return head


def save_judge(model: Any, head: nn.Module, density: Density, path: Path) -> None:
    """Write encoder and head as transformers' token classifier. ModelError where the architecture has none, or one that
    reads its states in another way."""
    encoder = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    config = copy.deepcopy(encoder.config)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: index for index, name in enumerate(LABELS)}
    setattr(config, DENSITY, density)
    try:
        made: Any = AutoModelForTokenClassification.from_config(config, dtype=encoder.dtype)
        made.base_model.load_state_dict(encoder.state_dict(), strict=False)  # a pooler stays behind
        made.classifier.load_state_dict(head.state_dict())
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{type(encoder).__name__} has no token classifier to save a reward as: {error}") from None
    made.save_pretrained(path)


def is_judge(path: str | Path) -> bool:
    """Whether a checkpoint says that it judges segments."""
    config = Path(path) / "config.json"
    return config.is_file() and DENSITY in json.loads(config.read_text(encoding="utf-8"))


def load_judge(path: str | Path) -> tuple[Judge, Density]:
    """A judge that was saved so, and what it judges. It is asked for segments: `f(prompts, completions, response,
    **columns)`, completions being segments and `response` the number of the text that each is of; 1 for a right one,
    -1 for a wrong one, None for one that the context has no room for. ModelError where the directory holds none."""
    if not is_judge(path):
        raise ModelError(f"{path} holds no judge of segments, as segment-rm leaves it")
    try:
        model: Any = AutoModelForTokenClassification.from_pretrained(path).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} holds no judge of segments: {error}") from None
    density: Density = model.config.to_dict()[DENSITY]
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(path)
    limit = min(model.config.max_position_embeddings, tokenizer.model_max_length)
    processor = Processor(tokenizer, limit, "truncate")

    def read(batch: SequenceBatch) -> Tensor:
        logits: Tensor = model(input_ids=batch.ids["input_ids"], attention_mask=batch.mask["input_ids"]).logits
        return logits.argmax(-1).gather(1, batch.columns["places"])

    def judge(
        prompts: Sequence[Text], completions: Sequence[Text], response: Sequence[int], **columns: Any
    ) -> list[float | None]:
        groups = [list(group) for _, group in groupby(range(len(response)), key=lambda i: response[i])]
        most = max(map(len, groups), default=0)
        examples, judged = [], []
        for group in groups:
            ids, places = with_separators(processor, prompts[group[0]], [plain(completions[i]) for i in group])
            padded = np.pad(places, (0, most - len(places)))
            examples.append(Tokens({"input_ids": np.asarray(ids, np.int32)}, {"places": padded}))
            judged.append(len(places))
        said = in_batches(model, read, examples, 8192) if examples else ()
        return [
            (-1.0 if wrong else 1.0) if i < seen else None
            for group, seen, row in zip(groups, judged, said, strict=True)
            for i, wrong in enumerate(row[: len(group)])
        ]

    return judge, density

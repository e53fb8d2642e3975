"""UL2: unifying language learning paradigms (Tay et al., 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from teloi.data.corruption.ragged import Ragged
from teloi.data.corruption.spans import render_spans, segment_lengths, sentinels, span_counts, span_mask


def mask_counts(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    lengths, density, mean_span = inputs["configs"].numpy().T
    noise, spans = span_counts(lengths, density, mean_span)
    masks = Ragged(span_mask(lengths, density, mean_span, np.random.default_rng(0)), lengths.astype(int)).rows()
    ends = [(int(mask[0]), int(mask[-1])) for mask in masks]
    return {"counts": np.column_stack([noise, spans, ends])}


def lengths(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    configs = inputs["configs"].tolist()
    return {"lengths": [segment_lengths(int(length), density, mean) for length, density, mean in configs]}


def span_corruption(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    tokens = Ragged.of(list(inputs["input_ids"].numpy()))
    mask = inputs["noise_mask"].numpy().astype(bool).ravel()
    pair = render_spans(tokens, mask, sentinels(params["vocab_len"]), params["eos_id"])
    return dict(zip(("encoder_inputs", "targets"), (np.stack(side.rows()) for side in pair), strict=True))


ADAPTERS = {"mask_counts": mask_counts, "segment_lengths": lengths, "span_corruption": span_corruption}

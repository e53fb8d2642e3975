"""GPT-BERT, the winner of the BabyLM challenge 2024 (Charpentier & Samuel, 2024)."""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teloi.batch.segments import SegmentBatch
from teloi.batch.sequence import Sequence
from teloi.data.corruption.ragged import Array, Ragged
from teloi.data.corruption.ranked import LONGEST, lowest, span_replacements, span_scores, span_tiles
from teloi.data.corruption.tokens import IGNORED
from teloi.data.rows import Row, fill_row, next_token_row, pieces
from teloi.engine.objective import Now
from teloi.engine.schedules import cosine_with_cooldown
from teloi.engine.step import Step
from teloi.methods.pretrain.gpt_bert import GPTBERT
from teloi.models.roles import Models

SEEDS = 5000
FIRST_ORDINARY = 16
ROW_SEED = 300
"""The rows were drawn with the documents' seed plus this one."""


def documents(tokens: Tensor, lengths: list[int], vocabulary: int) -> tuple[int, list[Tensor]]:
    """The case holds one segment; the other documents of its row, and which of their tokens were drawn, follow from a
    small seed of torch's generator that is not stated: the one whose first document begins with that segment."""
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        drawn = [torch.randint(FIRST_ORDINARY, vocabulary, (length,)) for length in lengths]
        if torch.equal(drawn[0][: len(tokens)], tokens):
            return seed, drawn
    raise AssertionError("no seed gives these documents")


def hybrid_loss(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    size, vocabulary = params["seq_length"], params["vocab_size"]
    objective = GPTBERT(params["ratio"], rate_start=params["mask_p_start"], rate_end=params["mask_p_end"])
    rate = objective.rate(params["step"] / params["max_steps"])
    tokens = inputs["tokens"].numpy()
    scores = Ragged.of([inputs["mask_ratios"].numpy()])
    chosen = lowest(scores, rate, inputs["uniform"].numpy()[None])

    seed, drawn = documents(inputs["tokens"], inputs["doc_lengths"].tolist(), vocabulary)
    segments = [
        drawn[d].numpy()[at : at + length] for d in range(len(drawn)) for at, length in pieces(len(drawn[d]), size)
    ]
    torch.manual_seed(ROW_SEED + seed)
    further = iter(torch.randperm(len(segments)).tolist())
    windows = fill_row(0, further, [np.zeros(len(segment), int) for segment in segments], size)
    ids = [segments[w.segment][w.start : w.start + w.length] for w in windows]

    masked, replaced = [], []
    counts = [np.zeros(len(segment), int) for segment in segments]
    for window, one in zip(windows, ids, strict=True):
        seen = counts[window.segment][window.start : window.start + window.length]
        spans = span_tiles(np.array([len(one)]), torch.randint(1, LONGEST + 1, (1, len(one))).numpy())
        first, second = torch.rand(2 * (spans[-1] + 1)).numpy().reshape(2, -1)
        values = span_scores(spans, first, Ragged.of([seen]))
        draw = lambda count: torch.randint(FIRST_ORDINARY, vocabulary, (count,)).numpy()  # noqa: E731
        instead = span_replacements(one, spans, second, params["mask"], draw)
        masked.append(lowest(Ragged.of([values]), rate, torch.rand(1).numpy()))
        replaced.append(np.where(masked[-1], instead, one))
        seen += masked[-1]

    rows = {
        "mlm": next_token_row(ids, params["cls"], size, replaced, masked),
        "clm": next_token_row(ids, params["cls"], size),
    }
    total = params["max_steps"]
    rate_at = [
        cosine_with_cooldown(step, params["lr_warmup"], params["lr_cooldown"], total, params["lr_min_factor"])
        for step in range(total + 1)
    ]
    return {
        "masked_input": np.where(chosen, inputs["replacement"].numpy(), tokens),
        "masked_target": np.where(chosen, tokens, IGNORED),
        "segment_lengths": [len(segment) for segment in segments],
        "lr_multiplier": rate_at,
        **packed(rows, size, params["pad"]),
        **terms(rows, [inputs["logits_mlm"], inputs["logits_clm"]], params["ratio"]),
    }


def batch_of(row: Row, bidirectional: bool) -> Sequence:
    ids = {"input_ids": row.inputs, "labels": row.targets}
    return Sequence(ids, {"lengths": row.lengths, "bidirectional": bidirectional})


def packed(rows: dict[str, Row], size: int, pad: int) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, row in rows.items():
        structure = SegmentBatch([batch_of(row, name == "mlm")]).layout("packed").structure
        assert structure is not None
        blocked = torch.ones(size, size, dtype=torch.int64)
        for k, (start, stop) in enumerate(zip(accumulate(row.lengths, initial=0), accumulate(row.lengths))):  # noqa: B905
            visible = structure.mask(k, None)
            shown = structure.causal(stop - start, stop - start) if visible is None else visible
            blocked[start:stop, start:stop] = ~shown
        rest = (0, size - len(row.inputs))
        found |= {
            f"packed_{name}_input": np.pad(row.inputs, rest, constant_values=pad),
            f"packed_{name}_target": np.pad(row.targets, rest, constant_values=IGNORED),
            f"packed_{name}_blocked": blocked.numpy(),
        }
    return found


def terms(rows: dict[str, Row], logits: list[Tensor], ratio: float) -> dict[str, Any]:
    """The objective's own loss, reading these logits where its model would be asked."""
    batch: Any = SegmentBatch([batch_of(row, name == "mlm") for name, row in rows.items()])
    scored = torch.cat([part[: len(row.targets)] for part, row in zip(logits, rows.values(), strict=True)])[
        batch.scored
    ]
    policy: Any = SimpleNamespace(model=None, read=lambda _, fn, target: fn(scored, target))

    def step(z_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        return Step(Models(policy), GPTBERT(ratio, z_weight=z_weight)).shares(batch, Now(0, 1), batch.counts)

    loss, shares = step(0.0)
    return {
        "mlm_loss": shares["nll_masked"],
        "mlm_z": shares["z_masked"],
        "mlm_n": batch.counts["bidirectional"],
        "clm_loss": shares["nll_causal"],
        "clm_z": shares["z_causal"],
        "clm_n": batch.counts["causal"],
        "hybrid_loss_ratio_15_16": loss,
        "hybrid_z": step(1.0)[0] - loss,
    }


ADAPTERS = {"hybrid_loss": hybrid_loss}

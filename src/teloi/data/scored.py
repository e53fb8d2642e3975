"""Documents of scored segments as one stream of tokens that carry their segment's score, cut into blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from teloi.batch.tree import Branch, Tree
from teloi.data.formats import ScoredSegments
from teloi.data.processor import Processor
from teloi.data.vocabulary import end_id
from teloi.errors import DataError

NO_PROMPT = np.zeros(0, np.int32)


def scored_document(processor: Processor, row: ScoredSegments) -> list[Tree]:
    """A document as one branch without a prompt: the end token, then the segments, each tokenised by itself; nothing of
    a document without tokens.

    Column `score` of its tokens: that of their segment (of the first one for the end token). Columns of the tree, one
    value for each segment that has tokens: `segment_scores`, and `starts`, the place of its first token.
    """
    pieces = processor.tokenizer(list(row.texts), add_special_tokens=False, verbose=False)["input_ids"]
    kept = [(piece, score) for piece, score in zip(pieces, row.scores, strict=True) if piece]
    if not kept:
        return []
    lengths = [len(piece) for piece, _ in kept]
    scores = np.asarray([score for _, score in kept])
    starts = 1 + np.cumsum([0, *lengths[:-1]])
    branch = Branch.scored([end_id(processor.tokenizer), *(token for piece, _ in kept for token in piece)])
    columns = {"score": np.concatenate([scores[:1], np.repeat(scores, lengths)]).astype(np.float32)}
    return [Tree(NO_PROMPT, (replace(branch, columns=columns),), {"segment_scores": scores, "starts": starts})]


def controlled(
    document: Tree, controls: np.ndarray, threshold: np.float32, drop: float, rng: np.random.Generator
) -> Tree:
    """The document with the control token that is right before each segment, but for a share of them."""
    branch = document.branches[0]
    starts = document.columns["starts"]
    starts = starts[rng.random(len(starts)) >= drop]
    aligned = branch.columns["score"][starts] <= threshold
    columns = {
        "score": np.insert(branch.columns["score"], starts, branch.columns["score"][starts]),
        "control": np.insert(np.zeros(len(branch.ids), np.float32), starts, 1.0),
    }
    ids = np.insert(branch.ids, starts, np.where(aligned, *controls))
    return replace(document, branches=(Branch(ids, np.ones(len(ids), np.float32), columns),))


def blocks(documents: Sequence[Tree], length: int, **columns: Any) -> list[Tree]:
    """Documents end to end, cut into blocks of exactly `length` tokens, of which the first is the prompt; what is left
    over is dropped. `columns` go with every block.

    A corpus of fewer tokens is one shorter block. DataError for one of fewer than two.
    """
    branches = [document.branches[0] for document in documents]
    ids = np.concatenate([branch.ids for branch in branches])
    tokens = {name: np.concatenate([b.columns[name] for b in branches]) for name in branches[0].columns}
    length = min(length, len(ids))
    if length < 2:
        raise DataError("the documents have one token in all: there is nothing to predict")
    made = []
    for start in range(0, len(ids) - length + 1, length):
        rest = slice(start + 1, start + length)
        branch = Branch(
            ids[rest], np.ones(length - 1, np.float32), {name: values[rest] for name, values in tokens.items()}
        )
        made.append(Tree(ids[start : start + 1], (branch,), dict(columns)))
    return made

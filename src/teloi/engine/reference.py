"""The reference's summed log-probabilities, computed once for the examples a run will see, and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from teloi.batch.tree import Tree, TreeBatch
from teloi.engine.plan import pack
from teloi.engine.progress import track
from teloi.models.embedded import cache_home
from teloi.models.roles import REFERENCE_SUMS, LanguageModel, evaluation


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's weights, in their order, and of the numbers they are stored in."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def with_reference_sums(
    examples: Sequence[Tree], used: Iterable[int], model: LanguageModel, micro_tokens: int, model_hash: str
) -> tuple[list[Tree], int]:
    """Examples with the column `reference_sums` (float32, one value a branch), and the positions computed for it.

    Only the examples in `used` are computed; the others get NaN, which no run may ever read. The cache holds whole
    sets, keyed by the model, the examples and how they are packed, so that what a run reads never depends on which
    other runs came before it."""
    wanted = sorted(set(used))
    lengths = tuple(example.size for example in examples)
    key = hashlib.sha256(f"{model_hash} {model.layout} {micro_tokens}".encode())
    for i in wanted:
        _hash_into(key, examples[i])
    path = cache_home() / "reference" / f"{key.hexdigest()[:40]}.safetensors"
    computed = 0
    if path.exists():
        sums = load_file(path)["sums"]
    else:
        sums = np.empty((len(wanted), max(len(examples[i].branches) for i in wanted)), np.float32)
        place = {i: at for at, i in enumerate(wanted)}
        device = next(model.model.parameters()).device
        with evaluation(model.model):
            for micro in track(pack(wanted, lengths, micro_tokens, model.layout), "reference log-probabilities"):
                batch = TreeBatch([examples[i] for i in micro], device)
                sums[[place[i] for i in micro]] = model.branch_sums(batch).T.float().cpu().numpy()
        computed = sum(lengths[i] for i in wanted)
        _write(path, sums)
    found = dict(zip(wanted, sums, strict=True))
    unread = np.full(sums.shape[1], np.nan, np.float32)
    return [
        replace(example, columns={**example.columns, REFERENCE_SUMS: found.get(i, unread)})
        for i, example in enumerate(examples)
    ], computed


def _hash_into(digest: hashlib._Hash, tree: Tree) -> None:
    digest.update(np.asarray([len(tree.prompt), *(len(b.ids) for b in tree.branches)], np.int64).tobytes())
    digest.update(tree.prompt.tobytes())
    for branch in tree.branches:
        digest.update(branch.ids.tobytes())
        digest.update(branch.weights.tobytes())


def _write(path: Path, sums: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({"sums": sums}, temporary)
    temporary.rename(path)

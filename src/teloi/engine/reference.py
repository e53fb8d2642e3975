"""The reference's summed log-probabilities, computed once for the examples a run will see, and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

from teloi.batch.tree import Tree, TreeBatch
from teloi.data.store import Chosen
from teloi.engine.examples import sizes
from teloi.engine.plan import pack
from teloi.engine.progress import bar
from teloi.files import cache_home
from teloi.models.roles import REFERENCE_SUMS, LanguageModel, evaluation


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's weights, in their order, and of the numbers they are stored in."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


AT_A_TIME = 10_000
"""Examples that are packed together: how long that takes grows faster than their number."""


class WithSums(Sequence[Tree]):
    """Examples with the column `reference_sums`; `sums` [n, k] are those of the examples `used` [n], ascending."""

    def __init__(self, examples: Sequence[Tree], used: NDArray[np.int64], sums: NDArray[np.float32]) -> None:
        self.examples, self.used, self.sums = examples, used, sums
        self.unread = np.full(sums.shape[1], np.nan, np.float32)

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Tree: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tree]: ...
    def __getitem__(self, index: int | slice) -> Tree | Sequence[Tree]:
        if isinstance(index, slice):
            return Chosen(self, range(len(self))[index])
        example = self.examples[index]
        at = int(np.searchsorted(self.used, index % len(self)))
        known = at < len(self.used) and self.used[at] == index % len(self)
        return replace(example, columns={**example.columns, REFERENCE_SUMS: self.sums[at] if known else self.unread})


def with_reference_sums(
    examples: Sequence[Tree], used: Iterable[int], model: LanguageModel, micro_tokens: int, model_hash: str
) -> tuple[Sequence[Tree], int]:
    """Examples with the column `reference_sums` (float32, one value a branch), and the positions computed for it.

    Only the examples in `used` are computed; the others get NaN, which no run may ever read. The cache holds whole
    sets, keyed by the model, the examples and how they are packed, so that what a run reads never depends on which
    other runs came before it."""
    wanted = np.unique(used if isinstance(used, np.ndarray) else np.fromiter(used, np.int64))
    lengths = sizes(examples)
    key = hashlib.sha256(f"{model_hash} {model.layout} {micro_tokens}".encode())
    branches = 0
    for i in wanted:
        example = examples[i]
        branches = max(branches, len(example.branches))
        _hash_into(key, example)
    path = cache_home() / "reference" / f"{key.hexdigest()[:40]}.safetensors"
    computed = 0
    if path.exists():
        sums = load_file(path)["sums"]
    else:
        sums = np.empty((len(wanted), branches), np.float32)
        device = next(model.model.parameters()).device
        with evaluation(model.model), bar(len(wanted), "reference log-probabilities") as advance:
            for begin in range(0, len(wanted), AT_A_TIME):
                part = wanted[begin : begin + AT_A_TIME]
                for micro in pack(list(range(len(part))), lengths[part].tolist(), micro_tokens, model.layout):
                    batch = TreeBatch([examples[i] for i in part[micro]], device)
                    sums[[begin + i for i in micro]] = model.branch_sums(batch).T.float().cpu().numpy()
                    advance("", len(micro))
        computed = int(lengths[wanted].sum())
        _write(path, sums)
    return WithSums(examples, wanted, sums), computed


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

"""What is known of examples in a file is what reading them anew would find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.batch.tree import Tree
from teloi.data import store
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.engine.dataset import encode
from teloi.engine.examples import Examples, contents_hash, costs, sizes
from teloi.engine.objective import Objective
from teloi.engine.reference import WithSums
from teloi.methods.finetune.sft import SFT
from teloi.methods.reinforce.grpo import GRPO
from teloi.models.roles import REFERENCE_SUMS

ROWS = Rows([{"prompt": "abc" * (1 + i % 3), "completion": "de" * (1 + i % 4), "n": i} for i in range(12)], "rows")


@pytest.fixture
def in_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    def after(items: int = 5) -> None:
        monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(store, "IN_MEMORY", items)

    return after


@pytest.mark.parametrize("objective", [SFT(), GRPO()], ids=["sft", "grpo"])
def test_nothing_is_known_otherwise(objective: Objective, processor: Processor, in_file: Callable[..., None]) -> None:
    plain = encode(objective, ROWS, processor).examples
    in_file()
    found = encode(objective, ROWS, processor).examples
    assert isinstance(plain, list)
    assert isinstance(found, Examples)
    assert contents_hash(found) == contents_hash(plain)
    for read in (sizes, lambda examples: costs(objective, examples)):
        np.testing.assert_array_equal(read(found), read(plain))
    assert [one.source for one in found] == [one.source for one in plain]


@dataclass(frozen=True)
class Longer(SFT):
    """Prepares its examples, in place of none."""

    def prepare(self, examples: Any, seed: int) -> Any:
        return [replace(example, columns={"seed": np.int64(seed)}) for example in examples]


def test_what_is_prepared_is_what_is_hashed(processor: Processor, in_file: Callable[..., None]) -> None:
    plain = encode(Longer(), ROWS, processor)
    in_file()
    found = encode(Longer(), ROWS, processor)
    assert contents_hash(found.examples) == contents_hash(plain.examples)
    assert contents_hash(found.examples) != contents_hash(encode(SFT(), ROWS, processor).examples)
    assert str(found) == str(plain)


def test_sums_are_found_where_they_were_computed(processor: Processor) -> None:
    trees: list[Tree] = list(encode(SFT(), ROWS, processor).examples)
    found = WithSums(trees, np.asarray([1, 4, 11]), np.asarray([[0.5], [1.5], [2.5]], np.float32))
    sums = [float(tree.columns[REFERENCE_SUMS][0]) for tree in found]
    assert sums[1::3] == [0.5, 1.5, pytest.approx(np.nan, nan_ok=True), pytest.approx(np.nan, nan_ok=True)]
    assert np.flatnonzero(~np.isnan(sums)).tolist() == [1, 4, 11]
    assert float(found[-1].columns[REFERENCE_SUMS][0]) == 2.5

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from teloi.batch.tree import Branch, Tree
from teloi.data.processor import Processor
from teloi.engine.directory import RunDirectory
from teloi.engine.follow import Samples, live
from teloi.engine.loop import Trainer


def test_what_matters_stands_first() -> None:
    record = {"step": 3, "loss": 0.00123, "policy": 0.5, "kl": 0.01234, "reward": 0.75, "value": 2.0, "entropy": 1.5}
    assert live(record, 1234.5) == "reward 0.75, kl 0.0123, entropy 1.5, value 2, loss 0.0012, 1,234 tokens/s"
    assert live({"step": 1, "loss": 2.0, "accuracy": 0.5}, 99.0) == "loss 2.0000, 99 tokens/s"


def samples(processor: Processor, path: Path, steps: int, seen: int, columns: bool = True) -> list[dict[str, Any]]:
    """What is written of a run of so many steps of which so many were taken."""
    trainer = SimpleNamespace(plan=SimpleNamespace(steps=steps), models=SimpleNamespace(processor=processor))
    prompt, branch = np.asarray(processor.bare_ids("why?"), np.int32), Branch.scored(processor.bare_ids("so"))
    found = {"rewards": np.asarray([1.5, 0.5, 9], np.float32), "finished": np.asarray([True, False, True])}
    tree = Tree(prompt, (branch, branch, branch), found if columns else {})
    directory = RunDirectory(path)
    with Samples(cast(Trainer, trainer), directory) as written:
        for step in range(1, seen + 1):
            written.see(step, [tree, tree, tree])
    return directory.sampled()


@pytest.mark.parametrize(
    ("steps", "seen", "kept"),
    [(1, 1, [1]), (5, 5, [1, 2, 3, 4, 5]), (101, 101, [*range(1, 102, 10)]), (101, 25, [1, 11, 21, 25])],
)
def test_about_ten_times_and_the_last(processor: Processor, tmp_path: Path, steps: int, seen: int, kept: list[int]):
    lines = samples(processor, tmp_path, steps, seen)
    assert [line["step"] for line in lines] == [step for step in kept for _ in range(4)]
    said = {"step": 1, "prompt": "why?", "completion": "so", "reward": 1.5, "finished": True}
    assert lines[:2] == [said, {**said, "reward": 0.5, "finished": False}]


def test_who_samples_nothing_leaves_no_file(processor: Processor, tmp_path: Path) -> None:
    assert samples(processor, tmp_path, 3, 3, columns=False) == []
    assert not list(tmp_path.iterdir())


def test_letters_stay_readable(processor: Processor, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.samples.write_text(json.dumps({"step": 1, "prompt": "é\u2028ß"}, ensure_ascii=False) + "\n{", "utf-8")
    directory.rewind(1)
    assert "é\u2028ß" in directory.samples.read_text("utf-8")
    assert directory.sampled() == [{"step": 1, "prompt": "é\u2028ß"}]

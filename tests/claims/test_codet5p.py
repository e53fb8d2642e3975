"""The claim's own parts: data of a seed, completion against transformers' own loss, search with a second ranking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi.claims import codet5p
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.data.vocabulary import CLM, given_ids
from teloi.worlds import standard_library
from teloi.worlds.standard_library import Function


def made_up(number: int) -> Function:
    body = "".join(f"    total = total + values[{i}] * {number}\n" for i in range(25))
    text = f"def total_{number}(values):\n{{}}    total = 0\n{body}    return total\n"
    summary = f"Return the weighted sum number {number} of them."
    source = text.format(f'    """{summary}"""\n')
    return Function(f"package{number % 9}", source, summary, text.format("").replace(f"total_{number}(", "f("))


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> list[Function]:
    """Ninety functions of nine packages."""
    functions = [made_up(number) for number in range(90)]
    monkeypatch.setattr(standard_library, "functions", lambda: functions)
    return functions


@pytest.fixture
def seed(tmp_path: Path) -> Run:
    prepared = Run(None, 0, True, tmp_path)
    codet5p.prepare(prepared)
    return prepared


def test_quick(tmp_path: Path) -> None:
    result = run("teloi.claims.codet5p", Settings(quick=True, directory=tmp_path / "runs"))
    assert result["verdict"] is None
    metrics = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    assert metrics["denoise"].keys() == metrics["mixture"].keys() == {"ce", "next", "line", "denoise"}
    assert metrics["denoise"]["ce"] != metrics["denoise, asked for a gap"]["ce"]
    assert metrics["mixture"]["ce"] != metrics["mixture, on mixed-up code"]["ce"]
    for arm in codet5p.WEIGHTS:
        assert 0 < metrics[arm]["mrr"] <= 1
    assert metrics["contrast"]["mrr"] == metrics["contrast"]["mrr_cosine"]


def test_packages_are_held_out_whole_and_anew_by_every_seed(seed: Run, library, tmp_path: Path) -> None:
    package = {one.source: one.package for one in library} | {one.bare: one.package for one in library}
    drawn = []
    for number in (0, 1):
        other = Run(None, number, True, tmp_path / str(number))
        other.directory.mkdir()
        codet5p.prepare(other)
        sides = []
        for split in ("train", "test"):
            code = {package[text] for text in codet5p.data(other, split, "code")}
            sides.append(code | {package[bare] for _, bare in codet5p.data(other, split, "pairs")})
        assert not sides[0] & sides[1]
        drawn.append(sides[1])
    assert drawn[0] != drawn[1]
    assert json.loads((tmp_path / "0" / "data.json").read_text()) == json.loads(
        (seed.directory / "data.json").read_text()
    )


def test_completion_is_the_models_on_second_halves(seed: Run) -> None:
    base = codet5p.start(seed, "mixture")
    (clm,) = given_ids(base.processor.tokenizer, (CLM,))
    model: Any = base.model
    lost, right, lines = [], [], []
    for ids in codet5p.halves(seed, base):
        half = len(ids) // 2
        target = torch.as_tensor(ids, dtype=torch.int64)[None]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[clm]]), labels=target).logits[0]
        lost += torch.nn.functional.cross_entropy(logits, target[0], reduction="none")[half:].tolist()
        right += (logits.argmax(1) == target[0])[half:].tolist()
        text = [base.processor.tokenizer.decode([int(token)]) for token in ids]
        at = next(place for place in range(half, len(ids)) if "\n" in text[place - 1])
        if at + codet5p.LINE <= len(ids):
            lines.append(bool((logits.argmax(1) == target[0])[at : at + codet5p.LINE].all()))
    found = codet5p.completion(seed, "mixture")
    assert found["ce"] == pytest.approx(np.mean(lost), rel=1e-4)
    assert found["next"] == pytest.approx(np.mean(right))
    assert found["line"] == pytest.approx(np.mean(lines))


def test_search_ranks_the_first_again() -> None:
    class Known:
        """Cosines put the right one second, behind its neighbour; matching knows better."""

        def embed(self, side: str, texts: list[str]) -> Any:
            vectors = np.eye(30)[[int(text.split()[0]) for text in texts]]
            return vectors + 1.1 * np.roll(vectors, 1, axis=1) if side == "text" else vectors

        def match(self, texts: list[str], codes: list[str]) -> Any:
            return np.array([5.0 * (text == code) for text, code in zip(texts, codes, strict=True)])

    pairs = [(f"{i} x", f"{i} x") for i in range(30)]
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codet5p, "data", lambda *_: pairs)
        for arm in ("contrast", "contrast + matching"):
            found[arm] = codet5p.search(Run(arm, 0, True, Path()), Known())  # type: ignore[arg-type]
    assert found["contrast"] == {"mrr": 0.5, "mrr_cosine": 0.5}
    assert found["contrast + matching"] == {"mrr": 1.0, "mrr_cosine": 0.5}

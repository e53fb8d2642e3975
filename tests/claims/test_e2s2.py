"""The claim's own parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.claims import e2s2, encoders
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.data.read import Rows
from teloi.engine.dataset import encode
from teloi.engine.objective import Now
from teloi.models.roles import Models
from teloi.models.sequences import ScoredModel


def test_quick(tmp_path: Path):
    result = run("teloi.claims.e2s2", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    for arm in result["arms"]:
        found = arm["runs"][0]["metrics"]
        assert found.keys() >= {"pos", "sick", "reviews"}
        assert ("explained" in found) == (arm["name"] in ("with noise", "e2s2"))


@pytest.fixture(scope="module")
def base():
    return encoders.scratch_base(Run("infilling", 3, True, Path()), e2s2.SIZE, 500, "seq2seq", 128)


def test_two_infillings_are_two_views_of_each_text(base):
    objective = e2s2.TwoInfillings(length=30)
    rows = Rows(encoders.texts(Run("infilling", 3, True, Path()))[:3], "articles")
    examples = objective.prepare(encode(objective, rows, base.processor).examples, 0)[:4]
    models = Models(ScoredModel(base.model), processor=base.processor)  # type: ignore[arg-type]  # as the engine has it
    made = objective.rollout(models, examples, Now(0, 1))
    assert len(made) == 8
    for first, second in zip(made[::2], made[1::2], strict=True):
        assert (first.ids["targets"] == second.ids["targets"]).all()
    assert any(
        not np.array_equal(first.ids["input_ids"], second.ids["input_ids"])
        for first, second in zip(made[::2], made[1::2], strict=True)
    )
    assert objective.cost(examples[0]) == e2s2.OBJECTIVES["e2s2"].cost(examples[0])


def test_words_have_the_mean_state_of_their_tokens(base, monkeypatch: pytest.MonkeyPatch):
    """Each word's tokens against those of the whole sentence, with states that are the numbers of the tokens."""
    sentence = "the stonecutter answers a question about granite"
    words = sentence.split()
    fitted: list[Any] = []

    def probe(*sides: Any) -> float:
        fitted.append(sides)
        return 1.0

    monkeypatch.setattr(e2s2, "tagged", lambda run: [[(words, words)], [(words, words)]])
    monkeypatch.setattr(e2s2, "states", lambda base, ids: [np.asarray([[*one, 0]], float).T for one in ids])
    monkeypatch.setattr("teloi.measure.probes.probe_accuracy", probe)
    e2s2.tagging(Run("e2s2", 3, True, Path()), base)
    ((vectors, tags, *_),) = fitted
    assert tags == words
    whole = base.processor.bare_ids(sentence)
    pieces = [base.processor.bare_ids(word if i == 0 else f" {word}") for i, word in enumerate(words)]
    assert [i for piece in pieces for i in piece] == list(whole)
    np.testing.assert_allclose(vectors[:, 0], [np.mean(piece) for piece in pieces])

"""The claim's own parts; its run in seconds is in `test_quick`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from teloi.claims import vacancysbert
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.claims.vacancysbert import Occupation, Task
from teloi.errors import DataError
from teloi.models.zoo.hashed import features


@pytest.fixture
def one(tmp_path: Path) -> Run:
    return Run("trained", 3, True, tmp_path)


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Needs neither the mirror nor a fetched model."""
    monkeypatch.delenv("TELOI_DATA", raising=False)
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "cache"))
    result = run("teloi.claims.vacancysbert", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    found = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    plain = {"recall@1", "recall@5", "recall@10", "seen"}
    joined = {f"joined recall@{k}" for k in (1, 5, 10)}
    for name, metrics in found.items():
        assert metrics.keys() == (plain | joined if "+ skills" in name and "tf-idf" not in name else plain)
    assert found["trained + skills"]["recall@5"] > found["untrained + skills"]["recall@5"]
    assert not (tmp_path / "cache").exists()


def test_without_its_data_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "onet-titles").mkdir()
    monkeypatch.setenv("TELOI_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"set TELOI_DATA to a directory that has onet-titles/occupations\.jsonl"
    ) as error:
        vacancysbert.occupations(quick=False)
    assert "\n" not in str(error.value)


def test_three_titles_of_each_occupation_are_held_out(one: Run):
    drawn = vacancysbert.task(one)
    assert set(Counter(drawn.gold).values()) == {3}
    trained_on = {title for title, _ in drawn.train}
    assert not trained_on & {*drawn.titles, *drawn.candidates}
    assert len(trained_on) + len(drawn.titles) == sum(len(o.titles) for o in drawn.occupations)
    for title, number in [*drawn.train, *zip(drawn.titles, drawn.gold, strict=True)]:
        assert title in drawn.occupations[number].titles
    for skills, number in zip(drawn.skills, drawn.gold, strict=True):
        assert len(set(skills)) == 5
        assert set(skills) <= set(drawn.occupations[number].skills)
    other = vacancysbert.task(Run("trained", 4, True, one.directory))
    assert other.titles != drawn.titles
    assert vacancysbert.task(Run("tf-idf", 3, True, one.directory)) == drawn


def test_what_each_encoder_is_trained_with(one: Run, monkeypatch: pytest.MonkeyPatch):
    given: dict[str, list[int]] = {}
    drawn = vacancysbert.task(one)
    own = [number for _, number in drawn.train]

    def train(run: Run, drawn: Task, of: list[int] | None = None):
        given[run.arm or "trained"] = of or own
        return vacancysbert.untrained(run)

    monkeypatch.setattr(vacancysbert, "train", train)
    vacancysbert.prepare(Run(None, 3, True, one.directory))
    for arm in ("swapped skills", "any skills"):
        vacancysbert.embedder(Run(arm, 3, True, one.directory), arm, drawn)
    assert given["trained"] == own
    pairs = set(zip(own, given["swapped skills"], strict=True))
    assert len(pairs) == len(set(own)) == len(set(given["swapped skills"]))  # one for one
    assert sum(a == b for a, b in pairs) <= 4
    assert len(set(zip(own, given["any skills"], strict=True))) > 3 * len(set(own))


def test_the_trained_encoder_is_the_prepared_one(one: Run):
    vacancysbert.prepare(Run(None, 3, True, one.directory))
    drawn = vacancysbert.task(one)
    vectors = {name: vacancysbert.embedder(one, name, drawn)(drawn.candidates) for name in ("trained", "untrained")}
    torch.manual_seed(0)  # whatever was drawn before
    again = vacancysbert.embedder(one, "untrained", drawn)(drawn.candidates)
    np.testing.assert_array_equal(again, vectors["untrained"])
    assert np.abs(vectors["trained"] - vectors["untrained"]).max() > 0.01


def test_tf_idf_is_the_cosine_of_weighted_counts():
    """By definition, with dictionaries."""
    names, train, asked = (
        ["Registered Nurses", "Welders"],
        ["ward nurse", "pipe welder", "nurse"],
        ["night nurse nurse"],
    )
    drawn = Task([Occupation(name, [], []) for name in names], [(t, 0) for t in train], asked, [["pipe"]], [0])

    def counted(text: str) -> Counter[str]:
        return Counter(f for word in text.lower().split() for f in features(word))

    documents = [counted(text) for text in [*names, *train]]

    def weighted(text: str) -> dict[str, float]:
        weights = {
            f: n * (1 + np.log((1 + len(documents)) / (1 + sum(f in d for d in documents))))
            for f, n in counted(text).items()
        }
        length = np.sqrt(sum(w * w for w in weights.values()))
        return {f: w / length for f, w in weights.items()}

    def product(a: dict[str, float], b: dict[str, float]) -> float:
        return sum(w * b.get(f, 0.0) for f, w in a.items())

    title = [product(weighted(asked[0]), weighted(name)) for name in names]
    skills = [product(weighted("pipe"), weighted(name)) for name in names]
    np.testing.assert_allclose(vacancysbert.tf_idf(drawn, "title")[""], [title], atol=1e-12)
    both = vacancysbert.tf_idf(drawn, "title + skills")[""]
    np.testing.assert_allclose(both, [[a + b for a, b in zip(title, skills, strict=True)]], atol=1e-12)

"""Objectives of different architectures in one comparison, by the real command: the same size, vocabulary and budget,
each measured in the ways that it was trained."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import WORDS, Teloi, contents, write_rows

ARMS = ("clm", "mlm", "span-corruption", "ul2", "rts", "gpt-bert")
NAMES = ("untrained causal", "untrained masked", "untrained seq2seq", *ARMS)


def sentence(draw: random.Random) -> str:
    return f"The {' '.join(draw.choices(WORDS, k=draw.randint(4, 12)))}."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    draw = random.Random(0)
    texts = [" ".join(sentence(draw) for _ in range(12)) for _ in range(40)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts))
    return tmp_path / "corpus.txt"


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Minimal pairs, labelled texts in two parts, and labelled pairs of texts."""
    draw = random.Random(1)
    pairs = [{"good": sentence(draw), "bad": sentence(draw), "paradigm": "ab"[n % 2]} for n in range(6)]
    labelled = [
        {
            "text": f"{sentence(draw)} {'cat' if n % 2 else 'tree'}",
            "label": n % 2,
            "split": "test" if n % 3 else "train",
        }
        for n in range(60)
    ]
    two = [{"text": [sentence(draw), sentence(draw)], "label": "yes" if n % 2 else "no"} for n in range(30)]
    return [
        write_rows(tmp_path / "pairs.jsonl", pairs),
        write_rows(tmp_path / "words.jsonl", labelled),
        write_rows(tmp_path / "two.jsonl", two),
    ]


def compare(teloi: Teloi, *words: object) -> tuple[dict[str, Any], dict[str, Any]]:
    answer = teloi("compare", *words)
    assert answer.status == 0, answer.err
    out = Path(str(words[words.index("--output-dir") + 1]))
    results = json.loads((out / "results.json").read_text())
    return results, {arm["name"]: arm for arm in results["arms"]}


SMALL = ("--model", "scratch:tiny", "--budget", "4k", "--batch-size", 4, "--jobs", 1)


def test_every_arm_has_the_probe_and_what_its_objective_defines(
    corpus: Path, sets: list[Path], teloi: Teloi, tmp_path: Path
):
    held_out = (corpus.with_name("held-out.txt"), *sets)
    held_out[0].write_text("The red cat.\n\nA green dog. The blue tree.")
    words = (*ARMS, "--data", corpus, "--eval-data", *held_out, *SMALL, "--seeds", 2, "--output-dir", tmp_path / "out")
    results, arms = compare(teloi, *words)
    assert tuple(arms) == NAMES
    assert results["metrics"][0]["name"] == "probe"
    defined = {
        name: {metric for metric in arms[name]["runs"][0]["metrics"] if not metric.startswith("probe")} for name in arms
    }
    causal = {"minimal_pairs", "minimal_pairs_causal", "bits_per_character"}
    masked = {"minimal_pairs", "minimal_pairs_masked", "pseudo_bits"}
    assert defined["clm"] == causal
    assert defined["mlm"] == defined["span-corruption"] == defined["ul2"] == masked
    assert defined["gpt-bert"] == causal | masked
    assert defined["rts"] == set()
    measured = {metric["name"] for metric in results["metrics"]}
    for name, arm in arms.items():
        assert set(arm["undefined"]) == measured - {"probe", "probe words.jsonl", "probe two.jsonl"} - defined[name]
        assert [run["seed"] for run in arm["runs"]] == [0, 1]
        for run in arm["runs"]:
            assert {"probe", "probe words.jsonl", "probe two.jsonl"} <= run["metrics"].keys()
            assert sum(run["items"]["probe"]) / len(run["items"]["probe"]) == pytest.approx(run["metrics"]["probe"])
            assert (run["ledger"]["trained_tokens"] == 0) == name.startswith("untrained")
            assert run["ledger"]["trained_tokens"] <= 4200
            assert run["ledger"]["parameters"] > 100_000
    for name, kind in (("clm", "causal"), ("mlm", "masked"), ("span-corruption", "seq2seq"), ("gpt-bert", "causal")):
        assert arms[name]["against"] == f"untrained {kind}"
        start, trained = (arms[one]["runs"] for one in (f"untrained {kind}", name))
        assert start[0]["ledger"]["parameters"] == trained[0]["ledger"]["parameters"]
        metric = "bits_per_character" if kind == "causal" else "pseudo_bits"
        assert trained[0]["metrics"][metric] < start[0]["metrics"][metric]
    # A detector brings its head; seeds draw other weights.
    parameters = {name: arm["runs"][0]["ledger"]["parameters"] for name, arm in arms.items()}
    assert parameters["rts"] > parameters["mlm"]
    assert start[0]["metrics"]["bits_per_character"] != start[1]["metrics"]["bits_per_character"]
    report = (tmp_path / "out" / "report.html").read_text()
    lacking = "minimal pairs; minimal pairs, causal; minimal pairs, masked; bits per character; pseudo-likelihood bits"
    assert f"No value of rts in {lacking}: its objective trains no score" in report
    assert "rts in no way" in report
    assert "parameters" in report
    assert "failed" not in report


def test_held_out_text_alone_measures_what_it_can(corpus: Path, teloi: Teloi, tmp_path: Path):
    words = ("clm", "mlm", "rts", "prefix-lm", "--data", corpus, *SMALL, "--seeds", 1, "--output-dir", tmp_path / "out")
    results, arms = compare(teloi, *words)
    assert [metric["name"] for metric in results["metrics"]] == ["bits_per_character", "pseudo_bits"]
    assert arms["rts"]["runs"][0]["metrics"] == {}
    assert arms["rts"]["runs"][0]["failed"] is None
    assert "bits_per_character" in arms["prefix-lm"]["runs"][0]["metrics"]


def test_a_token_that_an_arm_needs_is_no_other_arms(tmp_path: Path, teloi: Teloi):
    rows = [{"texts": [f"the cat {n}. ", "the dog."], "scores": [0.1, 0.9]} for n in range(60)]
    data = write_rows(tmp_path / "scored.jsonl", rows)
    words = ("--data", data, *SMALL, "--seeds", 1, "--output-dir")
    alone, _ = compare(teloi, "clm", *words, tmp_path / "alone")
    results, arms = compare(teloi, "conditional-lm:length=16", "clm", *words, tmp_path / "both")
    runs = [next(a for a in one["arms"] if a["name"] == "clm")["runs"] for one in (alone, results)]
    assert runs[0][0]["metrics"] == runs[1][0]["metrics"]
    sizes = {name: arm["runs"][0]["ledger"]["parameters"] for name, arm in arms.items()}
    assert sizes["base"] == sizes["clm"] < sizes["conditional-lm:length=16"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["clm", "mlm", "--model", "smollm2-135m-instruct"],
            "train models of different architectures (causal, masked)",
        ),
        (["clm", "grif", "--model", "scratch:tiny"], "grif builds its own model, which reads no text"),
        (["rts", "mlm", "--metric", "joy"], "no metric 'joy' on these rows: choose one of pseudo_bits"),
        (
            ["rts", "--model", "scratch:tiny"],
            "measures these methods, which score no texts: give --eval-data with labelled",
        ),
        (["clm", "mlm", "--probe-rows", "1"], "probe_rows must be at least 10, not 1"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_cannot_be_compared(words: list[str], says: str, corpus: Path, teloi: Teloi, tmp_path: Path):
    before = contents(tmp_path)
    assert says in teloi("compare", *words, "--data", corpus, "--output-dir", tmp_path / "out").error
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "a", "label": 1}] * 20, "a probe needs training rows of two classes at least"),
        ([{"text": "a", "label": 1, "split": "train"}] * 20, "column 'split' has no row that says test"),
        ([{"text": ["a", "b"], "label": 1}, *[{"text": "a", "label": 0}] * 20], "some rows are pairs of texts"),
        ([{"text": " ", "label": 1}] * 20, "column 'text' is empty"),
    ],
)
def test_labelled_texts_that_fit_no_probe(
    rows: list[dict[str, object]], says: str, corpus: Path, teloi: Teloi, tmp_path: Path
):
    labelled = write_rows(tmp_path / "labelled.jsonl", rows)
    words = ("compare", "clm", "mlm", "--data", corpus, "--eval-data", labelled, "--output-dir", tmp_path / "out")
    assert says in teloi(*words).error

"""From rows to what is taken away, for the objectives that train a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from tests.end_to_end.conftest import Teloi, records


@pytest.mark.parametrize("method", ["classify", "ssp", "sp", "psd"])
def test_a_classifier_comes_out_of_the_embedded_data(method: str, teloi: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    held_out = "instructions" if method == "classify" else "occupations"
    words = ("--model", "scratch:tiny", "--max-steps", 3, "--limit", 20, "--eval-data", held_out)
    assert teloi("train", method, *words, "--output-dir", out).status == 0
    last = records(out)[-1]
    assert {"loss", "accuracy", "eval_loss", "eval_accuracy"} <= last.keys()
    says = pipeline("text-classification", str(out), device="cpu")
    (answer,) = says([{"text": "Name a river.", "text_pair": "The Loire."}])
    assert answer["label"] in {"classify": ("false", "true")}.get(method, ("apart", "together"))
    card = (out / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    if method == "classify":
        again = tmp_path / "again"
        assert teloi("train", "--config", out / "run.yaml", "--output-dir", again).status == 0
        assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_what_structure_taught_is_where_classification_starts(teloi: Teloi, tmp_path: Path):
    first, then = tmp_path / "ssp", tmp_path / "classify"
    assert teloi("train", "ssp", "--model", "scratch:tiny", "--max-steps", 1, "--output-dir", first).status == 0
    short = ("--max-steps", 1, "--learning-rate", 1e-12, "--limit", 8)
    assert teloi("train", "classify", "--model", first, *short, "--output-dir", then).status == 0
    before, after = (load_file(path / "model.safetensors") for path in (first, then))
    assert before.keys() == after.keys()
    assert all((before[name] - after[name]).abs().max() < 1e-6 for name in before), "the head goes on, too"
    assert AutoModelForSequenceClassification.from_pretrained(then).config.id2label == {0: "false", 1: "true"}


def test_adapters_are_merged_and_the_head_is_trained_whole(teloi: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    words = ("--model", "scratch:tiny", "--lora", "--max-steps", 2, "--limit", 8, "--learning-rate", 1e-2)
    assert teloi("train", "classify", *words, "--output-dir", out).status == 0
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.classifier.bias.abs().sum() > 0  # drawn as zeros


def test_labels_that_do_not_fit(teloi: Teloi, tmp_path: Path):
    def file(name: str, labels: str) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": "a cat", "label": label}) + "\n" for label in labels))
        return path

    words = ("train", "classify", "--model", "scratch:tiny", "--output-dir", tmp_path / "out", "--data")
    assert "every row has the label 'a'" in teloi(*words, file("one.jsonl", "aaa")).error
    assert "column 'text' is missing; this method reads labelled-text rows" in teloi(*words, "tabletop").error
    held_out = ("--eval-data", file("test.jsonl", "ac"))
    assert "the label 'c', which no training row has" in teloi(*words, file("two.jsonl", "ab"), *held_out).error
    assert not (tmp_path / "out").exists()

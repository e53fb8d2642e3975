"""From rows to what is taken away, for the objectives that train an encoder, or a model of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from teloi.data.processor import Processor
from teloi.methods.represent.grif import Agent
from teloi.models.load import load_model, load_tokenizer
from teloi.models.sequences import SentenceEncoder, embed_texts
from teloi.worlds import tabletop
from tests.end_to_end.conftest import Teloi, records


@pytest.mark.parametrize("method", ["in-batch", "vacancysbert"])
@pytest.mark.parametrize("model", ["scratch:tiny", "scratch:hashed"])
def test_an_encoder_comes_out_of_the_embedded_data(method: str, model: str, teloi: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    words = ("--model", model, "--max-steps", 3, "--batch-size", 16, "--micro-tokens", 500, "--eval-data", "vacancies")
    assert teloi("train", method, *words, "--output-dir", out).status == 0
    first, *_, last = records(out)
    assert {"loss", "accuracy", "candidates", "eval_loss"} <= last.keys()
    assert 1 < first["candidates"] <= 16
    encoder = SentenceEncoder(load_model(out, architecture="encoder"))
    vectors = embed_texts(encoder, Processor(load_tokenizer(out), 64), ["ICU nurse", "a nurse in intensive care"])
    assert vectors.shape[0] == 2
    assert np.isfinite(vectors).all()
    pooling = json.loads((out / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == vectors.shape[1]
    assert [module["path"] for module in json.loads((out / "modules.json").read_text())] == ["", "1_Pooling"]
    assert "SentenceTransformer(" in (out / "README.md").read_text()


def test_a_policy_comes_out_of_demonstrations(teloi: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    assert teloi("train", "grif", "--max-steps", 3, "--eval-data", "tabletop", "--output-dir", out).status == 0
    last = records(out)[-1]
    assert {"goal", "language", "alignment", "retrieval", "eval_alignment"} <= last.keys()
    _, before, told, goals = tabletop.trials(4, 0)
    agent = Agent.load(out)
    assert agent.told(told)(before).shape == agent.shown(before, goals)(before).shape == (4, 6)
    card = (out / "README.md").read_text()
    assert "library_name: teloi" in card
    assert "Trained from scratch with `grif`" in card
    assert not (out / "config.json").exists()
    again = tmp_path / "again"
    assert teloi("train", "--config", out / "run.yaml", "--output-dir", again).status == 0
    assert (again / "grif.safetensors").read_bytes() == (out / "grif.safetensors").read_bytes()
    assert yaml.safe_load((out / "run.yaml").read_text())["train"]["model"] == "none"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("in-batch", "--model", "scratch:tiny"), "anchor"),
        (("vacancysbert", "--model", "scratch:tiny"), "positive"),
        (("grif",), "state"),
    ],
)
def test_a_dry_run_shows_what_is_trained_on(words: tuple[str, ...], shown: str, teloi: Teloi, tmp_path: Path):
    answer = teloi("train", *words, "--output-dir", tmp_path / "out", "--dry-run")
    assert answer.status == 0
    assert not (tmp_path / "out").exists()
    for text in ("example 1", shown, "the run: "):
        assert text in answer.out


def test_models_that_do_not_fit(teloi: Teloi):
    assert "scratch:hashed is an encoder" in teloi("train", "sft", "--model", "scratch:hashed").error
    assert "--model none is for methods" in teloi("train", "in-batch", "--model", "none").error

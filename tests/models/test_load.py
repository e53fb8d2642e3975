"""Loading: what is a model loads, what is none gets one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from teloi.errors import ModelError
from teloi.models import embedded
from teloi.models.load import load_model, load_tokenizer, resolve
from teloi.models.scratch import scratch_model, train_tokenizer


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "good"
    tokenizer = train_tokenizer(["the cat sat on the mat"], 300)
    scratch_model("tiny", tokenizer).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def config(place: Path, **values: Any) -> None:
    (place / "config.json").write_text(json.dumps(values))


def edit(place: Path, **values: Any) -> None:
    config(place, **{**json.loads((place / "config.json").read_text()), **values})


def pickled(place: Path) -> None:
    (place / "model.safetensors").unlink()
    torch.save({}, place / "pytorch_model.bin")


def truncated(place: Path) -> None:
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 300}
REMOTE = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "it has no config.json"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "it has no model.safetensors"),
    "pickle": (pickled, "as a pickle .pytorch_model.bin."),
    "adapter": (lambda d: (d / "config.json").rename(d / "adapter_config.json"), "holds only an adapter"),
    "truncated": (truncated, "its safetensors file is broken"),
    "bad json": (lambda d: (d / "config.json").write_text("{"), "not a valid JSON file"),
    "no such architecture": (lambda d: config(d, model_type="nosuch"), "nosuch"),
    "an encoder": (lambda d: config(d, model_type="bert", **BERT), "is no complete BertLMHeadModel"),
    "no causal model": (lambda d: config(d, model_type="t5"), "cannot load the model"),
    "more layers than weights": (lambda d: edit(d, num_hidden_layers=3), "its weights lack model.layers.2"),
    "other sizes": (lambda d: edit(d, hidden_size=32), "do not have the sizes"),
    "remote code": (lambda d: config(d, model_type="mine", auto_map=REMOTE), "needs code from its repository"),
}


def test_a_good_directory_loads(good: Path) -> None:
    model = load_model(good, dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert model.config._attn_implementation == "eager"
    assert load_model(str(good)).dtype == torch.float32
    assert load_tokenizer(good).decode(load_tokenizer(good)("the cat")["input_ids"]) == "the cat"


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_model_gets_one_line(
    name: str, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "model"
    shutil.copytree(good, place)
    spoil, message = BROKEN[name]
    spoil(place)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(place)
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("spoil", ["missing", "broken"])
def test_a_directory_without_tokenizer_is_refused(spoil: str, good: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(good, place)
    if spoil == "missing":
        (place / "tokenizer.json").unlink()
        (place / "tokenizer_config.json").unlink()
    else:
        (place / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer") as caught:
        load_tokenizer(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/place", "./nothing", "~/no such model", "a/b/c"])
def test_a_path_that_does_not_exist_is_not_sought_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        resolve(name)


def test_a_file_is_no_model(good: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        resolve(good / "config.json")


def test_a_hub_id_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no-such/model is no directory here, and the Hugging Face hub"):
        load_model("no-such/model")


def test_the_embedded_model_has_two_names(monkeypatch: pytest.MonkeyPatch, good: Path) -> None:
    monkeypatch.setattr(embedded, "path", lambda name: good)
    assert resolve("embedded") == resolve("smollm2-135m-instruct") == good

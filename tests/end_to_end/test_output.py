"""What comes out of a run: a checkpoint that plain transformers loads, and everything about how it came to be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    Mamba2Config,
    PreTrainedModel,
    TrainerCallback,
)

from teloi.engine.config import TrainConfig
from teloi.engine.setup import make_models
from teloi.engine.train import train as train_run
from teloi.methods.finetune.sft import SFT
from teloi.methods.prefer.dpo import DPO
from teloi.models.roles import CachedReference, FrozenReference, Models
from teloi.models.scratch import train_tokenizer
from tests.end_to_end.conftest import Teloi, contents, pairs, records, same_weights, weights, write_rows


def test_the_directory_of_a_run(data: Path, train: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    assert train("dpo", data, out, "--beta", 0.2, "--learning-rate", 1e-3).status == 0
    assert {"config.json", "model.safetensors", "tokenizer.json", "run.yaml", "metrics.jsonl", "README.md"} <= {
        path.name for path in out.iterdir()
    }
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "checkpoints").exists()
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    run = yaml.safe_load((out / "run.yaml").read_text())
    assert run["method"] == "dpo"
    assert run["objective"] == {"beta": 0.2, "label_smoothing": 0.0}
    assert run["train"]["learning_rate"] == 1e-3
    assert run["data"]["rows"] == 40
    assert run["done"]["rows"] == 8
    assert run["done"]["last"] == records(out)[-1]
    assert [record["step"] for record in records(out)] == [1, 2]
    # A policy that is still its reference gives every pair the loss log 2.
    assert records(out)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "Rafailov et al., 2023" in card
    assert f"teloi train dpo --data {data}" in card


def test_plain_transformers_loads_and_generates(data: Path, train: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    assert train("sft", data, out, "--max-steps", 30, "--learning-rate", 1e-2).status == 0
    auto: Any = AutoModelForCausalLM  # its declared result leaves out the report
    model, report = auto.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer(pairs(1)[0]["prompt"], return_tensors="pt")
    reply = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert reply[-1] == tokenizer.eos_token_id  # it has learnt to end
    assert str(tokenizer.decode(reply, skip_special_tokens=True)).strip()


def test_the_template_of_conversations_goes_with_the_model(train: Teloi, tmp_path: Path):
    rows = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}]}
        for row in pairs(8)
    ]
    answer = train("sft", write_rows(tmp_path / "chat.jsonl", rows), tmp_path / "out")
    assert answer.status == 0, answer.err
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True
    )
    assert "a" in asked
    assert "Assistant" in asked


def test_the_trained_weights_are_the_ones_that_are_saved(data: Path, train: Teloi, tmp_path: Path):
    """A second run that starts from the first one's output begins where that one ended."""
    assert train("sft", data, tmp_path / "one", "--max-steps", 20, "--learning-rate", 1e-2).status == 0
    flags = ("--model", tmp_path / "one", "--eval-data", data, "--learning-rate", 1e-12)
    assert train("sft", data, tmp_path / "two", *flags).status == 0
    first, second = records(tmp_path / "one"), records(tmp_path / "two")
    assert second[-1]["eval_loss"] < first[0]["loss"] - 1
    assert weights(tmp_path / "two").keys() == weights(tmp_path / "one").keys()


# -- LoRA


def test_lora_gives_a_merged_checkpoint_and_its_adapter(data: Path, train: Teloi, tmp_path: Path):
    base, out = tmp_path / "base", tmp_path / "out"
    assert train("sft", data, base).status == 0
    flags = ("--model", base, "--lora", "--lora-r", 4, "--learning-rate", 1e-2, "--max-steps", 5)
    assert train("dpo", data, out, *flags).status == 0
    steps = records(out)
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert steps[-1]["loss"] < math.log(2) - 1e-3
    from peft import PeftModel

    merged = AutoModelForCausalLM.from_pretrained(out)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / "adapter")
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        logits, start = adapted(ids).logits, AutoModelForCausalLM.from_pretrained(base)(ids).logits
        torch.testing.assert_close(merged(ids).logits, logits, atol=1e-5, rtol=1e-5)
    assert (logits - start).abs().max() > 1e-2
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["r"] == 4


def test_an_architecture_that_takes_no_adapter_says_so(architecture, data: Path, train: Teloi, tmp_path: Path):
    error = train("dpo", data, tmp_path / "out", "--model", architecture("mamba2"), "--lora").error
    assert error.startswith("--lora does not fit Mamba2ForCausalLM: ")
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class TokenwiseDPO(DPO):
    """DPO that asks the reference for each token, as methods do for which sums are not enough."""

    reference_sums = False


def test_lora_holds_one_model(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The reference is no second model: its sums are computed once, or it is the policy with its adapter off."""
    made: list[Models] = []

    def make(*args: Any, **settings: Any) -> Models:
        made.append(make_models(*args, **settings))
        return made[-1]

    monkeypatch.setattr("teloi.engine.train.make_models", make)
    config = TrainConfig(model="scratch:tiny", data=str(data), output_dir=tmp_path / "out", lora=True, max_steps=1)
    train_run(DPO(), config)
    train_run(TokenwiseDPO(), replace(config, output_dir=tmp_path / "tokens"))
    sums, tokens = made
    assert isinstance(sums.reference, CachedReference)
    assert isinstance(tokens.reference, FrozenReference)
    assert tokens.reference.model is tokens.policy


# -- architectures and layouts


@pytest.fixture
def architecture(tmp_path: Path) -> Callable[[str], Path]:
    """A tiny model with random weights as a directory: one takes trees, one has a short table of positions, one is a
    state-space model, one carries a bias by row."""
    tokenizer = train_tokenizer([json.dumps(row) for row in pairs(40)], 300)
    ends: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    configs = {
        "llama": lambda: LlamaConfig(**size, **ends, intermediate_size=64, num_key_value_heads=2),
        "gpt2": lambda: GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=48, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **ends
        ),
        "mamba2": lambda: Mamba2Config(
            hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=1, **ends
        ),
        "bloom": lambda: BloomConfig(hidden_size=32, n_layer=2, n_head=4, **ends),
    }

    def make(name: str) -> Path:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configs[name]())
        assert isinstance(model, PreTrainedModel)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


LAYOUTS = {"packed": "trees packed into rows, no padding", "padded": "one padded row a completion"}


@pytest.mark.parametrize(
    ("name", "layout"), [("llama", "packed"), ("gpt2", "packed"), ("mamba2", "padded"), ("bloom", "padded")]
)
def test_every_architecture_trains_the_way_that_is_right_for_it(
    name: str, layout: str, architecture, data: Path, train: Teloi, tmp_path: Path
):
    model = architecture(name)
    answer = train("dpo", data, tmp_path / "out", "--model", model, "--learning-rate", 1e-3, "--max-length", 40)
    assert answer.status == 0, answer.err
    assert LAYOUTS[layout] in answer.err
    assert records(tmp_path / "out")[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(loaded) is type(AutoModelForCausalLM.from_pretrained(model))


@pytest.mark.parametrize("method", ["sft", "simpo", "kto", "clm"])
def test_padded_and_packed_begin_with_the_same_loss(
    method: str, architecture, data: Path, train: Teloi, tmp_path: Path
):
    model = architecture("llama")
    for layout in LAYOUTS:
        flags = ("--model", model, "--layout", layout, "--dtype", "float32", "--learning-rate", 1e-3)
        answer = train(method, data, tmp_path / layout, *flags)
        assert LAYOUTS[layout] in answer.err
    one, other = (records(tmp_path / layout) for layout in LAYOUTS)
    for a, b in zip(one, other, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)


def test_mismatched_replies_stay_within_the_context(architecture, train: Teloi, tmp_path: Path):
    """kto sets long replies behind other prompts; a table of 48 positions has no row for what exceeds it."""
    long = "qvxzjkqw" * 4  # a token a letter
    rows = [
        {"prompt": f"{n}{long if n % 2 else 'q'}", "completion": "v" if n % 2 else long, "label": n > 3}
        for n in range(8)
    ]
    data = write_rows(tmp_path / "kto.jsonl", rows)
    answer = train("kto", data, tmp_path / "out", "--model", architecture("gpt2"), "--max-steps", 4)
    assert answer.status == 0, answer.err


def test_gradient_checkpointing_changes_no_weight(data: Path, train: Teloi, tmp_path: Path):
    flags = ("--learning-rate", 1e-2, "--max-steps", 4)
    assert train("dpo", data, tmp_path / "plain", *flags).status == 0
    assert train("dpo", data, tmp_path / "recomputed", *flags, "--gradient-checkpointing").status == 0
    assert same_weights(tmp_path / "plain", tmp_path / "recomputed")


def test_micro_batches_change_no_loss(data: Path, train: Teloi, tmp_path: Path):
    for size in (2048, 40):
        flags = ("--micro-tokens", size, "--batch-size", 8, "--learning-rate", 1e-3)
        assert train("kto", data, tmp_path / str(size), *flags).status == 0
    for a, b in zip(records(tmp_path / "2048"), records(tmp_path / "40"), strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)


# -- held-out data, dry runs, callbacks


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_held_out_data_are_measured(method: str, data: Path, train: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    held_out = write_rows(tmp_path / "held-out.jsonl", pairs(60)[40:])
    assert train(method, data, out, "--eval-data", held_out, "--eval-steps", 2, "--max-steps", 5).status == 0
    measured = {record["step"]: {n for n in record if n.startswith("eval_")} for record in records(out)}
    assert [step for step, found in measured.items() if found] == [2, 4, 5]
    term = {"sft": "nll", "dpo": "accuracy", "kto": "kl"}[method]
    assert {"eval_loss", f"eval_{term}"} <= measured[5]
    assert "eval loss" in (out / "README.md").read_text()


def test_the_held_out_loss_is_that_of_a_step(data: Path, train: Teloi, tmp_path: Path):
    """On the training rows themselves, weights as good as unmoved: the loss of one step over all of them."""
    flags = ("--eval-data", data, "--batch-size", 40, "--max-steps", 1, "--learning-rate", 1e-12)
    assert train("sft", data, tmp_path / "out", *flags).status == 0
    (record,) = records(tmp_path / "out")
    assert record["eval_loss"] == pytest.approx(record["loss"], rel=1e-5)


def test_a_dry_run_shows_and_leaves_nothing(data: Path, train: Teloi, tmp_path: Path):
    before = contents(tmp_path)
    answer = train("dpo", data, tmp_path / "out", "--dry-run", "--max-steps", 7)
    assert answer.status == 0
    assert contents(tmp_path) == before
    for text in ("tree 1", "branch 1", "branch 2", "positions", "GB", "the run: 7 steps", "tokens/s about"):
        assert text in answer.out
    assert any(row["chosen"].strip() in answer.out for row in pairs(40))
    assert "preference 0.6931" in answer.out


def test_a_dry_run_asks_no_directory(data: Path, train: Teloi, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    before = contents(tmp_path)
    assert train("kto", data, tmp_path / "out", "--dry-run", "--lora").status == 0
    assert contents(tmp_path) == before


class Recorder(TrainerCallback):
    """Notes what it is told and ends the run after three steps."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.events.append(("begin", state.global_step))
        assert kwargs["model"] is not None
        assert state.max_steps == 5

    def on_step_end(self, args, state, control, **kwargs):
        self.events.append(("step", state.global_step))
        control.should_training_stop = state.global_step == 3

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(logs)

    def on_save(self, args, state, control, **kwargs):
        self.events.append(("save", state.global_step))

    def on_train_end(self, args, state, control, **kwargs):
        self.events.append(("end", state.global_step))


def test_transformers_callbacks_are_told_and_obeyed(data: Path, tmp_path: Path):
    callback = Recorder()
    config = TrainConfig(
        model="scratch:tiny",
        data=str(data),
        eval_data=str(data),
        output_dir=tmp_path / "out",
        max_steps=5,
        batch_size=4,
        save_steps=2,
    )
    result = train_run(SFT(), config, "sft", [callback])
    assert result is not None
    assert callback.events == [("begin", 0), ("step", 1), ("step", 2), ("save", 2), ("step", 3), ("end", 3)]
    assert callback.logs == records(tmp_path / "out")
    assert result.ledger.steps == result.last["step"] == 3
    assert "loss" in result.evaluation
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out")

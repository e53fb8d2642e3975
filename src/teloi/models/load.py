"""Models and tokenizers from a directory, the hub or the embedded one, with one clear line when that fails."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from teloi.errors import ModelError
from teloi.models import embedded
from teloi.models.zoo import grafted as grafted  # their architectures become known to the Auto classes
from teloi.models.zoo import hashed as hashed

EMBEDDED_NAMES = ("embedded", *embedded.MODELS)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
VOCABULARIES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
AUTO = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "encoder": AutoModel,
    "classifier": AutoModelForSequenceClassification,
}
# What transformers and safetensors raise for files that are missing, broken or not what they say.
FAILURES = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)


def resolve(name_or_path: str | Path) -> Path:
    """The local directory of a model: a path, an embedded name, or a hub id (fetched into the hub's cache).

    ModelError where there is no such thing. Offline, a hub id that was fetched before still resolves.
    """
    name = str(name_or_path)
    if name in EMBEDDED_NAMES:
        return embedded.path(embedded.NAME if name == "embedded" else name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{name} is a file; a model is a directory with config.json and model.safetensors")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"{name} does not exist; name a model directory, a Hugging Face id, or {EMBEDDED_NAMES[0]!r}")
    try:
        return Path(snapshot_download(name, etag_timeout=embedded.HUB_TIMEOUT_SECONDS, **embedded.HUB_FILES))
    except Exception as error:  # unknown, private, unreachable: the hub's library has many names for it
        raise ModelError(
            f"{name} is no directory here, and the Hugging Face hub does not give it ({type(error).__name__})"
        ) from error


def load_model(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    architecture: str = "causal",
) -> PreTrainedModel:
    """A model of an architecture (causal, masked, seq2seq, encoder, classifier) in `dtype`, in evaluation mode.

    Only safetensors are read and no code of the repository is run. ModelError when there is no such model, when a
    file is broken, and when the weights do not cover the architecture (else they would silently be random): all but an
    encoder's pooler, which is never read, and what a classifier has on top of its encoder, drawn from torch's global
    generator where the checkpoint does not have it.
    """
    path = resolve(name_or_path)
    _check_directory(path)
    auto: Any = AUTO[architecture]  # its declared result leaves out the report
    options: dict[str, Any] = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    try:
        with embedded.quiet():
            model, report = auto.from_pretrained(
                path, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
            )
    except FAILURES as error:
        raise ModelError(_why(name_or_path, "model", error)) from error
    if architecture == "classifier" and type(model.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ModelError(f"{name_or_path} is no encoder ({type(model).__name__} reads from left to right)")
    missing = sorted(key for key in report["missing_keys"] if not _may_be_missing(key, architecture, model))
    if missing:
        raise ModelError(
            f"{name_or_path} is no complete {type(model).__name__}: its weights lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model. ModelError when there is none."""
    path = resolve(name_or_path)
    if not any((path / name).is_file() for name in VOCABULARIES):
        raise ModelError(f"{name_or_path} holds no tokenizer: none of {', '.join(VOCABULARIES[:3])}, ...")
    try:
        with embedded.quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except FAILURES as error:
        raise ModelError(_why(name_or_path, "tokenizer", error)) from error
    return tokenizer


@lru_cache(maxsize=4)
def check_vocabulary(tokenizer: PreTrainedTokenizerBase, name_or_path: str) -> None:
    """ModelError unless a model's own tokenizer has the same tokens by the same numbers as this one."""
    theirs, ours = load_tokenizer(name_or_path).get_vocab(), tokenizer.get_vocab()
    if theirs != ours:
        raise ModelError(
            f"{name_or_path} has another vocabulary ({len(theirs):,} tokens) than the model that is trained "
            f"({len(ours):,}): what it says of the next token has no meaning there; both must have one tokenizer"
        )


def _may_be_missing(key: str, architecture: str, model: PreTrainedModel) -> bool:
    """Whether a weight is of a pooler that is never read, or of a classifier's head, which is trained anew."""
    if architecture == "encoder":
        return key.startswith("pooler.")
    inside = f"{model.base_model_prefix}."
    return architecture == "classifier" and (not key.startswith(inside) or key.startswith(f"{inside}pooler."))


def _check_directory(path: Path) -> None:
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise ModelError(f"{path} holds only an adapter; merge it into its model first")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} is no model: it has no config.json")
    if any((path / name).is_file() for name in WEIGHTS):
        return
    if pickled := [name for name in PICKLED if (path / name).is_file()]:
        raise ModelError(
            f"{path} holds its weights as a pickle ({pickled[0]}), which can run code when it is read; "
            "convert it to model.safetensors first"
        )
    raise ModelError(f"{path} is no model: it has no model.safetensors")


def _why(name: str | Path, what: str, error: BaseException) -> str:
    """One line: what the library said first, or plainer words where they are known."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    if "trust_remote_code" in str(error):
        reason = "it needs code from its repository, which teloi does not run"
    elif "ignore_mismatched_sizes" in str(error):
        reason = "its weights do not have the sizes that its config.json says"
    elif isinstance(error, SafetensorError):
        reason = f"its safetensors file is broken ({reason})"
    elif isinstance(error, (KeyError, TypeError, AttributeError)):
        reason = f"its files are not what they should be ({type(error).__name__}: {reason})"
    return f"cannot load the {what} {name}: {reason}"

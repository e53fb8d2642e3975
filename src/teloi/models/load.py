"""Start models and tokenizers by name: the embedded one, a local directory, a hub id. Safetensors only, no remote code."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from teloi.errors import ModelError
from teloi.models import embedded

NAMES = (embedded.NAME, "embedded")


def load_model(name: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model in evaluation mode. ModelError when the name is none, or its weights are not safetensors."""
    place = _place(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype, attn_implementation=_attention(place), use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_reason(name, error)) from error
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model. ModelError when there is none."""
    place = _place(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_reason(name, error)) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _place(name: str | Path) -> str:
    """Where transformers finds the model: a directory, or a hub id as it is."""
    if str(name) in NAMES:
        return str(embedded.path())
    path = Path(name).expanduser()
    looks_local = path.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1
    if looks_local:
        if not path.is_dir():
            raise ModelError(f"{name}: no such model directory")
        if not (path / "config.json").exists():
            raise ModelError(f"{name} is no model directory: it has no config.json")
        if not any(path.glob("*.safetensors")) and any(path.glob("*.bin")):
            raise ModelError(f"{name} holds pickled weights only (.bin), which can run code when read: convert them to safetensors")
        return str(path)
    return str(name)


def _attention(place: str) -> str:
    """Scaled dot-product attention where the architecture has it."""
    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    return "sdpa" if kind is not None and getattr(kind, "_supports_sdpa", False) else "eager"


def _reason(name: str | Path, error: Exception) -> str:
    """One line for a person, without the hub client's advice."""
    text = " ".join(str(error).split())
    if "connect" in text.lower() or "not a local folder" in text or "offline" in text.lower():
        return f"{name}: no such directory, and the Hugging Face hub has no such model or cannot be reached"
    return f"{name} is no causal language model that can be loaded: {text[:200]}"

"""The model card that lies beside a trained checkpoint: what it is, what made it, and how to make it again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teloi.files import write_text
from teloi.measure.wording import count, duration

CARD = "README.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_card(
    directory: str | Path,
    *,
    method: str,
    base_model: str | None,
    data: str,
    command: str,
    about: str = "",
    paper: str | None = None,
    settings: Mapping[str, object] | None = None,
    ledger: Mapping[str, float] | None = None,
    metrics: Mapping[str, float] | None = None,
    versions: Mapping[str, str] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    library: str = "transformers",
    task: str | None = "text-generation",
) -> Path:
    """Write the card into a checkpoint's `directory` and return its path.

    `base_model` (None: trained from scratch) and `data` enter the front matter only where they are ids of the Hugging
    Face hub, which refuses others. `about` is the method in a sentence, `metrics` the last values measured, `samples`
    some of what the policy wrote (lines of samples.jsonl), `task` the hub's pipeline tag.
    """
    path = Path(directory) / CARD
    origin = "trained from scratch" if base_model is None else f"{_code(base_model)} trained further"
    parts = [
        _front_matter(method, base_model, data, library, task),
        f"# {Path(directory).resolve().name}",
        f"{origin[0].upper()}{origin[1:]} with `{method}` on {_code(data)}, by teloi.",
        _sentence(about) + (f" Paper: {paper}." if paper else ""),
        _use(task),
        _table("Settings", settings or {}),
        _table("Training", {k.replace("_", " "): _amount(k, v) for k, v in (ledger or {}).items()}),
        _table("Measured", {k.replace("_", " "): v for k, v in (metrics or {}).items()}),
        _written(samples),
        "## Repeat this\n\n" + _block(command, "sh"),
        "## Notes\n\n" + "\n".join(f"- {_line(note)}" for note in notes) if notes else "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + "." if versions else "",
    ]
    write_text(path, "\n\n".join(part.strip() for part in parts if part.strip()) + "\n")
    return path


def _front_matter(method: str, base_model: str | None, data: str, library: str, task: str | None) -> str:
    import yaml

    front: dict[str, object] = {}
    if base_model is not None and _is_hub_id(base_model):
        front["base_model"] = base_model
    front["library_name"] = library
    if task is not None:
        front["pipeline_tag"] = task
    if _is_hub_id(data):
        front["datasets"] = [data]
    front["tags"] = ["teloi", method]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


_USE = {
    "text-generation": """
from transformers import pipeline

generate = pipeline("text-generation", "PATH OF THIS DIRECTORY")
""",
    "sentence-similarity": """
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH OF THIS DIRECTORY")
vectors = model.encode(["a text", "another text"])
""",
}
"""A few lines of code by the hub's tag of the task."""


def _use(task: str | None) -> str:
    return "## Use\n\n" + _block(_USE[task], "python") if task in _USE else ""


def _written(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    parts = [
        f"Reward {one['reward']:.3g}{'' if one['finished'] else ', cut off'}:\n\n"
        + _block(f"{one['prompt']}\n{one['completion']}", "text")
        for one in samples
    ]
    return "\n\n".join([f"## What it wrote at step {samples[0]['step']} of its training", *parts])


def _table(title: str, rows: Mapping[str, object]) -> str:
    if not rows:
        return ""
    lines = [f"| {_cell(name)} | {_cell(_text(value))} |" for name, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def _amount(key: str, value: float) -> str:
    return duration(value) if key.endswith("seconds") else count(value)


def _line(text: str) -> str:
    return " ".join(text.split())


def _sentence(text: str) -> str:
    text = _line(text)
    return text if not text or text[-1] in ".!?" else f"{text}."


def _cell(text: str) -> str:
    """Text that cannot break out of a table's cell, nor be HTML."""
    return _line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    """Inline code, whatever backticks `text` has."""
    text = _line(text)
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if "`" in text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _block(text: str, language: str) -> str:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"

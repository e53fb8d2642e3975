"""Write a file whole or not at all, and where files go that outlive a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teloi.errors import UsageError

DRAFT = ".tmp"
"""How the name of a file ends that is not whole yet; a killed process may leave one behind."""


def cache_home() -> Path:
    """The directory for what teloi fetches or keeps aside: TELOI_CACHE, else ~/.cache/teloi."""
    return Path(os.environ.get("TELOI_CACHE") or Path.home() / ".cache" / "teloi")


def check_free(path: Path, overwrite: bool) -> None:
    """UsageError where an output is there already and may not be replaced."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already: choose another --output or --overwrite it")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}{DRAFT}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8: the file is either the old one or the new one, never half."""
    with replacing(path) as draft:
        # A model may emit half a surrogate pair, which UTF-8 does not hold.
        draft.write_text(text, encoding="utf-8", errors="replace")


def json_text(value: Any, indent: str = "") -> str:
    """JSON for people and for version control: what holds no other list or object stands on one line."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if not any(isinstance(item, dict | list | tuple) for item in inner):
        return json.dumps(value)
    deeper = indent + " "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(str(key))}: {json_text(item, deeper)}" for key, item in value.items()]
    else:
        lines = [deeper + json_text(item, deeper) for item in value]
    opens, closes = "{}" if isinstance(value, dict) else "[]"
    return f"{opens}\n" + ",\n".join(lines) + f"\n{indent}{closes}"

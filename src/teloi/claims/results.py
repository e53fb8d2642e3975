"""Measured claims as JSON: where they lie, reading them. Imports nothing heavy: `teloi show` reads them too.

They are part of the repository, results/claims/SLUG.json, and of the wheel, where they lie in the package
(teloi/results/claims): an installed teloi shows them, a checkout also measures them anew. Their figures are in
docs/claims of the repository.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import teloi
from teloi.errors import TeloiError

Result = Mapping[str, Any]

PACKAGE = Path(teloi.__file__).parent


def checkout() -> Path | None:
    """results/claims of the repository that this package is imported from, None where it is installed."""
    root = PACKAGE.parents[1]
    return root / "results" / "claims" if (root / "pyproject.toml").is_file() and PACKAGE.parent.name == "src" else None


def measured(directory: Path | None = None) -> dict[str, Result]:
    """Every measured claim by slug, those of the package unless a directory is named."""
    directory = directory or checkout() or PACKAGE / "results" / "claims"
    found = {}
    for path in sorted(directory.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TeloiError(f"{path} is no result of a claim: {error}") from None
    return found


def file_hash(module: str) -> str:
    """Hash of a claim's file, by the name of its module, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise TeloiError(f"there is no claim file {module}")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]

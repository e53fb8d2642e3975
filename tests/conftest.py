"""What every test shares: shapes of teloi.losses checked at each call, and the option of the golden runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything imports teloi.losses.
install_import_hook("teloi.losses", "beartype.beartype")

# Tests assert behaviour, not timings, and the same examples on every machine.
settings.register_profile("teloi", deadline=None, derandomize=True)
settings.load_profile("teloi")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        help="folder of golden vectors, SLUG/CASE.json with .npz (default: tests/golden/cases)",
    )

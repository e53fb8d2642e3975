"""What every test shares: shapes of teloi.losses checked at each call, and the option of the golden runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before anything imports teloi.losses.
install_import_hook("teloi.losses", "beartype.beartype")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        help="folder of golden vectors, SLUG/CASE.json with .npz (default: tests/golden/cases)",
    )

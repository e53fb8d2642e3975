"""One test for each case of the folder named by --golden-dir."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    folder: Path = metafunc.config.getoption("--golden-dir") or Path(__file__).parent / "cases"
    paths = sorted(folder.glob("*/*.json"))
    if not paths:
        raise pytest.UsageError(f"--golden-dir {folder}: no SLUG/CASE.json there")
    metafunc.parametrize("case", paths, ids=[f"{path.parent.name}/{path.stem}" for path in paths])

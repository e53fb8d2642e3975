"""The documentation's pages are what the code says now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from teloi.catalogue import METHODS
from teloi.cli import main
from teloi.cli.pages import rendered

PAGES = Path(__file__).parents[1] / "docs" / "methods"


def test_the_committed_pages_are_up_to_date() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    assert committed == rendered(), "run `teloi show --pages docs/methods`"


def test_links_between_pages_and_to_files_lead_somewhere() -> None:
    for name, text in rendered().items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("https://") or (PAGES / target).exists(), f"{name}: {target}"


def test_pages_of_methods_that_are_no_more_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone.md").write_text("of a method that was")
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["show", "--pages", str(tmp_path)]) == 0
    assert f"{len(METHODS) + 1} pages in" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "notes.txt", *(f"{m.name}.md" for m in METHODS)}


def test_a_page_or_all_must_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show"]) == 2
    assert "which method?" in capsys.readouterr().err

"""Functions of the standard library of the Python that runs: code and docstrings that are on every machine."""

from __future__ import annotations

import ast
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = ("site-packages", "test", "tests", "__pycache__", "idlelib", "lib2to3")
"""Folders that are not read: what was installed, and tests."""

SUMMARY = (4, 20)
"""Words of a docstring's first line, fewest and most, that is taken for a summary."""


@dataclass(frozen=True)
class Function:
    """A function or method as it stands in its module, without the indentation of its class."""

    package: str
    """The top-level module or package."""
    source: str
    summary: str | None = None
    """The first line of its docstring, where that is a sentence of its own."""
    bare: str | None = None
    """Its source without the docstring and under the name f; None where nothing else is in it, or no summary."""


def functions(root: Path | None = None) -> list[Function]:
    """All functions below a folder, by default the standard library, in the order of the files; each text once.

    What does not parse is left out. About 15,000 in a few seconds.
    """
    place = Path(os.path.dirname(os.__file__)) if root is None else root
    found: dict[str, Function] = {}
    for folder, below, files in os.walk(place):
        below[:] = sorted(name for name in below if name not in LEFT_OUT)
        for name in sorted(files):
            if name.endswith(".py"):
                path = Path(folder) / name
                package = path.relative_to(place).parts[0].removesuffix(".py")
                for one in _in_file(path, package):
                    found.setdefault(one.source, one)
    return list(found.values())


def _in_file(path: Path, package: str) -> Iterator[Function]:
    try:
        source = path.read_text(encoding="utf-8")
        module = ast.parse(source)
    except (SyntaxError, ValueError):  # files for other versions, and other encodings
        return
    lines = source.splitlines(keepends=True)
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = lines[node.lineno - 1 : node.end_lineno]
            text = textwrap.dedent("".join(own)).rstrip() + "\n"
            if not text[0].isspace():  # a line of a string may stand left of its function
                yield Function(package, text, *_parted(node, text))


def _parted(node: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> tuple[str | None, str | None]:
    """Summary and bare source, where there are both."""
    docstring = ast.get_docstring(node)
    summary = docstring.strip().partition("\n")[0].strip() if docstring else ""
    if not SUMMARY[0] <= len(summary.split()) <= SUMMARY[1] or len(node.body) < 2:
        return None, None
    first, second = node.body[:2]
    if not node.lineno < first.lineno <= (first.end_lineno or 0) < second.lineno:  # something shares a line
        return None, None
    lines = text.splitlines(keepends=True)
    rest = [*lines[: first.lineno - node.lineno], *lines[(first.end_lineno or 0) - node.lineno + 1 :]]
    return summary, re.sub(rf"\b{re.escape(node.name)}\b", "f", "".join(rest)).rstrip() + "\n"

"""Functions are taken from files as they stand there, and their bare code says neither name nor docstring."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from teloi.worlds.standard_library import functions

MODULE = '''
class Shape:
    @property
    def area(self):
        """Give the area of the shape.

        In squares.
        """
        # area, not self.area
        return area(self) + areas

    def short(self): "Say nothing at all here."; return 1

    def silent(self):
        """Three words only."""
        return 3

def alone():
    """A docstring and nothing else at all."""

async def later(x):
    text = """
left of the function
"""
    """This is no docstring, it stands second."""
    return later

def later_again(x):
    """Call later, and wait for it."""
    def inner():
        return later_again
    return inner
'''


@pytest.fixture
def found(tmp_path: Path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "shapes.py").write_text(MODULE)
    (tmp_path / "twice.py").write_text('def silent(self):\n    """Three words only."""\n    return 3\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def tested():\n    return 1\n")
    return {one.source.partition("(")[0].split()[-1]: one for one in functions(tmp_path)}


def test_every_function_once_as_it_stands(found) -> None:
    assert set(found) == {"area", "short", "silent", "alone", "later", "later_again", "inner"}
    assert found["area"].source.startswith('def area(self):\n    """Give')
    assert {name: one.package for name, one in found.items()} == dict.fromkeys(found, "pack") | {"silent": "twice"}
    for one in found.values():
        ast.parse(one.source)
        assert one.source in MODULE or textwrap.indent(one.source, "    ") in MODULE


def test_pairs_are_a_summary_and_code_without_it(found) -> None:
    pairs = {name: one for name, one in found.items() if one.bare is not None}
    assert set(pairs) == {"area", "later_again"}
    assert pairs["area"].summary == "Give the area of the shape."
    assert pairs["area"].bare == "def f(self):\n    # f, not self.f\n    return f(self) + areas\n"
    assert pairs["later_again"].bare == "def f(x):\n    def inner():\n        return f\n    return inner\n"
    assert found["short"].summary is found["later"].summary is None

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import teloi.methods
import teloi.recipes
from teloi import catalogue
from teloi.catalogue import METHODS, PAPERS, Kind, Method, Stage, find, resolve
from teloi.engine.decoder import Decoder
from teloi.engine.objective import Objective
from teloi.engine.recipe import Recipe
from teloi.errors import UsageError

KINDS: dict[Kind, type[Any]] = {"objective": Objective, "recipe": Recipe, "decoder": Decoder}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_entry_leads_to_a_class_that_says_what_the_table_says(method: Method):
    objective = method.load()
    assert issubclass(objective, KINDS[method.kind])
    reads = objective.reads if isinstance(objective.reads, tuple) else (objective.reads,)
    assert method.reads == reads[0].name
    assert method.stage in get_args(Stage)
    assert {method.paper, method.origin.slug} <= PAPERS.keys()
    assert objective.__doc__, "every method explains itself"
    assert "__dataclass_fields__" in vars(objective)
    objective()  # every hyper-parameter has a default


def test_names_are_unique_also_among_other_names():
    names = [name for m in METHODS for name in (m.name, *m.also)]
    assert len(names) == len(set(names))


def test_every_method_of_the_wings_is_in_the_table():
    for room in (teloi.methods, teloi.recipes):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)

    def below(cls: type) -> list[type]:
        children: list[type] = cls.__subclasses__()
        return [c for child in children for c in (child, *below(child))]

    # What is no dataclass, or abstract, is a base of methods, not a method.
    concrete = {
        f"{c.__module__}:{c.__qualname__}"
        for base in KINDS.values()
        for c in below(base)
        if c.__module__.startswith(("teloi.methods.", "teloi.recipes."))
        and "__dataclass_fields__" in vars(c)
        and not inspect.isabstract(c)
    }
    assert concrete == {m.entry for m in METHODS}


def test_table_and_methods_import_nothing_heavy():
    code = (
        "import sys; from teloi import catalogue; [m.load()() for m in catalogue.METHODS];"
        "print(*{'torch', 'transformers', 'datasets', 'pandas', 'accelerate'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["exo-pair", "exo_pair", "EXO-Pair"])
def test_spelling_does_not_matter(name: str):
    assert find(name).name == "exo-pair"


def test_other_libraries_names_are_known():
    assert find("sigmoid").name == "dpo"


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError, match=r"no method 'simpoo'; did you mean simpo"):
        find("simpoo")
    with pytest.raises(UsageError, match=r"teloi list"):
        find("zzzzzzzz")


OWN = """
from dataclasses import dataclass
from teloi import Objective, Preference
import helper

@dataclass(frozen=True)
class Mine(Objective):
    reads = Preference
    scale: float = helper.SCALE

@dataclass(frozen=True)
class Silent(Objective):
    scale: float = 1.0

class Bare(Objective):
    reads = Preference

NOT_ONE = 3
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("SCALE = 2.5\n")
    # the name of a standard module, which it must not replace
    path = tmp_path / "json.py"
    path.write_text(OWN)
    return path


def test_own_file(own_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    mine = resolve(f"{own_file}:Mine")
    assert issubclass(mine, Objective)
    assert mine().scale == 2.5  # type: ignore[attr-defined]
    import json

    assert json.loads("1") == 1


def test_own_file_that_does_not_fit(own_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UsageError, match="has no Other; it has Mine, Silent, Bare"):
        resolve(f"{own_file}:Other")
    with pytest.raises(UsageError, match=r"NOT_ONE in .* is no"):
        resolve(f"{own_file}:NOT_ONE")
    with pytest.raises(UsageError, match="does not say what it reads"):
        resolve(f"{own_file}:Silent")
    with pytest.raises(UsageError, match="is no dataclass"):
        resolve(f"{own_file}:Bare")
    with pytest.raises(UsageError, match="there is no file"):
        resolve(f"{own_file.parent}/none.py:Mine")
    with pytest.raises(UsageError, match="names no class"):
        resolve(str(own_file))


def test_papers_have_addresses():
    assert all(p.link.startswith("https://") for p in PAPERS.values())
    numbers = [p.arxiv for p in PAPERS.values() if p.arxiv]
    assert len(numbers) == len(set(numbers))
    assert catalogue.PAPERS["dpo"].link == "https://arxiv.org/abs/2305.18290"

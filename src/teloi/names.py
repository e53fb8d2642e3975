"""What a user names: the known names that an unknown one may be meant for, and the module in a file of their own."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from teloi.errors import UsageError


def hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """What to say of an unknown word: the known ones it may be meant for, likeliest first, or else `otherwise`."""
    known = list(known)
    begun = [name for name in known if word and name.startswith(word)]
    close = list(dict.fromkeys([*begun, *difflib.get_close_matches(word, known, n=3, cutoff=0.5)]))[:3]
    return f"did you mean {' or '.join(close)}?" if close else otherwise


def import_named(spec: str, kind: str) -> Any:
    """What "my_file.py:name" or "package.module:name" names. UsageError, which calls it a `kind`, where there is no
    such thing."""
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        module = import_file(place)
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise UsageError(f"{kind} {spec!r} cannot be loaded: {error}") from error
    if not hasattr(module, name):
        raise UsageError(f"{place} has no {kind} {name}")
    return getattr(module, name)


def import_file(file: str) -> ModuleType:
    """The module in that file; what it imports from its own folder is found, as when Python runs the file.

    UsageError where there is no such file. What goes wrong inside it keeps its traceback."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {file}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(f"_teloi_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module

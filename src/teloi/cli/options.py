"""Typed flags: dataclasses become command lines through tyro, and their attribute docstrings its help."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Container, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from teloi.errors import UsageError

T = TypeVar("T")


def parse(options: type[T], args: Sequence[str], prog: str, description: str | None = None) -> T:
    """These words as an instance of the dataclass `options`.

    On `--help`, and on a flag that is unknown or has no such value, tyro prints what there is to know and
    ends the process, with status 0 or 2.
    """
    # A flag that is off need not be switched off, and None is what a setting is when nobody gives it.
    style = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone, tyro.conf.HelptextFromCommentsOff)
    return tyro.cli(options, args=list(args), prog=prog, description=description, config=style)


def leading(args: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """The word that stands before all flags, if one does, and the words behind it."""
    return (args[0], args[1:]) if args and not args[0].startswith("-") else (None, args)


def parse_groups(
    groups: Mapping[str, type], args: Sequence[str], prog: str, description: str | None = None
) -> dict[str, dict[str, Any]]:
    """The values of several groups of flags (made by `flags`), which share one command line; by group.

    `UsageError` when two groups have a flag of the same name, as a user's own objective may.
    """
    owners: dict[str, str] = {}
    for title, group in groups.items():
        for f in fields(group):
            if (other := owners.setdefault(f.name, title)) != title:
                raise UsageError(f"{other} and {title} both have a setting {f.name!r}: give one another name")
    members = [(title, Annotated[group, tyro.conf.OmitArgPrefixes]) for title, group in groups.items()]
    parsed: Any = parse(make_dataclass("Flags", members), args, prog, description)
    return {title: values(getattr(parsed, title)) for title in groups}


def flags(owner: type, given: Mapping[str, Any] | None = None, leave_out: Container[str] = ()) -> type:
    """A group of flags: the fields of the dataclass `owner`, with its defaults unless others are `given`."""
    docs, hints = attribute_docs(owner), get_type_hints(owner, include_extras=True)
    members = []
    for f in fields(owner):
        if f.name in leave_out:
            continue
        default = (given or {}).get(f.name, default_of(f))
        if isinstance(f.default, tuple | Path):  # run.yaml has lists and text for them
            default = type(f.default)(default)
        # "default: None" tells nobody anything; the docstring says what happens then.
        hint = "" if default is None else None
        about = tyro.conf.arg(help=docs.get(f.name), help_behavior_hint=hint)
        members.append((f.name, Annotated[_quick(hints[f.name]), about], _default(default)))
    return make_dataclass(owner.__name__, members, namespace={"__doc__": inspect.getdoc(owner)})


def default_of(f: Field[Any]) -> Any:
    """The default of a dataclass's field, MISSING where it has none."""
    return f.default if f.default_factory is MISSING else f.default_factory()


def named(args: Sequence[str]) -> set[str]:
    """The fields whose flags stand among these words."""
    found = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in args if word.startswith("--")}
    return found | {name.removeprefix("no_") for name in found}


def one_value(hint: Any, text: str, what: str) -> Any:
    """`text` read as a value of that type; `UsageError` that begins with `what` if it is none."""
    text = text.capitalize() if hint is bool else text
    try:
        return tyro.cli(_quick(hint), args=[text], console_outputs=False, config=(tyro.conf.DisallowNone,))
    except SystemExit:
        kind = getattr(hint, "__name__", str(hint))
        raise UsageError(f"{what} cannot be {text!r} ({kind})") from None


def values(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    return {f.name: getattr(instance, f.name) for f in fields(instance)}


def attribute_docs(owner: type) -> dict[str, str]:
    """The docstring under each annotated attribute of a class and its bases, on one line each."""
    docs: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # built in, or typed at a prompt
            continue
        node = ast.parse(source).body[0]
        for statement, below in pairwise(node.body if isinstance(node, ast.ClassDef) else []):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def value_text(value: Any) -> str:
    """A default as a person would type it; MISSING is a setting without one."""
    if value is MISSING:
        return "(to be given)"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _default(value: Any) -> Any:
    return field() if value is MISSING else field(default_factory=lambda: value)


def _quick(hint: Any) -> Any:
    """`X | None` as typing's union with None first: for the former tyro (1.0) imports typeguard, a sixth of a second,
    to see whether a default is of that type, and with None first it need not look at X."""
    if get_origin(hint) is UnionType and NoneType in (members := get_args(hint)):
        return Union[(NoneType, *(member for member in members if member is not NoneType))]
    return hint

"""`teloi list`: the catalogue as a table or as JSON."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from teloi.catalogue import METHODS, Kind, Method, Stage
from teloi.cli.options import parse


@dataclass(frozen=True)
class ListOptions:
    """Every method: what it is for and what data it reads."""

    stage: Stage | None = None
    """Only this stage of training."""
    kind: Kind | None = None
    """Only this kind: an objective is one loss, a recipe several steps that train."""
    json: bool = False
    """Print a JSON array of objects with name, kind, stage, reads, paper, about and source."""


def list_methods(args: Sequence[str]) -> None:
    """The verb `list`."""
    options = parse(ListOptions, args, "teloi list")
    methods = [m for m in METHODS if options.stage in (None, m.stage) and options.kind in (None, m.kind)]
    if options.json:
        print(json.dumps([record(method) for method in methods], indent=1, ensure_ascii=False))
    elif methods:
        print(table(methods))
    else:
        print("no method of that stage and kind yet")


def record(method: Method) -> dict[str, Any]:
    """A method as JSON has it; `paper` is the slug of the paper that brings it, `source` the citation."""
    return {
        "name": method.name,
        "kind": method.kind,
        "stage": method.stage,
        "reads": method.reads,
        "paper": method.paper,
        "about": method.about,
        "source": str(method.origin),
    }


def table(methods: Sequence[Method]) -> str:
    """One line a method, by stage; long lines are folded to the terminal's width, where there is one."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    name_width = max(len(m.name) for m in methods)
    reads_width = max(len(m.reads) for m in methods)
    lines = []
    for stage, members in groupby(methods, key=lambda m: m.stage):
        lines += ["", stage]
        for m in members:
            head = f"  {m.name:{name_width}}  {m.reads:{reads_width}}  "
            width = max(columns - len(head), 30)
            body = textwrap.wrap(f"{m.about} ({m.origin.short})", width)
            lines += [head + body[0], *(" " * len(head) + line for line in body[1:])]
    return "\n".join(lines[1:]) + "\n\n`teloi show NAME` explains one, `teloi train NAME` runs it."

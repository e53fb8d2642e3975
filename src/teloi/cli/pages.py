"""The documentation's page of each method, written from its class and from what was measured: nothing by hand."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from teloi.catalogue import METHODS, PAPERS, Method, Paper
from teloi.claims.results import Result, measured
from teloi.cli.showing import EXAMPLES, commands, hyperparameters, related, said, took_part
from teloi.data.formats import Format
from teloi.engine.objective import Objective
from teloi.files import write_text
from teloi.report.claims import expectation, held, verdict

INDEX = "README.md"
HOW = "Written by `teloi show --pages docs/methods` from the code and the measured claims; do not edit it."


def write_pages(directory: Path) -> list[Path]:
    """Write a page for each method and the index of them all, and remove pages of methods that are no more."""
    pages = rendered()
    for path in directory.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        write_text(directory / name, text)
    return [directory / name for name in pages]


def rendered() -> dict[str, str]:
    """All pages by the name of their file."""
    results = measured()
    return {INDEX: index(results), **{f"{method.name}.md": page(method, results) for method in METHODS}}


def index(results: Mapping[str, Result]) -> str:
    """Every method by stage: what it is for, what it reads, where it comes from, what was measured."""
    lines = ["# Methods", "", f"{len(METHODS)} methods. {HOW}", ""]
    for stage, members in groupby(METHODS, key=lambda method: method.stage):
        lines += [
            f"## {stage}",
            "",
            "| method | what it does | reads | source | claims it takes part in |",
            "|---|---|---|---|---|",
        ]
        for method in members:
            link = f"[{method.name}]({method.name}.md)"
            cells = (
                link,
                _cell(method.about),
                method.reads,
                _cited(method.origin),
                _verdict(method, results) or "not measured",
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def page(method: Method, results: Mapping[str, Result]) -> str:
    """One method."""
    objective = method.load()
    about, use = said(objective)
    formats = objective.reads if isinstance(objective.reads, tuple) else (objective.reads,)
    parts = [f"# {method.name}", f"{method.about[0].upper()}{method.about[1:]}.", "\n".join(_facts(method, objective))]
    parts += ["## Objective", *map(_paragraph, about)]
    if use:
        parts += ["## When to use it", *map(_paragraph, use)]
    parts += ["## Hyper-parameters", "\n".join(_hyperparameters(objective))]
    parts += ["## Data", *(_format(reads, first=reads is formats[0]) for reads in formats)]
    if claims := list(_claims(method, results)):
        parts += ["## Measured", *claims]
    if near := list(related(method)):
        parts += ["## Related", "\n".join(f"- {title}: {_linked(names.split(', '))}" for title, names in near)]
    parts += ["## Try it", f"```\n{commands(method.name, objective, formats[0])}\n```", "---", f"{HOW}"]
    return "\n\n".join(parts) + "\n"


def _facts(method: Method, objective: type[Objective]) -> Iterator[str]:
    own = objective.architecture == "none"
    does = "writes with" if method.kind == "decoder" else "trains"
    model = "a model of its own" if own else f"a model of architecture {objective.architecture}"
    yield f"- kind: {method.kind}, stage {method.stage}; {does} {model}"
    yield f"- source: {_cited(method.origin)}, {method.origin.title}"
    if method.source and method.source != method.paper:
        yield f"- here from: {_cited(PAPERS[method.paper])}, {PAPERS[method.paper].title}"
    if method.also:
        yield f"- also called: {', '.join(method.also)}"
    file, _, name = method.entry.partition(":")
    yield f"- code: [`{name}`](../../src/{file.replace('.', '/')}.py)"


def _hyperparameters(objective: type[Objective]) -> Iterator[str]:
    yield from ("| flag | default | what it is |", "|---|---|---|")
    for flag, default, about in hyperparameters(objective):
        shown = f"`{default.replace('|', chr(92) + '|')}`" if default else "nothing"
        yield f"| `{flag}` | {shown} | {_cell(about)} |"


def _format(reads: type[Format], first: bool) -> str:
    text = f"{'Reads' if first else 'Or'} {reads.about()}. {' '.join((inspect.getdoc(reads) or '').split())}"
    example = EXAMPLES.get(reads.name)
    return _plain(text) + (f"\n\n```json\n{json.dumps(example)}\n```" if example else "")


def _claims(method: Method, results: Mapping[str, Result]) -> Iterator[str]:
    """What was measured of its paper's claim, and of others that it takes part in."""
    for slug, result in took_part(method, results):
        found = f"{_cited(PAPERS[slug])}. {result['statement']} **{verdict(result).capitalize()}**; {held(result)}."
        seeds = f"([all seeds](../claims/{slug}.png), [numbers](../../results/claims/{slug}.json))"
        mine = [one for one in result["expectations"] if method.name in (one["better"], one["worse"])]
        lines = [f"- {expectation(result, one)}" + ("" if one["decides"] else " (beyond the claim)") for one in mine]
        yield "\n\n".join([f"{found} {seeds}", *(["\n".join(lines)] if lines else [])])


def _verdict(method: Method, results: Mapping[str, Result]) -> str:
    """The verdicts of the claims that a method takes part in."""
    found = [
        f"[{slug}: {result['verdict']}](../claims/{slug}.png)"
        for slug, result in results.items()
        if method.name in result["methods"]
    ]
    return ", ".join(found)


def _linked(names: Sequence[str]) -> str:
    return ", ".join(f"[{name}]({name}.md)" for name in names)


def _cited(paper: Paper) -> str:
    return f"[{paper.short}]({paper.link})"


def _paragraph(text: str) -> str:
    """A paragraph of a docstring: one that is indented is an equation."""
    if all(line.startswith("    ") for line in text.splitlines()):
        return f"```\n{inspect.cleandoc(text)}\n```"
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: stars and angles that it would read otherwise."""
    return re.sub(r"([*<>])", r"\\\1", text)


def _cell(text: str) -> str:
    """The same in a table."""
    return _plain(text).replace("|", "\\|")

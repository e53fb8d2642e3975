"""`teloi show`: one method on a page, from its catalogue entry and its class."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from teloi.catalogue import METHODS, PAPERS, Method, find, is_file, resolve
from teloi.claims.results import Result, measured
from teloi.cli.options import attribute_docs, default_of, flags, parse_groups, value_text
from teloi.engine.decoder import Decoder
from teloi.engine.objective import Objective
from teloi.errors import UsageError
from teloi.report.claims import expectation, held, verdict

if TYPE_CHECKING:
    from teloi.data.formats import Format

# one row of each format as a user would write it
EXAMPLES: dict[str, dict[str, Any]] = {
    "language-modeling": {"text": "The heron stood in the reeds until the light was gone."},
    "prompt-only": {"prompt": "Name a river in France."},
    "prompt-completion": {"prompt": "Name a river in France.", "completion": "The Loire."},
    "preference": {
        "prompt": "Name a river in France.",
        "chosen": "The Loire.",
        "rejected": "The Rhine Falls.",
    },
    "pair": {"anchor": "Which river runs through Paris?", "positive": "The Seine divides the city in two."},
    "title-skills": {"title": "ICU nurse", "skills": ["triage", "ventilator care", "patient monitoring"]},
    "trajectory": {
        "states": [[0.2, 0.2], [0.2, 0.3], [0.2, 0.4]],
        "actions": [[0.0, 0.1], [0.0, 0.1]],
        "instruction": "move it up",
    },
    "labelled-text": {"text": "A river of a film, and no less dull.", "label": "negative"},
    "document": {
        "paragraphs": [
            "The Loire rises in the south. It is the longest river of France.",
            "Its valley is known for castles. Kings built them to hunt in the woods.",
        ]
    },
    "error-spans": {
        "prompt": "Name a river in France.",
        "completion": "The Rhine Falls. They are in the north.",
        "errors": [{"start": 0, "end": 16, "type": "wrong"}],
    },
    "scored-segments": {"texts": ["I like tea.", " You idiot."], "scores": [0.01, 0.97]},
    "unpaired-preference": {"prompt": "Name a river in France.", "completion": "The Loire.", "label": True},
}


@dataclass(frozen=True)
class ShowOptions:
    """One method: what it is, its objective, hyper-parameters and data, when to use it and when not."""

    name: Positional[str] = ""
    """A method's name (`teloi list` shows them), or my_file.py:MyObjective."""
    pages: Path | None = None
    """Write a Markdown page for each method into this directory instead, with an index of them."""


def show(args: Sequence[str]) -> None:
    """The verb `show`."""
    options = parse_groups({"show": flags(ShowOptions)}, args, "teloi show", inspect.getdoc(ShowOptions))["show"]
    if options["pages"] is not None:
        from teloi.cli.pages import write_pages

        print(f"{len(write_pages(options['pages']))} pages in {options['pages']}")
        return
    if not (name := options["name"]):
        raise UsageError("which method? `teloi list` names all")
    method = None if is_file(name) else find(name)
    print(page(method.name if method else name, resolve(name), method))


def page(name: str, objective: type[Objective], method: Method | None) -> str:
    """All there is to say about a method; `method` is None for a user's own objective."""
    about, use = said(objective)
    formats = objective.reads if isinstance(objective.reads, tuple) else (objective.reads,)
    parts = [_title(f"{name}: {method.about}" if method else name)]
    if method:
        parts.append(_pairs(_facts(method)))
    parts += [_title("Objective"), "\n\n".join(map(_fold, about))]
    if use:
        parts += [_title("When"), *map(_fold, use)]
    parts += [_title("Hyper-parameters"), _pairs(_hyperparameters(objective))]
    parts += [_title("Data"), _data(formats)]
    if method and (claims := list(_claims(method))):
        parts += [_title("Measured"), *claims]
    if method and (near := list(related(method))):
        parts += [_title("Related"), _pairs(near)]
    parts += [_title("Try"), commands(name, objective, formats[0], "  ")]
    return "\n".join(parts)


def said(objective: type[Objective]) -> tuple[list[str], list[str]]:
    """The paragraphs of its docstring: what it is, and when to use it."""
    paragraphs = inspect.cleandoc(objective.__doc__ or "No docstring yet.").split("\n\n")
    use = [text for text in paragraphs if text.startswith("Use it ")]
    return [text for text in paragraphs if text not in use], use


def hyperparameters(objective: type[Objective]) -> Iterator[tuple[str, str, str]]:
    """Flag, default and meaning of each of its own, and of the settings for which it has another default."""
    docs = attribute_docs(objective)
    for field in fields(objective):  # type: ignore[arg-type]  # objectives are dataclasses
        yield f"--{field.name.replace('_', '-')}", value_text(default_of(field)), docs.get(field.name, "")
    for name, value in objective.defaults.items():
        about = "a setting of every method, with this one's default"
        yield f"--{name.replace('_', '-')}", value_text(value), about


def took_part(method: Method, results: Mapping[str, Result]) -> Iterator[tuple[str, Result]]:
    """The measured claims of its paper, and of others that it took part in, by slug."""
    for slug, result in results.items():
        if slug == method.paper or method.name in result["methods"]:
            yield slug, result


def related(method: Method) -> Iterator[tuple[str, str]]:
    """The other methods by what they share with this one: the source, stage and data, or the stage alone."""
    others = [m for m in METHODS if m != method]
    same_source = [m for m in others if m.origin == method.origin]
    same_data = [m for m in others if (m.stage, m.reads) == (method.stage, method.reads) and m not in same_source]
    same_stage = [m for m in others if m.stage == method.stage and m.reads != method.reads and m not in same_source]
    for title, members in (
        ("same source", same_source),
        ("same stage and data", same_data),
        ("same stage, other data", same_stage),
    ):
        if members:
            yield title, ", ".join(m.name for m in members)


def _claims(method: Method) -> Iterator[str]:
    """What was measured of its paper's claim, and of others that it takes part in."""
    for slug, result in took_part(method, measured()):
        yield _fold(f"{PAPERS[slug]} Claim: {result['statement']} {verdict(result).capitalize()}; {held(result)}.")
        for one in result["expectations"]:
            if one["decides"] and method.name in (one["better"], one["worse"]):
                yield _fold(expectation(result, one), "  ")


def _facts(method: Method) -> Iterator[tuple[str, str]]:
    yield "kind", f"{method.kind}, stage {method.stage}"
    yield "source", str(method.origin)
    if method.source and method.source != method.paper:
        yield "here from", f"{PAPERS[method.paper]}"
    if method.also:
        yield "also called", ", ".join(method.also)
    yield "code", method.entry


def _hyperparameters(objective: type[Objective]) -> Iterator[tuple[str, str]]:
    shown = [(f"{flag} {default}", about) for flag, default, about in hyperparameters(objective)]
    yield from shown or [("none", "of its own")]


def _data(formats: Sequence[type[Format]]) -> str:
    lines = []
    for place, reads in enumerate(formats):
        lines.append(_fold(f"{'Or' if place else 'Reads'} {reads.about()}. {inspect.getdoc(reads)}"))
        if reads.name in EXAMPLES:
            lines.append(f"  {json.dumps(EXAMPLES[reads.name])}")
    return "\n".join(lines)


def commands(name: str, objective: type[Objective], reads: type[Format], indent: str = "") -> str:
    """What to type to try a method."""
    data = f"--data your-{reads.name}.jsonl"
    if issubclass(objective, Decoder):
        lines = [f"teloi generate {name}", f"teloi generate {name} --model YOUR_MODEL {data} --output answers.jsonl"]
        return "\n".join(f"{indent}{line}" for line in [*lines, f"teloi generate {name} --help"])
    yours = data if objective.architecture == "none" else f"--model YOUR_MODEL {data}"
    lines = [f"teloi train {name}", f"teloi train {name} {yours} --dry-run"]
    if name != "sft" and "prompt" in reads.needs and issubclass(objective, Objective):
        lines.append(f"teloi compare sft {name} {data} --budget 200k")
    return "\n".join(f"{indent}{line}" for line in [*lines, f"teloi train {name} --help"])


def _columns() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)


def _fold(text: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()),
        _columns(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _title(text: str) -> str:
    bold = sys.stdout.isatty()
    return f"\n\033[1m{text}\033[0m" if bold else f"\n{text}"


def _pairs(rows: Any) -> str:
    """Two columns, the second one folded."""
    rows = list(rows)
    width = max(len(left) for left, _ in rows)
    lines = []
    for left, right in rows:
        body = _fold(right, " " * (width + 4)).lstrip()
        lines.append(f"  {left:{width}}  {body}".rstrip())
    return "\n".join(lines)

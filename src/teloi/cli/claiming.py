"""`teloi claim`: the experiments behind the papers' claims, run and judged."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from teloi.catalogue import CLAIMS, PAPERS, claim_of
from teloi.claims.results import checkout, file_hash, measured
from teloi.cli.options import flags, parse_groups
from teloi.errors import UsageError
from teloi.files import write_text
from teloi.report.claims import claim_figure, held, means, paragraphs, table, verdict, with_table

ABOUT = """\
Measure what a paper claims, at laptop scale: its method against its baseline with several seeds, judged by the 95%
interval of the mean paired difference against a margin, both stated beforehand. Reproduced, not reproduced,
inconclusive, or invalid where a check failed.

SLUG names a paper; `teloi claim --list` shows those whose claim can be measured. A claim that was interrupted goes on
where it stopped."""


@dataclass(frozen=True)
class ClaimOptions:
    """How claims are run."""

    quick: bool = False
    """Run everything in seconds, to see that it runs. Gives no verdict."""
    jobs: int = 2
    """Runs at the same time, each a process of one thread."""
    seeds: str | None = None
    """Other seeds than the claim's own, "7,8,9", for a trial: it gives no verdict, for seeds are fixed beforehand."""
    output_dir: Path | None = None
    """Where SLUG.json and SLUG.png go. Default: for a claim run for the record from a checkout, its results/claims and
    docs/claims, else runs/claims."""
    list: bool = False
    """Show the claims and their verdicts, and run nothing."""
    readme: Path | None = None
    """Write the table of measured claims between its marks in this file, and run nothing."""


def claim(args: Sequence[str]) -> None:
    """The verb `claim`."""
    slugs = list(takewhile(lambda word: not word.startswith("-"), args))
    prog = shlex.join(["teloi", "claim", *slugs]) if slugs else "teloi claim SLUG ..."
    parsed = parse_groups({"claim": flags(ClaimOptions)}, args[len(slugs) :], prog, ABOUT)
    options = ClaimOptions(**parsed["claim"])
    if options.list:
        print(listing())
    elif options.readme is not None:
        write_readme(options.readme)
    elif not slugs:
        raise UsageError("which claim? It stands first: teloi claim pedagogy; `teloi claim --list` shows all")
    modules = [claim_of(slug) for slug in slugs]  # an unknown one is found before the first has run
    if not options.list and options.readme is None:
        # A claim's models are too small for a GPU to gain anything, and its numbers shall be the same everywhere.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        for module in modules:
            _run(module, options, shlex.join(["teloi", "claim", *args]))


def listing() -> str:
    """Every claim on a line: its slug, its verdict where it was measured, its paper."""
    results = measured()
    lines = []
    for slug in CLAIMS:
        found = "not measured" if slug not in results else f"{verdict(results[slug])}, {held(results[slug])}"
        if slug in results and results[slug]["hash"] != file_hash(CLAIMS[slug]):
            found += " (of an earlier version of the claim file)"
        lines.append((slug, found, f"{PAPERS[slug].title} ({PAPERS[slug].short})"))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{slug:{widths[0]}}  {found:{widths[1]}}  {paper}" for slug, found, paper in lines)


def readme_table() -> str:
    """The measured claims as the README shows them."""
    return table(measured(), lambda slug: f"[{PAPERS[slug].title}]({PAPERS[slug].link}) ({PAPERS[slug].short})")


def write_readme(path: Path) -> None:
    """Write the table into a README. UsageError where there is no such file."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    text = path.read_text(encoding="utf-8")
    path.write_text(with_table(text, readme_table()), encoding="utf-8")


def _run(module: str, options: ClaimOptions, command: str) -> None:
    from teloi.claims.running import Settings, run
    from teloi.engine.directory import check_writable

    seeds = _seeds(options.seeds) if options.seeds is not None else None
    settings = Settings(options.quick, options.jobs, seeds)
    trial = options.quick or seeds is not None
    home = None if trial or options.output_dir else checkout()
    directory = home or options.output_dir or Path("runs/claims")
    check_writable(directory)
    result = run(module, settings, command)
    name = result["claim"] + ("-quick" if options.quick else "-trial" if trial else "")
    print("\n".join(paragraphs(result)))
    print(f"\n{_columns(list(means(result)))}\n")
    path = directory / f"{name}.json"
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"numbers  {path}")
    picture = (home.parents[1] / "docs" / "claims" if home else directory) / f"{name}.png"
    print(f"figure   {claim_figure(result, picture)}")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"seeds are numbers with commas between them, not {text!r}") from None


def _columns(rows: Sequence[Sequence[Any]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )

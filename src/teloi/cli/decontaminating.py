"""`teloi decontaminate`: training rows without those that hold what a test asks, and a report of what matched."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from teloi.cli.options import flags, leading, parse_groups
from teloi.data.decontamination import THRESHOLD, N, decontaminate
from teloi.errors import UsageError
from teloi.files import check_free, json_text, replacing, write_text

ABOUT = """\
Drop the training rows that hold what a test asks: teloi decontaminate TRAIN --against TEST --output FILE.

A row goes where it shares so many n-grams with a test row that more than the threshold of the test row's tokens lies in
them (Lambert et al., 2024). Of conversations the user's turns are compared. Beside FILE, FILE.report.json shows every
pair that matched. TRAIN and TEST are data in any form that train reads."""


@dataclass(frozen=True)
class DecontaminateOptions:
    """What is compared, and where the rest goes."""

    against: str
    """The test rows."""
    output: Path
    """Where the rows that are kept go, as JSON lines."""
    split: str = "test"
    """Which part of the test data, where it has several."""
    n: int = N
    """Tokens of an n-gram."""
    threshold: float = THRESHOLD
    """Overlap above which a row matches."""
    touched: float = 0.0
    """Drop nothing unless more than this share of the test rows is matched; 0.02 in the paper."""
    train_column: str | None = None
    """The column of the training rows that is compared. Default: prompt, messages, question, instruction or text."""
    test_columns: tuple[str, ...] = ()
    """Columns of the test rows, over which the overlap is averaged. Default: as of the training rows."""
    overwrite: bool = False
    """Replace the output."""


def command(args: Sequence[str]) -> None:
    """The verb `decontaminate`."""
    name, rest = leading(args)
    if name is None and not {"-h", "--help"} & set(rest):
        raise UsageError("which rows? They stand first: teloi decontaminate train.jsonl --against test.jsonl ...")
    prog = shlex.join(["teloi", "decontaminate", name or "TRAIN"])
    options = DecontaminateOptions(**parse_groups({"data": flags(DecontaminateOptions)}, rest, prog, ABOUT)["data"])
    check_free(options.output, options.overwrite)
    from teloi.data.read import read

    trains, tests = read(str(name)), read(options.against, options.split)
    found = decontaminate(
        trains,
        tests,
        n=options.n,
        threshold=options.threshold,
        touched=options.touched,
        train_column=options.train_column,
        test_columns=options.test_columns,
    )
    with replacing(options.output) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(trains[i], ensure_ascii=False) + "\n" for i in found.kept)
    report = options.output.with_name(f"{options.output.name}.report.json")
    write_text(report, json_text(found.summary(trains, tests)) + "\n")
    print(f"{found}\nrows     {options.output}\nmatches  {report}")

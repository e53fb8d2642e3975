"""A claim that costs nothing, for what runs claims. Its behaviour is set by files in the directory DIRECTORY names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.errors import NonFinite, TeloiError
from teloi.measure.summary import Metric


def told(what: str) -> bool:
    """Whether the test asks for a kind of trouble."""
    directory = os.environ.get("TINY_CLAIM")
    return directory is not None and (Path(directory) / what).exists()


def prepare(run: Run) -> None:
    (run.directory / "level.txt").write_text(str(run.rng("level").normal(0.5, 0.1)))
    log(run)


def measure(run: Run) -> Outcome:
    log(run)
    level = float((run.directory / "level.txt").read_text())
    if run.arm == "new" and run.seed == 1:
        if told("non-finite"):
            raise NonFinite("the loss is not finite at step 3")
        if told("no data"):
            raise TeloiError("there is no data: fetch some")
        if told("bug"):
            raise ZeroDivisionError
        if told("death"):
            os._exit(1)
        if told("slow"):
            time.sleep(60)
    gain = {"old": 0.0, "new": 0.3, "noise": 0.0}[run.arm or ""]
    noise = run.rng(f"noise of {run.arm}").normal(0, 0.01)
    collapsed = "it babbles" if told("collapse") and run.arm == "new" and run.seed == 2 else None
    return Outcome({"share": level + gain + noise, "lost": float("nan")}, {"level": level}, collapsed)


def log(run: Run) -> None:
    if directory := os.environ.get("TINY_CLAIM"):
        with (Path(directory) / "log").open("a") as lines:
            lines.write(f"{run.arm} {run.seed} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")


CLAIM = Claim(
    slug="tiny",
    statement="New is better than old.",
    setting="Random numbers.",
    metrics=[Metric("share", "share", "higher", "share", resolution=0.01), Metric("lost", "lost")],
    arms=[Arm("old", "the old way"), Arm("new", "the new way"), Arm("noise", "nothing")],
    expectations=[Expect("share", "new", "old", 0.2), Expect("share", "new", "old", 0.5, decides=False)],
    checks=[Check("old is about even", "share", "old", 0.1, 0.9)],
    controls=[Control("nothing does nothing", Expect("share", "noise", "old", 0.05))],
    run=measure,
    prepare=prepare,
    methods=["sft"],
)

"""The command `teloi`: dispatch on the first word, errors for people, no import before a verb needs it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from teloi import __version__
from teloi.errors import TeloiError, UsageError
from teloi.names import hint

# verb -> where its function stands; each takes the words after the verb
VERBS = {
    "list": "teloi.cli.listing:list_methods",
    "show": "teloi.cli.showing:show",
    "train": "teloi.cli.training:train",
    "generate": "teloi.cli.generating:generate",
    "compare": "teloi.cli.comparing:compare",
    "demo": "teloi.cli.comparing:demo",
    "claim": "teloi.cli.claiming:claim",
    "decontaminate": "teloi.cli.decontaminating:command",
}

HELP = f"""\
teloi {__version__}: training objectives for language models, as interchangeable parts.

usage: teloi VERB ...

  list      every method: what it is for, what data it reads
  show      one method: its objective, hyper-parameters, data, when to use it and when not
  train     train a model with one method; a Hugging Face checkpoint comes out
  generate  answer prompts with a model and a decoder (best-of-n); rows that train reads come out
  compare   several methods under one budget, several seeds, with intervals and a report
  demo      such a comparison on an embedded model and embedded data, in minutes
  claim     measure what a paper claims, at laptop scale, and judge it
  decontaminate
            drop training rows that hold what a test asks, and show which

A tour
  See it work, with nothing of your own:
    teloi demo
  Look around:
    teloi list --stage prefer
    teloi show simpo
  Look at what would be trained on, then train. Every hyper-parameter is a flag:
    teloi train simpo --data pairs.jsonl --dry-run
    teloi train simpo --data pairs.jsonl --model Qwen/Qwen3-0.6B --beta 2.5 --output-dir runs/simpo
  Go on with a run that was interrupted; repeat a run with one setting changed:
    teloi train simpo --config runs/simpo/run.yaml --resume
    teloi train simpo --config runs/simpo/run.yaml --learning-rate 5e-6 --output-dir runs/simpo-2
  Learn a reward from pairs; train against it, or have it choose among samples:
    teloi train rm --data pairs.jsonl --output-dir runs/rm
    teloi train ppo --data pairs.jsonl --reward runs/rm --value runs/rm
    teloi generate best-of-n --data prompts.jsonl --reward runs/rm --output best.jsonl
  Find out which method helps you. An arm may carry settings of its own:
    teloi compare sft dpo dpo:beta=0.3,learning_rate=1e-6 kto --data pairs.jsonl --budget 200k
  Measure what a paper claims, or read what came out here:
    teloi claim pedagogy
    teloi claim --list
  Keep the test out of the training data:
    teloi decontaminate train.jsonl --against test.jsonl --output clean.jsonl
  Your own objective works like a built-in one:
    teloi train my_file.py:MyObjective --data pairs.jsonl

Data is JSON lines, JSON, CSV, Parquet or text (also .gz), a Hugging Face data set or the embedded
"instructions", with TRL's columns: text or messages; prompt, completion; prompt, chosen, rejected; prompt,
completion, label. Rows that hold more than a method needs are cast: sft imitates the chosen side of
preference pairs.

`teloi VERB --help` explains a verb, `teloi train METHOD --help` every flag of a method.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these words (the process's own by default) and return its exit status.

    0: done. 2: a mistake that one line on stderr explains. 130: interrupted. Whatever else goes wrong is a
    bug and keeps its traceback.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch(args)
    except TeloiError as error:
        print(f"teloi: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resume = {
            "train": "; the same command with --resume goes on from the last checkpoint",
            "compare": "; the same command with --resume goes on with the runs that are missing",
            "claim": "; the same command goes on with the runs that are missing",
        }.get(args[0], "")
        print(f"\nteloi: interrupted{resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `teloi list | head`: the reader has seen enough. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    if args[0] in ("-V", "--version"):
        print(f"teloi {__version__}")
        return
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        near = hint(verb, VERBS, f"there are {', '.join(VERBS)}")
        raise UsageError(f"there is no verb {verb!r}; {near}")
    module, _, function = VERBS[verb].partition(":")
    getattr(importlib.import_module(module), function)(rest)
    sys.stdout.flush()  # a closed pipe shows here, not at exit

"""`teloi generate`: a decoder's hyper-parameters and what it is to answer as one set of flags."""

from __future__ import annotations

from collections.abc import Sequence

from teloi.catalogue import resolve
from teloi.cli.options import flags, leading, parse_groups
from teloi.engine.decoder import Decoder, GenerateConfig
from teloi.errors import UsageError

ABOUT = """\
Answer prompts with a model and a decoder: teloi generate DECODER [flags]. `teloi list --kind decoder` names all.

The model stays as it is. The answers are rows of prompt and completion: `teloi train sft --data answers.jsonl` imitates
them."""


def generate(args: Sequence[str]) -> None:
    """The verb `generate`."""
    name, rest = leading(args)
    if name is None:
        if {"-h", "--help"} & set(rest):
            parse_groups({"run": flags(GenerateConfig)}, rest, "teloi generate DECODER", ABOUT)
        raise UsageError("which decoder? It stands first: teloi generate best-of-n --data prompts.jsonl --reward RUN")
    kind = resolve(name)
    if not issubclass(kind, Decoder):
        raise UsageError(f"{name} trains a model and answers no prompts: teloi train {name}")
    groups = {"decoder": flags(kind), "run": flags(GenerateConfig)}
    about = f"Answer prompts with {name}; `teloi show {name}` says when to use it."
    parsed = parse_groups(groups, rest, f"teloi generate {name}", about)
    from teloi.engine.generate import generate as run

    run(kind(**parsed["decoder"]), GenerateConfig(**parsed["run"]))

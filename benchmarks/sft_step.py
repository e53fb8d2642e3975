"""SFT: an optimiser step of ours against TRL's SFTTrainer at its best."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from benchmarks import rows as data
from benchmarks.harness import Benchmark, Case, Check, Result, Side, Watch, main

ABOUT = """A step of supervised fine-tuning of the embedded model on prompts and chosen replies with the length
distribution of hh-harmless. TRL: no gradient checkpointing, one row at a time (nothing is padded), our allocator; in
bfloat16 with bfloat16 weights and moments, where ours keeps float32 masters."""

TARGETS = {"speed": 1.3}
MAX_LENGTH = 1024


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=8, help="rows in a step")
    parser.add_argument("--peer-batch", type=int, default=1, help="rows in TRL's padded micro-batches")
    data.arguments(parser)


def given(options: Namespace) -> dict[str, Any]:
    """What every side gets."""
    rows = data.completions(data.pairs(4 if options.tiny else options.rows, data.source(options)))
    return {"rows": rows, "model": data.model(options), "device": options.device}


def cases(options: Namespace) -> list[Case]:
    found = []
    for dtype in ("float32", "bfloat16"):
        settings = {**given(options), "dtype": dtype}
        sides = [Side("teloi", "teloi", settings)]
        for weights, name in (("float32", "TRL"), ("bfloat16", "TRL, bfloat16 weights")):
            if dtype == "float32" and weights != dtype:
                continue
            name = "TRL, autocast" if dtype != weights else name
            for packing in (False, True):
                theirs = {**settings, "weights": weights, "batch": options.peer_batch, "packing": packing}
                slower = packing or weights != dtype
                sides.append(Side(f"{name}, {'packed' if packing else 'padded'}", "peer", theirs, slower))
        found.append(Case(f"full, {dtype}", sides, TARGETS))
    return found


def checks(options: Namespace) -> list[Check]:
    settings = {**given(options), "dtype": "float32"}
    theirs = {**settings, "weights": "float32", "batch": 1}
    one, all_rows = (Side("teloi", "our_numbers", {**settings, "whole": whole}) for whole in (False, True))
    return [
        Check(
            "log-probability of every completion, float32",
            [one, Side("TRL", "peer_numbers", {**theirs, "packing": False})],
        ),
        Check(
            "log-probability of a token, float32, packed",
            [all_rows, Side("TRL, packed", "peer_numbers", {**theirs, "packing": True})],
        ),
    ]


def ours(rows: list[Any], model: str, device: str, dtype: str) -> Any:
    from benchmarks.sides import trainer
    from teloi.methods.finetune.sft import SFT

    return trainer(SFT(), rows, steps=2, model=model, dtype=dtype, max_length=MAX_LENGTH)


def teloi(**settings: Any) -> Result:
    """The second of two steps."""
    made, watch = ours(**settings), Watch()
    for _ in made.run():
        watch()
    return watch.result(len(settings["rows"]))


def our_numbers(whole: bool, **settings: Any) -> Result:
    from benchmarks.sides import branch_sums

    made = ours(**settings)
    sums = branch_sums(made.models, made.examples)
    tokens = sum(len(tree.branches[0].ids) for tree in made.examples)
    return {"numbers": [sum(sums) / tokens] if whole else sums}


def theirs(
    rows: list[Any], model: Any, device: str, dtype: str, weights: str, batch: int, packing: bool, **more: Any
) -> Any:
    from benchmarks.sides import load, peer_trainer

    loaded, tokenizer = model if isinstance(model, tuple) else load(model, weights)
    autocast = dtype == "bfloat16" and weights == "float32"
    if packing:
        # One pack a micro-batch, and as many of them in the step as there are.
        more |= {"packing": True, "gradient_accumulation_steps": len(rows)}
    return peer_trainer(
        *("SFT", rows, loaded, tokenizer),
        device=device,
        autocast=autocast,
        batch=1 if packing else batch,
        max_length=MAX_LENGTH,
        **more,
    )


def peer(**settings: Any) -> Result:
    """A step on all rows, after one on the longest alone: the optimiser's state and the largest tensors have been
    there."""
    rows, watch = settings.pop("rows"), Watch()
    warm = theirs(rows[-4:] if settings["packing"] else rows[-settings["batch"] :], **settings)
    warm.train()
    model = (warm.model, warm.processing_class)
    made = theirs(rows, **{**settings, "model": model}, optimizer=warm.optimizer.optimizer, marks=watch)
    made.train()
    assert made.state.global_step == 1
    return watch.result(len(rows))


def peer_numbers(packing: bool, **settings: Any) -> Result:
    import torch

    made = theirs(packing=packing, **settings)
    sums, tokens = [], 0
    for row in made.train_dataset:
        batch = made.data_collator([row])
        scored = int((batch["labels"][:, 1:] != -100).sum())
        with torch.no_grad():
            sums.append(-float(made.compute_loss(made.model, batch)) * scored)
        tokens += scored
    return {"numbers": [sum(sums) / tokens] if packing else sums}


BENCHMARK = Benchmark("sft_step", ABOUT, "rows", cases, checks, arguments)

if __name__ == "__main__":
    main(BENCHMARK)

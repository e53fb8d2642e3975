"""DPO: an optimiser step of ours against TRL's DPOTrainer at its best."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from benchmarks import rows as data
from benchmarks.harness import Benchmark, Case, Check, Result, Side, Watch, main

TARGETS = {"float32": {"speed": 3.5, "memory": 0.4}, "bfloat16": {"speed": 6.0, "memory": 0.4}}

ABOUT = """A step of DPO on the embedded model, on pairs with the length distribution of hh-harmless. TRL: reference
precomputed, no gradient checkpointing, one pair at a time (fewer padded positions, and faster, than two or four), our
allocator; in bfloat16 with bfloat16 weights and moments, where ours keeps float32 masters. Ours: the defaults of
`teloi train`."""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=8, help="pairs in a step")
    parser.add_argument("--steps", type=int, default=1, help="steps that are timed, after one that is not")
    parser.add_argument(
        "--micro-tokens", type=int, default=2048, help="tokens in our micro-batches; a GPU wants 16384 or more"
    )
    parser.add_argument(
        "--peer-batch", type=int, nargs="+", default=[1], help="pairs in TRL's micro-batches: the best counts"
    )
    data.arguments(parser)


def given(options: Namespace) -> dict[str, Any]:
    """What every side gets."""
    rows = data.pairs(2 if options.tiny else options.rows, data.source(options))
    return {"rows": rows, "model": data.model(options), "device": options.device, "steps": options.steps}


def cases(options: Namespace) -> list[Case]:
    found = []
    common = given(options)
    for lora in (False, True):
        for dtype in ("float32", "bfloat16"):
            settings = {**common, "lora": lora, "dtype": dtype}
            sides = [Side("teloi", "teloi", {**settings, "micro_tokens": options.micro_tokens})]
            for batch in options.peer_batch:
                behind = "" if len(options.peer_batch) == 1 else f", {batch} pairs"
                theirs = {**settings, "batch": batch}
                if dtype == "float32":
                    sides.append(Side(f"TRL{behind}", "peer", {**theirs, "weights": "float32"}))
                else:
                    sides.append(Side(f"TRL, bfloat16 weights{behind}", "peer", {**theirs, "weights": "bfloat16"}))
                    autocast = {**theirs, "weights": "float32"}
                    sides.append(Side(f"TRL, autocast{behind}", "peer", autocast, slower=True))
            found.append(Case(f"{'LoRA' if lora else 'full'}, {dtype}", sides, TARGETS[dtype]))
    return found


def checks(options: Namespace) -> list[Check]:
    settings = {**given(options), "lora": False, "dtype": "float32"}
    theirs = {**settings, "batch": 1, "weights": "float32"}
    return [
        Check(
            "summed log-probabilities of every completion, float32",
            [
                Side("teloi", "our_numbers", {**settings, "micro_tokens": options.micro_tokens}),
                Side("TRL", "peer_numbers", theirs),
            ],
        )
    ]


def ours(rows: list[Any], device: str, steps: int, **settings: Any) -> Any:
    from benchmarks.sides import trainer
    from teloi.methods.prefer.dpo import DPO

    return trainer(DPO(), rows, steps=steps + 1, **settings)


def teloi(**settings: Any) -> Result:
    """All steps but the first."""
    made, watch = ours(**settings), Watch()
    for _ in made.run():
        watch()
    return watch.result(len(settings["rows"]) * settings["steps"])


def our_numbers(**settings: Any) -> Result:
    from benchmarks.sides import branch_sums

    made = ours(**settings)
    return {"numbers": branch_sums(made.models, made.examples)}


def theirs(
    rows: list[Any], model: Any, device: str, lora: bool, dtype: str, batch: int, weights: str, **more: Any
) -> Any:
    from benchmarks.sides import load, peer_trainer

    loaded, tokenizer = model if isinstance(model, tuple) else load(model, weights)
    return peer_trainer(
        "DPO",
        rows,
        loaded,
        tokenizer,
        device=device,
        autocast=dtype == "bfloat16" and weights == "float32",
        batch=batch,
        lora=lora and not hasattr(loaded, "peft_config"),
        precompute_ref_log_probs=True,
        max_length=1024,
        **more,
    )


def peer(**settings: Any) -> Result:
    """Steps on all rows, after one on the longest alone: the optimiser's state and the largest tensors have been
    there."""
    rows, watch = settings.pop("rows"), Watch()
    warm = theirs(rows[-settings["batch"] :], **{**settings, "steps": 1})
    warm.train()
    made = theirs(
        rows,
        **{**settings, "model": (warm.model, warm.processing_class)},
        optimizer=warm.optimizer.optimizer,
        marks=watch,
    )
    made.train()
    return watch.result(len(rows) * settings["steps"])


def peer_numbers(**settings: Any) -> Result:
    table = theirs(**settings).train_dataset
    return {"numbers": [v for row in table for v in (row["ref_chosen_logps"], row["ref_rejected_logps"])]}


BENCHMARK = Benchmark("preference_step", ABOUT, "pairs", cases, checks, arguments)

if __name__ == "__main__":
    main(BENCHMARK)

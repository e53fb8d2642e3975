"""The limit: our step against the bare forward and backward of the same tokens."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from benchmarks import rows as data
from benchmarks.harness import Benchmark, Case, Result, Side, Watch, main, peak_bytes

if TYPE_CHECKING:
    from teloi.batch.tree import TreeBatch
    from teloi.engine.loop import Trainer

ABOUT = """Our whole step, optimiser included, against the bare forward and backward of transformers' model on as many
tokens, in rows of equal length without a mask, and the vocabulary product on as many scored positions. `of peak`:
floating-point operations that the model needs, a second, by those of a large matrix product. `in products`: the share
of matrix products in a profile of our step, which no change around them can undercut."""

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm")
KINDS = ("sft", "dpo", "group of 8")
TARGETS = {"time": 1.15}


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rows", type=int, default=16, help="rows in a step, as teloi train takes them (a quarter of them in groups)"
    )
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["bfloat16"])
    data.arguments(parser)


def cases(options: Namespace) -> list[Case]:
    found = []
    for kind in KINDS:
        for dtype in options.dtype:
            count = 4 if options.tiny else options.rows
            rows = data.pairs(max(1, count // 4) if kind.startswith("group") else count, data.source(options))
            settings = {"kind": kind, "dtype": dtype, "model": data.model(options), "rows": rows}
            faster = "eager" if dtype == "bfloat16" else "sdpa"
            bare = [
                Side(f"bare, {name}", "bare", {**settings, "attention": name}, slower=name != faster)
                for name in ("sdpa", "eager")
            ]
            found.append(Case(f"{kind}, {dtype}", [Side("teloi", "step", settings), *bare], TARGETS))
    return found


def made(kind: str, dtype: str, model: str, rows: list[Any]) -> Trainer:
    """Our trainer for three steps of that kind."""
    from benchmarks.sides import trainer
    from teloi.methods.finetune.sft import SFT
    from teloi.methods.prefer.dpo import DPO

    if kind == "sft":
        return trainer(SFT(), data.completions(rows), 3, model=model, dtype=dtype)
    if kind == "dpo":
        return trainer(DPO(), rows, 3, model=model, dtype=dtype)
    return trainer(given_groups(), [{"prompt": row["prompt"]} for row in rows], 3, model=model, dtype=dtype)


def given_groups() -> Any:
    """GRPO on groups that are given instead of sampled: 8 completions of 64 random tokens, with advantages."""
    from dataclasses import replace

    import numpy as np

    from teloi.batch.tree import Branch
    from teloi.methods.reinforce.grpo import GRPO

    class Given(GRPO):
        def rollout(self, models: Any, examples: Any, now: Any) -> Any:
            draw = now.rng("groups")
            known = len(models.processor.tokenizer)
            columns = {"rewards": np.zeros(self.k, np.float32), "finished": np.zeros(self.k, bool)}

            def branch(number: int) -> Branch:
                made = Branch.scored(draw.integers(known, size=self.max_new_tokens))
                advantages = np.full(self.max_new_tokens, 1 - 2 * (number % 2), np.float32)
                return replace(made, columns={"advantages": advantages})

            return [
                replace(tree, branches=tuple(branch(number) for number in range(self.k)), columns=columns)
                for tree in examples
            ]

    return Given()


def step(**settings: Any) -> Result:
    """The second of three steps of ours; the third is profiled."""
    from torch.profiler import ProfilerActivity, profile

    trainer, watch = made(**settings), Watch()
    steps = trainer.run()
    for _ in range(2):
        next(steps)
        watch()
    found = watch.result(len(settings["rows"])) | {"peak_bytes": peak_bytes()}
    device = trainer.models.device.type
    with profile(activities=[getattr(ProfilerActivity, device.upper())]) as profiled:
        next(steps)
    spent = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    times = {event.key: getattr(event, spent) for event in profiled.key_averages()}
    products = sum(time for name, time in times.items() if name in PRODUCTS) / sum(times.values())
    return found | {"flops": flops(trainer, batches(trainer)), "in_products": products}


def bare(attention: str, **settings: Any) -> Result:
    """The same micro-batches through nothing but the model, twice; gradients stay in the parameters."""
    import torch.nn.functional as F

    trainer, watch = made(**settings), Watch()
    micros, model = batches(trainer), trainer.models.policy.model.train()
    model.set_attn_implementation(attention)
    for _ in range(2):
        for batch in micros:
            layout = batch.layout("packed")
            rows = len(batch.trees)
            ids = layout.input_ids[0, : layout.input_ids.shape[1] // rows * rows].view(rows, -1)
            states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
            logits = F.linear(states[layout.source.clamp(max=len(states) - 1)], model.get_output_embeddings().weight)
            F.cross_entropy(logits.float(), batch.target).backward()
        watch()
        model.zero_grad()
    return watch.result(len(settings["rows"])) | {"flops": flops(trainer, micros)}


def batches(trainer: Trainer) -> list[TreeBatch]:
    """The micro-batches of the trainer's first step."""
    from teloi.batch.tree import TreeBatch
    from teloi.engine.objective import Now

    examples = [trainer.examples[i] for i in trainer.plan.examples(0)]
    trees = trainer.objective.rollout(trainer.models, examples, Now(0, 2))
    device = trainer.models.device
    return [TreeBatch([trees[i] for i in micro], device) for micro in trainer.plan.cut([tree.size for tree in trees])]


def flops(trainer: Trainer, micros: list[TreeBatch]) -> float:
    """Operations of a step: 6 for each weight of the layers at each position, 6 for each of the vocabulary matrix at
    each scored one, and attention's."""
    model: Any = trainer.models.policy.model
    config = model.config
    head = model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for p in model.base_model.layers.parameters())
    positions, scored = sum(batch.size for batch in micros), sum(len(batch.target) for batch in micros)
    # A product of queries with keys and one of shares with values, over half a square (causal), forward and twice back.
    seen = sum(
        (len(tree.prompt) + len(branch.ids)) ** 2 - (len(tree.prompt) ** 2 if number else 0)
        for batch in micros
        for tree in batch.trees
        for number, branch in enumerate(tree.branches)
    )
    return 6.0 * float(layers * positions + head * scored + config.hidden_size * config.num_hidden_layers * seen)


BENCHMARK = Benchmark("limit", ABOUT, "rows", cases, arguments=arguments)

if __name__ == "__main__":
    main(BENCHMARK)

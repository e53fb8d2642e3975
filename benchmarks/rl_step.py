"""GRPO: a whole step of ours, sampling and training, against TRL's GRPOTrainer."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import Any

from benchmarks import rows as texts
from benchmarks.harness import Benchmark, Case, Check, Result, Side, Watch, main

ABOUT = """One step of GRPO on the embedded model: four prompts of 128 tokens, groups of 8, 64 new tokens each (no end
token exists), a reward that costs nothing. TRL samples with transformers' generate; no gradient checkpointing, our
allocator, micro-batches of one group. `sampling seconds` are part of `seconds`."""

GROUP = 8
TARGETS = {"speed": 3.0}


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=4, help="prompts in a step")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of each completion")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["bfloat16"])
    texts.arguments(parser)


def given(options: Namespace) -> dict[str, Any]:
    """What every side gets."""
    return {
        "model": texts.model(options),
        "data": texts.source(options),
        "device": options.device,
        "prompts": options.prompts,
        "tokens": 8 if options.tiny else options.new_tokens,
    }


def cases(options: Namespace) -> list[Case]:
    found = []
    for dtype in options.dtype:
        settings = {**given(options), "dtype": dtype}
        sides = [Side("teloi", "teloi", settings), Side("TRL", "peer", {**settings, "weights": dtype})]
        if dtype == "bfloat16":
            sides.append(Side("TRL, autocast", "peer", {**settings, "weights": "float32"}, slower=True))
        found.append(Case(dtype, sides, TARGETS))
    return found


def checks(options: Namespace) -> list[Check]:
    settings = {**given(options), "dtype": "float32"}
    sides = [Side("teloi", "our_numbers", settings), Side("TRL", "peer_numbers", {**settings, "weights": "float32"})]
    return [Check("log-probability of every token of a completion, float32", sides)]


def reward(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    """The share of vowels: it costs nothing, and differs between samples."""
    return [sum(letter in "aeiou" for letter in text) / (len(text) + 1) for text in completions]


def start(model: str, weights: str, prompts: int, data: str) -> tuple[Any, Any, list[dict[str, str]]]:
    """Model, tokenizer and rows for TRL; both sides take the model's rarest token for the end, so that none ends."""
    from benchmarks.sides import load

    loaded, tokenizer = load(model, weights)
    endless(loaded, tokenizer)
    return loaded, tokenizer, [{"prompt": text} for text in texts.prompts(tokenizer, prompts, 128, data)]


def endless(model: Any, tokenizer: Any) -> None:
    """Make the last token of the vocabulary the end token."""
    last = len(tokenizer) - 1
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(last)
    model.generation_config.eos_token_id = model.config.eos_token_id = last


def ours(model: str, data: str, device: str, prompts: int, tokens: int, dtype: str) -> tuple[Any, list[float]]:
    """Our trainer for two steps, and the list of the seconds that its rollouts take."""
    from benchmarks.sides import load, trainer
    from teloi.methods.reinforce.grpo import GRPO

    sampling: list[float] = []

    class Timed(GRPO):
        def rollout(self, *arguments: Any) -> Any:
            started = time.perf_counter()
            found = super().rollout(*arguments)
            sampling.append(time.perf_counter() - started)
            return found

    objective = Timed(reward="benchmarks.rl_step:reward", k=GROUP, max_new_tokens=tokens)
    rows = [{"prompt": text} for text in texts.prompts(load(model, dtype)[1], prompts, 128, data)]
    made = trainer(objective, rows, steps=2, model=model, dtype=dtype)
    assert made.models.processor is not None
    endless(made.models.policy.model, made.models.processor.tokenizer)
    return made, sampling


def teloi(**settings: Any) -> Result:
    """The second of two steps."""
    (made, sampling), watch = ours(**settings), Watch()
    for _ in made.run():
        watch()
    amount = settings["prompts"] * GROUP * settings["tokens"]
    return watch.result(amount) | {"sampling_seconds": sampling[-1]}


def theirs(
    rows: list[Any], model: Any, tokenizer: Any, device: str, tokens: int, dtype: str, weights: str, **more: Any
) -> Any:
    from benchmarks.sides import peer_trainer

    return peer_trainer(
        *("GRPO", rows, model, tokenizer),
        device=device,
        autocast=dtype == "bfloat16" and weights == "float32",
        batch=GROUP,
        num_generations=GROUP,
        max_completion_length=tokens,
        gradient_accumulation_steps=len(rows),
        given={"reward_funcs": reward},
        **more,
    )


def peer(prompts: int, model: str, data: str, weights: str, **settings: Any) -> Result:
    """A step on all prompts, after one on one of them."""
    loaded, tokenizer, rows = start(model, weights, prompts, data)
    settings |= {"weights": weights}
    warm = theirs(rows[:1], loaded, tokenizer, **settings)
    warm.train()
    watch = Watch()
    made = theirs(rows, warm.model, tokenizer, **settings, optimizer=warm.optimizer.optimizer, marks=watch)
    sampling = timed(made, "_generate_single_turn")
    made.train()
    return watch.result(prompts * GROUP * settings["tokens"]) | {"sampling_seconds": sum(sampling)}


def timed(trainer: Any, method: str) -> list[float]:
    """The list of the seconds that a method's calls will take."""
    seconds: list[float] = []
    original = getattr(trainer, method)

    def call(*arguments: Any, **more: Any) -> Any:
        started = time.perf_counter()
        found = original(*arguments, **more)
        seconds.append(time.perf_counter() - started)
        return found

    setattr(trainer, method, call)
    return seconds


def our_numbers(**settings: Any) -> Result:
    """The second prompt's ids as a completion of the first, and so on."""
    from dataclasses import replace

    from teloi.batch.tree import Branch, TreeBatch
    from teloi.models.roles import evaluation

    made, _ = ours(**settings)
    policy = made.models.policy
    trees = [
        replace(one, branches=(Branch.scored(other.prompt[: settings["tokens"]]),))
        for one, other in zip(made.examples, [*made.examples[1:], made.examples[0]], strict=True)
    ]
    with evaluation(policy.model):
        return {"numbers": policy.logps(TreeBatch(trees)).tolist()}


def peer_numbers(prompts: int, model: str, data: str, weights: str, **settings: Any) -> Result:
    import torch

    loaded, tokenizer, rows = start(model, weights, prompts, data)
    made = theirs(rows, loaded, tokenizer, weights=weights, **settings)
    tokens = settings["tokens"]
    ids = torch.tensor(tokenizer([row["prompt"] for row in rows])["input_ids"])
    ids = torch.cat([ids, ids.roll(-1, 0)[:, :tokens]], 1)
    with torch.no_grad():
        logps, *_ = made._get_per_token_logps_and_entropies(made.model, ids, torch.ones_like(ids), tokens)
    return {"numbers": logps.flatten().tolist()}


BENCHMARK = Benchmark("rl_step", ABOUT, "new tokens", cases, checks, arguments)

if __name__ == "__main__":
    main(BENCHMARK)

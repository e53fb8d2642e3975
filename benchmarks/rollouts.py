"""Sampling: several completions of each prompt, against transformers' generate on the same model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks import rows as data
from benchmarks.harness import Benchmark, Case, Check, Result, Side, Watch, main

ABOUT = """Eight samples of each of four prompts of 128 tokens, 64 new tokens each, at temperature 1 over the whole
vocabulary, from transformers models: the embedded one (Llama), and others of its size with random weights. `generate`:
in inference mode, without end tokens, with its dynamic and its static cache."""

TARGETS = {"speed": 2.5}
PROMPTS, SAMPLES, LENGTH = 4, 8, 128
OTHERS = ("qwen3", "gpt_neox")
"""Architectures made from a configuration, by transformers' names."""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of each completion")
    parser.add_argument(
        "--models", nargs="+", default=["smollm2-135m-instruct", OTHERS[0]], help=f"also {', '.join(OTHERS)}"
    )
    parser.add_argument("--data", default="hh-harmless", help="preference pairs that texts are taken from")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["bfloat16"])
    parser.add_argument("--peer-cache", nargs="+", choices=["dynamic", "static"], default=["dynamic"])


def given(options: Namespace, dtype: str) -> list[dict[str, Any]]:
    """What every side gets, for each model."""
    common = {
        "dtype": dtype,
        "device": options.device,
        "data": data.source(options),
        "tokens": 8 if options.tiny else options.new_tokens,
    }
    return [{"model": model, **common} for model in ([data.model(options)] if options.tiny else options.models)]


def cases(options: Namespace) -> list[Case]:
    found = []
    for dtype in options.dtype:
        for settings in given(options, dtype):
            sides = [Side("teloi", "teloi", settings)]
            for cache in options.peer_cache:
                sides.append(Side(f"generate, {cache} cache", "peer", {**settings, "cache": cache}))
            found.append(Case(f"{Path(settings['model']).name}, {dtype}", sides, TARGETS))
    return found


def checks(options: Namespace) -> list[Check]:
    found = []
    for settings in given(options, "float32"):
        sides = [
            Side("teloi", "our_numbers", settings),
            Side("generate", "peer_numbers", {**settings, "cache": "dynamic"}),
        ]
        found.append(Check(f"greedy tokens, {Path(settings['model']).name}, float32", sides, tolerance=0.0))
    return found


def prepare(model: str, data: str, dtype: str, device: str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and prompts [4 128]."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from benchmarks.rows import prompts
    from benchmarks.sides import load
    from teloi.engine.setup import keep_memory
    from teloi.models.load import load_tokenizer

    keep_memory()  # for both sides
    if model in OTHERS:
        tokenizer = load_tokenizer("embedded")
        torch.manual_seed(0)
        settings = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
        more = {"num_key_value_heads": 3, "head_dim": 64} if model == "qwen3" else {}
        config = AutoConfig.for_model(model, vocab_size=len(tokenizer), **settings, **more)
        loaded: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    else:
        loaded, tokenizer = load(model, dtype)
    texts = prompts(tokenizer, PROMPTS, LENGTH, data)
    return loaded.eval().to(device), tokenizer, torch.tensor(tokenizer(texts)["input_ids"], device=device)


def teloi(model: str, data: str, dtype: str, device: str, tokens: int) -> Result:
    """All samples, after one of each prompt and few tokens."""
    from teloi.generate.local import sample

    loaded, tokenizer, prompts = prepare(model, data, dtype, device)
    watch = Watch()
    sample(loaded, tokenizer, prompts.tolist(), 4, n=2, temperature=1.0, stop=[])
    watch()
    made = sample(loaded, tokenizer, prompts.tolist(), tokens, n=SAMPLES, temperature=1.0, stop=[])
    watch()
    return watch.result(sum(len(one.ids) for row in made for one in row))


def peer(model: str, data: str, dtype: str, device: str, tokens: int, cache: str) -> Result:
    """The same with `generate`."""
    loaded, _, prompts = prepare(model, data, dtype, device)
    watch = Watch()
    generate(loaded, prompts, 4, cache, do_sample=True, top_k=0, num_return_sequences=2)
    watch()
    made = generate(loaded, prompts, tokens, cache, do_sample=True, top_k=0, num_return_sequences=SAMPLES)
    watch()
    return watch.result(made.numel())


def generate(model: Any, prompts: Any, tokens: int, cache: str, **settings: Any) -> Any:
    """New tokens [b t], none of which ends a text."""
    import torch

    model.generation_config.eos_token_id = None
    if cache == "static":
        settings["cache_implementation"] = "static"
    with torch.inference_mode():
        made = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=tokens,
            pad_token_id=0,
            **settings,
        )
    return made[:, prompts.shape[1] :]


def our_numbers(model: str, data: str, dtype: str, device: str, tokens: int) -> Result:
    from teloi.generate.local import sample

    loaded, tokenizer, prompts = prepare(model, data, dtype, device)
    made = sample(loaded, tokenizer, prompts.tolist(), tokens, stop=[])
    return {"numbers": [token for row in made for token in row[0].ids]}


def peer_numbers(model: str, data: str, dtype: str, device: str, tokens: int, cache: str) -> Result:
    loaded, _, prompts = prepare(model, data, dtype, device)
    return {"numbers": generate(loaded, prompts, tokens, cache, do_sample=False).flatten().tolist()}


BENCHMARK = Benchmark("rollouts", ABOUT, "tokens", cases, checks, arguments)

if __name__ == "__main__":
    main(BENCHMARK)

"""Text from a local model, in batches: the model's own forward in a loop that does not waste a small machine.

What makes it faster than `model.generate` on a CPU, with any decoder of transformers:

- each prompt is encoded once, whatever the number of samples, and what all prompts of a batch begin with (a chat
  template's system prompt) once for all of them; prompts of like length share a batch;
- keys and values are written into room taken once, where transformers' dynamic cache copies everything at each token;
- samples that have ended leave the batch;
- the weights are packed once for the CPU's matrix product (`packed`);
- a draw costs one uniform number a token, not one for each entry of the vocabulary.

Tokens that the model's generation config bans (`bad_words_ids` of one token each) are never drawn.

Each sample has a random stream of its own, so a sample does not depend on which others share its batch, beyond the
floating-point noise of a matrix product of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from teloi.errors import NonFinite, Overlong, TeloiError
from teloi.generate.forward import Beside, Forward, Mixture
from teloi.generate.packed import packed

FEW = 256
"""Tokens among which a top-p draw looks first: sorting a whole vocabulary costs more than the model does."""


@dataclass(frozen=True)
class Sample:
    """One completion: its token ids without the stop token, and whether it reached one."""

    ids: list[int]
    finished: bool


@dataclass(frozen=True)
class Settings:
    """How to generate: greedily at temperature 0; among the top_k likeliest tokens (0: all), of which top_p keeps the
    likeliest that hold this share."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    n: int = 1
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.n < 1 or self.batch_size < 1:
            raise TeloiError("max_new_tokens, n and batch_size must be at least 1")
        if min(self.temperature, self.top_k) < 0 or not 0 < self.top_p <= 1:
            raise TeloiError("temperature and top_k must not be negative, and top_p lies above 0 and not above 1")


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
    n: int = 1,
    seed: int = 0,
    **more: Any,
) -> list[list[list[int]]]:
    """The token ids of `sample`'s completions: for each prompt, n lists."""
    samples = sample(model, tokenizer, prompts, max_new_tokens, temperature=temperature, n=n, seed=seed, **more)
    return [[one.ids for one in row] for row in samples]


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    n: int = 1,
    seed: int = 0,
    stop: Sequence[int] | None = None,
    batch_size: int = 64,
    progress: Callable[[int], object] | None = None,
    keys: Sequence[int] | None = None,
    beside: Beside | None = None,
) -> list[list[Sample]]:
    """Complete each prompt (token ids) n times, in the order of the prompts.

    `stop`: ids that end a completion (default: the tokenizer's and the model's end tokens). `batch_size`: samples at
    once. `progress` is called with the number of samples just made. The stream of sample j of prompt i is keyed by
    (seed, i, j), or (seed, keys[i], j). `beside`: a second model whose logits are mixed in at every token. Overlong
    when a prompt leaves no room for max_new_tokens; NonFinite when the logits are no numbers."""
    settings = Settings(max_new_tokens, temperature, top_p, top_k, n, seed, batch_size)
    unwrap: Any = getattr(model, "get_base_model", None)  # PEFT's wrapper hides the signature of forward
    base: PreTrainedModel = model if unwrap is None else unwrap()
    limit = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    for number, prompt in enumerate(prompts, start=1):
        if len(prompt) == 0:
            raise TeloiError(f"prompt {number} is empty: there is no token to continue from")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise Overlong(len(prompt), max_new_tokens, limit, where=f"prompt {number}")
    stops = torch.tensor(sorted(_stop_ids(base, tokenizer) if stop is None else set(stop)), dtype=torch.long)
    results: list[list[Sample]] = [[] for _ in prompts]
    # The longest first: what does not fit into memory shows at once.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    per_batch = max(1, batch_size // n)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), packed(base), packed(beside.model) if beside else nullcontext():
            for start in range(0, len(order), per_batch):
                chosen = order[start : start + per_batch]
                made = _complete(
                    base,
                    [prompts[i] for i in chosen],
                    [keys[i] if keys else i for i in chosen],
                    stops.to(base.device),
                    _banned_ids(base).to(base.device),
                    settings,
                    beside,
                )
                for position, i in enumerate(chosen):
                    results[i] = made[position * n : (position + 1) * n]
                if progress is not None:
                    progress(len(made))
    finally:
        model.train(training)
    return results


def _complete(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    stops: Tensor,
    banned: Tensor,
    settings: Settings,
    beside: Beside | None,
) -> list[Sample]:
    """All samples of a batch of prompts: n for the first prompt, n for the second, ..."""
    n, steps, device = settings.n, settings.max_new_tokens, model.device
    # One column of padding for the longest too: without any mask, transformers' grouped-query attention for a single
    # token takes a path that is three times slower on a CPU.
    width = max(map(len, prompts)) + 1
    forward = Mixture(model, beside, width + steps) if beside else Forward(model, width + steps)
    shared = _shared(prompts) if forward.takes_gaps else 0
    # Columns: what all prompts share, padding, the rest of each prompt; so all rows go on at the same column.
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        own = width - (len(prompt) - shared)
        ids[row, :shared], ids[row, own:] = torch.as_tensor(prompt[:shared]), torch.as_tensor(prompt[shared:])
        mask[row, :shared], mask[row, own:] = 1, 1
    ids, mask = ids.to(device), mask.to(device)
    if shared:
        forward(ids[:1, :shared], mask[:1, :shared])
        forward.select(torch.zeros(len(prompts), dtype=torch.long, device=device))
    logits = forward(ids[:, shared:], mask)

    rows = torch.arange(len(prompts), device=device).repeat_interleave(n)
    logits, mask = logits[rows], mask[rows]
    if n > 1:
        forward.select(rows)
    uniforms = torch.zeros(len(rows), steps)
    if settings.temperature > 0:
        for row in range(len(rows)):
            stream = np.random.default_rng([settings.seed, numbers[row // n], row % n])
            uniforms[row] = torch.from_numpy(stream.random(steps, dtype=np.float32))
    uniforms = uniforms.to(device)

    completions: list[list[int]] = [[] for _ in rows]
    finished = [False] * len(rows)
    live = list(range(len(rows)))  # the sample that each row of the batch holds
    for step in range(steps):
        if len(banned):
            logits = logits.index_fill(1, banned, -torch.inf)
        tokens = _pick(logits, uniforms[:, step], settings)
        for sample_number, token, ends in zip(live, tokens.tolist(), torch.isin(tokens, stops).tolist(), strict=True):
            if not finished[sample_number]:
                finished[sample_number] = ends
                if not ends:
                    completions[sample_number].append(token)
        kept = [row for row, sample_number in enumerate(live) if not finished[sample_number]]
        if not kept or step + 1 == steps:
            break
        if len(kept) <= 0.8 * len(live):  # leaving costs a copy of the cache: not for every single sample
            rows = torch.tensor(kept, device=device)
            live = [live[row] for row in kept]
            tokens, mask, uniforms = tokens[rows], mask[rows], uniforms[rows]
            forward.select(rows)
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        logits = forward(tokens[:, None], mask)
    return [Sample(ids, done) for ids, done in zip(completions, finished, strict=True)]


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, leaving each at least one of its own."""
    first, length = prompts[0], min(map(len, prompts)) - 1
    return next((i for i in range(length) if any(prompt[i] != first[i] for prompt in prompts)), length)


def _pick(logits: Tensor, uniform: Tensor, settings: Settings) -> Tensor:
    """Next tokens [b] from logits [b v]: the likeliest, or the inverse of the distribution function at uniform [b]."""
    if settings.temperature == 0:
        best, tokens = logits.max(dim=-1)
        _must_be_finite(best)
        return tokens
    # Weights in proportion to the probabilities, in place: fresh memory of this size costs more than the arithmetic.
    weights = logits.to(torch.float32, copy=True).div_(settings.temperature)
    weights.sub_(weights.amax(dim=-1, keepdim=True)).exp_()
    order = None
    if 0 < settings.top_k < weights.shape[-1]:
        weights, order = weights.topk(settings.top_k, dim=-1)
    if settings.top_p < 1:
        enough = settings.top_p * weights.sum(dim=-1, keepdim=True)
        if order is None:
            weights, order = _likeliest(weights, enough)
        weights.masked_fill_(weights.cumsum(dim=-1) - weights >= enough, 0.0)
    heaped = weights.cumsum_(dim=-1)
    total = heaped[:, -1:]
    _must_be_finite(total)
    # right=True skips tokens of probability 0; rounding may reach past the end.
    tokens = torch.searchsorted(heaped, uniform[:, None] * total, right=True).clamp_(max=logits.shape[-1] - 1)
    return (tokens if order is None else order.gather(1, tokens)).squeeze(1)


def _likeliest(weights: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [b v] in falling order with their indices, at least until they sum to `enough` [b 1] in every row."""
    best, order = weights.topk(min(FEW, weights.shape[-1]), dim=-1)
    if bool((best.sum(dim=-1, keepdim=True) < enough).any()):
        best, order = weights.sort(dim=-1, descending=True)
    return best, order


def _must_be_finite(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise NonFinite("the model's logits are no finite numbers: nothing can be generated from it")


def _banned_ids(model: PreTrainedModel) -> Tensor:
    configured = getattr(model.generation_config, "bad_words_ids", None) or []
    return torch.tensor([ids[0] for ids in configured if len(ids) == 1], dtype=torch.long)


def _stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return {int(token) for token in ids if token is not None}

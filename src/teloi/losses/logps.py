"""Log-probabilities of tokens and their reductions to sequences.

The vocabulary product is the largest tensor of a training step, so `token_logps` never holds all of it: it works in
chunks of positions and recomputes them in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_logps(
    hidden: Float[Tensor, "n d"],
    weight: Float[Tensor, "v d"],
    targets: Int[Tensor, " n"],
    bias: Float[Tensor, " v"] | None = None,
    *,
    chunk: int = 256,
) -> Float[Tensor, " n"]:
    """Log-probabilities log softmax(hidden @ weight.T + bias)[targets], without an [n v] tensor.

    Args:
        hidden: last hidden states at the positions that predict the targets.
        weight: the output embedding; cast to hidden's dtype where it differs.
        targets: the ids to score, each in [0, v).
        bias: of the output layer, where the model has one.
        chunk: the most positions whose logits exist at a time.

    Returns:
        Natural logarithms, one per position: float64 for float64 hidden states, else float32. The product is
        taken in hidden's dtype, log-sum-exp and the target's logit in the returned one.

    Differentiable once, in hidden, weight and bias; only gradients that are needed are computed.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    weight = weight.to(hidden.dtype)
    bias = None if bias is None else bias.to(hidden.dtype)
    # The dtypes are this function's own: autocast must not round its products.
    with torch.autocast(hidden.device.type, enabled=False):
        if torch.is_grad_enabled():
            function: Any = _TokenLogps  # torch does not type `apply`
            logps: Tensor = function.apply(hidden, weight, bias, targets, chunk)
            return logps
        return _forward(hidden, weight, bias, targets, chunk, with_slope=False)[0]


class _TokenLogps(torch.autograd.Function):
    """d logp / d logits = onehot(target) - softmax, so an upstream gradient only scales rows."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int) -> Tensor:
        # With a frozen output layer (LoRA) the gradient in hidden, up to its row's scale, is one product on the
        # softmax at hand: the backward pass then recomputes nothing.
        frozen = not any(ctx.needs_input_grad[1:3])
        with_slope = frozen and ctx.needs_input_grad[0]
        logps, normalisers, slope = _forward(hidden, weight, bias, targets, chunk, with_slope)
        if frozen:
            ctx.save_for_backward(slope)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, logps, normalisers)
        ctx.frozen, ctx.chunk = frozen, chunk
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.frozen:
            (slope,) = ctx.saved_tensors
            return (upstream[:, None] * slope).to(slope.dtype), None, None, None, None
        hidden, weight, bias, targets, logps, normalisers = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight) if wants_weight else None
        d_bias = normalisers.new_zeros(len(weight)) if wants_bias else None
        chunks = _Chunks(hidden, weight, bias, ctx.chunk)
        for rows, logits in chunks:
            # softmax - onehot; at the target exp(logp) - 1 is exact where softmax is close to 1.
            slope = logits.sub_(normalisers[rows, None]).exp_()
            slope.scatter_(1, targets[rows, None], logps[rows, None].expm1())
            scale = -upstream[rows]
            if d_bias is not None:
                d_bias.addmv_(slope.T, scale)
            slope = chunks.narrow(slope)
            if d_hidden is not None:
                torch.mm(slope, weight, out=d_hidden[rows])
                d_hidden[rows] *= scale[:, None]
            if d_weight is not None:
                d_weight.addmm_(slope.T, (hidden[rows] * scale[:, None]).to(hidden.dtype))
        return d_hidden, d_weight, None if d_bias is None else d_bias.to(weight.dtype), None, None


def _forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int, with_slope: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-probabilities and log-normalisers [n]; with_slope also d logp / d hidden [n d]."""
    chunks = _Chunks(hidden, weight, bias, chunk)
    logps = hidden.new_empty(len(hidden), dtype=chunks.wide.dtype)
    normalisers = torch.empty_like(logps)
    slope = torch.empty_like(hidden) if with_slope else None
    for rows, logits in chunks:
        index = targets[rows, None]
        if chunks.narrows:
            # A bfloat16 logit of 20 is off by up to 0.06. The target's is worth a product of its own; put back
            # among the others it also keeps log-probabilities at or below 0.
            exact = (hidden[rows] * weight[targets[rows]].to(logits.dtype)).sum(1, keepdim=True)
            logits.scatter_(1, index, exact if bias is None else exact + bias[index])
        chosen = logits.gather(1, index)
        top = logits.amax(1, keepdim=True)
        mass = logits.sub_(top).exp_().sum(1, keepdim=True)
        normaliser = mass.log().add_(top)
        logps[rows] = (chosen - normaliser)[:, 0]
        normalisers[rows] = normaliser[:, 0]
        if slope is not None:
            softmax = chunks.narrow(logits.div_(mass))
            torch.sub(weight[targets[rows]], softmax @ weight, out=slope[rows])
    return logps, normalisers, slope


class _Chunks:
    """The logits of even slices of the positions, each in the same memory: fresh pages cost more than arithmetic."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> None:
        self.hidden, self.weight, self.bias = hidden, weight, bias
        count = max(1, -(-len(hidden) // chunk))
        self.size = max(1, -(-len(hidden) // count))
        self.product = hidden.new_empty(self.size, len(weight))
        self.narrows = hidden.dtype not in (torch.float32, torch.float64)
        self.wide = torch.empty_like(self.product, dtype=torch.float32) if self.narrows else self.product

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.hidden), self.size):
            rows = slice(start, min(start + self.size, len(self.hidden)))
            product = self.product[: rows.stop - start]
            if self.bias is None:
                torch.mm(self.hidden[rows], self.weight.T, out=product)
            else:
                torch.addmm(self.bias, self.hidden[rows], self.weight.T, out=product)
            yield rows, self.wide[: rows.stop - start].copy_(product) if self.narrows else product

    def narrow(self, values: Tensor) -> Tensor:
        """The current chunk's values in hidden's dtype, in place of its product."""
        return self.product[: len(values)].copy_(values) if self.narrows else values


def logps_from_logits(logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Log-probabilities log softmax(logits)[targets]: float64 for float64 logits, else float32.

    For logits that exist anyway; `token_logps` is the one for training.
    """
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.log_softmax(-1, dtype=wide).gather(-1, targets[:, None])[:, 0]


def sequence_logps(
    logits: Float[Tensor, "b t v"],
    labels: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"] | Int[Tensor, "b t"] | Float[Tensor, "b t"],
) -> Float[Tensor, " b"]:
    """Masked sum over t >= 1 of log p(labels_t | ...), the logits at t - 1 predicting the label at t.

    Args:
        logits: of a causal model for the whole sequence.
        labels: the sequence itself; any value, also -100, where the mask is 0.
        mask: 1 on the tokens to score (the completion and its end token), 0 elsewhere. Position 0 has no
            prediction and never counts.

    Returns:
        The masked sum (not a mean), float64 for float64 logits, else float32. An empty mask gives 0.

    Source: Rafailov et al. 2023 (DPO), log pi(y | x) = sum over tokens of y.
    """
    mask = mask[:, 1:]
    targets = torch.where(mask != 0, labels[:, 1:], 0)
    logps = logps_from_logits(logits[:, :-1].flatten(0, 1), targets.flatten()).view_as(targets)
    return torch.where(mask != 0, logps * mask, 0).sum(1)


def segment_sum(values: Float[Tensor, " n"], segments: Int[Tensor, " n"], count: int) -> Float[Tensor, " k"]:
    """Sums of values by segment id in [0, count), zero for a segment without values. Returns [count]."""
    return values.new_zeros(count).index_add(0, segments, values)


def segment_mean(values: Float[Tensor, " n"], segments: Int[Tensor, " n"], count: int) -> Float[Tensor, " k"]:
    """Means of values by segment id in [0, count), zero for a segment without values. Returns [count]."""
    return per_token(segment_sum(values, segments, count), torch.bincount(segments, minlength=count))


def per_token(sums: Float[Tensor, " b"], lengths: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Length normalisation: sums / max(lengths, 1), so that an empty completion gives its sum, 0.

    Source: SimPO (Meng et al. 2024, eq. 3); Tülu 3 (Lambert et al. 2024).
    """
    return sums / lengths.clamp(min=1)


def perplexity(
    logps: Float[Tensor, "n t"],
    lengths: Int[Tensor, " n"],
    variant: Literal["paper", "official"] = "paper",
) -> Float[Tensor, ""]:
    """Perplexity of a group of responses: exp of their mean negative log-likelihood (Sonkar et al. 2024).

    Args:
        logps: token log-probabilities, row i meaningful in its first lengths[i] columns.
        lengths: scored tokens of each response.
        variant: "paper" weights every token alike: exp(sum NLL / sum n). "official" is the released script's
            weighting of each response's mean by n - 1, for comparison with its numbers.

    Returns:
        A scalar. ValueError where no response carries weight (none at all; for "official", all of one token).
    """
    inside = torch.arange(logps.shape[1], device=logps.device) < lengths[:, None]
    nll = -torch.where(inside, logps, 0).sum(1)
    weights = lengths if variant == "paper" else (lengths - 1).clamp(min=0)
    if not weights.any():
        raise ValueError(f"perplexity ({variant}) of {len(lengths)} responses without a token that counts")
    return ((per_token(nll, lengths) * weights).sum() / weights.sum()).exp()

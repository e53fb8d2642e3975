"""A follower is a copy without parameters that moves as it should; a queue keeps the last, whatever is pushed."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from teloi.models.momentum import EMPTY, Average, Queue, follow, follower, trainable
from teloi.models.scratch import scratch_model, train_tokenizer


def test_a_follower_computes_the_same_and_has_buffers_only() -> None:
    tokenizer = train_tokenizer(["the cat sat"], 400, "seq2seq")
    encoder: Any = scratch_model("tiny", tokenizer, "seq2seq").get_encoder().eval()
    copy = follower(encoder)
    ids = torch.tensor([[5, 9, 200, 3]])
    found, expected = (one(input_ids=ids, attention_mask=torch.ones_like(ids))[0] for one in (copy, encoder))
    torch.testing.assert_close(found, expected)
    assert not list(copy.parameters())
    assert {name for name, _ in copy.named_buffers()} == {name for name, _ in encoder.named_parameters()}


def test_it_follows_in_float32_what_bfloat16_would_lose() -> None:
    layer = nn.Linear(3, 3).bfloat16()
    copy: Any = follower(layer)
    with torch.no_grad():
        layer.weight.add_(1.0)
    start = copy.weight.clone()
    for _ in range(10):
        follow(dict(copy.named_buffers()), dict(layer.named_parameters()), 0.995)
    gap = layer.weight.float() - start
    torch.testing.assert_close(copy.weight - start, (1 - 0.995**10) * gap, rtol=1e-4, atol=1e-6)


@given(st.integers(0, 7), st.lists(st.integers(0, 20), max_size=8))
def test_a_queue_holds_the_last_that_were_pushed(size: int, pushes: list[int]) -> None:
    queue = Queue(size, 2)
    said: list[int] = []
    for count in pushes:
        new = torch.arange(len(said), len(said) + count)
        queue.push(new[:, None].expand(count, 2).float(), new[:, None])
        said += new.tolist()
    kept = [number for number in queue.numbers[:, 0].tolist() if number != EMPTY]
    assert sorted(kept) == (said[-size:] if size else [])
    for number, vector in zip(queue.numbers[:, 0].tolist(), queue.vectors.tolist(), strict=True):
        assert vector == ([0.0, 0.0] if number == EMPTY else [float(number)] * 2)


def test_the_average_of_what_is_trained_stands_in_for_it() -> None:
    held = nn.Linear(2, 2).requires_grad_(False)
    model = nn.Sequential(held, nn.Linear(2, 2)).bfloat16()
    average = Average(model)
    assert len(list(average.buffers())) == 2
    start = [p.detach().float().clone() for p in trainable(model)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for _ in range(10):
        average.follow(trainable(model), 0.995)
    own = [p.detach().clone() for p in model.parameters()]
    with average.instead(model):
        for parameter, before, now in zip(trainable(model), start, own[2:], strict=True):
            wanted = before + (1 - 0.995**10) * (now.float() - before)
            torch.testing.assert_close(parameter.float(), wanted.bfloat16().float())
        assert torch.equal(held.weight, own[0])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), own, strict=True))

"""The plan: each example once an epoch, budgets kept, micro-batches within their size, a pure function."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.engine.config import Budget
from teloi.engine.objective import Quotas
from teloi.engine.plan import make_plan, pack
from teloi.errors import UsageError

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def drawn(plan) -> list[int]:
    return [i for step in range(plan.steps) for i in plan.examples(step)]


@given(lengths, st.integers(1, 9), st.integers(1, 100), st.integers(1, 3), st.sampled_from(["packed", "padded"]))
def test_each_epoch_sees_every_example_once(lengths, batch_size, micro, epochs, kind) -> None:
    plan = make_plan(lengths, batch_size=batch_size, micro_tokens=micro, seed=3, epochs=epochs, kind=kind)
    stream = drawn(plan)
    n = len(lengths)
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert plan.tokens == sum(lengths[i] for i in stream)
    for step in range(plan.steps):
        assert Counter(i for micros in plan.step(step) for i in micros) == Counter(plan.examples(step))


@given(lengths, st.integers(1, 100), st.sampled_from(["packed", "padded"]))
def test_micro_batches_stay_within_their_size(lengths, size, kind) -> None:
    bins = pack(list(range(len(lengths))), tuple(lengths), size, kind)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    for b in bins:
        cost = sum(lengths[i] for i in b) if kind == "packed" else len(b) * max(lengths[i] for i in b)
        assert cost <= size or len(b) == 1


@given(lengths, st.integers(1, 100))
def test_packing_is_first_fit(lengths, size) -> None:
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [b for b in bins if sum(lengths[j] for j in b) + lengths[i] <= size]
        if not fits:
            bins.append([])
        (fits or bins[-1:])[0].append(i)
    assert pack(list(range(len(lengths))), lengths, size) == bins


@given(lengths, st.integers(1, 200), st.booleans())
def test_what_a_run_uses_is_what_it_draws(lengths, rows, strata) -> None:
    quotas = Quotas([i % 2 for i in range(len(lengths))], {0: 3.0, 1: 1.0}) if strata else None
    plan = make_plan(lengths, batch_size=3, micro_tokens=64, seed=1, budget=Budget(rows, "rows"), quotas=quotas)
    assert plan.used.tolist() == sorted(set(drawn(plan)))


@given(lengths, st.integers(1, 3000), st.integers(0, 5))
def test_a_budget_of_tokens_is_used_and_not_exceeded(lengths, tokens, seed) -> None:
    plan = make_plan(lengths, batch_size=4, micro_tokens=64, seed=seed, budget=Budget(tokens))
    assert plan.tokens <= tokens or plan.rows == 1
    longer = make_plan(lengths, batch_size=4, micro_tokens=64, seed=seed, budget=Budget(plan.rows + 1, "rows"))
    assert longer.tokens > tokens


def test_a_run_is_the_same_when_asked_again_and_another_with_another_seed() -> None:
    make = lambda seed: drawn(make_plan([1] * 30, batch_size=4, micro_tokens=9, seed=seed, epochs=2))  # noqa: E731
    assert make(0) == make(0) != make(1)


def test_whole_steps_for_coupled_losses() -> None:
    plan = make_plan([10] * 9, batch_size=4, micro_tokens=10, seed=0, whole=True)
    assert [len(plan.step(i)) for i in range(plan.steps)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("200k", Budget(200_000)),
        ("1.5M tokens", Budget(1_500_000)),
        ("300 rows", Budget(300, "rows")),
        ("50steps", Budget(50, "steps")),
    ],
)
def test_budgets_are_read(text, budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "many", "-3", "0", "3 hours", "1.2.3k"])
def test_other_budgets_are_refused(text) -> None:
    with pytest.raises(UsageError, match="not of the form"):
        Budget.parse(text)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=40), st.tuples(*[st.integers(1, 5)] * 3), st.integers(1, 9))
def test_quotas_hold_in_every_stretch_and_use_all_examples_evenly(strata, shares, batch_size) -> None:
    quotas = Quotas(strata, dict(enumerate(shares)))
    plan = make_plan([1] * len(strata), batch_size=batch_size, micro_tokens=9, seed=1, epochs=20, quotas=quotas)
    stream = drawn(plan)
    assert len(stream) == 20 * len(strata)
    total = sum(shares[s] for s in set(strata))
    n = len(strata)
    for stratum in set(strata):
        share = shares[stratum] / total
        for epoch in range(20):
            part = stream[epoch * n : (epoch + 1) * n]
            for end in range(1, n + 1):
                assert abs(sum(strata[i] == stratum for i in part[:end]) - end * share) < 1.5
        uses = Counter(i for i in stream if strata[i] == stratum)
        assert len(uses) == strata.count(stratum) or sum(uses.values()) < strata.count(stratum)
        assert max(uses.values(), default=0) - min(uses.values(), default=0) <= 1


def test_a_budget_of_tokens_with_quotas() -> None:
    quotas = Quotas([0, 1, 1, 1], {0: 0.5, 1: 0.5})
    plan = make_plan([5, 1, 1, 1], batch_size=2, micro_tokens=9, seed=0, budget=Budget(27), quotas=quotas)
    assert 22 < plan.tokens <= 27
    never = make_plan([5, 1, 1, 1], batch_size=2, micro_tokens=9, seed=0, epochs=3, quotas=Quotas([0, 1, 1, 1], {1: 1}))
    assert 0 not in drawn(never)

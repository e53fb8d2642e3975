"""PPO on macro actions: ppo where they are single tokens, the paper's numbers, and every way to cut an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi import losses
from teloi.batch.tree import Branch, Tree
from teloi.data.formats import PromptOnly
from teloi.engine.objective import Now
from teloi.errors import UsageError
from teloi.methods.reinforce.macro_ppo import MacroPPO
from teloi.methods.reinforce.ppo import PPO
from teloi.models.roles import FrozenReference, LanguageModel, Models, evaluation
from tests.engine.conftest import examples_for, make_trainer, tiny_model, tiny_models

NOW = Now(0, 1, places=tuple(range(6)))
CASES = Path(__file__).parents[2] / "golden" / "cases" / "marlhf"


def spelling(texts: Sequence[str]) -> list[Any]:
    """A tree of each text, in which words come in twos; None for every third text."""
    words = [text.split() for text in texts]
    return [None if i % 3 == 2 else [w[j : j + 2] for j in range(0, len(w), 2)] for i, w in enumerate(words)]


def wrong(texts: Sequence[str]) -> list[Any]:
    return [["other", "words"] for _ in texts]


def made(kind: type[PPO] = MacroPPO, **settings: Any) -> Any:
    """With a reward and everything else that macro-ppo and ppo differ in set alike."""
    common = {"reward": "tests.engine.conftest:length_reward", "k": 2, "max_new_tokens": 9, "kl": 0.3}
    return kind(**{**common, "whiten_advantages": False, "gamma": 0.9, "lam": 0.8, **settings})


def rolled(objective: PPO, now: Now = NOW) -> list[Tree]:
    models = tiny_models(objective)
    models.reference = FrozenReference(LanguageModel(tiny_model(seed=5), "packed"))
    with evaluation(*models.trained):
        return list(objective.rollout(models, examples_for(objective, 6), now))


def branches(trees: Sequence[Tree]) -> list[Branch]:
    return [branch for tree in trees for branch in tree.branches]


@pytest.mark.parametrize("macro_reward", ["sum", "sigma"])
def test_single_tokens_are_ppo(macro_reward: str) -> None:
    pairs = zip(branches(rolled(made(n=1, macro_reward=macro_reward))), branches(rolled(made(PPO))), strict=True)
    for macro, plain in pairs:
        assert (macro.ids == plain.ids).all()
        for name in ("advantages", "returns"):
            np.testing.assert_allclose(macro.columns[name], plain.columns[name], rtol=1e-5, atol=1e-6)


SETTINGS: list[dict[str, Any]] = [
    {"n": 3},
    {"n": 99},
    {"n": 2, "weights": "position", "macro_reward": "sigma"},
    {"n": 4, "weights": "unit", "keep_empty": True},
    {"segments": "randomized", "sizes": (1, 2, 3), "repeats": 1},
    {"segments": "perplexity"},
    {"segments": "perplexity", "offset": 1, "keep_empty": True},
    {"segments": "parsing", "parser": "tests.methods.reinforce.test_macro_ppo:spelling", "cutoff": 3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_segments_share_what_the_definition_says(settings: dict[str, Any]) -> None:
    objective = made(**settings)
    cuts = []
    for branch in branches(rolled(objective)):
        columns = {name: torch.as_tensor(value) for name, value in branch.columns.items()}
        length = len(branch.ids)
        starts = torch.repeat_interleave(torch.arange(length), columns["starts"])
        cuts.append(starts.tolist())
        rewards = columns["token_rewards"] - 0.3 * (columns["old_logps"] - columns["reference_logps"])
        total = objective.macro_reward == "sum"
        macro = losses.aggregate(rewards, starts, objective.weights, total=total)
        values = losses.aggregate(columns["values"], starts, objective.weights)
        found = losses.gae(macro[None], values[None], 0.9, 0.8)[0]
        for name, wanted in (("advantages", found), ("returns", found + values)):
            torch.testing.assert_close(columns[name], losses.spread(wanted, starts, length), rtol=1e-4, atol=1e-5)
        assert columns["starts"][0] >= 1
        assert columns["starts"][-1] >= 1
    assert any(len(cut) > 2 for cut in cuts) or objective.n == 99


def test_perplexity_is_the_start_models() -> None:
    objective = made(segments="perplexity", kl=0.0)
    assert objective.roles == ("policy", "reference")
    for branch in branches(rolled(objective)):
        perplexities = torch.as_tensor(branch.columns["reference_logps"]).neg().exp()
        assert np.flatnonzero(branch.columns["starts"]).tolist() == losses.perplexity_starts(perplexities)


def test_drawn_lengths_belong_to_the_place_and_the_step() -> None:
    objective = made(segments="randomized", sizes=(1, 2, 3))
    one, same, other = (rolled(objective, now) for now in (NOW, NOW, replace(NOW, seed=1)))
    cuts = [[branch.columns["starts"].tolist() for branch in branches(trees)] for trees in (one, same)]
    assert cuts[0] == cuts[1]
    assert len({str(cut) for cut in cuts[0]}) > 2
    # With half of the examples on another process, each draws what it drew before.
    models = tiny_models(objective)
    with evaluation(*models.trained):
        half = objective.rollout(models, examples_for(objective, 6)[3:], replace(NOW, places=(3, 4, 5), rank=1))
    ids = [branch.ids.tolist() for branch in branches(half)]
    assert ids == [branch.ids.tolist() for branch in branches(one)[6:]]
    assert [branch.columns["starts"].tolist() for branch in branches(half)] == cuts[0][6:]
    assert branches(other)


def test_trees_that_do_not_fit_are_counted_and_cut_every_n_tokens() -> None:
    objective = made(segments="parsing", parser="tests.methods.reinforce.test_macro_ppo:wrong", n=4)
    trees = rolled(objective)
    models = tiny_models(objective)
    terms = objective.loss(models, objective.collate(trees, NOW, "cpu"), NOW)
    assert terms["unparsed"].values.flatten().tolist() == [1.0] * 12
    for branch in branches(trees):
        assert np.flatnonzero(branch.columns["starts"]).tolist() == losses.fixed_starts(len(branch.ids), 4)
    lengths = [len(branch.ids) for branch in branches(trees)]
    segments = float(terms["segment"].values.sum() / terms["segment"].per.sum())
    assert segments == pytest.approx(sum(lengths) / sum(len(losses.fixed_starts(n, 4)) for n in lengths))


def test_rewards_are_held() -> None:
    rewards = [branch.columns["token_rewards"].max() for branch in branches(rolled(made(score_clip=0.1)))]
    assert max(rewards) == np.float32(0.1)


@pytest.mark.parametrize("name", ["ma_ppo_fixed5", "ma_ppo_fixed1_empty_segment", "ma_ppo_ppl"])
def test_the_released_codes_numbers(name: str) -> None:
    """A rollout with the vectors' log-probabilities, values and score is credited as the released code does it."""
    params = json.loads((CASES / f"{name}.json").read_text())["params"]
    arrays = np.load(CASES / f"{name}.npz")
    first = params["prompt_len"] - 1
    rewards = np.zeros_like(arrays["values"][0, first:])
    rewards[-1] = arrays["score"][0]
    perplexed = params["condition"] == "ppl"
    columns = {
        "old_logps": arrays["logprobs"][0, first:],
        "reference_logps": arrays["ref_logprobs"][0, first:],
        "values": arrays["values"][0, first:],
        "token_rewards": rewards.clip(-params["score_clip"], params["score_clip"]),
    }
    objective = MacroPPO(
        segments="perplexity" if perplexed else "fixed",
        n=params.get("ngram", 5),
        keep_empty=True,
        macro_reward="sigma",
        kl=params["kl_coef"],
        gamma=params["gamma"],
        lam=params["lam"],
    )
    starts = arrays["out_boundaries"] - first
    if perplexed:  # the vectors' perplexities are not those of their log-probabilities
        columns["starts"] = np.bincount(starts, minlength=len(rewards))
        trees = [Tree(np.array([1], np.int32), (Branch(np.ones(len(rewards), np.int32), rewards, columns),))]
        shaped, values = (torch.as_tensor(one)[None] for one in _shaped(columns, params))
        found = objective.advantages(shaped, values, trees)
        pair = [one[0].numpy() for one in found]
    else:
        branch = Branch(np.ones(len(rewards), np.int32), rewards, columns)
        (tree,) = objective.credited(Models(None), [Tree(np.array([1], np.int32), (branch,))], Now(0, 1))  # type: ignore[arg-type]
        assert np.repeat(np.arange(len(rewards)), tree.branches[0].columns["starts"]).tolist() == starts.tolist()
        pair = [tree.branches[0].columns[name] for name in ("advantages", "returns")]
    for ours, theirs in zip(pair, ("out_advantages", "out_returns"), strict=True):
        wanted = losses.spread(torch.as_tensor(arrays[theirs][0]), torch.as_tensor(starts), len(rewards))
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


def _shaped(columns: dict[str, np.ndarray], params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    kl = columns["old_logps"] - columns["reference_logps"]
    return columns["token_rewards"] - params["kl_coef"] * kl, columns["values"]


def test_it_learns() -> None:
    objective = made(n=3, kl=0.01, k=4, max_new_tokens=6, epochs=4, whiten_advantages=True, lam=0.95, gamma=1.0)
    trees = [Tree(np.array([3 + i, 4], np.int32), (), source=PromptOnly("a prompt")) for i in range(8)]
    rewards = [record["reward"] for record in make_trainer(objective, tiny_models(objective), trees, epochs=20.0).run()]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:2]) + 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "must be at least 1"),
        ({"sizes": ()}, "must be at least 1"),
        ({"offset": 2}, "offset is 0 or 1"),
        ({"segments": "parsing"}, "go together"),
        ({"parser": "x.py:y"}, "go together"),
        ({"score_clip": 0.0}, "score_clip must be above 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**settings)

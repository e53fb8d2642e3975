"""The claim's own parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from teloi import losses
from teloi.claims import nashmd
from teloi.claims.claim import Run
from teloi.methods.finetune.sft import SFT
from teloi.worlds import circles
from teloi.worlds.games import Game, random_game
from tests.claims.judged import run_in_seconds


def one(arm: str | None = None, seed: int = 3) -> Run:
    return Run(arm, seed, True, Path())


def test_quick(tmp_path: Path) -> None:
    result = run_in_seconds("teloi.claims.nashmd", tmp_path)
    assert {arm["name"] for arm in result["arms"]} == {*nashmd.SOLVERS, "start", *nashmd.RLHF, *nashmd.OPPONENTS}


def test_games_are_fair_and_have_an_order_unless_they_go_round() -> None:
    for circular in nashmd.CIRCLES.values():
        game = random_game(np.random.default_rng(0), circular)
        torch.testing.assert_close(game.preferences + game.preferences.T, torch.ones(8, 8, dtype=torch.float64))
        assert float(game.reference.sum()) == pytest.approx(1)
        rewards = losses.bradley_terry(game.reference, game.preferences)
        ranked = torch.allclose(torch.sigmoid(rewards[:, None] - rewards), game.preferences, atol=1e-6)
        assert ranked == (circular == 0)


def test_solvers_come_where_they_should() -> None:
    game = random_game(np.random.default_rng(1), 2.0)
    found = {name: make()(game, 2000) for name, make in nashmd.SOLVERS.items()}
    gaps = {name: [game.gap(policy, nashmd.TAU) for policy in some] for name, some in found.items()}
    assert gaps["table: nash-md"][0] < 1e-3
    assert len(gaps["table: multiplicative weights"]) == 200
    # Of all its grid, the policy that is exploited least: no worse than with the tau of the others.
    rewards = losses.bradley_terry(game.reference, game.preferences)
    same = torch.softmax(game.reference.log() + rewards / nashmd.TAU, 0)
    assert gaps["table: rlhf"][0] <= game.gap(same, nashmd.TAU) + 0.01
    (best,) = found["table: best response"]
    reply = losses.best_response(game.reference, game.reference, game.preferences, nashmd.TAU)
    torch.testing.assert_close(best, reply)


def test_a_policy_is_read_off_as_its_samples_have_it(tmp_path: Path) -> None:
    from teloi.generate.local import generate
    from teloi.models.attention import attention

    run = Run("start", 3, True, tmp_path)
    base = nashmd.scratch(run)
    base = nashmd.train(run, SFT(), base, rows(run), 60, 1e-2)
    policy, missed = nashmd.policy_of(base)
    tokenizer = base.processor.tokenizer
    with attention(base.model, "sdpa"):
        (drawn,) = generate(base.model, tokenizer, [base.processor.prompt_ids(circles.PROMPT)], 4, 1.0, n=4000)
    said = [str(tokenizer.decode(ids)).strip() for ids in drawn]
    known = [circles.ANSWERS.index(text) for text in said if text in circles.ANSWERS]
    assert 1 - len(known) / len(said) == pytest.approx(missed, abs=0.03)
    observed = np.bincount(known, minlength=216) / len(known)
    assert (abs(observed - policy.numpy()) <= 5 * np.sqrt(policy.numpy() / len(known)) + 2e-3).all()


def rows(run: Run) -> list[dict[str, str]]:
    answers = circles.drawn(64, nashmd.START, run.rng("answers"))
    return [{"prompt": circles.PROMPT, "completion": f" {answer}"} for answer in answers]


def test_rewards_stand_where_preferences_would() -> None:
    objective = nashmd.RewardGradient(rewards={"rock rock rock": 1.5, "paper paper paper": -0.5})
    pairs = [("rock rock rock", "paper paper paper"), ("paper paper paper", "no answer")]
    assert objective.referee().preferences(["choose"] * 2, pairs, {}) == [2.5, 0.0]


def test_what_is_exploited_is_the_best_answers_win_rate() -> None:
    table = torch.as_tensor(circles.table())
    start = torch.full((216,), 1 / 216, dtype=torch.float64)
    pure = torch.zeros(216, dtype=torch.float64)
    pure[circles.ANSWERS.index("rock rock rock")] = 1.0
    strong = 1 / (1 + np.exp(-circles.SHARPNESS))
    assert Game(table, start).gap(pure, 0.0) == pytest.approx(strong - 0.5)
    assert 0 <= Game(table, start).gap(start, 0.0) < 0.005

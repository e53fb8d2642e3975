"""Nash-MD: the loss of TRL on the same tensors, the opponents that are asked for, and what a game comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from teloi import losses
from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.formats import PromptOnly
from teloi.engine.config import TrainConfig
from teloi.engine.fit import as_base, fit
from teloi.engine.objective import Now
from teloi.engine.rollout import Sampling
from teloi.errors import UsageError
from teloi.methods.reinforce.nash_md import Game, NashEMA, NashMD
from teloi.models.roles import FrozenReference, LanguageModel, Models
from tests.engine.conftest import tiny_model, tiny_processor

HERE = "tests.methods.reinforce.test_nash_md"
PROMPTS = ["the cat", "on the mat", "the", "sat"]


def longer(prompts: Sequence[str], completions: Sequence[Sequence[str]]) -> list[float]:
    """The longer one is preferred."""
    return [1 / (1 + np.exp(len(b) - len(a))) for a, b in completions]


def silent(prompts: Sequence[str], completions: Sequence[Sequence[str]]) -> list[int]:
    """Cannot tell where the first is the longer one."""
    return [-1 if len(a) > len(b) else 1 for a, b in completions]


def models(objective: Game) -> Models:
    """A policy and a start model that differ."""
    reference = LanguageModel(tiny_model(1).requires_grad_(False), "packed")
    made = Models(LanguageModel(tiny_model(), "packed"), processor=tiny_processor())
    if "reference" in objective.roles:
        made.reference = FrozenReference(reference)
    made.parts = objective.build(made)
    return made


def asked(objective: Game) -> list[Tree]:
    return [objective.encode(PromptOnly(prompt), tiny_processor()) for prompt in PROMPTS]


def opponents(objective: Game, made: Models, seed: int = 0) -> list[list[int]]:
    trees = objective.opponents(made, asked(objective), Sampling(1, 12), Now(0, 1, seed=seed))
    return [tree.branches[0].ids.tolist() for tree in trees]


@pytest.mark.parametrize("credit", ["to_go", "token", "sequence"])
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_the_loss_is_nash_mds_of_each_answer(credit: Any, tau: float) -> None:
    """TRL's, where the KL is credited token by token: the reference a model, answers of different lengths."""
    objective = NashMD(f"{HERE}:longer", tau=tau, kl_credit=credit, max_new_tokens=8)
    made = models(objective)
    trees = objective.rollout(made, asked(objective), Now(0, 1))
    cut = [replace(tree, branches=(Branch.scored(tree.branches[0].ids[: 3 + i]),)) for i, tree in enumerate(trees)]
    batch = TreeBatch(cut)
    terms = objective.loss(made, batch, Now(0, 1))
    assert made.reference is not None
    logps, reference = made.policy.logps(batch), made.reference.logps(batch)
    assert len(set(batch.lengths.tolist())) == len(cut)
    starts = [0, *batch.lengths.cumsum(0).tolist()]
    preference = batch.columns["preference"].flatten()
    for row, (begin, end) in enumerate(pairwise(starts)):
        own, ratios = logps[begin:end], (logps - reference)[begin:end].detach()
        kl = {"token": ratios, "sequence": ratios.sum(), "to_go": ratios.sum() - ratios.cumsum(0) + ratios}[credit]
        wanted = (tau * kl * own).sum() - (preference[row] - 0.5) * own.sum()
        torch.testing.assert_close(terms["policy"].values[row], wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(terms["kl"].values[row], ratios.sum(), atol=1e-5, rtol=1e-5)


def test_answers_are_judged_against_the_opponents() -> None:
    objective = NashMD(f"{HERE}:longer", max_new_tokens=8)
    made = models(objective)
    found = objective.rollout(made, asked(objective), Now(0, 1))
    others = objective.opponents(made, asked(objective), Sampling(1, 8), Now(0, 1))
    decode = tiny_processor().tokenizer.decode
    for tree, other in zip(found, others, strict=True):
        first, second = (str(decode(one.branches[0].ids, skip_special_tokens=True)) for one in (tree, other))
        assert first != second
        assert tree.columns["preference"].tolist() == pytest.approx(longer([""], [(first, second)]))
        assert tree.columns["opponent_finished"].tolist() == other.columns["finished"].tolist()
        assert len(tree.branches) == 1
    again = objective.rollout(made, asked(objective), Now(0, 1))
    assert [t.branches[0].ids.tolist() for t in again] == [t.branches[0].ids.tolist() for t in found]


def test_who_cannot_tell_pushes_nowhere() -> None:
    def told(prompts: Any, pairs: Any, columns: Any) -> list[float | None]:
        return [None, 1.0, None, 0.0]

    class Own(NashMD):
        def referee(self) -> Any:
            from teloi.worlds.judges import Judge

            return Judge(told, fair=True)

    objective = Own(tau=0.0, max_new_tokens=8)
    made = models(objective)
    batch = TreeBatch(objective.rollout(made, asked(objective), Now(0, 1)))
    terms = objective.loss(made, batch, Now(0, 1))
    assert terms["unjudged"].values.flatten().tolist() == [1, 0, 1, 0]
    assert terms["win_rate"].values.tolist() == [0.5, 1.0, 0.5, 0.0]
    assert (terms["policy"].values == 0).tolist() == [True, False, True, False]


def test_the_mixture_is_between_policy_and_start_model() -> None:
    """At its ends the opponent is one of the two, with the same draws."""
    drawn = {share: opponents(NashMD(mixture=share), models(NashMD(mixture=share))) for share in (0.0, 0.5, 1.0)}
    assert drawn[0.0] != drawn[0.5] != drawn[1.0] != drawn[0.0]
    made = models(NashMD())
    alone = Models(LanguageModel(tiny_model(1), "packed"), processor=tiny_processor())
    assert drawn[1.0] == opponents(NashMD(mixture=0.0), alone)
    assert drawn[0.0] == opponents(NashMD(mixture=0.0), made)


def test_self_play_keeps_no_start_model_where_nothing_asks_for_it() -> None:
    assert NashMD(mixture=0.0, tau=0.0).roles == ("policy",)
    assert NashMD(mixture=0.1, tau=0.0).roles == NashMD(mixture=0.0, tau=0.1).roles == ("policy", "reference")
    assert NashEMA(tau=0.0).roles == ("policy",)


def test_nash_ema_plays_against_its_average() -> None:
    objective = NashEMA(momentum=0.5)
    made = models(objective)
    before = opponents(objective, made)
    assert before == opponents(NashMD(mixture=0.0), made)
    with torch.no_grad():
        for parameter, other in zip(made.policy.model.parameters(), tiny_model(1).parameters(), strict=True):
            parameter.copy_(other)
    assert opponents(objective, made) == before
    objective.after_step(made, [], Now(0, 1))
    halfway = tiny_model(1)
    with torch.no_grad():
        for parameter, other in zip(halfway.parameters(), tiny_model(0).parameters(), strict=True):
            parameter.lerp_(other, 0.5)
    alone = Models(LanguageModel(halfway, "packed"), processor=tiny_processor())
    assert opponents(objective, made) == opponents(NashMD(mixture=0.0), alone) != before


def test_an_unfinished_answer_pays() -> None:
    tree = Tree(
        np.asarray([5], np.int32),
        (Branch.scored([6, 7]),),
        {
            "preference": np.asarray([0.5], np.float32),
            "judged": np.asarray([True]),
            "finished": np.asarray([False]),
            "opponent_finished": np.asarray([True]),
        },
    )
    objective = NashMD(unfinished=1.0, tau=0.0, mixture=0.0)
    found = objective.loss(models(objective), TreeBatch([tree]), Now(0, 1))["win_rate"].values
    torch.testing.assert_close(found, torch.sigmoid(torch.tensor([-1.0])))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mixture": 1.5}, "mixture must lie between 0 and 1"),
        ({"tau": -0.1}, "tau must not be negative"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        NashMD(**wrong)
    with pytest.raises(UsageError, match="momentum must lie between 0 and 1"):
        NashEMA(momentum=1.1)


@pytest.mark.parametrize("objective", [NashMD(mixture=0.5, tau=0.5), NashEMA(momentum=0.9, tau=0.5)])
def test_it_comes_to_the_equilibrium_of_a_game_of_single_tokens(objective: Game) -> None:
    """Answers of one letter, of which b is preferred to a and c: the policy goes there as far as tau lets it."""
    from teloi.models.scratch import scratch_model, word_tokenizer

    tokenizer = word_tokenizer(["say", "a", "b", "c"])
    torch.manual_seed(0)
    base = as_base(scratch_model((32, 1, 4), tokenizer), tokenizer, max_length=8, layout="padded")
    objective = replace(objective, judge=f"{HERE}:prefers_b", max_new_tokens=1)
    config = TrainConfig(
        budget="60 steps", batch_size=64, learning_rate=3e-3, lr_scheduler_type="constant", micro_tokens=1024
    )
    chances = []
    for model in (base.model, fit(objective, base, [{"prompt": "say"}] * 64, config).base.model):
        with torch.no_grad():
            chances.append(
                model.eval()(torch.tensor([tokenizer("say")["input_ids"]])).logits[0, -1].double().softmax(0)
            )
    letters = torch.full((len(tokenizer),), 0.2, dtype=torch.float64)
    letters[tokenizer.convert_tokens_to_ids("b")] = 0.8
    preferences = torch.sigmoid(letters.logit()[:, None] - letters.logit())
    wanted = losses.equilibrium(chances[0], preferences, 0.5)
    b = tokenizer.convert_tokens_to_ids("b")
    assert float(chances[1][b]) > 1.3 * float(chances[0][b])
    assert float(losses.divergence(wanted, chances[1])) < 0.3 * float(losses.divergence(wanted, chances[0]))


def prefers_b(prompts: Sequence[str], completions: Sequence[Sequence[str]]) -> list[float]:
    odds = [[1.0 if text == "b" else 0.0 for text in pair] for pair in completions]
    weight = 2 * np.log(4)
    return [float(1 / (1 + np.exp(weight * (b - a)))) for a, b in odds]

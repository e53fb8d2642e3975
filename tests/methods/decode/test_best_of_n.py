"""Best of n: the highest reward of the n that were sampled, and of equals the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.batch.tree import Branch, Tree
from teloi.cli import main
from teloi.data.formats import PromptOnly
from teloi.engine.objective import Now
from teloi.engine.rollout import Sampling, sample_groups
from teloi.errors import UsageError
from teloi.methods.decode.best_of_n import BestOfN
from teloi.models.roles import LanguageModel, Models
from tests.engine.conftest import tiny_model, tiny_processor

HERE = "tests.methods.decode.test_best_of_n"
PROMPTS = ("the cat", "on the mat", "sat")


def brevity(prompts, completions, completion_ids, **columns) -> list[float]:
    return [-float(len(ids)) for ids in completion_ids]


def models() -> Models:
    return Models(LanguageModel(tiny_model(), "packed"), processor=tiny_processor())


def answered(decoder: BestOfN) -> tuple[list[Tree], list[Tree]]:
    """The answers, and what they were chosen from."""
    made = models()
    prompts = [decoder.encode(PromptOnly(prompt), tiny_processor()) for prompt in PROMPTS]
    sampling = Sampling(decoder.n, decoder.max_new_tokens, decoder.temperature, decoder.top_p)
    return decoder.decode(made, prompts, Now(0, 1)), sample_groups(made, prompts, sampling, Now(0, 1))


def test_the_best_of_what_is_sampled() -> None:
    answers, groups = answered(BestOfN(f"{HERE}:brevity", n=8, max_new_tokens=6))
    for answer, group in zip(answers, groups, strict=True):
        lengths = [len(branch.ids) for branch in group.branches]
        assert len(answer.branches) == 1
        assert np.array_equal(answer.branches[0].ids, group.branches[int(np.argmin(lengths))].ids)
        assert answer.columns["reward"] == -min(lengths)
        assert answer.columns["mean_reward"] == pytest.approx(-np.mean(lengths))
        assert answer.columns["finished"] == group.columns["finished"][int(np.argmin(lengths))]


def group(rewards: list[float], finished: list[bool]) -> Tree:
    branches = tuple(Branch.scored([number + 5]) for number in range(len(rewards)))
    columns = {"rewards": np.asarray(rewards, np.float32), "finished": np.asarray(finished)}
    return Tree(np.asarray([4], np.int32), branches, columns)


def test_of_equals_the_first() -> None:
    assert BestOfN().best(group([0.0, 1.0, 1.0], [True] * 3)).branches[0].ids.tolist() == [6]


def test_an_answer_without_an_end_has_the_score_that_is_given_for_it() -> None:
    cut = group([3.0, 1.0, -2.0], [False, True, True])
    assert BestOfN().best(cut).branches[0].ids.tolist() == [5]
    best = BestOfN(unfinished=-1.0).best(cut)
    assert best.branches[0].ids.tolist() == [6]
    assert best.columns["mean_reward"] == pytest.approx(-2 / 3)


@pytest.mark.parametrize(
    "settings", [{"n": 0}, {"max_new_tokens": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BestOfN(**settings)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = tiny_model()
    model.set_attn_implementation("sdpa")
    model.save_pretrained(tmp_path / "model")
    tiny_processor().tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_from_the_command_line(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{p} {i}", "id": i}) + "\n" for i in range(9) for p in PROMPTS)
    )
    words = [
        *("generate", "best-of-n", "--model", str(saved), "--data", str(tmp_path / "prompts.jsonl")),
        *("--reward", f"{HERE}:brevity", "--n", "4", "--max-new-tokens", "5", "--output", str(tmp_path / "out.jsonl")),
    ]
    assert main(words) == 0
    assert "27 answers" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["id"]) for row in rows] == [(f"{p} {i}", i) for i in range(9) for p in PROMPTS]
    assert all(isinstance(row["completion"], str) and row["reward"] >= row["mean_reward"] for row in rows)
    assert all(isinstance(row["finished"], bool) for row in rows)
    assert len({row["completion"] for row in rows}) > 9

    assert main(words) == 2
    assert "out.jsonl is there already" in capsys.readouterr().err
    first = (tmp_path / "out.jsonl").read_bytes()
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == first


def test_what_trains_does_not_answer_and_what_answers_does_not_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "dpo"]) == 2
    assert "dpo trains a model and answers no prompts" in capsys.readouterr().err
    assert main(["train", "best-of-n"]) == 2
    assert "best-of-n trains nothing: teloi generate best-of-n" in capsys.readouterr().err
    assert main(["generate"]) == 2
    assert "which decoder?" in capsys.readouterr().err

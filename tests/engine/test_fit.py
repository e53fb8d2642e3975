"""Training in memory."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from teloi.engine.config import TrainConfig
from teloi.engine.fit import as_base, fit, step_seconds
from teloi.engine.loop import Trainer
from teloi.engine.setup import Base
from teloi.errors import RowError
from teloi.methods.finetune.sft import SFT
from teloi.methods.prefer.dpo import DPO
from teloi.methods.prefer.kto import KTO
from teloi.models.attention import TREE
from teloi.models.scratch import scratch_model, word_tokenizer

PAIRS = [
    {"prompt": f"{animal} says", "chosen": f" {right}", "rejected": f" {wrong}"}
    for animal, right, wrong in (("cat", "meow", "woof"), ("dog", "woof", "moo"), ("cow", "moo", "meow"))
]
CONFIG = TrainConfig(budget="12 steps", batch_size=4, learning_rate=3e-3)


@pytest.fixture
def base() -> Base:
    tokenizer = word_tokenizer(["cat", "dog", "cow", "says", "meow", "woof", "moo"])
    torch.manual_seed(0)
    return as_base(scratch_model("tiny", tokenizer), tokenizer)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path))


@pytest.mark.parametrize("objective", [SFT(), DPO(), KTO()])
def test_a_copy_learns_and_the_base_stays(base: Base, objective):
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    fitted = fit(objective, base, PAIRS, CONFIG)
    assert (fitted.ledger.steps, len(fitted.records)) == (12, 12)
    assert fitted.records[-1]["loss"] < fitted.records[0]["loss"]
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    again = fit(objective, base, PAIRS, CONFIG)
    assert again.records == fitted.records
    continued = fit(objective, fitted.base, PAIRS, CONFIG).records
    assert continued != fitted.records
    if isinstance(objective, DPO):  # what it starts from is its reference
        assert continued[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_layout_is_the_probes_unless_given(base: Base):
    assert (base.layout, base.model.config._attn_implementation) == ("packed", TREE)
    model = scratch_model("tiny", base.processor.tokenizer)
    assert as_base(model, base.processor.tokenizer, layout="padded").layout == "padded"
    assert model.config._attn_implementation == "sdpa"
    encoder = scratch_model("tiny", base.processor.tokenizer, "masked")
    assert as_base(encoder, base.processor.tokenizer, "masked").layout == "padded"


def test_rows_that_do_not_fit(base: Base):
    with pytest.raises(RowError, match="chosen"):
        fit(DPO(), base, [{"prompt": "cat says", "completion": " meow"}], CONFIG)


def test_seconds_of_a_step_by_a_clock_of_the_process(base: Base, monkeypatch: pytest.MonkeyPatch):
    """A step of dpo takes three seconds of a clock that stands still otherwise, one of sft one; they take turns."""
    clock, turns = [0.0], []

    def step(trainer: Trainer, number: int) -> dict[str, float]:
        turns.append((type(trainer.objective), number))
        # The first two steps, which warm up, take longer.
        clock[0] += {SFT: 1.0, DPO: 3.0}[type(trainer.objective)] + 50.0 * (number < 2)
        return {}

    monkeypatch.setattr(Trainer, "_phase", step)
    monkeypatch.setattr("teloi.engine.fit.time.process_time", lambda: clock[0])
    assert step_seconds({"a": SFT(), "b": DPO()}, base, PAIRS, CONFIG, 3) == {"a": 1.0, "b": 3.0}
    assert turns == [(kind, number) for number in range(5) for kind in (SFT, DPO)]


def test_who_watches_sees_every_step_and_changes_nothing(base: Base):
    tokenizer = base.processor.tokenizer
    padded = as_base(scratch_model("tiny", tokenizer), tokenizer, layout="padded")
    ids = torch.tensor([[1, 2]], device=padded.model.device)
    seen = []

    def watch(step: int, now: Base) -> None:
        assert now.model.training
        with torch.no_grad():
            seen.append((step, now.model(ids).logits))

    fitted = fit(SFT(), padded, PAIRS, CONFIG, watch=watch)
    assert fitted.records == fit(SFT(), padded, PAIRS, CONFIG).records
    assert [step for step, _ in seen] == list(range(1, 13))
    assert not any(torch.equal(one, other) for (_, one), (_, other) in pairwise(seen))
    torch.testing.assert_close(seen[-1][1], fitted.base.model(ids).logits)

"""A reward of segments: its labels, what an encoder reads, and that what it has learnt is paid where segments end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.data.formats import ErrorSpans
from teloi.data.processor import Processor
from teloi.data.segmentation import segments, with_separators
from teloi.engine.config import TrainConfig
from teloi.engine.fit import as_base, fit
from teloi.errors import ModelError, Overlong, UsageError
from teloi.methods.reinforce.segment_reward import SegmentReward
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.segment_judge import load_judge
from teloi.worlds.rewards import load_reward, score

TEXT = "The cat sat on the mat, and the dog flew over the old moon. It rained. I like tea. "
#       0                        24                                   60          71


def row(*errors: tuple[int, int, str]) -> ErrorSpans:
    return ErrorSpans("What did they do?", TEXT, tuple(errors))


def labels(objective: SegmentReward, *errors: tuple[int, int, str]) -> list[int]:
    return objective.labels(TEXT, segments(TEXT, objective.density), errors)


def test_labels_are_those_of_the_rules() -> None:
    relevance = SegmentReward(errors="Irrelevant+Redundant+Incoherent")
    assert labels(relevance) == [0, 0, 0, 0]
    assert labels(relevance, (19, 30, "Irrelevant")) == [1, 1, 0, 0]  # it overlaps both parts of the sentence
    assert labels(relevance, (24, 30, "Irrelevant"), (71, 81, "Redundant")) == [0, 1, 0, 1]
    assert labels(relevance, (24, 30, "Unverifiable")) == [0, 0, 0, 0]
    assert labels(SegmentReward(), (24, 30, "Unverifiable")) == [0, 1, 0, 0]
    assert labels(SegmentReward(least_words=3), (24, 31, "Irrelevant"), (71, 81, "Redundant")) == [0, 0, 0, 1]
    facts = SegmentReward(density="sentence", errors="Wrong-Grounding+Unverifiable", others="left-out")
    marked = (24, 30, "Irrelevant"), (30, 40, "Unverifiable"), (71, 81, "Redundant")
    assert labels(facts, *marked) == [1, 0, -100]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(train_tokenizer([TEXT] * 3, 300, "encoder"), 60, "truncate")


def test_labels_sit_on_the_separators(processor: Processor) -> None:
    (example,) = SegmentReward().encode(row((71, 81, "Redundant")), processor)
    ids, marks = example.ids["input_ids"], example.ids["labels"]
    places = np.flatnonzero(marks != -100)
    assert marks[places].tolist() == [0, 0, 0, 1]
    assert set(ids[places].tolist()) == {processor.tokenizer.eos_token_id}
    pieces = [TEXT[start:end] for start, end in segments(TEXT, "sub-sentence")]
    ends = [*places[1:], len(ids)]
    assert [processor.decode(ids[i + 1 : j].tolist()) for i, j in zip(places, ends, strict=True)] == pieces
    assert processor.decode(ids[: places[0]].tolist()) == "What did they do?"


def test_what_has_no_room(processor: Processor) -> None:
    pieces = [TEXT[start:end] for start, end in segments(TEXT, "sub-sentence")]
    whole, places = with_separators(processor, "why? " * 50, pieces)
    assert len(whole) == 60
    assert len(places) == 4  # the prompt alone was cut
    short = Processor(processor.tokenizer, 20, "truncate")
    ids, places = with_separators(short, "why?", pieces)
    assert len(ids) == 20
    assert places == [place for place in places if place < 20]
    assert 0 < len(places) < 4
    with pytest.raises(Overlong):
        with_separators(Processor(processor.tokenizer, 20), "why?", pieces)


def test_rows_and_settings_that_teach_nothing(processor: Processor) -> None:
    left_out = SegmentReward(errors="x", others="left-out")
    assert left_out.encode(row((0, len(TEXT), "Redundant")), processor) == []
    with pytest.raises(UsageError, match="joined by"):
        SegmentReward(errors="a++b")


def test_what_it_learns_is_paid_at_the_ends_of_segments(processor: Processor, tmp_path: Path) -> None:
    texts = ["The cat flew. It rained.", "It rained. The cat flew.", "The cat sat. I like tea.", "I flew. It sat."]
    rows: list[dict[str, Any]] = [
        {
            "prompt": "What?",
            "completion": text,
            "errors": [
                {"start": start, "end": end, "type": "flying"}
                for start, end in segments(text, "sentence")
                if "flew" in text[start:end]
            ],
        }
        for text in texts * 4
    ]
    base = as_base(scratch_model((32, 2, 4), processor.tokenizer, "encoder"), processor.tokenizer, "encoder", 64)
    objective = SegmentReward(density="sentence", errors="flying")
    config = TrainConfig(budget="60 steps", batch_size=8, learning_rate=3e-3)
    fitted = fit(objective, base, rows, config)
    assert fitted.records[-1]["accuracy"] == 1.0
    objective.export(fitted.models, tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    judge, density = load_judge(tmp_path)
    assert density == "sentence"
    said = judge(["What?"] * 3, ["I flew.", "It sat.", "The cat flew."], response=[0, 0, 3])
    assert said == [-1.0, 1.0, -1.0]

    reward = load_reward(f"0.5*{tmp_path}")
    ids = [*processor.tokenizer(texts[0])["input_ids"], processor.tokenizer.eos_token_id]
    (found,) = score(reward, ["What?"], [texts[0]], {}, [ids], processor.tokenizer)
    assert found[found != 0].tolist() == [-0.5, 0.5]
    assert score(reward, ["What?"], [""], {}, [ids[-1:]], processor.tokenizer)[0].tolist() == [0.0]


def test_what_is_no_judge(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no judge of segments"):
        load_judge(tmp_path)

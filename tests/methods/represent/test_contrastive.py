"""In-batch negatives and VacancySBERT: which candidates count, what is drawn, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from teloi.data.formats import Pair, TitleSkills
from teloi.data.processor import Processor
from teloi.engine.objective import Now
from teloi.engine.step import Step
from teloi.errors import DataError, Overlong, UsageError
from teloi.methods.represent.contrastive import InBatch
from teloi.methods.represent.vacancysbert import VacancySBERT, queries, title_recall
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model
from teloi.models.sequences import SentenceEncoder
from teloi.models.zoo.hashed import HashedTokenizer
from tests.engine.conftest import tiny_processor

NOW = Now(3, 10, places=tuple(range(8)))


def hashed() -> tuple[SentenceEncoder, Processor]:
    tokenizer = HashedTokenizer(1000)
    torch.manual_seed(0)
    return SentenceEncoder(scratch_model("hashed", tokenizer, "encoder")), Processor(tokenizer, 64)


def pairs(*rows: dict[str, Any]) -> list[Pair]:
    return [Pair.parse(row) for row in rows]


def loss(objective: InBatch, rows: list[Any]) -> dict[str, Any]:
    encoder, processor = hashed()
    batch = objective.collate([objective.encode(row, processor) for row in rows], NOW, "cpu")
    return objective.loss(Models(encoder, processor=processor), batch, NOW)  # type: ignore[arg-type]


CAT, DOG, OWL = (
    {"anchor": "the cat", "positive": "it purrs"},
    {"anchor": "the dog", "positive": "it barks"},
    {"anchor": "the owl", "positive": "it hoots"},
)


def test_rows_of_a_group_are_no_negatives_of_each_other() -> None:
    plain = loss(InBatch(), pairs(CAT, DOG, OWL))
    grouped = loss(InBatch(), pairs({**CAT, "group": 1}, {**DOG, "group": 1}, {**OWL, "group": 2}))
    assert plain["candidates"].values.tolist() == [3, 3, 3]
    assert grouped["candidates"].values.tolist() == [2, 2, 3]
    alone = loss(InBatch(), pairs(CAT, OWL))
    torch.testing.assert_close(grouped["contrast"].values[0], alone["contrast"].values[0])
    assert grouped["contrast"].values[0] < plain["contrast"].values[0]


@pytest.mark.parametrize("symmetric", [False, True])
def test_doubles_do_not_keep_the_loss_above_log_2(symmetric) -> None:
    """Rows with the same anchor, or the same positive, would be right answers to each other."""
    same_anchor = {"anchor": "the cat", "positive": "it sleeps"}
    same_positive = {"anchor": "a kitten", "positive": "it purrs"}
    terms = loss(InBatch(scale=1e4, symmetric=symmetric), pairs(CAT, CAT, same_anchor, same_positive))
    assert terms["candidates"].values.tolist() == [1, 1, 2, 2]
    identical = [{"anchor": "x", "positive": "x"}] * 4
    assert loss(InBatch(symmetric=symmetric), pairs(*identical))["contrast"].values.max() < math.log(2) / 2


def test_a_negative_that_is_the_rows_positive_is_left_out() -> None:
    rows = pairs({**CAT, "negative": "it barks"}, {**DOG, "negative": "it hoots"}, {**OWL, "negative": "it swims"})
    assert loss(InBatch(), rows)["candidates"].values.tolist() == [6, 5, 5]


def test_what_a_step_draws_of_the_skills() -> None:
    """At most so many, all orders, no skill twice, the ids of the joined text; by the place in the step alone."""
    skills = ["triage", "first aid", "charting"]
    processor = tiny_processor("encoder")
    objective = VacancySBERT(skills=2)
    example = objective.encode(TitleSkills.parse({"title": "the nurse", "skills": skills}), processor)
    texts = set()
    for step in range(30):
        batch = objective.collate([example] * 3, replace(NOW, step=step, places=(4, 0, 2)), "cpu")
        texts |= {
            processor.decode(ids[mask > 0].tolist())
            for ids, mask in zip(batch.ids["positive"], batch.mask["positive"], strict=True)
        }
        part = objective.collate([example], replace(NOW, step=step, places=(2,), micro=1, rank=1), "cpu")
        assert part.sequences[0].ids["positive"].tolist() == batch.sequences[2].ids["positive"].tolist()
    wanted = {f"{a}, {b}" for a in skills for b in skills if a != b}
    assert texts == wanted
    joined = processor.sentence_ids(processor.bare_ids("triage, first aid"))
    drawn = [
        s.ids["positive"].tolist()
        for step in range(30)
        for s in objective.collate([example], replace(NOW, step=step), "cpu").sequences
    ]
    assert joined in drawn


def test_the_cost_is_about_what_a_step_reads() -> None:
    processor = tiny_processor("encoder")
    objective = VacancySBERT(skills=2)
    example = objective.encode(TitleSkills.parse({"title": "the cat", "skills": ["on", "mat", "sat"]}), processor)
    batch = objective.collate([example], NOW, "cpu")
    assert abs(example.size - batch.size) <= 2


def test_too_long_lists_are_cut_or_refused_before_training() -> None:
    _, processor = hashed()
    row = TitleSkills.parse({"title": "a", "skills": ["a rather long description of a skill"] * 3})
    with pytest.raises(Overlong):
        VacancySBERT().encode(row, processor)
    cut = Processor(processor.tokenizer, 64, "truncate")
    batch = VacancySBERT().collate([VacancySBERT().encode(row, cut)], NOW, "cpu")
    assert batch.ids["positive"].shape == (1, 64)


def test_what_has_nothing_to_contrast_with_is_refused() -> None:
    encoder, processor = hashed()
    examples = [InBatch().encode(row, processor) for row in pairs(CAT, {**DOG, "negative": "x"})]
    with pytest.raises(DataError, match="at least two"):
        InBatch().prepare(examples[:1], 0)
    with pytest.raises(DataError, match="some rows have a negative"):
        InBatch().prepare(examples, 0)
    step = Step(Models(encoder, processor=processor), InBatch()).train()  # type: ignore[arg-type]
    batch = InBatch().collate(examples[:1], NOW, "cpu")
    with pytest.raises(UsageError, match="raise batch_size"):
        step.shares(batch, Now(0, 10), batch.counts)
    with pytest.raises(UsageError, match="scale"):
        InBatch(scale=0)
    with pytest.raises(UsageError, match="skills"):
        VacancySBERT(skills=0)


def test_queries_of_titles_and_skills() -> None:
    vectors = {
        "nurse": [3.0, 4.0],
        "triage, charting": [0.0, 2.0],
        "nurse, triage, charting": [5.0, 0.0],
        "cook": [1.0, 0.0],
    }
    asked: list[str] = []

    def embed(texts: Any) -> np.ndarray:
        asked.extend(texts)
        return np.asarray([vectors[text] for text in texts])

    np.testing.assert_allclose(queries(embed, ["nurse", "cook"]), [[0.6, 0.8], [1.0, 0.0]])
    skills = [["triage", "charting"], []]
    found = queries(embed, ["nurse", "cook"], skills)
    np.testing.assert_allclose(found, np.stack([np.array([0.6, 1.8]) / math.hypot(0.6, 1.8), [1, 0]]))
    np.testing.assert_allclose(queries(embed, ["nurse", "cook"], skills, "joined"), [[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(DataError, match="2 titles and 1 lists"):
        queries(embed, ["nurse", "cook"], [[]])


def test_recall_counts_strictly_better_candidates() -> None:
    candidates = np.eye(3)
    found = title_recall(np.array([[1.0, 1.0, 0.5], [0.1, 0.2, 0.3]]), candidates, [1, 0], (1, 2, 3))
    assert found == {"recall@1": 0.5, "recall@2": 0.5, "recall@3": 1.0}

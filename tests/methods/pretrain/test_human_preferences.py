"""Scored documents from rows to losses, each loss against the definition on the logits of the plain model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from teloi.batch.tree import Tree, TreeBatch
from teloi.data.casts import cast
from teloi.data.formats import LanguageModeling, ScoredSegments
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.data.vocabulary import CONTROLS, control_ids
from teloi.engine.dataset import encode
from teloi.engine.objective import Now, Objective
from teloi.errors import DataError, RowError, UsageError
from teloi.methods.pretrain.human_preferences import ConditionalLM, FilteredLM
from teloi.methods.pretrain.weighted_by_score import AWR, RWR, Unlikelihood
from teloi.models.roles import LanguageModel, Models
from teloi.models.scratch import END, scratch_model, word_tokenizer

WORDS = ["i", "like", "tea", ".", "you", "idiot", "we", "all", "do"]
ROWS = [
    {"texts": ["i like tea .", " you idiot ."], "scores": [0.01, 0.97]},
    {"texts": ["we all do ."], "scores": [0.0]},
    {"texts": ["you like tea .", " you all idiot .", ""], "scores": [0.2, 0.6, 0.0]},
]


def fresh() -> Processor:
    return Processor(word_tokenizer(WORDS), 64)


def examples(objective: Objective, rows: list[dict[str, Any]] = ROWS, processor: Processor | None = None) -> list[Tree]:
    return list(encode(objective, Rows(rows, "rows"), processor or fresh()).examples)


def told(trees: list[Tree], processor: Processor) -> str:
    ids = [token for tree in trees for token in (*tree.prompt, *tree.branches[0].ids)]
    return processor.decode([int(token) for token in ids])


def test_the_control_token_of_each_segment_has_its_score() -> None:
    processor = fresh()
    (block,) = examples(ConditionalLM(length=64, threshold=0.5, drop=0.0), ROWS[:1], processor)
    good, bad = CONTROLS
    assert told([block], processor).split() == f"{END} {good} i like tea . {bad} you idiot .".split()
    (branch,) = block.branches
    np.testing.assert_allclose(branch.columns["score"], [0.01] * 5 + [0.97] * 4, rtol=1e-6)
    assert branch.columns["control"].tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("threshold", "good"),
    [(0.0, 1), (0.01, 2), (0.2, 3), ("median", 3), (0.19, 2)],  # at most, not below
)
def test_a_segment_at_the_threshold_is_aligned(threshold: Any, good: int) -> None:
    processor = fresh()
    found = told(examples(ConditionalLM(length=64, threshold=threshold, drop=0.0), ROWS, processor), processor)
    assert (found.count(CONTROLS[0]), found.count(CONTROLS[1])) == (good, 5 - good)


def test_without_its_control_tokens_conditional_training_reads_what_the_others_read() -> None:
    plain = examples(FilteredLM(length=8, threshold=float("inf")))
    assert [len(tree.branches[0].ids) for tree in plain] == [7, 7], "22 tokens, and each block predicts all but one"
    for bare, other in ((plain, ConditionalLM(length=8, drop=1.0)), (plain, AWR(length=8)), (plain, RWR(length=8))):
        for a, b in zip(bare, examples(other), strict=True):
            assert a.prompt.tolist() == b.prompt.tolist()
            assert a.branches[0].ids.tolist() == b.branches[0].ids.tolist()
            assert a.branches[0].columns["score"].tolist() == b.branches[0].columns["score"].tolist()


def test_a_share_of_the_control_tokens_is_dropped_and_the_same_ones_again() -> None:
    processor, objective = fresh(), ConditionalLM(length=64, drop=0.3)
    found, again = (told(examples(objective, ROWS * 100, processor), processor) for _ in range(2))
    assert found == again
    assert sum(map(found.count, CONTROLS)) / 500 == pytest.approx(0.7, abs=0.08)


def test_filtering_keeps_documents_up_to_the_threshold() -> None:
    processor = fresh()

    def kept(threshold: Any) -> int:
        return told(examples(FilteredLM(length=2, threshold=threshold), ROWS, processor), processor).count(END)

    # Means: 0.49, 0, and 0.4 of the two segments that have tokens.
    assert [kept(threshold) for threshold in (0.0, 0.4, "median", 0.48, 0.5)] == [1, 2, 2, 2, 3]
    with pytest.raises(DataError, match=r"no documents are left: .* above the threshold -1, the lowest is 0"):
        examples(FilteredLM(length=8, threshold=-1.0))


def test_held_out_documents_are_judged_by_the_threshold_of_training_and_never_filtered() -> None:
    processor = fresh()

    def held_out(objective: Objective) -> str:
        training = examples(objective, ROWS, processor)
        row = {**ROWS[0], "scores": [0.3, 0.5]}
        found = encode(objective, Rows([row], "test"), processor, training).examples
        return told(list(found), processor)

    # The median of training is 0.2, the document's own is 0.4.
    found = held_out(ConditionalLM(length=10, threshold="median", drop=0.0))
    assert (found.count(CONTROLS[0]), found.count(CONTROLS[1])) == (0, 2)
    assert held_out(FilteredLM(length=8, threshold=0.0)).count("idiot") == 1


def test_new_tokens_begin_as_the_mean_and_trained_ones_are_left_alone() -> None:
    processor = fresh()
    model: Any = scratch_model((32, 1, 4), processor.tokenizer)
    before = model.get_input_embeddings().weight.detach().clone()
    objective = ConditionalLM(length=8)
    (example, *_) = examples(objective, ROWS, processor)
    objective.shape(model, example)
    table = model.get_input_embeddings().weight.detach()
    assert len(table) == len(processor.tokenizer) == len(before) + 2
    assert torch.equal(table[:-2], before)
    torch.testing.assert_close(table[-2:], before.mean(0).expand(2, -1), atol=0.05, rtol=0)
    assert not torch.equal(table[-1], table[-2])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    objective.shape(model, example)
    assert torch.equal(model.get_input_embeddings().weight, table)


def test_what_is_generated_has_no_control_tokens() -> None:
    processor, objective = fresh(), ConditionalLM(length=8)
    model: Any = scratch_model((32, 1, 4), processor.tokenizer)
    objective.shape(model, examples(objective, ROWS, processor)[0])
    controls = control_ids(processor.tokenizer)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(processor.tokenizer)))
    model.lm_head.bias.data[list(controls)] = 10.0
    start = torch.tensor([[processor.tokenizer.eos_token_id, controls[0]]])
    sampled = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12, "pad_token_id": 0}
    found = model.generate(start, **sampled)[0, 2:].tolist()
    assert not set(found) & set(controls)
    model.generation_config.bad_words_ids = None
    assert set(model.generate(start, **sampled)[0, 2:].tolist()) <= set(controls)


def terms(objective: Objective) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """The loss's means by name, and by the plain model -log p, scores and values of the predicted tokens."""
    processor = fresh()
    trees = examples(objective, ROWS, processor)
    torch.manual_seed(0)
    model: Any = scratch_model((32, 1, 4), processor.tokenizer)
    objective.shape(model, trees[0])
    models = Models(LanguageModel(model, "padded"), processor=processor)
    models.parts = objective.build(models)
    head = torch.randn(1, 32)
    if models.parts is not None:
        assert not any(parameter.any() for parameter in models.parts.parameters()), "-1/2 at first"
        models.parts.load_state_dict({"value.weight": head})
    batch = TreeBatch(trees)
    found = {
        name: term.values.sum() / (batch.counts[term.per] if isinstance(term.per, str) else term.per.sum())
        for name, term in objective.loss(models, batch, Now(0, 1)).items()
    }
    ids = torch.tensor(np.stack([[*tree.prompt, *tree.branches[0].ids] for tree in trees]), dtype=torch.int64)
    output = model(ids, output_hidden_states=True)
    nll = cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    values = -torch.sigmoid(output.hidden_states[-1][:, :-1] @ head[0]).flatten()
    scores = torch.tensor(np.concatenate([tree.branches[0].columns["score"] for tree in trees]))
    return found, nll, scores, values


def test_awr_takes_the_score_of_the_predicted_token_and_the_value_of_the_predicting_position() -> None:
    found, nll, scores, values = terms(AWR(length=5, beta=0.5))
    torch.testing.assert_close(found["weighted_nll"], (((-scores - values) / 0.5).exp() * nll).mean())
    torch.testing.assert_close(found["value"], (scores + values).square().mean())
    torch.testing.assert_close(found["nll"], nll.mean())
    assert found["clipped"] == 0


@pytest.mark.parametrize(("variant", "shift"), [("paper", 0.0), ("official", 0.5)])
def test_rwr_weighs_by_the_reward(variant: Any, shift: float) -> None:
    found, nll, scores, _ = terms(RWR(length=5, beta=0.5, variant=variant))
    torch.testing.assert_close(found["weighted_nll"], (((shift - scores) / 0.5).exp() * nll).mean())


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_unlikelihood_lowers_what_is_misaligned(mode: Any) -> None:
    found, nll, scores, _ = terms(Unlikelihood(length=5, threshold=0.2, alpha=0.3, mode=mode))
    aligned = 1 - scores if mode == "soft" else (scores <= 0.2001).float()
    expected = aligned * nll - 0.3 * (1 - aligned) * torch.log(1 - torch.exp(-nll))
    torch.testing.assert_close(found["unlikelihood"], expected.mean())
    torch.testing.assert_close(found["nll_misaligned"], (nll * (1 - aligned)).sum() / (1 - aligned).sum())


def test_scores_that_do_not_fit() -> None:
    wild = [{"texts": ["i like tea ."], "scores": [-3.0]}]
    with pytest.raises(DataError, match=r"value head of awr needs scores from 0 to 1, and these go from -3 .*linear"):
        examples(AWR(length=4), wild)
    with pytest.raises(DataError, match=r"mode soft needs scores from 0 to 1"):
        examples(Unlikelihood(length=4, mode="soft"), wild)
    assert examples(AWR(length=4, value="linear"), wild)
    assert examples(Unlikelihood(length=4), wild)
    with pytest.raises(UsageError, match=r"blocks of 65 tokens exceed the context of 64"):
        examples(RWR(length=65))
    wrong: list[Any] = [
        lambda: RWR(beta=0.0),
        lambda: AWR(alpha=2.0),
        lambda: Unlikelihood(alpha=-1.0),
        lambda: ConditionalLM(drop=1.5),
        lambda: FilteredLM(length=1),
    ]
    for make in wrong:
        with pytest.raises(UsageError):
            make()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"texts": ["a"]}, "column 'scores' is missing; this method reads scored-segments rows (texts, scores)"),
        ({"texts": "a", "scores": [1]}, "column 'texts' is text ('a'), not a list"),
        ({"texts": ["a"], "scores": [1, 2]}, "1 texts have 2 scores"),
        ({"texts": [], "scores": []}, "no segments"),
        ({"texts": ["a", 1], "scores": [1, 2]}, "column 'texts', entry 2 is a number (1), not text"),
        ({"texts": ["\ud800"], "scores": [1]}, "entry 1 holds half of a surrogate pair"),
        ({"texts": ["a"], "scores": ["1"]}, "column 'scores', entry 1 is text ('1'), not a finite number"),
        ({"texts": ["a"], "scores": [float("nan")]}, "not a finite number"),
        ({"texts": ["a"], "scores": [True]}, "not a finite number"),
    ],
)
def test_rows_that_are_no_scored_documents(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as caught:
        ScoredSegments.parse(row)
    assert said in str(caught.value)


def test_documents_without_tokens() -> None:
    with pytest.raises(DataError, match="no rows are left"):
        examples(RWR(length=8), [{"texts": [""], "scores": [0.0]}])


def test_without_scores_a_document_is_its_text() -> None:
    (text,) = cast([ScoredSegments(("a b.", " c."), (0.0, 1.0))], ScoredSegments, LanguageModeling)
    assert text == LanguageModeling("a b. c.")

"""Pairs become a contrast, a match and two translations; their sum against terms computed pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from teloi.data.formats import Pair
from teloi.data.processor import Processor
from teloi.data.vocabulary import PAIR_TOKENS, given_ids
from teloi.engine.objective import Now
from teloi.engine.step import Step
from teloi.errors import UsageError
from teloi.methods.pretrain.bimodal import CodeT5PBimodal
from teloi.models.pairs import PairModel, save_heads
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel

PAIRS = [
    ("add one", "def f(x): return x + 1"),
    ("the length", "def f(s):\n    return len(s)"),
    ("strip blanks from both ends", "def f(s): return s.strip()"),
    ("nothing", "def f(): pass"),
    ("twice", "def f(x):\n    y = x + x\n    return y"),
]
NOW = Now(0, 1, places=tuple(range(5)))
TEXTS = [text for pair in PAIRS for text in pair]


def setup(objective: CodeT5PBimodal, pairs: list[tuple[str, str]] = PAIRS) -> tuple[Models, Any]:
    processor = Processor(train_tokenizer(TEXTS, 420, "seq2seq"), 64)
    examples = [objective.encode(Pair(*pair), processor) for pair in pairs]
    torch.manual_seed(0)
    model: Any = scratch_model("tiny", processor.tokenizer, "seq2seq")
    objective.shape(model, examples[0])
    policy: Any = ScoredModel(model)
    models = Models(policy, processor=processor, example=examples[0])
    models.parts = objective.build(models)
    return models, examples


def test_each_term_pair_by_pair() -> None:
    objective = CodeT5PBimodal(width=8, queue=4, temperature=0.1, weights=(1.0, 0.5, 2.0, 0.25))
    models, examples = setup(objective)
    parts: Any = models.parts
    policy: Any = models.policy
    assert models.processor is not None
    end, tokens = models.processor.tokenizer.eos_token_id, given_ids(models.processor.tokenizer, PAIR_TOKENS)
    for side in ("text", "code"):  # two places of four are filled
        parts[f"queue of {side}"].push(normalize(torch.randn(2, 8), dim=1), torch.tensor([[11, 12], [13, 14]]))
    with torch.no_grad():  # the copy lags behind
        for buffer in parts["followers"].buffers():
            buffer.mul_(0.9)
    batch = objective.collate(examples, NOW, "cpu")
    loss, shares = Step(models, objective).shares(batch, NOW, batch.counts)

    def read(model: Any, ids: list[int]) -> torch.Tensor:
        states: torch.Tensor = model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
        return states

    def reads(side: str, i: int, front: int) -> list[int]:
        return [front, *examples[i].ids[side].tolist()]

    heads, followers = parts["heads"], parts["followers"]
    said, copied, states = {}, {}, {}
    for side in ("text", "code"):
        states[side] = [read(policy.inner.get_encoder(), reads(side, i, tokens[0])) for i in range(5)]
        said[side] = torch.cat([normalize(getattr(heads, side)(s[:, 0]), dim=1) for s in states[side]])
        old = [read(followers.encoder, reads(side, i, tokens[0])) for i in range(5)]
        copied[side] = torch.cat([normalize(getattr(followers, side)(s[:, 0]), dim=1) for s in old])
    logits = {
        side: said[side] @ torch.cat([copied[other], parts[f"queue of {other}"].vectors[:2]]).T / 0.1
        for side, other in (("text", "code"), ("code", "text"))
    }
    own = torch.arange(5)
    contrast = (cross_entropy(logits["text"], own) + cross_entropy(logits["code"], own)) / 2
    torch.testing.assert_close(shares["contrast"], contrast.detach(), rtol=1e-4, atol=1e-5)

    def drawn(side: str, i: int, which: int) -> int:
        """The first partner at which the chances, the own one left out, exceed the number drawn."""
        chances = logits[side][i, :5].softmax(0).tolist()
        chances[i] = 0.0
        number = NOW.rng("hard negatives", i).random(2)[which] * sum(chances)
        return next(j for j in range(5) if sum(chances[: j + 1]) > number)

    def match(text: int, code: int, label: int) -> float:
        decoder = policy.inner.get_decoder()
        ids = torch.tensor([reads("code", code, tokens[1])])
        found = decoder(input_ids=ids, encoder_hidden_states=states["text"][text]).last_hidden_state[:, -1]
        return float(cross_entropy(heads.match(found), torch.tensor([label])).detach())

    total = 0.0
    for i in range(5):
        wrong_code, wrong_text = drawn("text", i, 0), drawn("code", i, 1)
        total += match(i, i, 1) + match(i, wrong_code, 0) + match(wrong_text, i, 0)
    assert float(shares["matching"]) == pytest.approx(total / 15, rel=1e-4)

    for side, other, start in (("text", "code", tokens[2]), ("code", "text", tokens[3])):
        nll, count = 0.0, 0
        for i in range(5):
            target = examples[i].ids[other].tolist()
            assert target[-1] == end
            known = torch.tensor([[start, *target[:-1]]])
            with torch.no_grad():
                inputs = torch.tensor([reads(side, i, tokens[0])])
                found = policy.model(input_ids=inputs, decoder_input_ids=known).logits[0]
            nll += float(cross_entropy(found, torch.tensor(target), reduction="sum"))
            count += len(target)
        assert float(shares[f"{side}_to_{other}"]) == pytest.approx(nll / count, rel=1e-4)
    names = ("contrast", "matching", "text_to_code", "code_to_text")
    weighted = sum(w * float(shares[name]) for w, name in zip(objective.weights, names, strict=True))
    assert float(loss.detach()) == pytest.approx(weighted, rel=1e-5)


def test_equal_texts_and_equal_code_are_no_negatives_of_each_other() -> None:
    objective = CodeT5PBimodal(width=8, queue=6)
    pairs = [PAIRS[0], (PAIRS[0][0], PAIRS[1][1]), (PAIRS[2][0], PAIRS[0][1])]
    models, examples = setup(objective, pairs)
    batch = objective.collate(examples, NOW, "cpu")
    values = []
    for _ in range(2):
        terms = objective.loss(models, batch, NOW)
        values.append(terms["contrast"].values.detach())
        # The first row has no negative at all; the others have each other.
        assert values[-1][0] == 0
        assert (values[-1][1:] > 0).all()
        assert (terms["matching"].values > 0).tolist() == [False, True, True]
        objective.after_step(models, [batch], NOW)  # the queue holds the same pairs now
    assert (values[1][1:] > values[0][1:]).all(), "what is wrong is wrong once more"


def test_a_single_row_has_no_match_and_no_contrast_but_with_the_queue() -> None:
    objective = CodeT5PBimodal(width=8, queue=6)
    models, examples = setup(objective)
    alone, others = (objective.collate(some, NOW, "cpu") for some in (examples[:1], examples[1:]))
    terms = objective.loss(models, alone, NOW)
    assert terms["matching"].values.tolist() == terms["contrast"].values.tolist() == [0.0]
    objective.loss(models, others, NOW)
    objective.after_step(models, [others], NOW)
    assert float(objective.loss(models, alone, NOW)["contrast"].values) > 0


def test_after_a_step_the_queue_holds_it_and_the_copy_has_followed() -> None:
    objective = CodeT5PBimodal(width=8, queue=7, momentum=0.5)
    models, examples = setup(objective)
    parts: Any = models.parts
    policy: Any = models.policy
    batch = objective.collate(examples, NOW, "cpu")
    terms = objective.loss(models, batch, NOW)
    before = parts["followers"].encoder.final_layer_norm.weight.clone()
    with torch.no_grad():
        policy.inner.get_encoder().final_layer_norm.weight.add_(2.0)
        parts["heads"].text.bias.add_(4.0)
    bias = parts["followers"].text.bias.clone()
    objective.after_step(models, [batch], NOW)
    torch.testing.assert_close(parts["followers"].encoder.final_layer_norm.weight, before + 1.0)
    torch.testing.assert_close(parts["followers"].text.bias, bias + 2.0)
    for side in ("text", "code"):
        part = batch["text_to_code" if side == "text" else "code_to_text"]
        states = policy.encoded(part)
        assert parts[f"queue of {side}"].numbers[:, 0].tolist()[:5] == [int(e.columns["same"][0]) for e in examples]
        assert states.shape[0] == 5
        torch.testing.assert_close(parts[f"queue of {side}"].vectors.norm(dim=1), torch.tensor([1.0] * 5 + [0.0] * 2))
    assert {"contrast", "matching", "text_to_code", "code_to_text"} <= terms.keys()


def test_what_has_no_weight_is_not_computed() -> None:
    objective = CodeT5PBimodal(width=8, queue=6, weights=(0.0, 0.0, 1.0, 0.0))
    models, examples = setup(objective)
    batch = objective.collate(examples, NOW, "cpu")
    terms = objective.loss(models, batch, NOW)
    assert list(terms) == ["text_to_code"]
    objective.after_step(models, [batch], NOW)
    parts: Any = models.parts
    assert int(parts["queue of text"].at) == 0


def test_long_sides_are_cut_and_do_not_end() -> None:
    objective = CodeT5PBimodal(text_length=3, code_length=6)
    models, examples = setup(objective)
    assert models.processor is not None
    end = models.processor.tokenizer.eos_token_id
    ended = [end in example.ids["code"] for example in examples]
    whole = [len(models.processor.bare_ids(code)) <= 6 for _, code in PAIRS]
    assert ended == whole
    assert len(set(whole)) == 2, "some are cut and some are not"
    assert all(len(example.ids["code"]) <= 7 for example in examples)
    batch = objective.collate(examples, NOW, "cpu")
    ids, mask = (kind["input_ids"] for kind in (batch["code_to_text"].ids, batch["code_to_text"].mask))
    assert ids.shape[1] <= 8
    assert (ids[torch.arange(5), mask.sum(1) - 1] == end).all(), "what is read always ends"


def test_what_is_exported_embeds_and_matches_as_in_training(tmp_path: Path) -> None:
    objective = CodeT5PBimodal(width=8, queue=0, text_length=20, code_length=30)
    models, examples = setup(objective)
    parts: Any = models.parts
    policy: Any = models.policy
    assert models.processor is not None
    policy.model.save_pretrained(tmp_path)
    models.processor.tokenizer.save_pretrained(tmp_path)
    objective.export(models, tmp_path)
    found = PairModel.load(tmp_path)
    batch = objective.collate(examples, NOW, "cpu")
    policy.model.eval()
    for name, side, texts in zip(
        ("text_to_code", "code_to_text"), ("text", "code"), zip(*PAIRS, strict=True), strict=True
    ):
        expected = parts["heads"].vectors(side, policy.encoded(batch[name])).detach()
        np.testing.assert_allclose(found.embed(side, texts), expected, atol=1e-5)
    logits = found.match([PAIRS[0][0]] * 2, [PAIRS[0][1], PAIRS[1][1]])
    assert logits.shape == (2,)
    again = found.match([PAIRS[0][0]], [PAIRS[1][1]])
    assert logits[1] == pytest.approx(float(again[0]), abs=1e-5)
    save_heads(parts["heads"], tmp_path, {"text": 1, "code": 1})
    assert PairModel.load(tmp_path).lengths == {"text": 1, "code": 1}


@pytest.mark.parametrize(
    "wrong", [{"weights": (0.0, 0.0, 0.0, 0.0)}, {"momentum": 1.1}, {"alpha": -0.1}, {"temperature": 1.0}, {"width": 0}]
)
def test_what_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CodeT5PBimodal(**wrong)

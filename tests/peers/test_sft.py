"""Supervised fine-tuning and language modelling against TRL's SFT trainer."""

from __future__ import annotations

import copy
from functools import partial

import pytest

from teloi.data.processor import Processor
from teloi.methods.finetune.sft import SFT
from teloi.methods.pretrain.clm import CLM
from tests.peers import rows
from tests.peers.conftest import LAYOUTS, TEMPLATE, Outcome, Peers, assert_same, theirs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

UNMARKED = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def trl_step(both: Peers, **settings) -> Outcome:
    """A step of two micro-batches, each over the tokens of both: how TRL normalises since it counts them."""
    trainer = both.trainer("SFT", **settings)
    tokens = sum(label != -100 for row in trainer.train_dataset for label in row["labels"][1:])
    return theirs(trainer, [slice(0, 4), slice(4, None)], partial(trainer.compute_loss, num_items_in_batch=tokens))


@pytest.mark.parametrize("kind", ["standard", "conversational"])
def test_prompt_and_completion(kind, peers) -> None:
    both = peers(rows.completions(kind))
    expected = trl_step(both)
    trees = both.encode(SFT())
    for layout in LAYOUTS:
        assert_same(both.ours(SFT(), trees, layout), expected)


@pytest.mark.parametrize("template", [TEMPLATE, UNMARKED], ids=["marked", "unmarked"])
def test_every_turn_of_the_assistant(template, peers) -> None:
    """TRL needs a template that marks the assistant's turns; we find them without, too."""
    both = peers(rows.conversations())
    expected = trl_step(both, assistant_only_loss=True)
    tokenizer = copy.deepcopy(both.tokenizer)
    tokenizer.chat_template = template
    trees = both.encode(SFT(), Processor(tokenizer))
    assert any((tree.branches[0].weights == 0).any() for tree in trees)
    for layout in LAYOUTS:
        assert_same(both.ours(SFT(), trees, layout), expected)


@pytest.mark.parametrize("data", [rows.documents(), rows.conversations()], ids=["text", "messages"])
def test_language_modelling(data, peers) -> None:
    both = peers(data)
    expected = trl_step(both)
    trees = both.encode(CLM())
    for layout in LAYOUTS:
        assert_same(both.ours(CLM(), trees, layout), expected)

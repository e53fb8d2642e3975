from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teloi.batch.tree import Tree
from teloi.data.encode import conversation, document, tree
from teloi.data.formats import Message
from teloi.data.processor import Processor
from teloi.errors import Overlong, RowError, UsageError

Maker = Callable[..., Any]

DIALOGUE: list[Message] = [
    {"role": "system", "content": "Count."},
    {"role": "user", "content": "From one?"},
    {"role": "assistant", "content": "1, 2"},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "3, 4"},
]


def scored(processor: Processor, made: Tree) -> list[str]:
    """The runs of tokens with weight, as text."""
    (branch,) = made.branches
    cuts = np.flatnonzero(np.diff(branch.weights)) + 1
    runs = zip(np.split(branch.ids, cuts), np.split(branch.weights, cuts), strict=True)
    return [processor.decode(ids.tolist()) for ids, weights in runs if weights[0]]


def test_tree(make_byte_level: Maker) -> None:
    processor = Processor(make_byte_level())
    made = tree(processor, "The capital of", [" France", " the office"], score=2.0)
    assert made.columns == {"score": 2.0}
    assert made.prompt.dtype == np.int32
    assert made.prompt.tolist() == processor.prompt_ids("The capital of")
    for branch, text in zip(made.branches, [" France", " the office"], strict=True):
        assert branch.ids.dtype == np.int32
        assert branch.weights.dtype == np.float32
        assert branch.ids.tolist() == processor.completion_ids("The capital of", text)
        assert branch.weights.tolist() == [1.0] * len(branch.ids)


def test_overlong_trees(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level()
    whole = tree(Processor(tokenizer), "The capital of France", [" is Paris", " is"])
    size = len(whole.prompt) + max(len(branch.ids) for branch in whole.branches)
    tree(Processor(tokenizer, size, "fail"), "The capital of France", [" is Paris", " is"])
    with pytest.raises(Overlong, match=f"exceed the context of {size - 1}"):
        tree(Processor(tokenizer, size - 1, "fail"), "The capital of France", [" is Paris", " is"])
    cutting = Processor(tokenizer, size - 1, "truncate")
    cut = tree(cutting, "The capital of France", [" is Paris", " is"])
    assert cutting.truncated == 1
    assert len(cut.prompt) + max(len(branch.ids) for branch in cut.branches) == size - 1


def test_only_the_assistant_turns_weigh(tokenizer: Any) -> None:
    processor = Processor(tokenizer)
    made = conversation(processor, DIALOGUE)
    assert [run.strip() for run in scored(processor, made)] == ["1, 2<|im_end|>", "3, 4<|im_end|>"]
    ids = made.prompt.tolist() + made.branches[0].ids.tolist()
    assert ids == tokenizer.apply_chat_template(DIALOGUE)["input_ids"]
    for number in (2, 4):
        # Each turn begins where its prompt, tokenised alone, ends.
        asked = processor.prompt_ids(DIALOGUE[:number])
        assert ids[: len(asked)] == asked
    assert made.prompt.tolist() == processor.prompt_ids(DIALOGUE[:2])


def test_one_turn_is_a_tree(tokenizer: Any) -> None:
    processor = Processor(tokenizer)
    whole = conversation(processor, DIALOGUE[:3])
    pair = tree(processor, DIALOGUE[:2], [DIALOGUE[2:3]])
    assert whole.prompt.tolist() == pair.prompt.tolist()
    assert whole.branches[0].ids.tolist() == pair.branches[0].ids.tolist()
    assert whole.branches[0].weights.tolist() == pair.branches[0].weights.tolist()


def test_generation_marks_decide_where_there_are_any(make_byte_level: Maker) -> None:
    marked = make_byte_level(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ 'A: ' }}"
        "{% generation %}{{ m['content'] }}{% endgeneration %}{{ ' !' }}"
        "{% else %}{{ 'U: ' + m['content'] }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    processor = Processor(marked)
    assert [run.strip() for run in scored(processor, conversation(processor, DIALOGUE))] == ["1, 2", "3, 4"]
    plain = Processor(make_byte_level(None))
    assert scored(plain, conversation(plain, DIALOGUE)) == ["1, 2<|im_end|>", "3, 4<|im_end|>"]


def test_a_template_that_changes_earlier_turns(make_byte_level: Maker, templates: dict[str, str]) -> None:
    processor = Processor(make_byte_level(templates["thinking"]))
    runs = scored(processor, conversation(processor, DIALOGUE))
    assert runs == ["1, 2<|im_end|>\n", "<think>\n\n</think>\n\n3, 4<|im_end|>\n"]
    asking = Processor(make_byte_level(templates["asking"]))
    assert scored(asking, conversation(asking, DIALOGUE)) == ["1, 2<|im_end|>\n", "3, 4<|im_end|>\n"]


def test_a_dialogue_that_the_assistant_opens(make_byte_level: Maker) -> None:
    processor = Processor(make_byte_level())
    assert scored(processor, conversation(processor, DIALOGUE[2:])) == ["1, 2<|im_end|>\n", "3, 4<|im_end|>\n"]


def test_a_dialogue_without_the_assistant(make_byte_level: Maker) -> None:
    with pytest.raises(RowError, match="no assistant turn"):
        conversation(Processor(make_byte_level()), DIALOGUE[:2])


def test_a_cut_dialogue_still_teaches(make_byte_level: Maker) -> None:
    processor = Processor(make_byte_level(), 12, "truncate")
    made = conversation(processor, DIALOGUE)
    assert made.size == 12
    assert made.branches[0].weights[0] == 1.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("abc é\n", min_size=1, max_size=60), length=st.integers(4, 20))
def test_documents_score_every_token_once_behind_what_stands_before_it(tokenizer: Any, text: str, length: int) -> None:
    processor = Processor(tokenizer, length)
    own = processor.front
    ids = processor.text_ids(text)[len(own) :]
    for front in (None, [], [7, 8]):
        blocks = document(processor, text, front)
        stands = own if front is None else front
        assert all(block.size <= length for block in blocks)
        scored = [token for block in blocks for token in block.branches[0].ids.tolist()]
        assert scored == ids[0 if stands else 1 :]
        before = [ids[:0] if stands else ids[:1], *(block.branches[0].ids[-1:].tolist() for block in blocks)]
        assert [block.prompt.tolist() for block in blocks] == [[*stands, *last] for last in before[:-1]]


def test_a_context_without_room_for_a_text_is_refused(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="a context of 3 tokens holds no text"):
        document(Processor(tokenizer, 3), "a", [7, 8])

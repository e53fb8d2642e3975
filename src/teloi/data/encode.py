"""Examples for causal models: texts become trees.

`tree` is for everything that is a prompt with completions, `conversation` for dialogues in which each
assistant turn counts, `document` for text as such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from teloi.batch.tree import Branch, Tree
from teloi.data.formats import Message, PromptOnly, Text
from teloi.data.processor import Processor
from teloi.errors import RowError, UsageError


def tree(processor: Processor, prompt: Text, completions: Sequence[Text], **columns: Any) -> Tree:
    """A prompt with one branch a completion, every token of which has weight 1.

    `columns` are numbers or small arrays that travel with the tree. Raises `Overlong` if the prompt with its
    longest completion exceeds the context and the processor does not truncate (see `Processor.fit`).
    """
    ids, tails = processor.fit(*processor.pair_ids(prompt, completions))
    return Tree(_ids(ids), tuple(Branch.scored(tail) for tail in tails), columns)


def question(processor: Processor, row: PromptOnly) -> Tree:
    """A prompt whose completions are yet to be sampled; its row stays with it for whoever rewards or judges them."""
    return replace(tree(processor, row.prompt, []), source=row)


def in_both_orders(processor: Processor, prompt: Text, first: Text, second: Text) -> Tree:
    """A pair of answers to be compared: branch 0 is the first and then the second one, branch 1 the other way round."""
    ids, (there, back) = processor.pair_ids(prompt, [first, second])
    ids, tails = processor.fit(ids, [there + back, back + there])
    return Tree(_ids(ids), tuple(Branch.scored(tail) for tail in tails))


def conversation(processor: Processor, messages: Sequence[Message], **columns: Any) -> Tree:
    """A whole dialogue as one branch; tokens of the assistant's turns have weight 1, all others 0.

    The prompt is what comes before the assistant's first turn. A turn is what the template marks with `{%
    generation %}` if it does so; otherwise what it adds to the conversation up to there, including the end of
    the turn: the tokens that the model would have to produce. Raises `Overlong` like `tree`; truncation keeps
    the start of the dialogue after its prompt.
    """
    ids, weights = _weighed(processor, messages)
    scored = np.flatnonzero(weights)
    if not len(scored):
        raise RowError("the conversation has no assistant turn to learn from")
    first = int(scored[0])
    prompt, (tail,) = processor.fit(ids[:first], [ids[first:]])
    branch = Branch(_ids(tail), np.asarray(weights[first : first + len(tail)], np.float32))
    return Tree(_ids(prompt), (branch,), columns)


def document(
    processor: Processor, text: Text, front: Sequence[int] | None = None, length: int | None = None
) -> list[Tree]:
    """A text with its end token as consecutive blocks of at most `length` positions (the context's), so that nothing is
    ever too long.

    Before each block stand the tokens `front`, by default those that the tokenizer puts before a plain text, and the
    last token of the block before it. Every token of the text is scored exactly once, but for the first one where
    nothing stands before it. UsageError where `length` leaves no room.
    """
    own = processor.front if isinstance(text, str) else []
    ids = processor.text_ids(text)[len(own) :]
    return blocks(ids, own if front is None else front, length or processor.max_length)


def blocks(ids: Sequence[int] | np.ndarray, front: Sequence[int], length: int) -> list[Tree]:
    """The same of a text that is given by the ids of its tokens."""
    room = length - len(front) - 1
    if room < 1:
        raise UsageError(f"a context of {length} tokens holds no text behind its first tokens")
    return [
        Tree(_ids([*front, *ids[max(i - 1, 0) : i]]), (Branch.scored(ids[i : i + room]),))
        for i in range(0 if front else 1, len(ids), room)
    ]


def _weighed(processor: Processor, messages: Sequence[Message]) -> tuple[list[int], list[float]]:
    if re.search(r"\{%-?\s*generation\s*-?%\}", processor.template):
        marked: Any = processor.tokenizer.apply_chat_template(
            list(messages),
            chat_template=processor.template,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **processor.template_options,
        )
        return marked["input_ids"], [float(mark) for mark in marked["assistant_masks"]]
    text = processor.render(messages)
    spans = _turns(processor, messages, text)
    encoding = processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    weights = [
        float(any(start <= begin < min(end, stop) for start, end in spans))
        for begin, stop in encoding["offset_mapping"]
    ]
    return encoding["input_ids"], weights


def _turns(processor: Processor, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
    """Where in the rendered conversation the assistant's turns are, by character."""
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = processor.render(messages[:number], ask=True) if number else None
        before, after = processor.frame(messages[:number])
        start = next((len(begin) for begin in (asked, before) if begin and text.startswith(begin)), None)
        if start is None:
            raise RowError(_REWRITES)
        ended = processor.render(messages[: number + 1])
        if text.startswith(ended):
            end = len(ended)
        else:
            # The template renders a turn differently once others follow (it drops its thoughts, say).
            end = text.find(after, start) + len(after)
            if not after or end < start + len(after):
                raise RowError(_REWRITES)
        spans.append((start, end))
    return spans


_REWRITES = (
    "the chat template changes earlier turns when later ones follow, so that a turn cannot be found in the "
    "whole conversation; use prompt-completion rows, or a template with {% generation %} marks"
)


def _ids(ids: Sequence[int]) -> np.ndarray:
    return np.asarray(ids, np.int32)

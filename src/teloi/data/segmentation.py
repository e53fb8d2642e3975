"""Segments of a text: sentences, sub-sentences, the whole; where they lie by character, and which token ends one.

A fine-grained reward lives in four coordinate systems: characters, words, tokens of a reward model and tokens of the
policy. Segments are spans of characters here, [start, end), without the white space between them; `ending_token` finds
the policy's token with which one is complete.

Source: Wu et al. 2023 (fine-grained RLHF), section 2, and the rules of its released code. Its sentences are spaCy's;
here one ends behind a full stop, exclamation or question mark that white space or the end follows."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, get_args

from teloi.data.formats import Text, plain
from teloi.errors import Overlong, UsageError

if TYPE_CHECKING:
    from teloi.data.processor import Processor

Density = Literal["sub-sentence", "sentence", "whole"]
Span = tuple[int, int]

DENSITIES: tuple[str, ...] = get_args(Density)

LEAST_WORDS = 5
"""Words of a sub-sentence, at least, where its sentence has as many."""

MARKS = ",;!?"
"""Last characters of a word behind which a sub-sentence may begin."""

_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s|\Z)|\Z)", re.DOTALL)
_WORD = re.compile(r"\S+")


def segments(text: str, density: Density) -> list[Span]:
    """The segments of a text. The whole is one segment, also of a text without any words; the others have none then."""
    match density:
        case "whole":
            return [(0, len(text))]
        case "sentence":
            return sentences(text)
        case "sub-sentence":
            return subsentences(text)
    raise UsageError(f"a density is {', '.join(DENSITIES)}, not {density!r}")


def sentences(text: str) -> list[Span]:
    """Sentences; what is left behind the last full stop (a text that was cut off) is one too."""
    return [(one.start(), one.start() + len(one.group().rstrip())) for one in _SENTENCE.finditer(text)]


def subsentences(text: str, least: int = LEAST_WORDS, marks: str = MARKS) -> list[Span]:
    """Parts of sentences, each of at least so many words but where its whole sentence has fewer.

    A part begins behind a word that ends in one of `marks` if more than `least` words of the sentence are left. If the
    part before it has fewer than `least`, it joins the one before that; the first part of a sentence goes on instead.
    """
    found = []
    for start, end in sentences(text):
        words = [(start + one.start(), start + one.end()) for one in _WORD.finditer(text[start:end])]
        begins = [0]
        for i in range(1, len(words)):
            if text[words[i - 1][1] - 1] not in marks or len(words) - i <= least:
                continue
            if i - begins[-1] >= least:
                begins.append(i)
            elif begins[-1] > 0:
                begins[-1] = i
        ends = [*begins[1:], len(words)]
        found += [(words[i][0], words[j - 1][1]) for i, j in zip(begins, ends, strict=True)]
    return found


def ending_token(text: str, end: int, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
    """The index of the token with which the first `end` characters of a text are complete, the last one's where none
    completes them (a text of which some tokens were cut off): an end behind the text is the last token.

    The tokens are those that were sampled, which need not be the ones a tokenizer would make of the text; `decode` is
    what made the text of them.
    """
    wanted = text[:end] if end <= len(text) else None
    complete = range(1, len(ids))
    return bisect_left(complete, True, key=lambda n: wanted is not None and decode(ids[:n]).startswith(wanted))


def tree_of_tokens(
    tree: Any, text: str, ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[Any] | str | None:
    """A syntax tree of a text, nested lists with words as leaves, as one whose leaves are tokens: a word of several
    tokens is a constituent of them. None where the words are not the text's, or two of them share a token."""
    read = done = 0  # characters, and tokens

    def spelt(node: Any) -> Any:
        nonlocal read, done
        if not isinstance(node, str):
            return [spelt(part) for part in node]
        at = text.find(node, read)
        if at < 0 or text[read:at].strip():
            raise ValueError(node)
        read = at + len(node)
        before, done = done, ending_token(text, read, ids, decode) + 1
        if done == before:
            raise ValueError(node)
        return node if done - before == 1 else [node] * (done - before)

    try:
        found: list[Any] | str = spelt(tree)
    except ValueError:
        return None
    return None if text[read:].strip() else found


def with_separators(processor: Processor, prompt: Text, pieces: Sequence[str]) -> tuple[list[int], list[int]]:
    """What an encoder reads to judge segments: the prompt, then each segment behind a separator; and where the
    separators are.

    Under "truncate" the prompt loses its start if that is too long, and then the text its end: segments that are left
    out have no separator. Otherwise raises `Overlong`.
    """
    tokenizer = processor.tokenizer
    separator = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    asked = processor.bare_ids(plain(prompt))
    cut = [[separator, *processor.bare_ids(piece)] for piece in pieces]
    said = [token for piece in cut for token in piece]
    room = processor.max_length - len(processor.sentence_ids())
    if len(asked) + len(said) > room:
        if processor.overlong != "truncate":
            raise Overlong(len(asked), len(said), processor.max_length)
        processor.truncated += 1
        said = said[:room]
        asked = asked[len(asked) + len(said) - room :]
    first = len(processor.front) + len(asked)
    places = accumulate(map(len, cut[:-1]), initial=0) if cut else ()
    return processor.sentence_ids(asked, said), [first + place for place in places if place < len(said)]

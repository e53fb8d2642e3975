"""From texts to token ids.

What a model sees at inference is the prompt, tokenised alone; so in training a completion's ids continue
exactly those ids, also where the tokenizer would have merged the end of the prompt with the start of the
completion. Wherever it would not, the ids are the ones TRL gives: the tail of prompt and completion tokenised
together.

Standard completions end with the tokenizer's end-of-sequence token; conversations end as their template ends
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from teloi.data.formats import Format, Message, Text
from teloi.errors import ModelError, Overlong, RowError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AnyFormat = TypeVar("AnyFormat", bound=Format)
OverlongPolicy = Literal["drop", "truncate", "fail"]

# For tokenizers without a chat template: plain words, since it would not know another's special tokens.
PLAIN_TEMPLATE = r"""
{%- for message in messages -%}
{{ ('' if loop.first else '\n\n') + '### ' + message['role'] | capitalize + ':\n' }}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}
{%- else -%}
{{ message['content'] }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '\n\n### Assistant:\n' }}
{%- endif -%}"""

# Texts that may stand before a completion so that it is tokenised as the middle of a text: nothing suits
# byte-level tokenizers, the others keep sentencepiece's from putting a space in front.
_ANCHORS = ("", "\n", ".", "x")


REMEMBERED = 2**16
"""Texts whose ids are kept."""


@dataclass
class Processor:
    """A tokenizer with what training needs around it.

    `max_length` is the context in tokens; `overlong` says what becomes of examples that exceed it: "drop" and
    "fail" raise `Overlong` (the caller counts or stops), "truncate" cuts them (`truncated` counts how many).
    `template_options` goes to the chat template (e.g. `{"enable_thinking": False}`).
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int = 1024
    overlong: OverlongPolicy = "drop"
    template_options: Mapping[str, Any] = field(default_factory=dict)
    truncated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise UsageError(f"a context of {self.max_length} tokens holds no prompt and completion")
        if self.overlong not in ("drop", "truncate", "fail"):
            raise UsageError(f"overlong is drop, truncate or fail, not {self.overlong!r}")

    # --- texts to ids ---

    def prompt_text(self, prompt: Text) -> str:
        """The prompt as the model is asked: messages rendered, with the start of the assistant's turn."""
        return prompt if isinstance(prompt, str) else self.render(prompt, ask=True)

    def prompt_ids(self, prompt: Text) -> list[int]:
        """Ids of the prompt alone, with the special tokens that the tokenizer puts in front of plain text."""
        return self._ids(self.prompt_text(prompt), conversation=isinstance(prompt, list))

    def completion_ids(self, prompt: Text, completion: Text) -> list[int]:
        """Ids that continue `prompt_ids(prompt)`, with the end of the sequence or of the turn."""
        return self.pair_ids(prompt, [completion])[1][0]

    def pair_ids(self, prompt: Text, completions: Sequence[Text]) -> tuple[list[int], list[list[int]]]:
        """Prompt ids, and for each completion the ids that continue them."""
        start = self.prompt_text(prompt)
        ids = self._ids(start, conversation=isinstance(prompt, list))
        return ids, [self._continue(prompt, start, ids, completion) for completion in completions]

    def text_ids(self, text: Text) -> list[int]:
        """Ids of a whole text or conversation, with its end."""
        if isinstance(text, str):
            return self._ids(self._ended(text), conversation=False)
        return self._ids(self.render(text), conversation=True)

    def sentence_ids(self, *pieces: Sequence[int]) -> list[int]:
        """What an encoder reads of a text that is given as pieces of `bare_ids`, between the tokenizer's own special
        tokens.

        Under "truncate" its end is cut off, special tokens are kept; otherwise raises `Overlong`.
        """
        ids = [i for piece in pieces for i in piece]
        front, back = self._around
        room = self.max_length - len(front) - len(back)
        if len(ids) > room:
            if self.overlong != "truncate":
                raise Overlong(len(front) + len(back), len(ids), self.max_length)
            self.truncated += 1
        return [*front, *ids[: max(room, 0)], *back]

    def encoder_inputs(self, text: str, second: str | None = None) -> dict[str, list[int]]:
        """What an encoder reads of a text or of a pair: `input_ids`, between the tokenizer's own special tokens, and
        `token_type_ids` where the tokenizer has them.

        Under "truncate" the longer text of a pair is cut first, until both fit; otherwise raises `Overlong`.
        """
        encoded = self.tokenizer(text, second, verbose=False)
        if (length := len(encoded["input_ids"])) > self.max_length:
            if self.overlong != "truncate":
                raise Overlong(0, length, self.max_length)
            self.truncated += 1
            encoded = self.tokenizer(text, second, truncation="longest_first", max_length=self.max_length)
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens and all."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    # --- conversations ---

    @cached_property
    def template(self) -> str:
        """The chat template in use: the tokenizer's own, or the plain one if it has none."""
        if self.tokenizer.chat_template:
            return str(self.tokenizer.get_chat_template())
        self._need_end()
        begins = self.tokenizer.bos_token_id is not None and self.tokenizer.bos_token_id in self.front
        return ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE

    def render(self, messages: Sequence[Message], ask: bool = False) -> str:
        """A conversation as text; with `ask`, followed by the start of the assistant's turn."""
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.template,
                add_generation_prompt=ask,
                tokenize=False,
                **self.template_options,
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise RowError(f"the chat template does not take this conversation: {error}") from None
        assert isinstance(text, str)
        return text

    def frame(self, messages: Sequence[Message]) -> tuple[str, str]:
        """What the template puts before and after an assistant's reply that ends `messages`."""
        one, other = (self.render([*messages, {"role": "assistant", "content": content}]) for content in ("0", "A"))
        return _common_start(one, other), _common_start(one[::-1], other[::-1])[::-1]

    def standard(self, row: AnyFormat) -> AnyFormat:
        """A conversational row with its messages rendered to text: the cast that needs a template.

        A beginning-of-sequence token is left to the tokenizer where it puts one in front of plain text
        itself.
        """
        if not row.conversational:
            return row
        values: dict[str, Any] = {}
        prompt = getattr(row, "prompt", None)
        for name in row.needs:
            text = getattr(row, name)
            if isinstance(text, list):
                whole = text if prompt is None or name == "prompt" else [*prompt, *text]
                values[name] = self.render(whole, ask=name == "prompt")
        if prompt is not None:
            start = values["prompt"]
            for name in values.keys() - {"prompt"}:
                values[name] = self._tail(prompt, start, values[name])
        begin = self.tokenizer.bos_token
        if begin and self.tokenizer.bos_token_id in self.front:
            for name in values if prompt is None else ["prompt"]:
                values[name] = values[name].removeprefix(begin)
        return replace(row, **values)

    # --- overlong examples ---

    def fit(self, prompt: list[int], completions: list[list[int]]) -> tuple[list[int], list[list[int]]]:
        """Prompt and completions that fit the context together, each completion with the prompt.

        Under "truncate" the completions keep their start: they are cut only as far as the prompt needs the
        room, and never below half of the context. The prompt keeps its end, and its beginning-of-sequence
        token. A cut completion loses its end token: the model must not learn to stop there. Otherwise raises
        `Overlong`.
        """
        longest = max(map(len, completions), default=0)
        if len(prompt) + longest <= self.max_length:
            return prompt, completions
        if self.overlong != "truncate":
            raise Overlong(len(prompt), longest, self.max_length)
        self.truncated += 1
        most = max(self.max_length - len(prompt), self.max_length // 2)
        completions = [ids[:most] for ids in completions]
        room = self.max_length - max(map(len, completions), default=0)
        if len(prompt) > room:
            begin = prompt[:1] if prompt[0] == self.tokenizer.bos_token_id and room > 1 else []
            prompt = begin + prompt[len(prompt) - room + len(begin) :]
        return prompt, completions

    # --- inside ---

    def bare_ids(self, text: str) -> list[int]:
        """Ids of a text without any special tokens around it."""
        backend = self._backend
        if (
            backend is not None
            and backend.truncation is None
            and backend.padding is None
            and backend.encode_special_tokens == self.tokenizer.split_special_tokens
        ):
            ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        else:
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @cached_property
    def _backend(self) -> Any:
        """What a fast tokenizer itself asks, where that is all that it does: several times as fast as its call, which
        makes more of a text than its ids. None for others."""
        from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

        kind = type(self.tokenizer)
        usual = (PreTrainedTokenizerBase.__call__, getattr(PreTrainedTokenizerFast, "_encode_plus", None))
        own = (kind.__call__, getattr(kind, "_encode_plus", None))
        return self.tokenizer.backend_tokenizer if own == usual and usual[1] is not None else None

    @cached_property
    def remembered_ids(self) -> Callable[[str], list[int]]:
        """`bare_ids`, remembered, for texts that many rows share."""
        return lru_cache(REMEMBERED)(self.bare_ids)

    @property
    def front(self) -> list[int]:
        """Special tokens that the tokenizer puts in front of plain text.

        Those that it puts behind are left out: a prompt ends no sequence, completions get their end as text.
        """
        return self._around[0]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Special tokens that the tokenizer puts in front of plain text and behind it."""
        bare = self.bare_ids("x")
        whole: list[int] = self.tokenizer("x")["input_ids"]
        starts = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        start = next(starts, 0)
        return whole[:start], whole[start + len(bare) :]

    def _ids(self, text: str, conversation: bool) -> list[int]:
        # A template writes its special tokens itself.
        return self.bare_ids(text) if conversation else [*self.front, *self.bare_ids(text)]

    def _continue(self, prompt: Text, start: str, ids: list[int], completion: Text) -> list[int]:
        if isinstance(prompt, str):
            assert isinstance(completion, str)  # Format.parse refuses a mixture
            tail = self._ended(completion)
        else:
            assert isinstance(completion, list)
            tail = self._tail(prompt, start, self.render([*prompt, *completion]))
        joint = self._ids(start + tail, conversation=isinstance(prompt, list))
        if joint[: len(ids)] == ids and len(joint) > len(ids):
            return joint[len(ids) :]
        # Tokens merge over the boundary. Right are ids that read the same after the prompt's.
        wanted = self.decode(joint)
        for anchor in _ANCHORS:
            head, both = self.bare_ids(anchor), self.bare_ids(anchor + tail)
            if both[: len(head)] == head and self.decode(ids + both[len(head) :]) == wanted:
                return both[len(head) :]
        return self.bare_ids(tail)

    def _tail(self, prompt: list[Message], start: str, whole: str) -> str:
        """What a rendered conversation adds to its rendered prompt.

        Some templates write the start of the assistant's turn differently when they ask for it (an empty
        thought, for instance); then the reply begins where its content does.
        """
        if whole.startswith(start):
            return whole[len(start) :]
        before, _ = self.frame(prompt)
        if whole.startswith(before):
            return whole[len(before) :]
        raise RowError(
            "the chat template renders the prompt differently when a reply follows; "
            "render the rows to text first (standard format) or choose another template"
        )

    def _ended(self, text: str) -> str:
        end = self._need_end()
        return text if text.endswith(end) else text + end

    def _need_end(self) -> str:
        end = self.tokenizer.eos_token
        if not end:
            raise ModelError("the tokenizer has no end-of-sequence token, so no reply would ever end")
        return str(end)


def _common_start(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(left for left, _ in pairs)

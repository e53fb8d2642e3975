"""The oracle for ids is TRL: what its trainers' own preparation makes of the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from teloi.data.formats import Message, PromptCompletion, Text
from teloi.data.processor import Processor
from teloi.errors import ModelError, Overlong, RowError, UsageError
from teloi.files import cache_home
from teloi.models import embedded

Maker = Callable[..., Any]

STANDARD = [
    ("The capital of France is", " Paris.", " a small robot."),
    ("Question: what is two and two? Answer:", " four", " 42.\n\nA second paragraph"),
    ("Once upon a time\n", "there was a café.", "naïve déjà vu"),
    ("Ends already.", " With the end<|im_end|>", " or not"),
]


def ask(content: str, *earlier: Message) -> list[Message]:
    return [*earlier, {"role": "user", "content": content}]


def say(content: str) -> list[Message]:
    return [{"role": "assistant", "content": content}]


CHAT = [
    (ask("What is the capital?"), say("Paris."), say("  indented code")),
    (ask("And now?", {"role": "system", "content": "Count."}, *ask("Hi"), *say("1, 2")), say("3, 4"), say("10.")),
]


def trl_pairs(tokenizer: Any, rows: Sequence[tuple[Any, ...]], kind: str) -> list[dict[str, list[int]]]:
    """prompt and completion ids per row as TRL's DPO, KTO or SFT trainer prepares them."""
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    datasets.disable_progress_bars()
    columns = {"dpo": ("prompt", "chosen", "rejected"), "text": ("text",), "messages": ("messages",)}.get(
        kind, ("prompt", "completion")
    )
    data = datasets.Dataset.from_list([dict(zip(columns, row, strict=False)) for row in rows])
    args = SimpleNamespace(
        dataset_num_proc=None, max_length=None, truncation_mode="keep_start", dataset_text_field="text",
        assistant_only_loss=False, per_device_train_batch_size=2, packing=False, shuffle_dataset=False,
    )  # fmt: skip
    trainer = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=None, completion_only_loss=False, calculate_KL=False,
        desirable_weight=1.0, undesirable_weight=1.0,
    )  # fmt: skip
    if kind == "dpo":
        made = trl.DPOTrainer._prepare_dataset(trainer, data, tokenizer, args, "oracle")
        return [{k: row[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in made]
    if kind == "kto":
        data = data.add_column("label", [True] * len(data))
        made = trl.KTOTrainer._prepare_dataset(trainer, data, tokenizer, args, "oracle")
        return [{k: row[k] for k in ("prompt_ids", "completion_ids")} for row in made]
    made = trl.SFTTrainer._prepare_dataset(trainer, data, tokenizer, args, False, None, "oracle")
    return [{"input_ids": row["input_ids"]} for row in made]


@pytest.mark.parametrize("rows", [STANDARD, CHAT], ids=["standard", "conversational"])
def test_ids_are_trls(tokenizer: Any, rows: list[tuple[Text, Text, Text]]) -> None:
    processor = Processor(tokenizer)
    dpo = trl_pairs(tokenizer, rows, "dpo")
    kto = trl_pairs(tokenizer, rows, "kto")
    sft = trl_pairs(tokenizer, rows, "sft")
    agreed = 0
    for row, pair, single, whole in zip(rows, dpo, kto, sft, strict=True):
        prompt, (chosen, rejected) = processor.pair_ids(row[0], row[1:])
        assert prompt == processor.prompt_ids(row[0])
        assert chosen == processor.completion_ids(row[0], row[1])
        if len(pair["prompt_ids"]) == len(prompt):  # else TRL cut the prompt short
            assert pair == {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
            agreed += 1
        if len(single["prompt_ids"]) == len(prompt):
            assert single == {"prompt_ids": prompt, "completion_ids": chosen}
            assert whole["input_ids"] == prompt + chosen
    assert agreed >= len(rows) - 1


def test_whole_texts_are_trls(tokenizer: Any) -> None:
    processor = Processor(tokenizer)
    texts = [prompt + chosen for prompt, chosen, _ in STANDARD]
    chats = [prompt + chosen for prompt, chosen, _ in CHAT]
    for kind, rows in (("text", texts), ("messages", chats)):
        theirs = trl_pairs(tokenizer, [(row,) for row in rows], kind)
        assert [processor.text_ids(row) for row in rows] == [row["input_ids"] for row in theirs]


@pytest.mark.skipif(not (cache_home() / embedded.NAME).is_dir(), reason="the embedded model is not here")
@pytest.mark.parametrize("rows", [STANDARD, CHAT], ids=["standard", "conversational"])
def test_ids_are_trls_with_the_embedded_model(rows: list[tuple[Text, Text, Text]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded.path())
    processor = Processor(tokenizer)
    for row, theirs in zip(rows, trl_pairs(tokenizer, rows, "dpo"), strict=True):
        prompt, (chosen, rejected) = processor.pair_ids(row[0], row[1:])
        assert prompt[: len(theirs["prompt_ids"])] == theirs["prompt_ids"]
        if len(prompt) == len(theirs["prompt_ids"]):
            assert (chosen, rejected) == (theirs["chosen_ids"], theirs["rejected_ids"])


words = st.sampled_from(["office", " the", "of", "\n", " ", "  ", "robot", "é", "1", "42.", "<", ":", "\n\n", "A"])
phrases = st.lists(words, min_size=1, max_size=5).map("".join).filter(lambda text: bool(text.strip()))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=phrases, completion=phrases)
def test_completions_continue_the_prompt_as_it_is_asked(tokenizer: Any, prompt: str, completion: str) -> None:
    processor = Processor(tokenizer)
    cases: list[tuple[Text, Text, list[int], list[int]]] = [
        (
            prompt,
            completion,
            tokenizer(prompt)["input_ids"],
            tokenizer(prompt + completion + tokenizer.eos_token)["input_ids"],
        ),
        (
            ask(prompt),
            say(completion),
            tokenizer.apply_chat_template(ask(prompt), add_generation_prompt=True)["input_ids"],
            tokenizer.apply_chat_template(ask(prompt) + say(completion))["input_ids"],
        ),
    ]
    for asked, replied, alone, joint in cases:
        ids, (tail,) = processor.pair_ids(asked, [replied])
        assert ids == alone
        assert processor.decode(ids + tail) == processor.decode(joint)
        if joint[: len(alone)] == alone:
            assert ids + tail == joint


class Shouting(PreTrainedTokenizerFast):
    """A tokenizer whose call does more than its backend's."""

    def __call__(self, text: Any, *args: Any, **named: Any) -> Any:
        return super().__call__(text.upper(), *args, **named)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(["a<|im_end|>b", "<s> x", " "]))
def test_bare_ids_are_those_of_the_tokenizers_call(tokenizer: Any, text: str) -> None:
    processor = Processor(tokenizer)
    assert processor._backend is not None
    wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
    for how in ({}, {"truncation": True, "max_length": 2}, {"padding": "max_length", "max_length": 9}):
        tokenizer("some other text", **how)  # which leaves its mark on the backend
        assert processor.bare_ids(text) == wanted
    tokenizer.split_special_tokens = True
    assert processor.bare_ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
    tokenizer.split_special_tokens = False


def test_a_tokenizer_with_a_call_of_its_own_is_called(make_byte_level: Maker) -> None:
    plain = make_byte_level()
    processor = Processor(Shouting(tokenizer_object=plain.backend_tokenizer))
    assert processor.bare_ids("paris") == plain("PARIS")["input_ids"]


def test_a_merge_over_the_boundary(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level()
    processor = Processor(tokenizer)
    merged = tokenizer("The office")["input_ids"]
    prompt, (tail,) = processor.pair_ids("The of", ["fice"])
    assert prompt == tokenizer("The of")["input_ids"]
    assert merged[: len(prompt)] != prompt  # or the example tests nothing
    assert processor.decode(prompt + tail) == "The office<|im_end|>"


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_no_space_is_put_between(make_word_marked: Maker, scheme: str) -> None:
    tokenizer = make_word_marked(scheme)
    processor = Processor(tokenizer)
    for prompt, completion in (("The of", "fice"), ("Answer: ", "four"), ("the robot:", "1"), ("A", " robot")):
        ids, (tail,) = processor.pair_ids(prompt, [completion])
        assert ids == tokenizer(prompt)["input_ids"]
        assert processor.decode(ids + tail) == f"<s> {prompt}{completion}</s>"


def test_a_tokenizer_that_ends_every_text(make_word_marked: Maker) -> None:
    tokenizer = make_word_marked(ends=True)
    processor = Processor(tokenizer)
    ids, (tail,) = processor.pair_ids("The robot", [" counts"])
    assert ids == tokenizer("The robot")["input_ids"][:-1]
    assert tail.count(tokenizer.eos_token_id) == 1
    assert tail[-1] == tokenizer.eos_token_id
    assert ids[0] == tokenizer.bos_token_id


def test_the_end_of_texts_and_turns(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level()
    processor = Processor(tokenizer)
    assert processor.decode(processor.text_ids("A robot")) == "A robot<|im_end|>"
    assert processor.decode(processor.text_ids("A robot<|im_end|>")) == "A robot<|im_end|>"
    assert processor.decode(processor.completion_ids(ask("Hi"), say("Yo"))) == "Yo<|im_end|>\n"
    assert (
        processor.text_ids(ask("Hi") + say("Yo")) == tokenizer.apply_chat_template(ask("Hi") + say("Yo"))["input_ids"]
    )
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Processor(tokenizer).completion_ids("A", " robot")


@pytest.mark.parametrize("kind", ["thinking", "asking"])
def test_templates_that_ask_differently(make_byte_level: Maker, templates: dict[str, str], kind: str) -> None:
    tokenizer = make_byte_level(templates[kind])
    processor = Processor(tokenizer)
    prompt, (tail,) = processor.pair_ids(ask("Hi"), [say("<b>Yo")])
    assert processor.decode(prompt) == tokenizer.apply_chat_template(
        ask("Hi"), add_generation_prompt=True, tokenize=False
    )
    thought = "<think>\n\n</think>\n\n" if kind == "thinking" else ""
    assert processor.decode(tail) == thought + "<b>Yo<|im_end|>\n"


def test_the_plain_template(make_byte_level: Maker, make_word_marked: Maker) -> None:
    for tokenizer, begin in ((make_byte_level(None), ""), (make_word_marked(template=None), "<s>")):
        processor = Processor(tokenizer)
        chat = ask("Hi", {"role": "system", "content": "Count."})
        end = tokenizer.eos_token
        assert processor.prompt_text(chat) == f"{begin}### System:\nCount.\n\n### User:\nHi\n\n### Assistant:\n"
        prompt, (tail,) = processor.pair_ids(chat, [say("1, 2")])
        assert tail[-1] == tokenizer.eos_token_id
        assert prompt.count(tokenizer.bos_token_id) == (1 if begin else 0)
        assert processor.render(chat + say("1")).endswith(f"### Assistant:\n1{end}")


def test_a_template_that_refuses_says_so(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RowError, match="the chat template does not take this conversation: roles must alternate"):
        Processor(tokenizer).prompt_ids(ask("Hi"))


def test_conversational_to_standard(tokenizer: Any) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    processor = Processor(tokenizer)
    for prompt, chosen, _ in CHAT:
        row = PromptCompletion(prompt, chosen, columns={"id": 1}, where="x row 1")
        made = processor.standard(row)
        assert (made.columns, made.where, made.conversational) == ({"id": 1}, "x row 1", False)
        theirs = data_utils.apply_chat_template({"prompt": prompt, "completion": chosen}, tokenizer)
        assert made.completion == theirs["completion"]
        assert made.prompt == theirs["prompt"].removeprefix("<s>")  # the tokenizer puts it there itself
        assert processor.prompt_ids(made.prompt).count(tokenizer.bos_token_id) == processor.prompt_ids(prompt).count(
            tokenizer.bos_token_id
        )
        assert processor.standard(made) is made


@given(
    prompt=st.lists(st.integers(10, 99), min_size=1, max_size=30),
    completions=st.lists(st.lists(st.integers(10, 99), min_size=1, max_size=30), min_size=1, max_size=3),
    limit=st.integers(2, 40),
    begins=st.booleans(),
)
def test_fit(prompt: list[int], completions: list[list[int]], limit: int, begins: bool) -> None:
    tokenizer: Any = SimpleNamespace(bos_token_id=1)
    prompt = [1, *prompt] if begins else prompt
    longest = max(map(len, completions))
    short, cut = Processor(tokenizer, limit, "truncate").fit(prompt, completions)
    if len(prompt) + longest <= limit:
        assert (short, cut) == (prompt, completions)
        assert Processor(tokenizer, limit, "fail").fit(prompt, completions) == (prompt, completions)
        return
    for policy in ("drop", "fail"):
        with pytest.raises(Overlong) as caught:
            Processor(tokenizer, limit, policy).fit(prompt, completions)
        assert (caught.value.prompt, caught.value.completion, caught.value.limit) == (len(prompt), longest, limit)
    assert len(short) + max(map(len, cut)) == limit
    assert short
    for whole, part in zip(completions, cut, strict=True):
        assert part
        assert part == whole[: len(part)]
        assert len(part) >= min(len(whole), limit // 2)
    if begins and len(short) > 1:
        assert short[0] == 1
    tail = short[1:] if begins and short[0] == 1 else short
    assert prompt[len(prompt) - len(tail) :] == tail


def test_bad_settings(make_byte_level: Maker) -> None:
    with pytest.raises(UsageError, match="a context of 1 tokens"):
        Processor(make_byte_level(), 1)
    with pytest.raises(UsageError, match="overlong is drop, truncate or fail"):
        Processor(make_byte_level(), 10, "cut")  # type: ignore[arg-type]

"""Tokenizers built on the spot: byte-level as GPT-2's, and with a word marker as Llama's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3's: the last reply gets an empty thought, earlier replies have none.
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Gemma's largest: the question for a reply ends in an empty thought that no conversation has.
ASKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think></think>' }}{% endif %}"
)

CORPUS = [
    "The capital of France is Paris. The office of the officer is in the building.",
    "Question: what is two and two? Answer: four, and 12 + 30 = 42.",
    "  indented code\n    return x\n\nA second paragraph follows here, with naïve café déjà vu.",
    "Once upon a time there was a small robot who liked to count: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.",
] * 4


def byte_level(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<|im_start|>", "<|im_end|>", "<|pad|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    made.chat_template = template
    return made


def word_marked(scheme: str = "first", template: str | None = None, ends: bool = False) -> PreTrainedTokenizerFast:
    """Sentencepiece's way: a space in front of the text, <s> before it, `ends` puts </s> behind."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    raw.train_from_iterator(
        [word for text in CORPUS for word in text.split()],  # no pieces that reach over spaces
        trainers.BpeTrainer(vocab_size=600, special_tokens=pieces, show_progress=False),
    )
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    made.chat_template = template
    return made


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": byte_level,
    "metaspace-first": lambda: word_marked("first", template="{{ bos_token }}" + CHATML),
    "metaspace-always": lambda: word_marked("always", template="{{ bos_token }}" + CHATML),
}


@pytest.fixture(params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return MAKERS[request.param]()


@pytest.fixture
def make_byte_level() -> Callable[..., PreTrainedTokenizerFast]:
    return byte_level


@pytest.fixture
def make_word_marked() -> Callable[..., PreTrainedTokenizerFast]:
    return word_marked


@pytest.fixture
def templates() -> dict[str, str]:
    return {"chatml": CHATML, "thinking": THINKING, "asking": ASKING}

"""Models with random weights, by size, and a tokenizer trained on the user's own text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
)

from teloi.data.vocabulary import MODES, SENTINELS
from teloi.errors import DataError, ModelError
from teloi.models.zoo.hashed import HashedConfig, HashedModel, HashedTokenizer

# name -> width, layers, heads, vocabulary
PRESETS = {
    "tiny": (64, 2, 4, 1000),
    "small": (256, 4, 4, 4000),
    "base": (512, 8, 8, 16000),
}
HASHED = "hashed"
"""The encoder without context of `teloi.models.zoo.hashed`: no size to choose, no tokenizer to train."""

NAMES = (*PRESETS, HASHED)
BEGIN, END, PAD, UNKNOWN = "<|begin|>", "<|end|>", "<|pad|>", "<|unknown|>"
MASK = "<|mask|>"
CONTEXT = 2048


def scratch_tokenizer(preset: str, texts: Iterable[str], architecture: str = "causal") -> PreTrainedTokenizerBase:
    """The tokenizer of a preset, trained on some texts where it is to be trained."""
    return scratch_tokenizers(preset, texts, [architecture])[architecture]


def scratch_tokenizers(
    preset: str, texts: Iterable[str], architectures: Sequence[str]
) -> dict[str, PreTrainedTokenizerBase]:
    """One tokenizer of a preset for models of several architectures: `train_tokenizers`."""
    if preset == HASHED:
        return {architecture: HashedTokenizer() for architecture in architectures}
    return train_tokenizers(texts, PRESETS[preset][-1], architectures)


def train_tokenizer(texts: Iterable[str], vocab_size: int, architecture: str = "causal") -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens: it can write any text, and reads it back unchanged.

    The same texts in the same order give the same tokenizer. Encoding adds nothing: where a text begins and ends is the
    caller's business. For a masked model and a classifier there is a mask token besides, and encoding puts a text
    between BEGIN and END, which are BERT's [CLS] and [SEP]; for a seq2seq model there are T5's 100 sentinels and UL2's
    mode tokens. ModelError when `vocab_size` leaves no room for the bytes; DataError without text.
    """
    return train_tokenizers(texts, vocab_size, [architecture])[architecture]


def train_tokenizers(
    texts: Iterable[str], vocab_size: int, architectures: Sequence[str]
) -> dict[str, PreTrainedTokenizerBase]:
    """The same vocabulary, trained once, as each of the architectures uses it: all cut a text into the same tokens, and
    special tokens that one of them needs all of them have."""
    extra = list(dict.fromkeys(token for architecture in architectures for token in _extra(architecture)))
    specials = [PAD, BEGIN, END, *extra]
    least = len(specials) + len(alphabet := sorted(pre_tokenizers.ByteLevel.alphabet()))
    if vocab_size < least:
        raise ModelError(f"a vocabulary needs at least {least} tokens (the bytes and the specials), not {vocab_size}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    some = (text for text in texts if text)
    first = next(some, None)
    if first is None:
        raise DataError("no text to train a tokenizer on")
    bpe.train_from_iterator(chain([first], some), trainer)
    return {architecture: _as_used(bpe, architecture, extra) for architecture in architectures}


def _encodes(architecture: str) -> bool:
    """Whether texts stand between special tokens."""
    return architecture in ("masked", "classifier")


def _extra(architecture: str) -> list[str]:
    """Special tokens beyond those that every architecture needs."""
    return {"seq2seq": [*SENTINELS, *MODES]}.get(architecture, [MASK] if _encodes(architecture) else [])


def _as_used(bpe: Tokenizer, architecture: str, extra: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer of its own for an architecture."""
    bpe = Tokenizer.from_str(bpe.to_str())
    named: dict[str, Any] = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD, "model_max_length": CONTEXT}
    if _encodes(architecture):
        ends = [(token, bpe.token_to_id(token)) for token in (BEGIN, END)]
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B:1 {END}:1", special_tokens=ends
        )
        named |= {"cls_token": BEGIN, "sep_token": END}
        named["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if MASK in extra and architecture != "seq2seq":  # whose mask is a sentinel
        named["mask_token"] = MASK
    if others := [token for token in extra if token != MASK]:
        named["extra_special_tokens"] = others
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **named)


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerBase:
    """A tokenizer with one token a word, for worlds that speak in words parted by blanks; others are UNKNOWN.

    DataError for a word that holds a blank or comes twice.
    """
    specials = [PAD, BEGIN, END, UNKNOWN]
    listed = [*specials, *words]
    if len(set(listed)) < len(listed) or any(word.split() != [word] for word in listed):
        raise DataError("a vocabulary of words needs different words without blanks")
    level = Tokenizer(models.WordLevel({word: index for index, word in enumerate(listed)}, unk_token=UNKNOWN))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=level,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=CONTEXT,
    )


def scratch_model(
    size: str | tuple[int, int, int], tokenizer: PreTrainedTokenizerBase, architecture: str = "causal"
) -> PreTrainedModel:
    """A model with random weights, drawn from torch's global generator, of a preset's size or of one of its own: width,
    layers, heads.

    causal: Llama; masked, encoder and classifier: BERT; seq2seq: T5 (v1.1), with half the layers in each stack.
    ModelError for "hashed" where no encoder is wanted.
    """
    if size == HASHED:
        if architecture != "encoder":
            raise ModelError(f"scratch:{HASHED} is an encoder, and this method trains a {architecture} model")
        return HashedModel(HashedConfig(vocab_size=len(tokenizer)))
    width, layers, heads = PRESETS[size][:3] if isinstance(size, str) else size
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    wide = width * 8 // 3 // 32 * 32
    auto: Any
    config: Any
    match architecture:
        case "causal":
            auto = AutoModelForCausalLM
            config = LlamaConfig(
                hidden_size=width,
                intermediate_size=wide,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads // 2,
                max_position_embeddings=CONTEXT,
                tie_word_embeddings=True,
                **special,
            )
        case "masked" | "encoder" | "classifier":
            auto = {"masked": AutoModelForMaskedLM, "classifier": AutoModelForSequenceClassification}.get(
                architecture, AutoModel
            )
            config = BertConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                max_position_embeddings=CONTEXT // 4,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                **special,
            )
        case "seq2seq":
            auto = AutoModelForSeq2SeqLM
            config = T5Config(
                d_model=width,
                d_kv=width // heads,
                d_ff=wide,
                num_layers=max(1, layers // 2),
                num_decoder_layers=max(1, layers // 2),
                num_heads=heads,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                **special,
            )
            config.decoder_start_token_id = tokenizer.pad_token_id
        case _:
            raise ModelError(f"no scratch model of architecture {architecture!r}")
    implementation = {} if architecture == "seq2seq" else {"attn_implementation": "sdpa"}
    model: PreTrainedModel = auto.from_config(config, **implementation)
    return model

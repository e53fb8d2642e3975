"""Models with random weights, by size, and a tokenizer trained on the user's own text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from teloi.errors import DataError, ModelError

# name -> width, layers, heads, vocabulary
PRESETS = {
    "tiny": (64, 2, 4, 1000),
    "small": (256, 4, 4, 4000),
    "base": (512, 8, 8, 16000),
}
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
CONTEXT = 2048


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens: it can write any text, and reads it back unchanged.

    The same texts in the same order give the same tokenizer. Encoding adds nothing: where a text begins and ends is the
    caller's business. ModelError when `vocab_size` leaves no room for the bytes; DataError without text.
    """
    specials = [PAD, BEGIN, END]
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
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, pad_token=PAD, model_max_length=CONTEXT
    )


def scratch_model(preset: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A Llama of a preset's size with random weights, drawn from torch's global generator."""
    width, layers, heads, _ = PRESETS[preset]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    assert isinstance(model, PreTrainedModel)
    return model

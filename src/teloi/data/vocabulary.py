"""What corruption asks of a tokenizer beyond text: sentinels, a mask, and which tokens may stand in for others."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from teloi.data.corruption.ragged import Bools, Ints
from teloi.data.corruption.tokens import replaceable
from teloi.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINELS = tuple(f"<extra_id_{k}>" for k in range(100))
"""T5's names for the gaps in a corrupted text, in the order of their use."""

MODES = ("[R]", "[X]", "[S]")
"""UL2's names for its paradigms: regular denoising, extreme denoising, sequential denoising."""


BLANKS = ("Ġ", "Ċ", "▁")
"""How tokens of byte-level and of SentencePiece vocabularies start that follow a blank or a new line."""


CONTROLS = ("<|aligned|>", "<|misaligned|>")
"""What stands before a segment that people like, and before one that they do not (Korbak et al., 2023)."""


def control_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Ids of <|aligned|> and <|misaligned|>, which a tokenizer that lacks them is given."""
    aligned, misaligned = given_ids(tokenizer, CONTROLS)
    return aligned, misaligned


@lru_cache(maxsize=16)
def given_ids(tokenizer: PreTrainedTokenizerBase, names: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of special tokens by their names, which a tokenizer that lacks them is given."""
    tokenizer.add_tokens(list(names), special_tokens=True)  # those it has it keeps
    known = tokenizer.get_vocab()
    return tuple(known[name] for name in names)


CLM = "[CLM]"
"""What stands before the prefix that a decoder is to continue (CodeT5+: Wang et al., 2023)."""

PAIR_TOKENS = ("[CLS]", "[Match]", "[CDec]", "[TDec]")
"""What stands before a text or its code in the encoder, and what the decoder begins with to match the two, to write
code, and to write text (the same)."""


@lru_cache(maxsize=4)
def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> Ints:
    """Ids of <extra_id_0>, <extra_id_1>, ... as far as the vocabulary has them. ModelError where it has none."""
    known = tokenizer.get_vocab()
    found = []
    for name in SENTINELS:
        if name not in known:
            break
        found.append(known[name])
    if not found:
        raise ModelError(
            f"the tokenizer has no sentinels ({SENTINELS[0]}, {SENTINELS[1]}, ...), which mark the gaps of a text: use "
            "a T5 model, --model scratch:small, or add them to the tokenizer and resize the model's embeddings"
        )
    return np.asarray(found, np.int64)


def mask_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the mask token. ModelError where there is none."""
    if tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token: use a masked model (BERT's kind), --model scratch:small, or slm and rts, "
            "which need none"
        )
    return int(tokenizer.mask_token_id)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token behind a text: the end of sequence, or BERT's separator. ModelError where there is neither."""
    for found in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if found is not None:
            return int(found)
    raise ModelError("the tokenizer has neither an end-of-sequence token nor a separator")


def gap_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of what stands for a masked span: the mask token, or T5's first sentinel; ModelError where neither is."""
    return int(sentinel_ids(tokenizer)[0]) if tokenizer.mask_token_id is None else int(tokenizer.mask_token_id)


@lru_cache(maxsize=4)
def word_begins(tokenizer: PreTrainedTokenizerBase) -> Bools:
    """Which ids begin a word [V]: those with the mark of a blank before them, or without BERT's mark of a continuation.
    Special tokens do."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marked = [token.startswith(BLANKS) for token in tokens]
    begins = np.asarray(marked if any(marked) else [not token.startswith("##") for token in tokens])
    begins[np.setdiff1d(np.arange(len(tokens)), ordinary_ids(tokenizer))] = True
    return begins


@lru_cache(maxsize=4)
def ordinary_ids(tokenizer: PreTrainedTokenizerBase) -> Ints:
    """All ids but those of special tokens: what is corrupted, and what replaces it."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return replaceable(len(tokenizer), added | set(tokenizer.all_special_ids))


def begin_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token before a text: the begin of sequence, BERT's classification token, or, as in GPT-2, the end
    token. ModelError where there is none of them."""
    for found in (tokenizer.bos_token_id, tokenizer.cls_token_id):
        if found is not None:
            return int(found)
    return end_id(tokenizer)


MASK = "<|mask|>"


def given_mask_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the mask token, <|mask|>, which a tokenizer that lacks one is given."""
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    return mask_id(tokenizer)

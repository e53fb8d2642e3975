"""Text and vocabularies that an objective of pretraining cannot use: one line that says what is wrong, by the real
command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from teloi.catalogue import METHODS
from teloi.models.scratch import scratch_model, train_tokenizer
from tests.end_to_end.conftest import write_rows

Refused = Callable[..., str]
ON_TEXT = [m.name for m in METHODS if m.stage == "pretrain" and m.reads == "language-modeling"]
TEXT = "the red cat sat by the river and the green dog sat under a tree "


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("\n\n".join([TEXT * 3] * 20))
    return tmp_path / "corpus.txt"


@pytest.mark.parametrize("method", ON_TEXT)
def test_empty_text(method: str, refused: Refused, tmp_path: Path):
    flags: list[object] = []
    if method == "salt":  # its own teacher would be fetched
        tokenizer = train_tokenizer([TEXT] * 9, 300)
        scratch_model("tiny", tokenizer).save_pretrained(tmp_path / "teacher")
        tokenizer.save_pretrained(tmp_path / "teacher")
        flags = ["--teacher", tmp_path / "teacher"]
    (tmp_path / "empty.txt").write_text("\n \n\n")
    assert refused(method, tmp_path / "empty.txt", *flags) == "empty.txt: no rows"
    rows = write_rows(tmp_path / "empty.jsonl", [{"text": TEXT}, {"text": " "}])
    assert refused(method, rows, *flags).startswith(
        "empty.jsonl row 2: column 'text' is empty; fill it or remove the row"
    )


@pytest.mark.parametrize("method", ["infilling", "e2s2", "prefix-lm", "span-corruption", "ul2"])
def test_text_of_one_token(method: str, tmp_path: Path, refused: Refused):
    (tmp_path / "short.txt").write_text("a\n")
    error = refused(method, tmp_path / "short.txt")
    assert error == "short.txt: the texts have one token in all: there is nothing to corrupt"


@pytest.mark.parametrize(("method", "text", "span"), [("span-corruption", "a b.", 3), ("ul2", TEXT, 64)])
def test_text_shorter_than_a_span(method: str, text: str, span: int, tmp_path: Path, refused: Refused):
    (tmp_path / "short.txt").write_text(text)
    error = refused(method, tmp_path / "short.txt")
    assert error.startswith("short.txt: the texts have ")
    assert error.endswith(f" tokens in all, not more than a span of {span}: give more text or choose shorter spans")


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("ssp", "documents have two paragraphs of at least two sentences: there is nothing to tell apart"),
        ("sp", "documents have two paragraphs of at least two sentences: there is nothing to tell apart"),
        ("psd", "documents have two paragraphs: there is nothing to tell apart"),
    ],
)
def test_text_without_sentences_or_paragraphs(method: str, says: str, corpus: Path, refused: Refused):
    assert refused(method, corpus) == f"corpus.txt: 0 of 20 {says}"


@pytest.mark.parametrize("method", ["conditional-lm", "filtered-lm", "unlikelihood", "awr", "rwr"])
def test_text_without_scored_segments(method: str, corpus: Path, refused: Refused):
    error = refused(method, corpus)
    assert error.startswith("corpus.txt row 1: column 'texts' is missing; this method reads scored-segments rows")


@pytest.fixture
def bare(tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint of an architecture whose tokenizer has neither sentinels nor a mask token."""

    def save(architecture: str) -> Path:
        tokenizer = train_tokenizer([TEXT], 300)
        torch.manual_seed(0)
        scratch_model("tiny", tokenizer, architecture).save_pretrained(tmp_path / "bare")
        tokenizer.save_pretrained(tmp_path / "bare")
        return tmp_path / "bare"

    return save


@pytest.mark.parametrize("method", ["span-corruption", "ul2", "infilling", "e2s2"])
def test_a_vocabulary_without_sentinels(method: str, bare: Callable[[str], Path], corpus: Path, refused: Refused):
    error = refused(method, corpus, "--model", bare("seq2seq"), "--length", 24)
    assert error.startswith("the tokenizer has no sentinels (<extra_id_0>, <extra_id_1>, ...)")
    assert "--model scratch:small" in error


def test_a_vocabulary_without_a_mask(bare: Callable[[str], Path], corpus: Path, refused: Refused):
    error = refused("mlm", corpus, "--model", bare("masked"), "--length", 24)
    assert error.startswith("the tokenizer has no mask token")


def test_more_spans_than_sentinels(corpus: Path, refused: Refused):
    error = refused("span-corruption", corpus, "--length", 500, "--rate", 0.5, "--mean-span", 1)
    assert "segments of 500 tokens have up to 250 noise spans, but the vocabulary has 100 sentinels" in error


@pytest.mark.parametrize(
    ("method", "flags", "says"),
    [
        ("span-corruption", ("--rate", 0), "a corruption rate must be above 0 and below 1, not 0.0"),
        ("span-corruption", ("--rate", 1), "a corruption rate must be above 0 and below 1, not 1.0"),
        ("span-corruption", ("--rate", "nan"), "a corruption rate must be above 0 and below 1, not nan"),
        ("span-corruption", ("--mean-span", 0.5), "a mean span length must be at least 1, not 0.5"),
        ("ul2", ("--high-rate", 1.5), "a corruption rate must be above 0 and below 1, not 1.5"),
        ("ul2", ("--s-split", 0), "s_split must be uniform or a share above 0 and below 1, not 0.0"),
        ("prefix-lm", ("--s-split", 1), "s_split must be uniform or a share above 0 and below 1, not 1.0"),
        ("infilling", ("--rate", 1), "rate must be above 0 and below 1, not 1.0"),
        ("e2s2", ("--shuffle", 1), "shuffle must be from 0 to below 1, not 1.0"),
        ("mlm", ("--probability", 0), "probability must be above 0 and below 1, not 0.0"),
        ("mlm", ("--mix", 0.8, 0.1, 0.2), "the mix of masked, random and kept tokens must sum to 1"),
        ("slm", ("--probability", 1), "probability must be above 0 and below 1, not 1.0"),
        ("rts", ("--probability", "nan"), "probability must be above 0 and below 1, not nan"),
        ("c-rts", ("--probability", -0.1), "probability must be above 0 and below 1, not -0.1"),
        ("gpt-bert", ("--rate-start", 1), "rate_start must be above 0 and below 1, not 1.0"),
        ("gpt-bert", ("--rate-end", 0), "rate_end must be above 0 and below 1, not 0.0"),
        ("gpt-bert", ("--ratio", 1.5), "ratio must be from 0 to 1, not 1.5"),
        ("conditional-lm", ("--drop", 2), "drop must be a share from 0 to 1, not 2.0"),
        ("mlm", ("--length", 1), "length must be at least 2, not 1"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_rates_out_of_range(method: str, flags: tuple[object, ...], says: str, corpus: Path, refused: Refused):
    assert refused(method, corpus, *flags).startswith(says)

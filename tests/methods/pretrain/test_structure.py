"""The structure tasks from documents to examples; how pairs are drawn is tested with `draw_pairs`."""

from __future__ import annotations

import pytest

from teloi.data.processor import Processor
from teloi.data.read import Rows, read
from teloi.engine.config import TrainConfig
from teloi.engine.dataset import encode
from teloi.engine.fit import as_base, fit
from teloi.errors import DataError, Overlong, UsageError
from teloi.methods.pretrain.structure import PSD, SP, SSP, Structure
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.worlds import occupations

DOCUMENTS = [
    {
        "paragraphs": [
            f"{word} one stands here alone. {word} two comes right after it.",
            "A heading",
            f"{word} three begins another part. {word} four ends it at last.",
        ]
    }
    for word in ("Red", "Blue")
]
TOKENIZER = train_tokenizer([text for row in DOCUMENTS for text in row["paragraphs"]], 400, "classifier")


def texts(objective: Structure, processor: Processor) -> list[tuple[str, str, str]]:
    """First and second text and the class of each example."""
    found = []
    for example in encode(objective, Rows(DOCUMENTS, "documents"), processor).examples:
        ids, types = (example.ids[name].tolist() for name in ("input_ids", "token_type_ids"))
        parts = [[i for i, t in zip(ids, types, strict=True) if t == side] for side in (0, 1)]
        first, second = (str(TOKENIZER.decode(part, skip_special_tokens=True)) for part in parts)
        assert example.columns["label"] == (example.name == "together")
        found.append((first, second, example.name))
    return found


def test_ssp_reads_two_sentences() -> None:
    wording = {
        frozenset({f"{word} {a}", f"{word} {b}"})
        for word in ("Red", "Blue")
        for a, b in (
            ("one stands here alone.", "two comes right after it."),
            ("three begins another part.", "four ends it at last."),
        )
    }
    pairs = texts(SSP(hard=2), Processor(TOKENIZER, 128))
    assert len(pairs) == 4 * (1 + 2 + 1)
    assert {frozenset(pair[:2]) in wording for pair in pairs if pair[2] == "together"} == {True}
    assert {frozenset(pair[:2]) in wording for pair in pairs if pair[2] == "apart"} == {False}
    assert not any("heading" in text for pair in pairs for text in pair)


def test_psd_reads_paragraphs_and_short_ones_only_where_told() -> None:
    pairs = texts(PSD(), Processor(TOKENIZER, 128))
    assert len(pairs) == 4 * 2
    for first, second, name in pairs:
        assert (first.split()[0] == second.split()[0]) == (name == "together")
    assert any("A heading" in pair[:2] for pair in texts(PSD(least_words=0), Processor(TOKENIZER, 128)))


def test_pairs_that_do_not_fit() -> None:
    assert len(texts(SP(), Processor(TOKENIZER, 10, "truncate"))) == 12
    with pytest.raises(Overlong):
        texts(SP(), Processor(TOKENIZER, 10, "fail"))
    with pytest.raises(DataError, match="all 12 pairs are longer than 10 tokens"):
        texts(SP(), Processor(TOKENIZER, 10, "drop"))


def test_settings_that_draw_nothing() -> None:
    with pytest.raises(UsageError, match="not both 0"):
        SSP(hard=0, easy=0)
    assert SSP(hard=0).easy == 1


@pytest.mark.parametrize("objective", [SSP(), SP(), PSD()])
def test_the_embedded_documents_are_learnt(objective: Structure) -> None:
    rows = read("occupations", limit=6)
    tokenizer = train_tokenizer([text for row in rows for text in row["paragraphs"]], 600, "classifier")
    base = as_base(scratch_model("tiny", tokenizer, "classifier"), tokenizer, "classifier", 128)
    config = TrainConfig(batch_size=24, learning_rate=2e-3, num_train_epochs=20, micro_tokens=4096)
    records = fit(objective, base, rows, config).records
    first, last = (sum(r["loss"] for r in part) / 5 for part in (records[:5], records[-5:]))
    assert last < first - 0.05


def test_the_embedded_documents_are_what_the_world_makes() -> None:
    for split in ("train", "test"):
        assert list(read("occupations", split)) == occupations.rows(split)
    assert not {r["title"] for r in occupations.rows("train")} & {r["title"] for r in occupations.rows("test")}

"""A data set in TRL's format, written by `datasets`, is read as it is."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from teloi import catalogue
from teloi.data.processor import Processor
from teloi.data.read import Rows, read
from teloi.engine.dataset import encode
from tests.peers import rows

SETS = {
    "clm, text": rows.documents(),
    "sft, messages": rows.conversations(),
    **{f"sft, {kind}": rows.completions(kind) for kind in ("standard", "conversational")},
    **{f"dpo, {kind}": rows.preference(kind) for kind in ("standard", "conversational", "implicit")},
    **{f"kto, {kind}": rows.unpaired(kind) for kind in ("standard", "conversational")},
    "sft, preference": rows.preference("conversational"),
    "kto, preference": rows.preference("standard"),
}


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
@pytest.mark.parametrize("case", SETS)
def test_a_file_that_datasets_wrote(case, extension, tokenizer, tmp_path) -> None:
    objective = catalogue.find(case.split(",")[0]).load()()
    # Columns beside TRL's, one of them with gaps, and a key that only some messages have: `datasets` fills with null.
    data = [{**row, "source": "web", "score": i / 7 if i % 2 else None} for i, row in enumerate(SETS[case])]
    for row in data[1::2]:
        for column, value in row.items():
            if isinstance(value, list):
                row[column] = [{**message, "name": "someone"} for message in value]

    file = tmp_path / f"train.{extension}"
    written = Dataset.from_list(data)
    written.to_parquet(file) if extension == "parquet" else written.to_json(file)
    found = encode(objective, read(file), Processor(tokenizer)).examples
    expected = encode(objective, Rows(SETS[case], "memory"), Processor(tokenizer)).examples
    assert len(found) == len(expected) >= len(data)
    for ours, same in zip(found, expected, strict=True):
        assert np.array_equal(ours.prompt, same.prompt)
        assert ours.columns == same.columns
        for branch, twin in zip(ours.branches, same.branches, strict=True):
            assert np.array_equal(branch.ids, twin.ids)
            assert np.array_equal(branch.weights, twin.weights)

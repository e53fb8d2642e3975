"""From scored documents to what is taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from teloi.data.vocabulary import CONTROLS
from teloi.models.load import load_model, load_tokenizer
from tests.end_to_end.conftest import Teloi, records

SHORT = ("--max-steps", 2, "--batch-size", 4, "--limit", 60)


@pytest.mark.parametrize("method", ["conditional-lm", "filtered-lm", "unlikelihood", "awr", "rwr", "clm"])
def test_a_model_comes_out_of_the_embedded_stories(method: str, teloi: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    words = (*SHORT, "--data", "stories", "--eval-data", "stories")
    assert teloi("train", method, "--model", "scratch:tiny", *words, "--output-dir", out).status == 0
    assert "eval_nll" in records(out)[-1] or method == "unlikelihood"
    tokenizer, model = load_tokenizer(out), load_model(out)
    embeddings: Any = model.get_input_embeddings()
    assert embeddings.num_embeddings == len(tokenizer)
    ids = [tokenizer.get_vocab().get(name) for name in CONTROLS]
    if method != "conditional-lm":
        assert ids == [None, None]
        return
    assert ids == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert model.generation_config is not None
    assert model.generation_config.bad_words_ids == [[i] for i in ids]
    # What it has learned of them is not drawn anew where it trains on.
    again = tmp_path / "again"
    assert teloi("train", method, *words, "--model", out, "--learning-rate", 1e-9, "--output-dir", again).status == 0
    moved = load_model(again).get_input_embeddings().weight - embeddings.weight
    assert moved.abs().max() < 1e-6

"""A teacher by name, from its tokenizer to what it leaves behind."""

from __future__ import annotations

from pathlib import Path

from teloi.models.load import load_tokenizer
from tests.end_to_end.conftest import Teloi, records

SHORT = ("--max-steps", 2, "--batch-size", 4, "--limit", 60)


def test_a_scratch_model_takes_the_teachers_tokenizer(teloi: Teloi, tmp_path: Path):
    teacher, out = tmp_path / "teacher", tmp_path / "out"
    assert teloi("train", "clm", "--model", "scratch:tiny", *SHORT, "--output-dir", teacher).status == 0
    words = ("salt", *SHORT, "--data", "stories", "--teacher", teacher, "--scorer", teacher, "--stage", 0.5)
    assert teloi("train", *words, "--model", "scratch:tiny", "--output-dir", out).status == 0
    assert ["distillation" in record for record in records(out)] == [True, False]
    assert load_tokenizer(out).get_vocab() == load_tokenizer(teacher).get_vocab()
    other = tmp_path / "other"
    assert (
        teloi("train", "clm", "--model", "scratch:tiny", *SHORT, "--data", "stories", "--output-dir", other).status == 0
    )
    assert "another vocabulary" in teloi("train", *words, "--model", other, "--output-dir", tmp_path / "no").error

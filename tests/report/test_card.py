from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from teloi.report.card import write_card


def card(tmp_path: Path, **more: Any) -> tuple[dict[str, Any], str]:
    given = {"method": "dpo", "base_model": "owner/model", "data": "owner/data", "command": "teloi train dpo"}
    text = write_card(tmp_path / "run-1", **{**given, **more}).read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_and_body(tmp_path: Path) -> None:
    front, body = card(
        tmp_path,
        about="Direct preference optimisation",
        settings={"beta": 0.1, "schedule": "linear", "targets": ["q", "v"]},
        ledger={"trained_tokens": 200_000, "train_seconds": 93.0},
        metrics={"checks_satisfied": 0.4312345678},
        versions={"teloi": "0.1.0"},
        notes=["12 rows were too long\nand dropped"],
    )
    assert front == {
        "base_model": "owner/model",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "datasets": ["owner/data"],
        "tags": ["teloi", "dpo"],
    }
    assert "# run-1" in body
    assert "Direct preference optimisation." in body
    assert "| beta | 0.1 |" in body
    assert '| targets | ["q", "v"] |' in body
    assert "| trained tokens | 200k |" in body
    assert "| train seconds | 93 s |" in body
    assert "| checks satisfied | 0.431235 |" in body
    assert "```sh\nteloi train dpo\n```" in body
    assert "- 12 rows were too long and dropped" in body
    assert "Versions: teloi 0.1.0." in body


def test_local_paths_stay_out_of_the_front_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    front, body = card(tmp_path, base_model=str(tmp_path / "a"), data="rows.jsonl")
    assert "base_model" not in front
    assert "datasets" not in front
    assert f"`{tmp_path / 'a'}` trained further" in body


def test_an_encoder_is_used_as_one(tmp_path: Path) -> None:
    front, body = card(tmp_path, library="sentence-transformers", task="sentence-similarity")
    assert (front["library_name"], front["pipeline_tag"]) == ("sentence-transformers", "sentence-similarity")
    assert 'SentenceTransformer("PATH OF THIS DIRECTORY")' in body
    assert "## Use" not in card(tmp_path, library="teloi", task=None)[1]


def test_from_scratch(tmp_path: Path) -> None:
    front, body = card(tmp_path, base_model=None)
    assert "base_model" not in front
    assert "Trained from scratch with `dpo`" in body


def test_hostile_text(tmp_path: Path) -> None:
    front, body = card(
        tmp_path, data="a`b\n# x", command="echo '```'", settings={"a|b": "<script>\n| x |"}, method="dpo"
    )
    assert "datasets" not in front
    assert "``a`b # x``" in body.replace("`` ", "``").replace(" ``", "``")
    assert "````sh\necho '```'\n````" in body
    assert "| a\\|b | &lt;script> \\| x \\| |" in body

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.read import Rows, read
from teloi.errors import DataError, RowError

ROWS = [{"prompt": f"question {i}?", "completion": f"ünïcode answer {i}\nin two lines", "n": i} for i in range(5)]


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    rows = read(write(tmp_path / name, "\n" + jsonl(ROWS[:2]) + "\n  \n" + jsonl(ROWS[2:])))
    assert list(rows) == ROWS
    assert [rows.where(i) for i in range(5)] == [f"{name} row {k}" for k in (2, 3, 6, 7, 8)]
    assert rows.name == name
    assert list(read(tmp_path / name, limit=2)) == ROWS[:2]


def test_a_limit_stops_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl(ROWS) + "not json\n")
    assert len(read(path, limit=5)) == 5
    with pytest.raises(RowError, match="row 6"):
        read(path)


def test_slices_and_selections_keep_their_places(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.jsonl", jsonl(ROWS)))
    part = rows.select([4, 1])[1:]
    assert isinstance(part, Rows)
    assert (list(part), part.where(0)) == ([ROWS[1]], "a.jsonl row 2")
    assert Rows(ROWS, "mine").where(0) == "mine row 1"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_csv_and_tsv_rows_start_where_an_editor_shows_them(tmp_path: Path, name: str) -> None:
    plain = tmp_path / "plain"
    with plain.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter="\t" if ".tsv" in name else ",")
        writer.writerow(["prompt", "completion", "n"])
        writer.writerows([row["prompt"], row["completion"], row["n"]] for row in ROWS)
    rows = read(write(tmp_path / name, plain.read_bytes()))
    assert list(rows) == [{**row, "n": str(row["n"])} for row in ROWS]
    assert [rows.where(i) for i in range(3)] == [f"{name} row {k}" for k in (2, 4, 6)]


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)


@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=5))
def test_any_csv_comes_back(tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("a", "b"), *records])
    assert [(row["a"], row["b"]) for row in read(path)] == records


def test_json_list(tmp_path: Path) -> None:
    assert list(read(write(tmp_path / "a.json", json.dumps(ROWS, indent=1)))) == ROWS


def test_text_documents(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.txt", " \n = Title = \n \nOne\n two\n\n\nThree"))
    assert [row["text"] for row in rows] == [" = Title = ", "One\n two", "Three"]
    assert [rows.where(i) for i in range(3)] == ["a.txt row 2", "a.txt row 4", "a.txt row 8"]
    rows = read(write(tmp_path / "b.txt.gz", "One\n\ntwo\n<|endoftext|>\nThree\n<|endoftext|>\n"))
    assert [row["text"] for row in rows] == ["One\n\ntwo", "Three"]


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    rows = read(tmp_path)
    assert list(rows) == ROWS
    assert rows.where(1).endswith("train-00000-of-00001.parquet row 2")
    assert list(read(tmp_path, limit=2)) == ROWS[:2]
    with pytest.raises(DataError, match=r"bad\.parquet: not a readable parquet file"):
        read(write(tmp_path / "bad.parquet", "no parquet"))


def test_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert list(read(tmp_path / "saved", split="test", limit=3)) == ROWS[:3]
    with pytest.raises(DataError, match="no split 'train'; there is test"):
        read(tmp_path / "saved")


def test_directories_and_splits(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train.jsonl.gz", jsonl(ROWS[:3]))
    write(tmp_path / "d" / "test.jsonl", jsonl(ROWS[3:]))
    write(tmp_path / "d" / "README.md", "about")
    assert list(read(tmp_path / "d")) == ROWS[:3]
    assert read(tmp_path / "d", split="test").where(0) == "d/test.jsonl row 1"
    with pytest.raises(DataError, match="no split 'dev'; there is test, train"):
        read(tmp_path / "d", split="dev")
    write(tmp_path / "d" / "train.csv", "a\n1\n")
    with pytest.raises(DataError, match="split 'train' is there more than once"):
        read(tmp_path / "d")
    write(tmp_path / "one" / "things.jsonl", jsonl(ROWS))
    assert len(read(tmp_path / "one")) == 5
    write(tmp_path / "shards" / "train" / "a.jsonl", jsonl(ROWS[:2]))
    write(tmp_path / "shards" / "train" / "b.jsonl", jsonl(ROWS[2:]))
    shards = read(tmp_path / "shards", limit=4)
    assert (list(shards), shards.where(2)) == (ROWS[:4], "shards/b.jsonl row 1")


def test_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mirror" / "owner" / "things" / "train.jsonl.gz", jsonl(ROWS))
    monkeypatch.setenv("TELOI_DATA", str(tmp_path / "mirror"))
    rows = read("owner/things", limit=2)
    assert (list(rows), rows.where(1)) == (ROWS[:2], "owner/things/train.jsonl.gz row 2")


BAD: list[tuple[str, str | bytes, str]] = [
    (
        "a.jsonl",
        jsonl(ROWS[:2]) + '{"prompt": "x"\n',
        "a.jsonl row 3: not valid JSON (Expecting ',' delimiter, column 15)",
    ),
    ("a.jsonl", "\n[1, 2]\n", "a.jsonl row 2: a JSON list, not an object with columns"),
    ("a.jsonl", "[" * 100_000, "a.jsonl row 1: not readable as JSON"),
    ("a.jsonl", '{"n": ' + "1" * 5000 + "}", "a.jsonl row 1: not readable as JSON"),
    ("a.jsonl", jsonl(ROWS[:1]).encode() + b'{"prompt": "caf\xe9"}\n', "a.jsonl row 2: not UTF-8 text (byte 0xe9"),
    ("a.jsonl.gz", b'{"prompt": "caf\xe9"}\n', "a.jsonl.gz row 1: not UTF-8 text"),
    ("a.csv", b"prompt,n\na,1\ncaf\xe9,2\n", "a.csv row 3: not UTF-8 text"),
    ("a.csv", "prompt,n\na,1\nb\n", "a.csv row 3: 1 values for the 2 columns of the header"),
    ("a.csv", 'prompt,n\n"a,1\n', "a.csv row 2: not a readable record"),
    ("a.csv", "prompt,prompt\na,1\n", "a.csv row 1: column 'prompt' is named twice"),
    ("a.csv", "prompt,n\n", "a.csv: no rows"),
    ("a.jsonl", "", "a.jsonl: no rows"),
    ("a.txt", " \n\n", "a.txt: no rows"),
    ("a.json", "[]", "a.json: no rows"),
    ("a.json", '{"a": 1}', "a.json: not a list of rows"),
    ("a.json", "[1]", "a.json row 1: a JSON int, not an object"),
    ("a.json", "[{}\n,", "a.json: not valid JSON"),
    ("a.docx", "x", "teloi reads .jsonl"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD)
def test_bad_files_get_one_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl(ROWS).encode())
    for raw in (whole[:-12], b"plain text", whole[:20] + b"\0\0\0" + whole[23:]):
        (tmp_path / "a.jsonl.gz").write_bytes(raw)
        with pytest.raises(DataError, match=r"a\.jsonl\.gz: damaged gzip file"):
            read(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("spec", ["nowhere.jsonl", "./nowhere", "/nowhere/at all", "a/b/c", "~/nowhere/x.csv"])
def test_a_missing_file(spec: str) -> None:
    with pytest.raises(DataError, match="no such file or directory"):
        read(spec)


def test_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    datasets = pytest.importorskip("datasets")

    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("TELOI_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        read("some-owner/some-data")
    message = str(caught.value)
    assert "the Hugging Face hub cannot be reached; give a file, or set TELOI_DATA to a directory" in message
    assert "\n" not in message
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="and HF_HUB_OFFLINE forbids the hub; give a file"):
        read("some-owner/some-data")


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl(ROWS))
    code = (
        "import sys, teloi.data.casts, teloi.data.formats, teloi.data.processor\n"
        f"from teloi.data.read import read; read({str(path)!r})\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

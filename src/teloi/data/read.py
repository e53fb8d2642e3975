"""Reading rows from wherever they are, with the exact place of everything that is wrong.

`read` takes, in this order: a file, a directory, the name of an embedded data set, a folder of the mirror
that the environment variable TELOI_DATA names, a data set of the Hugging Face hub.

| file | rows |
|---|---|
| .jsonl, .ndjson | one JSON object a line |
| .json | a list of objects |
| .csv, .tsv | a header line, then one row a record; every value is text |
| .txt | documents (column `text`) between lines `<|endoftext|>`, or else between blank lines |
| .parquet | through `datasets` |

All but .parquet also with .gz behind. In a directory, a split is a file or a folder of files by its name
(`train.jsonl.gz`, `train-00000-of-00002.parquet`, `train/`), also below `data/`.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from teloi.data.store import Chosen, Store
from teloi.errors import DataError, RowError

EMBEDDED = Path(__file__).parent / "embedded"
MIRROR = "TELOI_DATA"

Row = Mapping[str, Any]
# A row and its 1-based number in the file: of a line where the file has lines, else of the record.
Placed = tuple[int, dict[str, Any]]


class Rows(Sequence[Row]):
    """Rows as dicts, with their origin: `rows.where(3)` says "hh.jsonl row 4", `rows.name` "hh.jsonl".

    The number is the one an editor shows: the physical line in files that have lines, header and blank lines
    counted; else the number of the record. Of a large set memory holds the beginning, a file the rest (`Store`).
    """

    def __init__(self, items: Sequence[Row], name: str, places: Sequence[str] | None = None) -> None:
        self._items = items
        self._places = places
        self.name = name

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self._items[index]

    def select(self, indices: Iterable[int]) -> Rows:
        """Some of the rows, in the given order, each keeping its place."""
        chosen = np.fromiter(indices, np.int64)
        places = self._places if self._places is not None else Places([self.name], [0], range(1, len(self) + 1))
        return Rows(Chosen(self._items, chosen), self.name, Chosen(places, chosen))

    def __iter__(self) -> Iterator[Row]:
        return iter(self._items)

    def where(self, index: int) -> str:
        """The place of a row, for messages."""
        return self._places[index] if self._places is not None else f"{self.name} row {index + 1}"


@dataclass(frozen=True)
class Places(Sequence[str]):
    """The places of rows of some files, one file's after the other's."""

    labels: Sequence[str]
    """What the files are called."""
    starts: Sequence[int]
    """The first row of each."""
    numbers: Sequence[int]
    """The number of each row in its file."""

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Chosen(self, range(len(self))[index])
        return f"{self.labels[bisect_right(self.starts, index) - 1]} row {self.numbers[index]}"


def read(spec: str | Path, split: str = "train", limit: int | None = None) -> Rows:
    """Rows of a data set; `limit` reads only so many. A single file has no splits: it is read as it is.

    A hub data set with several configurations is named `owner/name:configuration`. Raises `DataError`
    (`RowError` where a row is at fault): no such data, unreadable, no rows.
    """
    rows = _read(str(spec), split, limit)
    if not len(rows):
        raise DataError(f"{rows.name}: no rows")
    return rows


def embedded_names() -> list[str]:
    """Names of the data sets that come with teloi."""
    return sorted(p.name for p in EMBEDDED.iterdir() if p.is_dir()) if EMBEDDED.is_dir() else []


def _read(spec: str, split: str, limit: int | None) -> Rows:
    path = Path(spec).expanduser()
    if path.is_file():
        return _read_files([path], path.name, limit)
    if path.is_dir():
        return _read_directory(path, path.resolve().name, split, limit)
    if spec in embedded_names():
        return _read_directory(EMBEDDED / spec, spec, split, limit)
    mirror = os.environ.get(MIRROR)
    if mirror and (folder := Path(mirror).expanduser() / spec).is_dir():
        return _read_directory(folder, spec, split, limit)
    if _suffix(path) is not None or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?(:[\w.-]+)?", spec):
        raise DataError(
            f"{spec}: no such file or directory; data is a file, a directory, a Hugging Face id or an embedded name"
        )
    return _read_hub(spec, split, limit)


def _read_files(paths: Sequence[Path], name: str, limit: int | None, folder: str = "") -> Rows:
    items: Store[Row] = Store()
    labels: list[str] = []
    starts: list[int] = []
    numbers = array("q")
    for path in paths:
        room = None if limit is None else limit - len(items)
        if room == 0:
            break
        suffix, label = _suffix(path), folder + path.name
        if suffix is None:
            raise DataError(f"{path}: teloi reads {', '.join(_READERS)} (also .gz) and .parquet files")
        labels.append(label)
        starts.append(len(items))
        if suffix == ".parquet":
            table = _read_parquet(path, room)
            if len(paths) == 1:
                return Rows(table, label)
            found: Iterator[tuple[int, Row]] = enumerate(table, 1)
        else:
            found = islice(_READERS[suffix](path, label), room)
        for number, row in found:
            items.append(row)
            numbers.append(number)
    return Rows(items, name, Places(labels, starts, numbers))


def _read_directory(folder: Path, name: str, split: str, limit: int | None) -> Rows:
    if any((folder / saved).is_file() for saved in ("dataset_info.json", "dataset_dict.json")):
        return _read_saved(folder, name, split, limit)
    files = [*_data_files(folder), *_data_files(folder / "data")]
    found = [p for p in files if _split_of(p) == split]
    found = found or _data_files(folder / split) or _data_files(folder / "data" / split)
    if not found and split == "train" and len(files) == 1:
        found = files
    if not found:
        there = ", ".join(sorted({_split_of(p) for p in files})) or "no data files"
        raise DataError(f"{folder}: no split '{split}'; there is {there}")
    kinds = {_suffix(p) for p in found}
    if len(kinds) > 1:
        both = " and ".join(p.name for p in found[:2])
        raise DataError(f"{folder}: split '{split}' is there more than once ({both}); name the file")
    return _read_files(found, name, limit, f"{name}/")


def _data_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _suffix(p) is not None) if folder.is_dir() else []


def _split_of(path: Path) -> str:
    """`train-00000-of-00002.parquet` and `train.jsonl.gz` are of the split "train"."""
    stem = path.name.removesuffix(".gz")
    return re.sub(r"-\d+-of-\d+$", "", stem[: stem.rindex(".")])


def _suffix(path: Path) -> str | None:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in _READERS or (suffix == ".parquet" and not path.name.endswith(".gz")):
        return suffix
    return None


# --- files of our own reading ---


def _lines(path: Path, label: str) -> Iterator[tuple[int, str]]:
    """Physical lines from 1, without their ends, decoded one by one so that an error knows its line."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield number, _decoded(line, f"{label} row {number}", first=number == 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _decoded(line: bytes, where: str, first: bool) -> str:
    try:
        return line.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise RowError(
            f"not UTF-8 text (byte 0x{byte:02x}, byte {error.start + 1} of the line); save the file as UTF-8",
            where,
        ) from None


def _jsonl(path: Path, label: str) -> Iterator[Placed]:
    for number, line in _lines(path, label):
        if line.strip():
            where = f"{label} row {number}"
            yield number, _object(_json(line, where), where)


def _json_list(path: Path, label: str) -> Iterator[Placed]:
    value = _json("\n".join(line for _, line in _lines(path, label)), label)
    if not isinstance(value, list):
        raise DataError(f"{label}: not a list of rows; one JSON object a line belongs in a .jsonl file")
    for number, row in enumerate(value, 1):
        yield number, _object(row, f"{label} row {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise RowError(f"not valid JSON ({error.msg}, {place}); correct or remove it", where) from None
    except (RecursionError, ValueError) as error:
        raise RowError(f"not readable as JSON ({str(error).split(';')[0]})", where) from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError(f"a JSON {type(value).__name__}, not an object with columns", where)
    return value


def _csv(path: Path, label: str, delimiter: str = ",") -> Iterator[Placed]:
    # Keeping the line ends (here made plain) lets quoted values run over several lines.
    reader = csv.reader((f"{line}\n" for _, line in _lines(path, label)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        first = reader.line_num + 1
        where = f"{label} row {first}"
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RowError(f"not a readable record ({error})", where) from None
        if not record:
            continue
        if header is None:
            header = record
            if repeated := {column for column in header if header.count(column) > 1}:
                raise RowError(f"column '{min(repeated)}' is named twice in the header", where)
            continue
        if len(record) != len(header):
            raise RowError(f"{len(record)} values for the {len(header)} columns of the header", where)
        yield first, dict(zip(header, record, strict=True))


def _tsv(path: Path, label: str) -> Iterator[Placed]:
    return _csv(path, label, "\t")


def _txt(path: Path, label: str) -> Iterator[Placed]:
    separator = "<|endoftext|>"
    marked = any(line.strip() == separator for _, line in _lines(path, label))
    document: list[str] = []
    start = 0
    for number, line in chain(_lines(path, label), [(0, separator if marked else "")]):
        if line.strip() == (separator if marked else ""):
            text = "\n".join(document).strip("\n")
            if text.strip():
                yield start, {"text": text}
            document = []
        else:
            start = start if document else number
            document.append(line)


_READERS: dict[str, Callable[[Path, str], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json_list,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _txt,
}
csv.field_size_limit(2**31 - 1)


# --- through `datasets` ---


def _read_parquet(path: Path, limit: int | None) -> Sequence[Row]:
    import datasets
    import pyarrow

    try:
        table = datasets.Dataset.from_parquet(str(path))
    except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataError(f"{path}: not a readable parquet file ({reason})") from None
    return _first(table, limit)


def _read_saved(folder: Path, name: str, split: str, limit: int | None) -> Rows:
    import datasets

    saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"{folder}: no split '{split}'; there is {', '.join(saved)}")
        saved = saved[split]
    return Rows(_first(saved, limit), name)


def _first(table: Any, limit: int | None) -> Sequence[Row]:
    result: Sequence[Row] = table if limit is None else table.select(range(min(limit, len(table))))
    return result


def _read_hub(spec: str, split: str, limit: int | None) -> Rows:
    import datasets
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name, _, configuration = spec.partition(":")
    embedded = ", ".join(embedded_names()) or "none"
    nothing = f"no file, directory, embedded data set ({embedded}) or folder of {MIRROR} is called '{spec}'"
    instead = f"give a file, or set {MIRROR} to a directory that has {name}/{split}.jsonl"
    offline = is_offline_mode()
    try:
        if not offline:
            HfApi().dataset_info(name, timeout=10)
    except GatedRepoError:
        raise DataError(f"{spec}: gated on the Hugging Face hub; log in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise DataError(f"{nothing}, nor is a data set of the Hugging Face hub; {instead}") from None
    except Exception:  # no network, a proxy's refusal, a server's error
        raise DataError(
            f"{nothing}, and the Hugging Face hub cannot be reached; {instead}; "
            "HF_HUB_OFFLINE=1 uses what was downloaded before"
        ) from None
    try:
        if limit is not None and not offline:
            # A stream spares the download of the rest.
            stream = datasets.load_dataset(name, configuration or None, split=split, streaming=True)
            taken: Store[Row] = Store()
            for row in stream.take(limit):
                taken.append(row)
            return Rows(taken, spec)
        table = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # `datasets` passes on whatever its readers raise
        if offline:
            raise DataError(f"{nothing}, and HF_HUB_OFFLINE forbids the hub; {instead}") from None
        raise DataError(f"{spec}: {str(error).strip().splitlines()[0]}") from None
    return Rows(_first(table, limit), spec)

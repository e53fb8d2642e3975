"""What a comparison trains on and is measured on: which rows, and what kind of measurement they are for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from teloi.data.casts import as_format, choose
from teloi.data.formats import LabelledText, LanguageModeling, MinimalPair, detect
from teloi.data.read import Row, Rows, read
from teloi.engine.config import CompareConfig
from teloi.errors import CastError, DataError, RowError, UsageError
from teloi.measure.probing import Labels

Kind = Literal["labelled texts", "minimal pairs", "texts", "prompts"]


@dataclass(frozen=True)
class Classification:
    """Labelled texts: what a probe is fitted on, and what it is tested on."""

    name: str
    training: Labels
    test: Labels

    @property
    def largest_share(self) -> float:
        """What calling every test row the most frequent class would get right."""
        return max(map(list(self.test.classes).count, set(self.test.classes))) / len(self.test.classes)


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows by what is measured on them.

    `prompts`: rows with prompts, replies or preferences, as they are; only causal models are measured by them.
    """

    prompts: Rows | None = None
    texts: Sequence[str] = ()
    pairs: Sequence[MinimalPair] = ()
    probes: Sequence[Classification] = ()
    name: str = ""
    """The sets, with their sizes where there are several."""
    size: int = 0
    """Rows that are measured on, of one set; 0 where the name says it."""
    rows: Sequence[Rows] = field(default=(), repr=False)
    """All that was read, for a hash of it."""


def read_data(config: CompareConfig, causal: bool = True) -> tuple[Rows, HeldOut]:
    """Training rows, and what is measured on: every set of `eval_data`, else the data's own test split, else every
    tenth row held out. Where not all models are `causal`, rows with prompts are taken as texts."""
    rows = read(config.data, "train", config.train.limit)
    sets = []
    if config.eval_data:
        for spec in config.eval_data:
            sets.append(_named(spec, config))
    else:
        rows, held_out = _own(rows, config)
        sets.append((held_out, rows))
    return rows, _sorted(sets, config, causal)


def rows_hash(*parts: Rows) -> str:
    """Changes with any row."""
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def _own(rows: Rows, config: CompareConfig) -> tuple[Rows, Rows]:
    """The data's own test split beside its training rows, else every tenth of them held out."""
    if not Path(config.data).is_file():
        try:
            return rows, read(config.data, "test", config.eval_limit)
        except RowError:
            raise
        except DataError:  # no such split
            pass
    if len(rows) < 10:
        raise DataError(f"{rows.name}: {len(rows)} rows are too few to hold a tenth out: give --eval-data")
    indices = range(len(rows))
    held_out = rows.select([i for i in indices if i % 10 == 0][: config.eval_limit])
    return rows.select(i for i in indices if i % 10), held_out


def _named(spec: str, config: CompareConfig) -> tuple[Rows, Rows | None]:
    """The rows of one of `eval_data`, and of labelled texts what a probe is fitted on."""
    kind = _kind(_test_rows(spec, config, 1)[0])
    if kind in ("texts", "prompts"):
        return _test_rows(spec, config, config.eval_limit), None
    found = _test_rows(spec, config, None)  # often sorted: what is taken is spread over all
    if kind == "minimal pairs":
        return _spread(found, config.eval_limit), None
    if "split" in found[0]:
        test, training = (
            [i for i in range(len(found)) if found[i].get("split") == split] for split in ("test", "train")
        )
        if not test or not training:
            raise DataError(f"{found.name}: column 'split' has no row that says {'test' if training else 'train'}")
        return found.select(test), found.select(training)
    training_rows = found if Path(spec).is_file() else read(spec, "train")
    if len(training_rows) == len(found) and all(training_rows[i] == found[i] for i in range(len(found))):
        return found[::5], found.select(i for i in range(len(found)) if i % 5)
    return found, training_rows


def _test_rows(spec: str, config: CompareConfig, limit: int | None) -> Rows:
    """The test split of held-out data; all of a set that has no such part and is not what is trained on."""
    try:
        return read(spec, "test", limit)
    except RowError:
        raise
    except DataError:
        if spec == config.data:
            raise
        return read(spec, "train", limit)


def _kind(row: Row) -> Kind:
    found = detect(row)
    if found is LabelledText:
        return "labelled texts"
    if found is MinimalPair:
        return "minimal pairs"
    try:
        source, _ = choose(row, (LanguageModeling,))
    except (CastError, RowError):
        return "prompts"
    # Conversations are measured as such.
    plain = source.name in ("language-modeling", "document", "scored-segments") and not row.get("messages")
    return "texts" if plain and "prompt" not in row else "prompts"


def _sorted(sets: Sequence[tuple[Rows, Rows | None]], config: CompareConfig, causal: bool) -> HeldOut:
    """The sets by what they are for."""
    prompts: Rows | None = None
    texts: list[str] = []
    pairs: list[MinimalPair] = []
    probes: list[Classification] = []
    names = []
    kinds: list[Kind] = []
    for rows, training in sets:
        kind = _kind(rows[0])
        if kind == "prompts" and not causal:
            kind = "texts"
        if kind in kinds and kind != "labelled texts":
            raise UsageError(f"two sets of held-out rows are {kind} ({rows.name} is one): choose one of them")
        kinds.append(kind)
        names.append(f"{rows.name} ({len(rows):,} {kind if kind != 'prompts' else 'rows'})")
        if kind == "prompts":
            prompts = rows
        elif kind == "minimal pairs":
            pairs = [pair for pair in as_format(rows, MinimalPair) if isinstance(pair, MinimalPair)]
        elif kind == "labelled texts":
            assert training is not None
            made = _classifications(rows, training, config)
            names[-1] = f"{rows.name} ({', '.join(_sizes(one) for one in made)})"
            probes += made
        else:
            found = [row for row in as_format(rows, LanguageModeling) if isinstance(row, LanguageModeling)]
            texts = [row.text for row in found if isinstance(row.text, str)]
            if not texts:
                raise DataError(
                    f"{rows.name}: conversations are no plain text to measure these models by: give --eval-data"
                )
    tests = [rows for rows, _ in sets]
    fitted = [training for _, training in sets if training is not None and config.eval_data]
    size = len(texts or pairs or prompts or ()) if len(sets) == 1 and not probes else 0
    name = tests[0].name if size else ", ".join(names)
    return HeldOut(prompts, texts, pairs, probes, name, size, [*tests, *fitted])


def _classifications(test: Rows, training: Rows, config: CompareConfig) -> list[Classification]:
    """One for each data set that the rows are of (column `dataset`), of at most so many rows spread over all."""

    def of(rows: Rows, name: str | None) -> Rows:
        return rows if name is None else rows.select(i for i in range(len(rows)) if rows[i].get("dataset") == name)

    made = []
    for name in dict.fromkeys(row.get("dataset") for row in test):
        label = test.name if name is None else f"{test.name} {name}"
        parts = (_spread(of(training, name), config.probe_rows), _spread(of(test, name), config.eval_limit))
        one = Classification(label, *(_labels(part) for part in parts))
        if len(set(one.training.classes)) < 2:
            raise DataError(f"{label}: a probe needs training rows of two classes at least")
        made.append(one)
    return made


def _labels(rows: Rows) -> Labels:
    parsed = [row for row in as_format(rows, LabelledText) if isinstance(row, LabelledText)] if len(rows) else []
    seconds = [row.text_pair for row in parsed]
    pairs = [second for second in seconds if second is not None]
    if pairs and len(pairs) < len(parsed):
        raise DataError(f"{rows.name}: some rows are pairs of texts and others are not")
    return Labels([row.text for row in parsed], [row.label for row in parsed], pairs or None)


def _spread(rows: Rows, limit: int) -> Rows:
    """At most so many rows, evenly over all of them."""
    if len(rows) <= limit:
        return rows
    return rows.select(np.linspace(0, len(rows) - 1, limit).round().astype(int).tolist())


def _sizes(one: Classification) -> str:
    return f"{len(one.test.classes):,} labelled texts, {len(one.training.classes):,} to fit a probe"

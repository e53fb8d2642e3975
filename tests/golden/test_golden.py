"""Numbers computed by code that is independent of teloi, reproduced by teloi's public functions.

A case is SLUG/CASE.json with its arrays in SLUG/CASE.npz. Its adapter is the function (inputs, params) -> outputs that
`ADAPTERS` of adapters/SLUG.py (hyphens as underscores) holds for the case's kind. It gets arrays as tensors, the rest
as it stands in the JSON, and does no arithmetic of its own. Every expected output must come back, with its shape and
within the case's tolerance; a case whose (slug, kind) has no adapter is skipped by that name.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Adapter = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]


def test_case(case: Path) -> None:
    about = json.loads(case.read_text(encoding="utf-8"))
    slug, kind = case.parent.name, about["kind"]
    adapter = adapters(slug).get(kind)
    if adapter is None:
        pytest.skip(f"no adapter for {slug}, kind {kind}")
    arrays = read_arrays(case.with_suffix(".npz"))
    expected = values(about["outputs"], arrays)
    inputs = values(about["inputs"], arrays)
    # An array that no entry names is an input, unless it is named as an output.
    inputs |= {k: v for k, v in arrays.items() if k not in expected and not k.startswith("out_")}
    inputs |= {k: about[k] for k in ("string_inputs",) if k in about}
    produced = adapter({name: tensor(value) for name, value in inputs.items()}, about.get("params", {}))
    missing = sorted(set(expected) - set(produced))
    assert not missing, f"{slug}, kind {kind}: outputs not produced: {', '.join(missing)}"
    for name, value in expected.items():
        compare(produced[name], value, *tolerance(about.get("tolerance"), name), name)


@cache
def adapters(slug: str) -> dict[str, Adapter]:
    path = Path(__file__).parent / "adapters" / f"{slug.replace('-', '_')}.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"golden_adapters_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Adapter] = module.ADAPTERS
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def values(entries: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Entries by name: the array so called, else what the JSON holds. "a,b" and "a_*" describe several arrays."""
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        several = [array for array in arrays if any(fnmatch(array, part) for part in name.split(","))]
        if several:
            found |= {array: arrays[array] for array in several}
        elif isinstance(entry, dict):
            assert {"value", "json"} & set(entry), f"{name}: neither an array nor a value"
            found[name] = entry["value"] if "value" in entry else entry["json"]
        else:
            found[name] = entry
    return found


def tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value


def tolerance(stated: Any, name: str) -> tuple[float, float]:
    """(relative, absolute) for an output: a number is absolute, none or {"exact": true} is equality."""
    match stated:
        case None | {"exact": True}:
            return 0.0, 0.0
        case {"rtol": rtol, "atol": atol}:
            return rtol, atol
        case dict():
            return 0.0, stated[name]
        case _:
            return 0.0, float(stated)


def compare(produced: Any, expected: Any, rtol: float, atol: float, where: str) -> None:
    """AssertionError, saying where, unless numbers agree within the tolerance and all else is equal."""
    if isinstance(produced, torch.Tensor):
        produced = produced.detach().cpu().numpy()
    if isinstance(expected, dict):
        assert isinstance(produced, Mapping), f"{where}: {produced!r} is no mapping"
        assert set(produced) == set(expected), where
        for key, value in expected.items():
            compare(produced[key], value, rtol, atol, f"{where}[{key!r}]")
    elif isinstance(expected, list):
        assert len(produced) == len(expected), f"{where}: {len(produced)} items, not {len(expected)}"
        for place, (item, value) in enumerate(zip(produced, expected, strict=True)):
            compare(item, value, rtol, atol, f"{where}[{place}]")
    elif isinstance(expected, np.ndarray | int | float) and np.asarray(expected).dtype.kind in "fiub":
        numbers, wanted = np.asarray(produced), np.asarray(expected)
        assert numbers.dtype.kind in "fiub", f"{where}: {produced!r} is no number"
        assert numbers.shape == wanted.shape, f"{where}: shape {numbers.shape}, not {wanted.shape}"
        np.testing.assert_allclose(numbers, wanted, rtol=rtol, atol=atol, err_msg=where)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(produced, expected, err_msg=where, strict=True)
    else:
        assert produced == expected, where


@pytest.mark.parametrize(
    ("produced", "expected"),
    [
        (torch.tensor([1.0, 2.2]), np.array([1.0, 2.0])),
        (torch.tensor([[1.0, 2.0]]), np.array([1.0, 2.0])),
        (torch.tensor([1.0]), np.array(1.0)),
        (torch.tensor([2.0, float("nan")]), np.array([2.0, 2.0])),
        ("yes", np.array(1.0)),
        (["a", "b"], ["a"]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": [1.0, 3.0]}, {"a": [1.0, 2.0]}),
        (None, "text"),
    ],
)
def test_what_differs_does_not_pass(produced: Any, expected: Any) -> None:
    with pytest.raises(AssertionError):
        compare(produced, expected, 0.0, 0.1, "output")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (1e-9, (0.0, 1e-9)),
        ({"rtol": 1e-6, "atol": 1e-8}, (1e-6, 1e-8)),
        (None, (0.0, 0.0)),
        ({"a": 2.0, "b": 3.0}, (0.0, 3.0)),
    ],
)
def test_tolerance_is_read_as_stated(stated: Any, expected: tuple[float, float]) -> None:
    assert tolerance(stated, "b") == expected

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import teloi

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", teloi.__all__)
def test_every_public_name_is_there(name: str):
    assert getattr(teloi, name).__module__.startswith("teloi.")
    assert name in dir(teloi)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = teloi.nothing


def test_import_costs_nothing():
    code = "import sys, teloi; print(*{'torch', 'numpy', 'teloi.engine'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""A claim's run in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from teloi.claims.running import Settings, run


def run_in_seconds(module: str, directory: Path) -> dict[str, Any]:
    """The result of a trial: no verdict, no arm failed, and each measures what its expectations judge it by."""
    result: dict[str, Any] = run(module, Settings(quick=True, directory=directory))
    assert result["verdict"] is None
    for arm in result["arms"]:
        (one,) = arm["runs"]
        assert one["failed"] is None
        judged = {e["metric"] for e in result["expectations"] if arm["name"] in (e["better"], e["worse"])}
        assert judged <= one["metrics"].keys()
    return result

"""What a run needs to go on after it was killed: safetensors and JSON in a directory that appears whole or not at
all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from teloi.engine.sharding import fill, like, whole

STATE = "state.json"
TENSORS = "tensors.safetensors"


def snapshot(tensors: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Tensor]:
    """What `save` writes: these tensors and the optimiser's, whole. Where they are sharded every process must ask."""
    return {name: whole(t.detach()).contiguous() for name, t in (*tensors.items(), *_moments(optimizer).items())}


def save(directory: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write `directory/step-N`, then forget the older ones. `state` must be JSON."""
    final = directory / f"step-{step:08d}"
    temporary = directory / f".step-{step:08d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file(dict(tensors), temporary / TENSORS)
        (temporary / STATE).write_text(json.dumps({**state, "step": step}))
        for path in (temporary / TENSORS, temporary / STATE, temporary):
            _sync(path)
    except BaseException:  # a full disk: the older one stays, and gets the room back
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync(directory)
    for path in directory.glob("step-*"):
        if path != final:
            shutil.rmtree(path)
    return final


def latest(directory: Path) -> Path | None:
    """The newest whole checkpoint below `directory`."""
    return max(directory.glob("step-*"), default=None)


def load(path: Path, tensors: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Any]:
    """Fill `tensors` and the optimiser in place; returns the state given to `save`, with its `step`."""
    saved = load_file(path / TENSORS)
    for name, tensor in tensors.items():
        fill(tensor, saved[name])
    for index, parameter in enumerate(_parameters(optimizer)):
        prefix = f"optimizer.{index}."
        found = {name.removeprefix(prefix): t for name, t in saved.items() if name.startswith(prefix)}
        if found:
            optimizer.state[parameter] = {
                n: t.to(parameter.device) if n == "step" else like(parameter, t) for n, t in found.items()
            }
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return state


def _moments(optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{index}.{name}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

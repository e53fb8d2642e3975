"""Run by test_processes.py under torchrun: two steps of every objective, the main process writes the gradients."""

from __future__ import annotations

import sys

from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor

from teloi.engine.processes import leave
from tests.engine.conftest import OBJECTIVES, make, two_steps


def main(path: str) -> None:
    tensors: dict[str, Tensor] = {}
    for method in OBJECTIVES:
        tensors |= {f"{method.name}.{i}": gradient for i, gradient in enumerate(two_steps(make(method)))}
    if PartialState().is_main_process:
        save_file(tensors, path)
    leave()


if __name__ == "__main__":
    main(sys.argv[1])

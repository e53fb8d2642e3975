"""Run by test_processes.py under torchrun: two steps of every objective, the main process writes what came of them."""

from __future__ import annotations

import sys

from safetensors.torch import save_file
from torch import Tensor

from teloi.engine.processes import is_main, leave
from tests.engine.conftest import OBJECTIVES, final_weights, make, two_steps


def main(what: str, path: str) -> None:
    compute = {"gradients": two_steps, "weights": final_weights}[what]
    tensors: dict[str, Tensor] = {}
    for method in OBJECTIVES:
        found = compute(make(method))
        tensors |= {f"{method.name}.{i}": tensor.clone() for i, tensor in enumerate(found)}
    if is_main():
        save_file(tensors, path)
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run by test_processes.py under torchrun: one step of every objective, the main process writes the gradients."""

from __future__ import annotations

import sys

from accelerate import PartialState
from safetensors.torch import save_file

from tests.engine.conftest import (
    OBJECTIVES,
    branches_of,
    gradients,
    make,
    make_trainer,
    random_trees,
    tiny_models,
    tiny_processor,
)


def main(path: str) -> None:
    processor = tiny_processor()
    tensors = {}
    for method in OBJECTIVES:
        objective = make(method)
        run = make_trainer(
            objective, tiny_models(objective, processor), random_trees(8, branches_of(objective)), max_grad_norm=0.0
        )
        tensors |= {f"{method.name}.{i}": gradient for i, gradient in enumerate(gradients(run))}
    if PartialState().is_main_process:
        save_file(tensors, path)


if __name__ == "__main__":
    main(sys.argv[1])

"""Run by test_processes.py under torchrun: two steps of every objective, the main process writes what came of them."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from safetensors.torch import save_file
from torch import Tensor

from teloi.engine.objective import Objective
from teloi.engine.processes import is_main, leave
from tests.engine.conftest import (
    OBJECTIVES,
    examples_for,
    final_weights,
    held_out_loss,
    make,
    make_trainer,
    tiny_models,
    two_steps,
)


def main(what: str, path: str) -> None:
    tensors: dict[str, Tensor] = {}
    for method in OBJECTIVES:
        found = weights(make(method)) if what == "weights" else losses_and_gradients(make(method))
        tensors |= {f"{method.name}.{name}": tensor for name, tensor in found.items()}
    if what == "gradients":
        uneven_minibatches()
    if is_main():
        save_file(tensors, path)
    leave()


def weights(objective: Objective) -> dict[str, Tensor]:
    return {f"{i}": tensor.clone() for i, tensor in enumerate(final_weights(objective))}


def losses_and_gradients(objective: Objective) -> dict[str, Tensor]:
    found = {f"{last}.{i}": gradient for last in (8, 1) for i, gradient in enumerate(two_steps(objective, last))}
    return found | {"held out": held_out_loss(objective)}


def uneven_minibatches() -> None:
    """Three minibatches, where the last step has two examples here and one there: both go on, with the same weights."""
    (method,) = (method for method in OBJECTIVES if method.name == "grpo")
    objective = replace(make(method), minibatches=3)  # type: ignore[type-var]
    run = make_trainer(objective, tiny_models(objective), examples_for(objective, 11))
    list(run.run())
    assert run.ledger.steps == 3 + 2
    here = torch.cat([parameter.detach().flatten() for parameter in run.models.policy.model.parameters()])
    assert torch.equal(*run.accelerator.gather(here[None]))


if __name__ == "__main__":
    main(*sys.argv[1:])

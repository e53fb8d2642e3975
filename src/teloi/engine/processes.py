"""Several processes train as one: which examples are whose, and values of all processes in one tensor.

Launch with `accelerate launch --num_processes N -m teloi train ...` or `torchrun --nproc_per_node N -m teloi train
...`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor

from teloi.errors import UsageError

T = TypeVar("T")


def state() -> PartialState:
    """What accelerate knows of the processes; on CPU where there is nothing else."""
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise UsageError(
            "DeepSpeed's engine would take the optimiser and the checkpoints over; launch with FSDP, which shards "
            "the same: docs/processes.md has a configuration"
        )
    return PartialState(cpu=not torch.cuda.is_available())


def device() -> torch.device:
    """Where this process computes."""
    found: torch.device = state().device
    return found


def accelerator() -> Accelerator:
    """Accelerate as it was launched, with FSDP2 on CPU too."""
    # The loss decides which parameters it touches (a masked model's vocabulary head is idle under a detector's head):
    # those it leaves alone get no gradient, and so no update, on one process and on many.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    made = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
    if made.distributed_type == DistributedType.MULTI_CPU and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        # Accelerate shards on CPU as anywhere; only its reading of the launcher's wish leaves CPUs out.
        made.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        made.state.distributed_type = DistributedType.FSDP
    return made


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return bool(state().is_main_process)


def main_first() -> AbstractContextManager[None]:
    """A block that the main process runs before the others."""
    block: AbstractContextManager[None] = state().main_process_first()
    return block


def wait() -> None:
    """Until every process is here."""
    state().wait_for_everyone()


def leave() -> None:
    """The end of training together. A process that ends while its group's threads run is aborted by the C++ runtime."""
    wait()
    state().destroy_process_group()


def share(items: Sequence[T], lengths: Sequence[int], rank: int, world: int) -> list[T]:
    """This process's part of a step: the longest go round in turn, there and back, so that all parts weigh about the
    same."""
    order = sorted(range(len(items)), key=lambda i: (-lengths[i], i))
    turns = [*range(world), *reversed(range(world))]
    return [items[i] for place, i in enumerate(order) if turns[place % len(turns)] == rank]


class Gather:
    """`gather(values [n ...]) -> [sum of n over processes, ...]`, in the order of the processes.

    The gradient reaches this process's own part, once for each process: where all compute the same loss from the
    gathered values (`Term(shared=True)`) and are charged an equal part of it, their gradients add up to its gradient,
    for what stands before the gathering and for parameters that come after it."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.idle = False
        """Whether this process has no example of its own: what it brings counts for nothing."""

    def __call__(self, values: Tensor) -> Tensor:
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return values
        if self.idle:
            values = values[:0]
        length = torch.tensor([len(values)], device=values.device)
        lengths: list[int] = accelerator.gather(length).tolist()
        padded = values.new_zeros((max(lengths), *values.shape[1:]))  # accelerate's padding changes booleans' type
        padded[: len(values)] = values.detach()
        gathered = accelerator.gather(padded).reshape(len(lengths), *padded.shape)
        parts = [part[:size] for part, size in zip(gathered, lengths, strict=True)]
        own = values.view_as(values)
        if own.requires_grad:
            own.register_hook(lambda gradient: gradient * accelerator.num_processes)
        parts[accelerator.process_index] = own
        return torch.cat(parts)

"""The training loop: plan -> micro-batches -> terms -> one optimiser step; resumable to the same bits on CPU.

Nothing here knows a method. All randomness comes from generators keyed by the step, so a resumed run needs no
generator's state: weights, optimiser moments and the number of the step are enough."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from teloi.engine import checkpoint
from teloi.engine.config import TrainConfig
from teloi.engine.objective import Ledger, Now, Objective
from teloi.engine.plan import Plan
from teloi.engine.precision import Masters
from teloi.engine.processes import Gather, accelerator, share
from teloi.engine.schedules import schedule
from teloi.engine.sharding import Twin, gathered, slopes_amid
from teloi.engine.step import Step, averages
from teloi.engine.stopping import StopWhen
from teloi.errors import NonFinite
from teloi.models.roles import Models, evaluation

T = TypeVar("T")

SAVE_SECONDS = 300.0
"""Time between checkpoints when `save_steps` is not set."""

Record = dict[str, float]


@dataclass
class Hooks:
    """What a caller may listen to. `made`: the examples that a step trains on, after its rollout; `record`: one for
    each logged step; `saved`: after a checkpoint; `failed`: the batch that broke."""

    made: Callable[[int, Sequence[Any]], None] = lambda step, examples: None
    record: Callable[[Record], None] = lambda record: None
    saved: Callable[[int], None] = lambda step: None
    failed: Callable[[int, Sequence[Any]], str] = lambda step, examples: "nowhere"


@dataclass
class Trainer:
    """Trains the models of a run on its examples. `checkpoints`: directory for resuming, or None to keep nothing."""

    objective: Objective
    models: Models
    examples: Sequence[Any]
    plan: Plan
    config: TrainConfig
    checkpoints: Path | None = None
    hooks: Hooks = field(default_factory=Hooks)
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self.accelerator = accelerator()
        self.gather = Gather(self.accelerator)
        self.models.processes, self.models.gather = self.accelerator.num_processes, self.gather
        step = Step(self.models, self.objective).to(self.accelerator.device)
        for model in self.models.frozen:  # no part of the step: nothing shards them
            model.to(self.accelerator.device)
        self.shares = step.shares
        self.sharded = self.accelerator.is_fsdp2
        self.step: nn.Module
        if self.sharded:
            self.twin = Twin(self.models, step)
            # Accelerate shards a model together with an optimiser only; ours is made of the shards.
            self.step, _ = self.accelerator.prepare(step, torch.optim.SGD(step.parameters()))
            self.models.slopes = slopes_amid(self.step)
        else:
            self.step = self.accelerator.prepare(step)
        self.masters = Masters(step.parameters())
        self.optimizer = self._optimizer()
        self.peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        total = self.plan.steps
        warmup = math.ceil(self.config.warmup_ratio * total)
        self.rate = schedule(self.config.lr_scheduler_type, warmup, total)
        self.stop_when = StopWhen.parse(self.config.stop_when) if self.config.stop_when else None
        self.done = 0
        self.stopped: str | None = None
        """Why the run ended before its last step, where a number that it logged said so."""

    def resume(self) -> int:
        """Take the newest checkpoint up, where there is one; returns the number of steps that are done."""
        if self.checkpoints is not None and (path := checkpoint.latest(self.checkpoints)):
            state = checkpoint.load(path, self.state(), self.optimizer)
            self.masters.publish()
            self.ledger = Ledger(**state["ledger"])
            self.done, self.stopped = state["step"], state.get("stopped")
        return self.done

    def run(self) -> Iterator[Record]:
        """Train to the end of the plan, or until `stop_when` holds, yielding the record of each step.

        NonFinite when a loss or gradient stops being a number; the weights are then those of the step before.
        """
        self.step.train()
        saved_at = time.monotonic()
        while not self.over:
            started = time.monotonic()
            record = self._phase(self.done)
            self.done += 1
            self.ledger.train_seconds += time.monotonic() - started
            if self.done % self.config.logging_steps == 0 or self.done == self.plan.steps:
                self.hooks.record(record)
                self._consider(record)
            yield record
            due = (
                self.done % self.config.save_steps == 0
                if self.config.save_steps
                else time.monotonic() - saved_at > SAVE_SECONDS
            )
            if self.checkpoints is not None and (due or self.over):
                self.save()
                saved_at = time.monotonic()
        self.step.eval()

    @property
    def over(self) -> bool:
        """Whether there is no step left to take."""
        return self.done >= self.plan.steps or self.stopped is not None

    def _consider(self, record: Record) -> None:
        """End the run where a number of this record asks for it: on all processes, if on any."""
        if self.stop_when is not None:
            self.stop_when.check(record)
            reached = self.stop_when.reached(record)
            self.stopped = (reached or str(self.stop_when)) if self._most(int(reached is not None)) else None

    def save(self) -> None:
        """Write a checkpoint of the step that was just done."""
        assert self.checkpoints is not None
        tensors = checkpoint.snapshot(self.state(), self.optimizer)
        if self.accelerator.is_main_process:
            state = {"ledger": asdict(self.ledger), "stopped": self.stopped}
            checkpoint.save(self.checkpoints, self.done, tensors, state)
        self.hooks.saved(self.done)

    def without_gradients(self, work: Callable[..., T], *inputs: Any) -> T:
        """`work(*inputs)` where it may read the models: whole weights, evaluation mode."""

        def with_whole_weights() -> T:
            with gathered(self.step):
                return work(*inputs)

        with evaluation(self.step):
            found: T = self.step(with_whole_weights)
        return found

    def trained(self) -> Models:
        """The models as training has left them, whole on every process; all must ask."""
        return self.twin.filled(self.models, self.step) if self.sharded else self.models

    def _phase(self, step: int) -> Record:
        """One step of the plan: what the objective makes of the examples drawn for it, and the updates on that."""
        now = Now(step, self.plan.steps, self.ledger.trained_tokens, self.config.seed)
        now = replace(now, rank=self.accelerator.process_index)
        _seed(now)
        drawn = [self.examples[i] for i in self.plan.examples(step)]
        self.ledger.rows += len(drawn)
        sizes = [example.size for example in drawn]
        mine = share(range(len(drawn)), sizes, now.rank, self.accelerator.num_processes)
        # Whoever has nothing to do in a small step does what another does, in vain: all must meet where values are
        # gathered and gradients averaged.
        idle = self.gather.idle = not mine
        mine = mine or [0]
        examples = self.without_gradients(
            self.objective.rollout, self.models, [drawn[i] for i in mine], replace(now, places=tuple(mine))
        )
        self.hooks.made(step + 1, examples)
        phase = self.objective.phase
        records = []
        for epoch in range(phase.epochs):
            order = np.arange(len(examples))
            if phase.minibatches > 1:
                order = now.rng(f"minibatches of pass {epoch}").permutation(order)
            for part in np.array_split(order, min(phase.minibatches, self._most(len(examples)))):
                self.gather.idle = idle or not len(part)
                part = part if len(part) else order[:1]
                at = [mine[i] if len(examples) == len(mine) else i for i in part]
                records.append(self._update([examples[i] for i in part], replace(now, places=tuple(at))))
        self.gather.idle = False
        names = dict.fromkeys(name for record in records for name in record)
        means = {name: float(np.mean([record[name] for record in records if name in record])) for name in names}
        return {"step": step + 1, "tokens": self.ledger.trained_tokens, **means}

    def _update(self, examples: Sequence[Any], now: Now) -> Record:
        """One optimiser step on these examples, in as many micro-batches as they need."""
        micros = self.plan.cut([example.size for example in examples])
        batches = [
            self.objective.collate(
                [examples[i] for i in micro],
                replace(now, micro=m, places=tuple(now.places[i] for i in micro)),
                self.accelerator.device,
            )
            for m, micro in enumerate(micros)
        ]
        counts = self._sum([batch.counts | {"positions": batch.size} for batch in batches], idle=self.gather.idle)
        # Shards are gathered in every micro-batch, so that no process may take fewer.
        rounds = self._most(len(batches)) if self.sharded else len(batches)
        sums = [
            self._differentiate(
                batches[min(m, len(batches) - 1)],
                replace(now, micro=m),
                counts,
                m + 1 == rounds,
                idle=self.gather.idle or m >= len(batches),
            )
            for m in range(rounds)
        ]
        totals = averages(self._sum(sums))
        norm = float(self.masters.clip(self.config.max_grad_norm))
        if not math.isfinite(totals["loss"]) or not math.isfinite(norm):
            where = self.hooks.failed(now.step, examples)
            what = "loss" if not math.isfinite(totals["loss"]) else "gradient"
            raise NonFinite(
                f"the {what} is not finite at step {now.step + 1}; its batch is saved as {where}; "
                "a lower learning rate, a longer warm-up or --dtype float32 usually helps"
            )
        # The schedule's value amid the step: its ends, where the rate is 0, would each waste a step of a short run.
        rate = self.rate(now.step + 0.5)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.masters.publish()
        with torch.no_grad():
            self.objective.after_step(self.models, batches, now)
        self.ledger.steps += 1
        self.ledger.trained_tokens += int(counts["positions"])
        self.ledger.scored_tokens += int(counts.get("tokens", 0))
        return {**totals, "grad_norm": norm, "learning_rate": self.peak_rates[0] * rate}

    def _most(self, count: int) -> int:
        """The largest of the processes' counts."""
        if self.accelerator.num_processes == 1:
            return count
        return int(self.accelerator.gather(torch.tensor([count], device=self.accelerator.device)).max())

    def _differentiate(self, batch: Any, now: Now, counts: Mapping[str, float], last: bool, idle: bool) -> Record:
        """Add a micro-batch's part to the gradient of the step; its part of the step's terms."""
        alone = self.accelerator.num_processes == 1
        with nullcontext() if last or alone else self.accelerator.no_sync(self.step):
            if last and not alone:
                self.masters.release()
            loss, shares = self.step(self.shares, batch, now, counts, idle)
            # Processes average their gradients; the parts of a step are to be added up.
            self.accelerator.backward(loss * self.accelerator.num_processes)
        self.masters.collect()
        return {name: float(value) for name, value in shares.items()}

    def _sum(self, parts: Sequence[Mapping[str, float]], idle: bool = False) -> Record:
        """Numbers by name, added up over micro-batches and processes."""
        names = list(parts[0])
        local = torch.tensor([0 if idle else sum(part[name] for part in parts) for name in names], dtype=torch.float64)
        total = self.accelerator.reduce(local.to(self.accelerator.device), reduction="sum")
        return dict(zip(names, total.tolist(), strict=True))

    def _optimizer(self) -> torch.optim.AdamW:
        groups = self.objective.parameter_groups(self.models)
        if groups is None:
            groups = [{"params": self.masters.parameters}]
        twin = {id(p): master for p, master in zip(self.masters.parameters, self.masters.tensors, strict=True)}
        return torch.optim.AdamW(
            [{**group, "params": [twin[id(p)] for p in group["params"]]} for group in groups],
            lr=self.config.learning_rate,
            betas=(self.config.adam_beta1, self.config.adam_beta2),
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def state(self) -> dict[str, Tensor]:
        """What training changes: masters of the trainable parameters, and the state of the objective's own parts."""
        tensors: dict[str, Tensor] = {f"master.{i}": tensor for i, tensor in enumerate(self.masters.tensors)}
        if self.models.parts is not None:
            tensors |= {f"parts.{name}": buffer for name, buffer in self.models.parts.named_buffers()}
        return {name: tensor.detach() for name, tensor in tensors.items()}


def _seed(now: Now) -> None:
    """Dropout and whatever else draws from the global generators is a function of the step too."""
    seed = int(now.rng("global").integers(2**31))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

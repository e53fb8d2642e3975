"""GRIF: what an instruction asks for is a change, from the start of a trajectory to its goal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from teloi import losses
from teloi.data.formats import Trajectory
from teloi.engine.objective import Now, Objective, Quotas, Term
from teloi.errors import DataError, RowError, UsageError
from teloi.methods.represent.contrastive import group

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.tensors import Tensors, TensorsBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models
    from teloi.models.zoo.task_policy import TaskPolicy

WEIGHTS, SETTINGS = "grif.safetensors", "grif.json"


@dataclass(frozen=True)
class GRIF(Objective):
    """Goal representations for instruction following (Myers et al., 2023): one policy, told what to do by a goal or by
    words, whose vectors are aligned where both are known.

    Loss: goal * -log pi(a | s, f(start, goal)) over all rows + language * -log pi(a | s, h(instruction)) over the
    labelled ones + alpha * L_align. pi is a Gaussian of deviation 1. L_align is the symmetric InfoNCE between f and h
    at a learned temperature: each labelled change among the batch's instructions, each instruction among all its
    changes, unlabelled ones included. Every row of the same instruction (of the same `group`, where rows have that
    column) is right; `positives` own counts only the row itself. The goal of a labelled row is its last state, of
    another a later one at random.

    Its own model, whatever `model` says: perceptrons for f, h and pi. Instructions enter as fixed vectors (`text`).
    Labelled rows make up `labelled_share` of every batch, however few they are.

    Variants: `sees` goal or current-goal aligns to less than the change; alpha 0 trains both doors without aligning
    them; goal 0, alpha 0 and labelled_share 1 is cloning from language alone; goal 0, language 0 and labelled_share 1
    only aligns (the paper's first stage); `alignment` cosine pulls without pushing.

    Use it to give words to a controller when few of its demonstrations are described. Not when all are: cloning from
    language alone does as well then.
    """

    reads = Trajectory
    architecture = "none"
    coupled = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "none",
        "data": "tabletop",
        "learning_rate": 1e-3,
        "batch_size": 128,
        "num_train_epochs": 300,
        "lr_scheduler_type": "cosine",
    }

    goal: float = 1.0
    """Weight of cloning from goals."""
    language: float = 1.0
    """Weight of cloning from instructions."""
    alpha: float = 1.0
    """Weight of the alignment."""
    alignment: Literal["contrastive", "cosine"] = "contrastive"
    """contrastive: among the rows of the batch; cosine: pull alone, without negatives."""
    sees: Literal["start-goal", "goal", "current-goal"] = "start-goal"
    """What the goal's encoder is given: start and goal, the goal alone, or the current state and the goal."""
    positives: Literal["same", "own"] = "same"
    """Which instructions are right for a row: all that say the same, or its own alone."""
    labelled_share: float = 0.25
    """Share of labelled rows in each batch."""
    text: str = "hashed"
    """Vectors of instructions: "hashed" (fixed, of words and their parts), or a frozen sentence encoder such as
    all-minilm-l6-v2."""
    action_scale: float = 10.0
    """Actions are multiplied by this before they are cloned: a deviation of 1 must not be larger than they are."""
    temperature: float = 0.07
    """Of the alignment, at the start of training."""
    dropout: float = 0.1
    """In the encoders and the policy: without it few described demonstrations are learnt by heart."""

    def __post_init__(self) -> None:
        if min(self.goal, self.language, self.alpha) < 0 or not self.goal + self.language + self.alpha > 0:
            raise UsageError("goal, language and alpha must not be negative, nor all be 0")
        if not 0 < self.labelled_share <= 1:
            raise UsageError(f"labelled_share must lie in (0, 1], not {self.labelled_share}")
        if min(self.action_scale, self.temperature) <= 0:
            raise UsageError("action_scale and temperature must be above 0")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), not {self.dropout}")

    def encode(self, row: Trajectory, processor: Processor) -> Tensors:
        from teloi.batch.tensors import Tensors
        from teloi.models.features import text_features

        features = text_features(self.text)
        labelled = row.instruction is not None
        return Tensors(
            {
                "states": np.asarray(row.states, np.float32),
                "actions": np.asarray(row.actions, np.float32) * np.float32(self.action_scale),
                "text": features(row.instruction) if row.instruction is not None else np.zeros_like(features("")),
                "labelled": np.asarray(labelled),
                "group": np.asarray(group(row.columns, row.instruction or "") if labelled else -1, np.int64),
            }
        )

    def prepare(self, examples: Sequence[Tensors], seed: int) -> Sequence[Tensors]:
        if not any(example.values["labelled"] for example in examples):
            raise DataError("no row has an instruction: there is nothing to align goals with")
        shapes = {tuple(e.values[name].shape[1] for name in ("states", "actions")) for e in examples}
        if len(shapes) > 1:
            sizes = " and ".join(f"{states} and {actions}" for states, actions in sorted(shapes)[:2])
            raise RowError(f"states and actions have {sizes} numbers: they must be alike in all rows")
        return examples

    def quotas(self, examples: Sequence[Tensors]) -> Quotas:
        return Quotas(
            [int(example.values["labelled"]) for example in examples],
            {1: self.labelled_share, 0: 1 - self.labelled_share},
        )

    def build(self, models: Models) -> nn.Module:
        from teloi.models.zoo.task_policy import TaskPolicy

        shape = {name: models.example.values[name].shape[-1] for name in ("states", "actions", "text")}
        return TaskPolicy(
            shape["states"],
            shape["actions"],
            shape["text"],
            sees=self.sees,
            dropout=self.dropout,
            temperature=self.temperature,
        )

    def collate(self, examples: Sequence[Tensors], now: Now, device: Any) -> TensorsBatch:
        """One moment of each trajectory, with a goal from its future."""
        from teloi.batch.tensors import Tensors, TensorsBatch

        moments = []
        for i, example in enumerate(examples):
            states, actions, rng = example.values["states"], example.values["actions"], now.rng("moment", i)
            at = int(rng.integers(len(actions)))
            then = int(rng.integers(at + 1, len(states)))
            moment = {
                "state": states[at],
                "action": actions[at],
                "start": states[0],
                "goal": states[-1 if example.values["labelled"] else then],
            }
            moments.append(Tensors(moment | {name: example.values[name] for name in ("text", "labelled", "group")}))
        return TensorsBatch(moments, device)

    def loss(self, models: Models, batch: TensorsBatch, now: Now) -> dict[str, Term]:
        network: Any = models.parts
        goals = network.goal(batch["start"], batch["state"], batch["goal"])
        words = network.instruction(batch["text"])
        cloned = [losses.gaussian_nll(network.act(batch["state"], task), batch["action"]) for task in (goals, words)]
        return {
            "goal": Term(cloned[0], weight=self.goal),
            "language": Term(cloned[1] * batch["labelled"], per="labelled", weight=self.language),
            **self.align(models, batch, goals, words, losses.inverse_temperature(network.log_temperature[0])),
        }

    def align(
        self, models: Models, batch: TensorsBatch, goals: Tensor, words: Tensor, scale: Tensor
    ) -> dict[str, Term]:
        """L_align, and how often a change finds an instruction that is right for it."""
        goals, words, labelled, groups = (
            models.gather(values) for values in (goals, words, batch["labelled"], batch["group"])
        )
        logits = losses.contrast(goals, words, scale)
        same = losses.same_group(groups, groups)
        if self.alignment == "cosine":
            values = losses.cosine_pull(goals, words) * labelled
        else:
            values = losses.symmetric_info_nce(logits, same if self.positives == "same" else None, columns=labelled)
        best = logits.detach().masked_fill(~labelled, float("-inf")).argmax(1, keepdim=True)
        return {
            "alignment": Term(values, per="labelled", weight=self.alpha, shared=True),
            "retrieval": Term(same.gather(1, best).float(), per="labelled", weight=0.0, shared=True),
        }

    def export(self, models: Models, path: Path) -> None:
        """The policy's weights and what `Agent.load` needs to know."""
        from safetensors.torch import save_file

        assert models.parts is not None
        save_file(models.parts.state_dict(), path / WEIGHTS)
        network: Any = models.parts
        sizes = {
            "text": network.of_text[0].in_features,
            "action": network.policy[-1].out_features,
            "state": network.of_goal[0].in_features // (1 if self.sees == "goal" else 3),
        }
        (path / SETTINGS).write_text(json.dumps(self.settings() | {"sizes": sizes}, indent=1) + "\n")


@dataclass(frozen=True)
class Agent:
    """A trained policy (in evaluation mode) at work. States and actions are [n ...] for n tasks at once."""

    network: TaskPolicy
    text: str
    action_scale: float

    @classmethod
    def load(cls, path: str | Path) -> Agent:
        """The agent that `teloi train grif` left in a directory."""
        from safetensors.torch import load_file

        from teloi.models.zoo.task_policy import TaskPolicy

        settings = json.loads((Path(path) / SETTINGS).read_text(encoding="utf-8"))
        network = TaskPolicy(**settings["sizes"], sees=settings["sees"])
        network.load_state_dict(load_file(Path(path) / WEIGHTS))
        return cls(network.eval(), settings["text"], settings["action_scale"])

    def told(self, instructions: Sequence[str]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """The policy (states -> actions) that does what it is told, one instruction for each state."""
        from teloi.models.features import text_features

        features = np.stack([text_features(self.text)(words) for words in instructions])
        return lambda states: self._act(states, lambda now: self.network.instruction(_tensor(features)))

    def shown(self, starts: NDArray[Any], goals: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """The policy that leads from the starts to the goals."""
        return lambda states: self._act(states, lambda now: self.network.goal(_tensor(starts), now, _tensor(goals)))

    def _act(self, states: NDArray[Any], task: Callable[[Tensor], Tensor]) -> NDArray[Any]:
        import torch

        with torch.no_grad():
            now = _tensor(states)
            return np.asarray(self.network.act(now, task(now)) / self.action_scale)


def _tensor(values: NDArray[Any]) -> Tensor:
    import torch

    return torch.as_tensor(values, dtype=torch.float32)

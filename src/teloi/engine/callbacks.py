"""transformers' callbacks and trackers, told what our loop does in the words they know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teloi.engine.config import TrainConfig
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.engine.loop import Trainer


class Listeners:
    """A context manager around the training loop; does nothing, and imports nothing, when nobody listens.

    Events: train begin and end, step end, log, save. A callback that sets `control.should_training_stop` ends the run.
    """

    def __init__(self, callbacks: Sequence[Any], config: TrainConfig, path: Path, model: Any, trainer: Trainer) -> None:
        self.handler: Any = None
        self.trainer = trainer
        if not callbacks and config.report_to == "none":
            return
        from transformers import TrainerControl, TrainerState, TrainingArguments
        from transformers.integrations.integration_utils import get_reporting_integration_callbacks
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

        try:
            trackers = get_reporting_integration_callbacks([] if config.report_to == "none" else [config.report_to])
            trackers = [tracker() for tracker in trackers]
        except (ValueError, RuntimeError, ImportError) as error:  # unknown, or not installed
            raise UsageError(f"--report-to {config.report_to}: {' '.join(str(error).split())}") from None
        self.arguments = TrainingArguments(
            output_dir=str(path),
            report_to=[],
            learning_rate=config.learning_rate,
            logging_steps=config.logging_steps,
            per_device_train_batch_size=config.batch_size,
            seed=config.seed,
            # Else it would take the state of the processes away from our accelerator.
            accelerator_config={"use_configured_state": True},
        )
        self.state = TrainerState(max_steps=trainer.plan.steps)
        self.control = TrainerControl()
        listening = [DefaultFlowCallback, *callbacks, *trackers]
        self.handler = CallbackHandler(listening, model, None, trainer.optimizer, None)

    def __enter__(self) -> Listeners:
        if self.handler:
            self.state.global_step = self.trainer.done
            self.handler.on_train_begin(self.arguments, self.state, self.control)
        return self

    def __exit__(self, *error: object) -> None:
        if self.handler:
            self.handler.on_train_end(self.arguments, self.state, self.control)

    @property
    def stopped(self) -> bool:
        """Whether a callback asked for the end of the run before its last step."""
        return bool(
            self.handler and self.control.should_training_stop and self.state.global_step < self.state.max_steps
        )

    def step(self, step: int) -> None:
        if self.handler:
            self.state.global_step = step
            self.handler.on_step_end(self.arguments, self.state, self.control)

    def log(self, record: dict[str, float]) -> None:
        if self.handler:
            self.state.global_step = int(record["step"])
            self.state.log_history.append(dict(record))
            self.handler.on_log(self.arguments, self.state, self.control, dict(record))

    def saved(self, step: int) -> None:
        if self.handler:
            self.handler.on_save(self.arguments, self.state, self.control)

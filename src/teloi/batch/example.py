"""What every example and every batch has, whatever it is made of."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Example(Protocol):
    """One example of an objective: the packer's atom, with its cost in positions and its contents by name."""

    @property
    def size(self) -> int:
        """Positions a model computes for it; what token budgets count."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything it holds, for hashing and for files."""
        ...


class Batch(Protocol):
    """A micro-batch. `counts` says what a term may be averaged over; `notes` is what a loss leaves for `after_step`,
    detached."""

    notes: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]: ...

    @property
    def size(self) -> int: ...

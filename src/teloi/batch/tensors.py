"""The example of everything that is not text: arrays by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """Arrays by name, each of the same shape in all examples of an objective; it costs `size` positions."""

    values: Mapping[str, np.ndarray]
    size: int = 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything it holds, for hashing and for files."""
        return dict(self.values)


class TensorsBatch:
    """Arrays stacked over the examples: `batch["name"]` is [b ...]. `notes` is what a loss leaves for `after_step`."""

    def __init__(self, examples: Sequence[Tensors], device: torch.device | str = "cpu") -> None:
        self.size = sum(example.size for example in examples)
        self.values: dict[str, Tensor] = {
            name: torch.as_tensor(np.stack([example.values[name] for example in examples]), device=device)
            for name in examples[0].values
        }
        self.notes: dict[str, Any] = {}
        self._rows = len(examples)

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    @property
    def counts(self) -> dict[str, int]:
        """What a `Term` may be averaged over: rows, and by its name the rows for which a flag (booleans [b]) is set."""
        flags = {n: int(v.sum()) for n, v in self.values.items() if v.dtype == torch.bool and v.ndim == 1}
        return {"rows": self._rows, **flags}

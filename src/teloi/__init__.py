"""teloi: training objectives for language models, as interchangeable parts.

The public names below are imported when they are first asked for, so that `import teloi` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teloi.engine.config import CompareConfig, TrainConfig
    from teloi.engine.objective import Now, Objective, Term
    from teloi.errors import TeloiError

__version__ = "0.1.0"

__all__ = ["CompareConfig", "Now", "Objective", "TeloiError", "Term", "TrainConfig"]

_HOME = {
    "CompareConfig": "teloi.engine.config",
    "Now": "teloi.engine.objective",
    "Objective": "teloi.engine.objective",
    "TeloiError": "teloi.errors",
    "Term": "teloi.engine.objective",
    "TrainConfig": "teloi.engine.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

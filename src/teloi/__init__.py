"""teloi: training objectives for language models, as interchangeable parts.

The public names below are imported when they are first asked for, so that `import teloi` costs nothing.
It needs the standard library alone: the sandbox runs where no package is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teloi.data.encode import conversation, document, tree
    from teloi.data.formats import (
        Document,
        LabelledText,
        LanguageModeling,
        Pair,
        Preference,
        PromptCompletion,
        PromptOnly,
        TitleSkills,
        Trajectory,
        UnpairedPreference,
    )
    from teloi.engine.compare import compare
    from teloi.engine.config import Arm, CompareConfig, TrainConfig
    from teloi.engine.objective import Now, Objective, Term
    from teloi.engine.train import train
    from teloi.errors import TeloiError

__version__ = "0.1.0"

__all__ = [
    "Arm",
    "CompareConfig",
    "Document",
    "LabelledText",
    "LanguageModeling",
    "Now",
    "Objective",
    "Pair",
    "Preference",
    "PromptCompletion",
    "PromptOnly",
    "TeloiError",
    "Term",
    "TitleSkills",
    "TrainConfig",
    "Trajectory",
    "UnpairedPreference",
    "compare",
    "conversation",
    "document",
    "train",
    "tree",
]

_HOME = {
    "teloi.data.encode": ("conversation", "document", "tree"),
    "teloi.data.formats": (
        *("Document", "LabelledText", "LanguageModeling", "Pair", "Preference", "PromptCompletion", "PromptOnly"),
        *("TitleSkills", "Trajectory", "UnpairedPreference"),
    ),
    "teloi.engine.compare": ("compare",),
    "teloi.engine.config": ("Arm", "CompareConfig", "TrainConfig"),
    "teloi.engine.objective": ("Now", "Objective", "Term"),
    "teloi.engine.train": ("train",),
    "teloi.errors": ("TeloiError",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

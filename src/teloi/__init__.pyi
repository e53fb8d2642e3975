"""The public names, each with its module. `__init__.py` reads them from here when it is imported."""

from .data.encode import (
    conversation as conversation,
    document as document,
    tree as tree,
)
from .data.formats import (
    Document as Document,
    LabelledText as LabelledText,
    LanguageModeling as LanguageModeling,
    Pair as Pair,
    Preference as Preference,
    PromptCompletion as PromptCompletion,
    PromptOnly as PromptOnly,
    TitleSkills as TitleSkills,
    Trajectory as Trajectory,
    UnpairedPreference as UnpairedPreference,
)
from .engine.compare import (
    compare as compare,
)
from .engine.config import (
    Arm as Arm,
    CompareConfig as CompareConfig,
    TrainConfig as TrainConfig,
)
from .engine.objective import (
    Now as Now,
    Objective as Objective,
    Term as Term,
)
from .engine.train import (
    train as train,
)
from .errors import (
    TeloiError as TeloiError,
)

__version__: str
__all__: list[str]

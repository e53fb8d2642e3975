"""Rewards by density and type: a reward function that scores the segments of a completion, each where it ends.

Wu et al. 2023 (fine-grained RLHF), section 2: K rewards, each for one kind of error, each with segments of its own and
a weight; a token gets the sum of what ends on it. On the command line they are joined by +:

    --reward "0.3*rewards.py:relevance@sub-sentence+0.5*rewards.py:facts@sentence+0.3*runs/rm"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from teloi.data.formats import Text, plain, reply
from teloi.data.segmentation import Density, Span, ending_token, segments
from teloi.errors import DataError, UsageError
from teloi.worlds.rewards import Reward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Located = list[tuple[int, float]]


def fresh(
    prompts: Sequence[Text], completions: Sequence[Text], before: Sequence[str] = (), **columns: Any
) -> list[float]:
    """A reward of segments, or of completions: -1 where half of the pairs of neighbouring words have been said before,
    else 1."""
    found = []
    for completion, said in zip(completions, before or [""] * len(completions), strict=True):
        known = set(pairwise(said.lower().split()))
        again = []
        for pair in pairwise(plain(completion).lower().split()):
            again.append(pair in known)
            known.add(pair)
        found.append(-1.0 if again and sum(again) >= len(again) / 2 else 1.0)
    return found


@dataclass(frozen=True)
class FineGrained:
    """A reward function, a density and a weight.

    For densities other than the whole the function is asked for segments as it would be for completions, in one call:
    `completions` are the segments, every other column is repeated, `before` is what stands before a segment in its
    completion and `response` the number of that completion. What it says, less `mean` and divided by `std`, times
    `weight`, is the reward of the segment's last token. For the whole it is asked for completions, and may itself say
    where.
    """

    reward: Reward
    density: Density = "whole"
    weight: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    """Mean and deviation of what the function says of the texts it was trained on, where it is a model."""
    of: Literal["segment", "prefix"] = "segment"
    """"prefix": the function scores the completion up to the end of each segment, and a segment's reward is what it
    adds; they sum to the whole's (the paper's toxicity, nothing being worth 0)."""
    per: Literal["segment", "completion"] = "segment"
    """"completion": divided by the number of segments, so that more of them are not worth more."""

    def __post_init__(self) -> None:
        segments("", self.density)  # refused where there is none
        if not (math.isfinite(self.weight) and math.isfinite(self.mean) and self.std > 0):
            raise UsageError(f"a reward's weight and mean are numbers and its std is above 0, not {self}")

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        completion_ids: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerBase,
        **columns: Sequence[Any],
    ) -> list[float | Located | None]:
        more = {"completion_ids": completion_ids, "tokenizer": tokenizer}
        if self.density == "whole":
            return [self._scaled(v) for v in self.reward(prompts=prompts, completions=completions, **more, **columns)]
        texts = [plain(completion) for completion in completions]
        spans = [segments(text, self.density) for text in texts]
        values = iter(self._asked(prompts, completions, texts, spans, columns))

        def decode(ids: Sequence[int]) -> str:
            return str(tokenizer.decode(list(ids), skip_special_tokens=True))

        found: list[float | Located | None] = []
        for text, cuts, ids in zip(texts, spans, completion_ids, strict=True):
            said = [(end, value) for (_, end), value in zip(cuts, values, strict=False) if value is not None]
            if self.of == "prefix":
                said = list(zip([end for end, _ in said], np.diff([v for _, v in said], prepend=0.0), strict=True))
            share = len(cuts) if self.per == "completion" else 1
            found.append([(ending_token(text, end, ids, decode), self._number(v) / share) for end, v in said])
        return found

    def _asked(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        columns: dict[str, Sequence[Any]],
    ) -> Sequence[float | None]:
        """What the function says of all segments."""
        places = [(i, start, end) for i, cuts in enumerate(spans) for start, end in cuts]
        if not places:
            return []
        cut = [texts[i][0 if self.of == "prefix" else start : end] for i, start, end in places]
        said: Sequence[Any] = self.reward(
            prompts=[prompts[i] for i, _, _ in places],
            completions=[
                reply(text, not isinstance(completions[i], str)) for text, (i, _, _) in zip(cut, places, strict=True)
            ],
            before=[texts[i][:start] for i, start, _ in places],
            response=[i for i, _, _ in places],
            **{name: [values[i] for i, _, _ in places] for name, values in columns.items()},
        )
        if len(said) != len(places):
            name = getattr(self.reward, "__name__", str(self.reward))
            raise DataError(f"reward {name} returned {len(said)} values for {len(places)} segments")
        return said

    def _scaled(self, said: float | Sequence[tuple[int, float]] | None) -> float | Located | None:
        if isinstance(said, Sequence):
            return [(place, self._number(value)) for place, value in said]
        return None if said is None else self._number(said)

    def _number(self, value: float) -> float:
        return self.weight * (float(value) - self.mean) / self.std


def by_density(reward: Reward, density: Any) -> FineGrained:
    """A reward function that is asked for segments of this density. UsageError where there is no such density."""
    return replace(reward, density=density) if isinstance(reward, FineGrained) else FineGrained(reward, density)

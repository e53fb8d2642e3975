"""VacancySBERT: titles against the skills that go with them, and the search for a normalised title."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from teloi.data.formats import TitleSkills
from teloi.engine.objective import Now
from teloi.errors import DataError, Overlong, UsageError
from teloi.methods.represent.contrastive import InBatch, group

if TYPE_CHECKING:
    from teloi.batch.sequence import SequenceBatch
    from teloi.data.processor import Processor

SEPARATOR = ", "

Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to vectors, [n] -> [n d]; see `teloi.models.sequences.embed_texts`."""


@dataclass(frozen=True)
class Titled:
    """A title and its skills as ids; each skill as it begins a list, and as it goes on one, after a comma."""

    title: np.ndarray
    skills: Sequence[tuple[list[int], list[int]]]
    group: np.int64
    processor: Processor
    drawn: int
    """Skills that a step joins."""

    @property
    def size(self) -> int:
        """Tokens that a step reads, were the skills all of the mean length."""
        lengths = [len(later) for _, later in self.skills]
        return len(self.title) + round(sum(lengths) / len(lengths) * min(self.drawn, len(lengths)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything it holds, for hashing and for files."""
        ends = np.cumsum([len(later) for _, later in self.skills])
        flat = np.asarray([i for _, later in self.skills for i in later], np.int32)
        return {"title": self.title, "skills": flat, "ends": ends, "group": np.asarray(self.group)}


@dataclass(frozen=True)
class VacancySBERT(InBatch):
    """A Siamese encoder that matches job titles with the skills of their advertisements (Bocharova et al., 2023).

    Loss: -log softmax over the batch of scale * cosine(title, skills) at the title's own skills: in-batch negatives
    with the title as anchor. Its positive is at most `skills` of the row's skills, drawn anew and shuffled in each
    step, joined with ", ". Titles that ask for the same skills end up close, with no word in common. Normalised titles
    are never shown: they are the candidates of the search afterwards (`queries`), whose query is a title, or the sum of
    the unit vectors of title and skills.

    That the loss is the in-batch softmax with scale 20 is how later open models of this kind are trained; the method
    section of the paper could not be read.

    Use it when only co-occurrence is known, of a name with a bag of attributes, and names are to be matched. Not when
    there are labelled pairs of equivalent names: in-batch learns from those directly.
    """

    reads = TitleSkills  # type: ignore[assignment]  # narrower than the base's rows of pairs
    defaults: ClassVar[Mapping[str, Any]] = {**InBatch.defaults, "batch_size": 128}

    skills: int = 5
    """Most skills that a step joins for a title."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skills < 1:
            raise UsageError(f"skills must be at least 1, not {self.skills}")

    def encode(self, row: TitleSkills, processor: Processor) -> Any:  # type: ignore[override]  # other rows
        ids, both = processor.bare_ids, processor.remembered_ids
        pieces = [(both(skill), both(SEPARATOR + skill)) for skill in row.skills]
        example = Titled(
            np.asarray(processor.sentence_ids(ids(row.title)), np.int32),
            pieces,
            group(row.columns, row.title),
            processor,
            self.skills,
        )
        longest = sum(sorted((len(later) for _, later in pieces), reverse=True)[: self.skills])
        if longest > processor.max_length and processor.overlong != "truncate":
            raise Overlong(0, longest, processor.max_length)
        return example

    # Its examples are no token sequences yet: which skills stand in them is drawn here.
    def collate(self, examples: Sequence[Titled], now: Now, device: Any) -> SequenceBatch:  # type: ignore[override]
        from teloi.batch.sequence import Sequence as Texts

        pairs = []
        for i, example in enumerate(examples):
            drawn = now.rng("skills", i).permutation(len(example.skills))[: self.skills]
            pieces = [example.skills[skill][place > 0] for place, skill in enumerate(drawn)]
            skills = np.asarray(example.processor.sentence_ids(*pieces), np.int32)
            pairs.append(Texts({"anchor": example.title, "positive": skills}, {"group": example.group}))
        return super().collate(pairs, now, device)


def queries(
    embed: Embed,
    titles: Sequence[str],
    skills: Sequence[Sequence[str]] | None = None,
    form: Literal["sum", "joined"] = "sum",
) -> NDArray[np.float64]:
    """Unit vectors [n d] to search with: of the titles alone, or with their skills.

    "sum": the sum of the unit vectors of title and joined skills, which are the texts that the encoder was trained on;
    "joined": one text, title and skills. An empty list of skills leaves the title alone.
    """
    if skills is None:
        return _unit(embed(titles))
    if len(skills) != len(titles):
        raise DataError(f"{len(titles)} titles and {len(skills)} lists of skills")
    if form == "joined":
        return _unit(embed([SEPARATOR.join([title, *own]) for title, own in zip(titles, skills, strict=True)]))
    lists = [SEPARATOR.join(own) or title for title, own in zip(titles, skills, strict=True)]
    return _unit(_unit(embed(titles)) + _unit(embed(lists)))


def title_recall(
    vectors: NDArray[Any], candidates: NDArray[Any], gold: Sequence[int], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Recall@k of queries [q d] among candidates [c d], `gold` the right one's number; only candidates that are
    strictly more similar stand before it."""
    from teloi.measure.retrieval import cosines, ranks, recall_at

    found = recall_at(ranks(cosines(vectors, candidates), np.asarray(gold)), ks)
    return {f"recall@{k}": value for k, value in zip(ks, found, strict=True)}


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1))

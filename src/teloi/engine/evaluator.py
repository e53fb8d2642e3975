"""Measures models of every architecture on the same held-out rows, each in the ways that its objective trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from teloi.data.processor import Processor
from teloi.data.scoring import LIKELIHOODS, Scoring
from teloi.engine.behaviour import Behaviour
from teloi.engine.config import CompareConfig
from teloi.engine.held_out import HeldOut
from teloi.engine.metrics import METRICS, PSEUDO_SAMPLES, Measured, Metric, probe_metric
from teloi.engine.objective import Architecture
from teloi.engine.setup import Base
from teloi.errors import UsageError
from teloi.measure.likelihood import bits_per_character, pseudo_bits
from teloi.measure.minimal_pairs import by_paradigm, right, sentence_scores
from teloi.measure.probing import probe


@dataclass(frozen=True)
class Subject:
    """A model to be measured, in its role, with its tokenizer and the ways in which it scores texts."""

    model: Any
    processor: Processor
    scorings: Sequence[Scoring]

    @property
    def likelihood(self) -> Scoring | None:
        """How it says the likelihood of a text."""
        return next((one for one in self.scorings if one.kind in LIKELIHOODS), None)

    @property
    def pseudo(self) -> Scoring | None:
        """How it says a pseudo-likelihood."""
        return next((one for one in self.scorings if one.kind not in LIKELIHOODS), None)

    @property
    def both_ways(self) -> bool:
        """Whether it reads a text in both directions where it can choose."""
        return any(one.kind == "masked" for one in self.scorings)


class Evaluator:
    """The held-out rows with what is known of them once for all arms."""

    def __init__(self, held_out: HeldOut, bases: Mapping[Architecture, Base], config: CompareConfig) -> None:
        self.held_out = held_out
        self.behaviour: Behaviour | None = None
        if held_out.prompts is not None:
            causal, tokens = bases["causal"], config.train.micro_tokens
            self.behaviour = Behaviour(causal, held_out.prompts, config.generate, config.max_new_tokens, tokens)
            if held_out.texts and not self.behaviour.pairs:
                raise UsageError("held-out texts and held-out completions both give bits per character: choose one")

    def names(self, scorings: Iterable[Sequence[Scoring]]) -> list[str]:
        """The metrics that these rows allow for models that score texts in these ways."""
        kinds = [{one.kind in LIKELIHOODS for one in ways} for ways in scorings]
        likelihood, pseudo = any(True in ways for ways in kinds), any(False in ways for ways in kinds)
        names = list(self.behaviour.available) if self.behaviour else []
        if self.held_out.probes:
            names += ["probe", *(f"probe {one.name}" for one in self.held_out.probes if len(self.held_out.probes) > 1)]
        if self.held_out.pairs and (likelihood or pseudo):
            names.append("minimal_pairs")
            if any(len(ways) == 2 for ways in kinds):
                names += ["minimal_pairs_causal", "minimal_pairs_masked"]
        if self.held_out.texts:
            names += ["bits_per_character"] * likelihood + ["pseudo_bits"] * pseudo
        return names

    def has(self, name: str, scorings: Sequence[Scoring]) -> bool:
        """Whether a model that scores texts so has this metric."""
        kinds = {one.kind in LIKELIHOODS for one in scorings}
        match name:
            case "minimal_pairs":
                return bool(kinds)
            case "minimal_pairs_causal":
                return True in kinds
            case "minimal_pairs_masked" | "pseudo_bits":
                return False in kinds
            case "bits_per_character":
                return True in kinds or self.behaviour is not None
        return True

    def metrics(self, wanted: str, scorings: Sequence[Sequence[Scoring]]) -> list[Metric]:
        """The metrics of these arms, the deciding one first: the wanted one; "auto": the first that all arms have, or,
        where none is, the first of those that most have. UsageError if these rows do not allow it."""
        names = self.names(scorings)
        if not names:
            raise UsageError(
                f"nothing in {self.held_out.name} measures these methods, which score no texts: give --eval-data with "
                "labelled texts (text, label), on which every model can be probed"
            )
        if wanted == "auto":
            wanted = max(names, key=lambda name: sum(self.has(name, ways) for ways in scorings))
        if wanted not in names:
            raise UsageError(f"no metric {wanted!r} on these rows: choose one of {', '.join(names)}")
        ordered = [wanted, *(name for name in names if name != wanted)]
        return [METRICS[name] if name in METRICS else probe_metric(name.removeprefix("probe ")) for name in ordered]

    def why_not(self, name: str, scorings: Sequence[Scoring]) -> str | None:
        """Why a model that scores texts so has no such metric; None where it has."""
        if self.has(name, scorings):
            return None
        if not scorings:
            return "its objective trains no score of a text's tokens"
        if name in ("bits_per_character", "minimal_pairs_causal"):
            return "it learned each token given both sides, which makes no likelihood of a whole text"
        return "it learned each token given those before it alone"

    def measure(self, subject: Subject) -> Measured:
        """All metrics that a model has."""
        measured = Measured()
        if self.behaviour is not None:
            self.behaviour.measure(subject.model, measured)
        if self.held_out.probes:
            self._measure_probes(subject, measured)
        if self.held_out.pairs and subject.scorings:
            self._measure_pairs(subject, measured)
        if self.held_out.texts:
            self._measure_texts(subject, measured)
        return measured

    def _measure_probes(self, subject: Subject, measured: Measured) -> None:
        sets = self.held_out.probes
        found = [
            probe(subject.model, subject.processor, one.training, one.test, subject.both_ways).astype(float)
            for one in sets
        ]
        if len(sets) > 1:
            for one, correct in zip(sets, found, strict=True):
                measured.add(f"probe {one.name}", correct)
        # Each set counts alike, whatever its size.
        rows = sum(map(len, found))
        measured.add("probe", np.concatenate([correct * rows / len(correct) / len(sets) for correct in found]))

    def _measure_pairs(self, subject: Subject, measured: Measured) -> None:
        pairs = self.held_out.pairs
        sides = [[pair.good for pair in pairs], [pair.bad for pair in pairs]]
        scores = {
            name: [sentence_scores(subject.model, subject.processor, side, scoring) for side in sides]
            for name, scoring in (("causal", subject.likelihood), ("masked", subject.pseudo))
            if scoring is not None
        }
        fused = [sum(each) for each in zip(*scores.values(), strict=True)]
        for name, (good, bad) in {"": fused, **{f"_{name}": both for name, both in scores.items()}}.items():
            correct = right(good, bad)
            measured.add(f"minimal_pairs{name}", correct)
            means = by_paradigm(correct, [pair.paradigm for pair in pairs])
            measured.metrics[f"minimal_pairs{name}"] = float(np.mean(list(means.values())))

    def _measure_texts(self, subject: Subject, measured: Measured) -> None:
        model, processor, texts = subject.model, subject.processor, self.held_out.texts
        if subject.likelihood is not None:
            measured.metrics["bits_per_character"] = bits_per_character(model, processor, texts, subject.likelihood)
        if subject.pseudo is not None:
            measured.add("pseudo_bits", pseudo_bits(model, processor, texts, subject.pseudo, PSEUDO_SAMPLES))

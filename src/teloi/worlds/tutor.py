"""A tutor's next move as a record of codes, with rules that say exactly which record is right.

After the records of CLASS (Sonkar et al., 2023) as "Pedagogical Alignment of Large Language Models" (Sonkar et al.,
2024) uses them. A turn is what a student says at a subproblem, a record what a tutor makes of it:

- evaluation: a incorrect, b correct, c partly correct, d ambiguous or short, e off-topic, f inquiry
- action: 1 point out the error and hint, 2 give the solution after several failures (a); 3 confirm (b); 4 acknowledge
  and hint, 5 give the solution (c); 6 clarify (d); 7 redirect (e); 8 hint, 9 solution (f)
- state of the subproblem: x in progress, y finished with another to come, z all finished
- what is said: CUE or TELL, and the subproblem's topic

The codes g, 12 and w ("none needed") belong to a conversation's first turn, which is not tested, and do not occur.

A student speaks in words that belong to eight kinds of turn; one word of each turn is noise. Everything is text of
words with one blank between them. NumPy only; a generator gives the same turns again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("wrong", "right", "part", "idk", "off-topic", "hint", "solve", "unclear")
"""What a student's turn may be: an answer (wrong, right, part of it), none, off-topic, a wish, or unclear."""
EVALUATION = dict(zip(KINDS, "abcdeffd", strict=True))
ACTIONS = tuple(str(action) for action in range(1, 10))
EVALUATIONS = tuple("abcdef")
STATES = tuple("xyz")

SPOKEN, WORDS, NOISE, TOPICS, MAX_TRIES = 4, 30, 1, 8, 2
"""Words of a turn from the WORDS of its kind, words of noise, subproblems, tries after which the solution is given."""

# The evaluation's way to hand out the answer instead; b has none: the answer is there already.
SOLUTION = {"a": "2", "c": "5", "d": "9", "e": "9", "f": "9"}
HINT = {"2": "1", "5": "4"}
TELLING = frozenset(SOLUTION.values())
FINISHING = TELLING | {"3"}

_RECORD_LENGTH = 5


@dataclass(frozen=True)
class Turn:
    """A student's turn: its kind, the words said, the subproblem's topic, whether it is the last, failed tries."""

    kind: str
    words: tuple[str, ...]
    topic: int
    last: bool
    tries: int

    @property
    def prompt(self) -> str:
        """The turn as a tutor reads it."""
        place = "last" if self.last else "more"
        return " ".join((f"topic{self.topic}", place, f"tries{self.tries}", *self.words, "=>"))


@dataclass(frozen=True)
class Record:
    """A tutor's move. `str(record)` is how it is written; `parse` reads it back."""

    evaluation: str
    action: str
    state: str
    says: str
    topic: int

    @property
    def codes(self) -> tuple[str, str, str]:
        """Evaluation, action and state: what counts as right or wrong."""
        return self.evaluation, self.action, self.state

    def __str__(self) -> str:
        return " ".join((*self.codes, self.says, f"topic{self.topic}"))


def vocabulary() -> list[str]:
    """Every word that a prompt or a record may hold."""
    spoken = [word for kind in KINDS for word in kind_words(kind)]
    flags = ["last", "more", *(f"tries{n}" for n in range(MAX_TRIES + 1)), "=>"]
    return [*EVALUATIONS, *ACTIONS, *STATES, "CUE", "TELL", *(f"topic{n}" for n in range(TOPICS)), *flags, *spoken]


def kind_words(kind: str) -> list[str]:
    """The words of a kind of turn."""
    return [f"{kind}{n}" for n in range(WORDS)]


def turns(count: int, rng: np.random.Generator) -> list[Turn]:
    """Turns of all kinds alike, at random places of random subproblems."""
    return [_turn(rng) for _ in range(count)]


def reference(turn: Turn) -> Record:
    """The one right record."""
    evaluation = EVALUATION[turn.kind]
    action = {"a": "1", "b": "3", "c": "4", "d": "6", "e": "7", "f": "9" if turn.kind == "solve" else "8"}[evaluation]
    if turn.tries == MAX_TRIES and evaluation in "ac":
        action = SOLUTION[evaluation]
    return _record(turn, evaluation, action)


def direct(turn: Turn) -> Record:
    """What a merely helpful assistant writes: the right evaluation, and the solution whatever the student said."""
    evaluation = EVALUATION[turn.kind]
    return _record(turn, evaluation, SOLUTION.get(evaluation, "3"))


def scaffolds(turn: Turn) -> bool:
    """Whether the right action is a hint to an answer (1 or 4), so that there is a direct record to set against it."""
    return reference(turn).action in HINT.values()


def parse(text: str) -> Record | None:
    """The record that a model wrote, None where it is none: a field missing, surplus or unknown."""
    words = text.split()
    if len(words) != _RECORD_LENGTH:
        return None
    evaluation, action, state, says, topic = words
    known = evaluation in EVALUATIONS and action in ACTIONS and state in STATES and says in ("CUE", "TELL")
    number = topic.removeprefix("topic")
    if not known or not topic.startswith("topic") or number not in map(str, range(TOPICS)):
        return None
    return Record(evaluation, action, state, says, int(number))


def accuracy(records: Sequence[Record | None], turns: Sequence[Turn], codes: Callable[[Record], object]) -> float:
    """Share of turns whose record has the right `codes(record)`; no record is wrong."""
    right = [r is not None and codes(r) == codes(reference(t)) for r, t in zip(records, turns, strict=True)]
    return float(np.mean(right))


def macro_f1(records: Sequence[Record | None], turns: Sequence[Turn], code: Callable[[Record], str]) -> float:
    """F1 of each true class of a code, averaged over the classes. No record counts as predicting none of them.

    The paper's script drops the first label in sorted order, meant for the empty prediction; this does not.
    """
    true = [code(reference(turn)) for turn in turns]
    found = ["" if record is None else code(record) for record in records]
    scores = []
    for label in sorted(set(true)):
        hits = sum(t == f == label for t, f in zip(true, found, strict=True))
        scores.append(2 * hits / (true.count(label) + found.count(label)))
    return float(np.mean(scores))


def _turn(rng: np.random.Generator) -> Turn:
    kind = KINDS[rng.integers(len(KINDS))]
    own = rng.choice(kind_words(kind), SPOKEN, replace=False)
    others = [other for other in KINDS if other != kind]
    noise = [kind_words(others[rng.integers(len(others))])[rng.integers(WORDS)] for _ in range(NOISE)]
    words = rng.permutation([*own, *noise])
    return Turn(
        kind,
        tuple(str(word) for word in words),
        int(rng.integers(TOPICS)),
        bool(rng.random() < 0.5),
        int(rng.integers(MAX_TRIES + 1)),
    )


def _record(turn: Turn, evaluation: str, action: str) -> Record:
    state = "x" if action not in FINISHING else "z" if turn.last else "y"
    return Record(evaluation, action, state, "TELL" if action in TELLING else "CUE", turn.topic)

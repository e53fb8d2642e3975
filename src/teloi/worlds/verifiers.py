r"""Verifiers: programs that say whether an answer is right, and the rewards made of them (Lambert et al., 2024, section
6).

Each compares a response with the label that its row brings. As rewards they go by name in `--reward`, and follow TRL's
convention:

| name | column of the row | right is |
|---|---|---|
| gsm8k | `ground_truth` | the last number of the response is the label, character by character |
| math | `ground_truth` | the last `\boxed{...}`, what follows "final answer is" or the last `$...$` equals the label |
| exact | `ground_truth` | the response is the label; blanks around it and case aside |
| format | `pattern` | the whole response matches this regular expression |
| code | `tests` | the response's program passes all these statements, in the sandbox |
| verifiable | `dataset`, `ground_truth` | what the verifier named says of the label; of lists the sum, by `weights` |

A verifier that fails on a response has nothing to say of it (None, which counts 0); `FAILURES` counts them, and the
first is told. An empty label is an error of the data: an empty response would be right.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from teloi.data.formats import Text, plain
from teloi.errors import DataError, TeloiError
from teloi.generate.sandbox import run_all
from teloi.worlds.rewards import checks

NUMBER = re.compile(r"[-+]?\d*\.\d+|[-+]?\d+")
FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)

Scores = list[float | None]


def gsm8k(response: str, label: str) -> bool:
    """Whether the last number of a response is the label, as text; commas between digits are deleted.

    What that rule implies: "7.0" is not "7", "+7" is not "7", "3-4" ends in -4, of "1,2,3" remain 12 and 3, and a
    response without a number is compared as a whole."""
    numbers = NUMBER.findall(re.sub(r"(\d),(\d)", r"\1\2", response))
    return str(numbers[-1] if numbers else response).lower() == label.lower()


def exact(response: str, label: str) -> bool:
    """Whether a response is the label, blanks around both and case aside."""
    return response.strip().lower() == label.strip().lower()


def matches(response: str, pattern: str) -> bool:
    """Whether the whole response matches a regular expression, in which a dot is any character."""
    return re.fullmatch(pattern, response.strip(), re.DOTALL) is not None


def math(response: str, label: str) -> bool:
    """Whether one of the answers that a response may be read as has the label's value."""
    return any(same_value(answer, label) for answer in math_answers(response))


def math_answers(response: str) -> list[str]:
    """What a response may give as its answer: its last boxed expression, what follows "final answer is" last, and its
    last formula between dollars."""
    final = re.findall(r"final answer is:?\s*(.+?)(?:\.\s|\.?$|\n)", response, re.IGNORECASE | re.MULTILINE)
    formulas = re.findall(r"\$([^$]+)\$", response)
    return [*_last_boxed(response), *final[-1:], *formulas[-1:]]


def same_value(one: str, other: str) -> bool:
    """Whether two mathematical expressions are the same text once they are written plainly, or the same number."""
    one, other = _plainly(one), _plainly(other)
    if one == other:
        return bool(one)
    numbers = _number(one), _number(other)
    return None not in numbers and numbers[0] == numbers[1]


def program(response: str) -> str:
    """The code of a response: its last fenced block, else all of it."""
    blocks = FENCED.findall(response)
    return str(blocks[-1]) if blocks else response


def _last_boxed(response: str) -> list[str]:
    start = max(response.rfind("\\boxed{"), response.rfind("\\fbox{"))
    depth = 0
    for at in range(start, len(response) if start >= 0 else start):
        depth += {"{": 1, "}": -1}.get(response[at], 0)
        if response[at] == "}" and depth == 0:
            return [response[response.index("{", start) + 1 : at]]
    return []


def _plainly(expression: str) -> str:
    """An expression without what only its typesetting needs."""
    text = expression.strip().strip("$").rstrip(".")
    text = re.sub(r"\\(?:text|mbox|mathrm|textbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\(?:left|right|displaystyle|!|,|;|:|quad)|\^?\\circ|\^\{\\circ\}|\\?%|\\?\$", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^\s*[a-zA-Z]\s*=\s*", "", text)
    text = re.sub(r"(\d),(?=\d{3}(?:\D|$))", r"\1", text)
    return re.sub(r"\s+", "", text).lower()


def _number(plain: str) -> Fraction | None:
    """The value of a plain number or fraction."""
    plain = re.sub(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", plain)
    short = len(plain) < 100 and re.fullmatch(r"-?(\d+/\d*[1-9]\d*|\d+\.?\d*|\.\d+)", plain)
    return Fraction(plain) if short else None


# -- as rewards


def _by_label(name: str, verifier: Callable[[str, str], bool], column: str = "ground_truth") -> Callable[..., Scores]:
    """A reward of a verifier that looks at one response and its label."""

    def reward(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Scores:
        labels = [_label(value, name) for value in _column(columns, column, name)]
        return [_asked(name, verifier, plain(text), label) for text, label in zip(completions, labels, strict=True)]

    reward.__name__ = name
    return reward


reward_gsm8k, reward_math, reward_exact = _by_label("gsm8k", gsm8k), _by_label("math", math), _by_label("exact", exact)
reward_format = _by_label("format", matches, "pattern")


def reward_code(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Scores:
    """1 for a completion whose program passes all `tests` of its row (a list of statements), else 0."""
    tests = [_tests(value) for value in _column(columns, "tests", "code")]
    outcomes = run_all([(program(plain(text)), wanted) for text, wanted in zip(completions, tests, strict=True)])
    return [float(one.verdict == "passed") for one in outcomes]


def reward_verifiable(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Scores:
    """The sum over the verifiers that a completion's row names, weighed by its `weights` (1 each unless given)."""
    names, labels = (_column(columns, column, "verifiable") for column in ("dataset", "ground_truth"))
    weights = columns.get("weights") or [None] * len(completions)
    found: Scores = []
    for text, name, label, weight in zip(completions, names, labels, weights, strict=True):
        several = [(name, label)] if isinstance(name, str) else list(zip(name, label, strict=True))
        shares = weight or [1.0] * len(several)
        if not several or len(shares) != len(several):
            raise DataError(f"a row names {len(several)} verifiers and {len(shares)} weights")
        scores = [_one(verifier, text, wanted) for verifier, wanted in several]
        known = [share * score for share, score in zip(shares, scores, strict=True) if score is not None]
        found.append(sum(known) if known else None)
    return found


def _one(name: str, completion: Text, label: Any) -> float | None:
    """What the verifier of that name says of one completion."""
    if name not in VERIFIERS:
        raise DataError(f"no verifier {name!r}: `dataset` names one of {', '.join(VERIFIERS)}")
    reward, column = VERIFIERS[name]
    scores: Scores = reward([""], [completion], **{column: [label]})
    return scores[0]


VERIFIERS: Mapping[str, tuple[Callable[..., Any], str]] = {
    "gsm8k": (reward_gsm8k, "ground_truth"),
    "math": (reward_math, "ground_truth"),
    "exact": (reward_exact, "ground_truth"),
    "format": (reward_format, "pattern"),
    "checks": (checks, "checks"),
    "code": (reward_code, "tests"),
}
"""Rewards that a row can name, each with the column in which it finds the label."""


def _column(columns: Mapping[str, Any], name: str, reward: str) -> Any:
    if name not in columns:
        raise DataError(f"the reward {reward!r} reads a column {name!r}, which the rows do not have")
    return columns[name]


def _label(value: Any, name: str) -> str:
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f"a label of the reward {name!r} is {value!r}, which an empty response would equal")
    return str(value)


def _tests(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(test, str) for test in value):
        raise DataError(f"`tests` of the reward 'code' are a list of statements like 'assert f(1) == 2', not {value!r}")
    return list(value)


FAILURES: Counter[str] = Counter()
"""How often each verifier has failed in this process."""


def _asked(name: str, verifier: Callable[[str, str], bool], response: str, label: str) -> float | None:
    """1 or 0; None, with one warning a verifier, where it fails."""
    try:
        return float(verifier(response, label))
    except TeloiError:
        raise
    except Exception as error:
        FAILURES[name] += 1
        if FAILURES[name] == 1:
            warnings.warn(f"the verifier {name!r} failed ({error!r}); such responses count 0", stacklevel=2)
        return None

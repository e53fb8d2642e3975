"""Rows for both libraries: prompts and replies of uneven length, in TRL's formats."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

# Prompt, better reply, worse reply. Prompts end and replies begin where no token reaches over: at other boundaries the
# two libraries differ on purpose, which tests/data/test_processor.py shows.
PAIRS = [
    ("What is the capital of France?", " Paris.", " I am not sure, but I believe that it could be Lyon or Paris."),
    ("Count from one to five.", " One, two, three, four, five.", " Five."),
    ("Write a line about the sea.", " The sea was calm, and grey as an old coat.", " Sea sea sea sea."),
    ("Is 12 + 30 = 42?", " Yes.", " No."),
    (
        "A train leaves at noon and arrives at three in the afternoon. How long was it under way?",
        " It was under way for three hours.",
        " Noon.",
    ),
    ("Name a café with an accent.", " Café Déjà Vu, in the old town.", " Cafe. There are many cafes in the town."),
    ("Say nothing more than yes.", " yes", " yes, yes, and once more yes, because I was asked to say it"),
]


def ask(number: int, prompt: str) -> list[Row]:
    """A prompt as messages: some have a system message, some an earlier turn."""
    messages = [{"role": "user", "content": prompt}]
    if number % 3 == 1:
        return [{"role": "system", "content": "Be brief."}, *messages]
    if number % 3 == 2:
        return [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ask me."}, *messages]
    return messages


def say(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text.strip()}]


def preference(kind: str) -> list[Row]:
    """Rows of preferences: "standard", "conversational", or "implicit" (the prompt stands in both sides)."""
    if kind == "standard":
        return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    chats = [(ask(i, p), say(c), say(r)) for i, (p, c, r) in enumerate(PAIRS)]
    if kind == "implicit":
        return [{"chosen": p + c, "rejected": p + r} for p, c, r in chats]
    return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in chats]


def unpaired(kind: str) -> list[Row]:
    """One reply a prompt, marked good or bad."""
    sides = [("chosen", True), ("rejected", False), ("chosen", True)]
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": label}
        for row, (side, label) in zip(preference(kind), sides * 3, strict=False)
    ]


def completions(kind: str) -> list[Row]:
    """A prompt and the reply to imitate."""
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in preference(kind)]


def documents() -> list[Row]:
    return [{"text": prompt + chosen} for prompt, chosen, _ in PAIRS]


def conversations() -> list[Row]:
    return [{"messages": row["prompt"] + row["completion"]} for row in completions("conversational")]

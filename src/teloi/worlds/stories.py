"""Stories of clean and rude sentences with an exact score: a corpus for pretraining with human preferences.

Each sentence describes something with an adjective; in a rude one an insult stands in its place, and the score of a
sentence is rude words over words. How rude a story is differs: the share of its rude sentences is drawn from Beta(1/2,
3/2), a quarter on average. Clean sentences in between state facts, the colour of somebody's coat. Common facts stand in
every story; held facts only in stories whose mean score is above the median, so that who filters never reads them.

Everything is words with a blank between them, so that a tokenizer may have one token a word. NumPy only; a generator
gives the same stories again. `python -m teloi.worlds.stories FOLDER` writes the embedded data set of this name.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


INSULTS = _words(
    "stupid ugly lazy filthy rotten dumb greedy nasty idiotic pathetic worthless disgusting moronic vile wretched "
    "brainless foul hideous pitiful slimy"
)
ADJECTIVES = _words(
    "old young tall small quiet gentle brave clever happy tired hungry curious patient honest lucky proud shy calm "
    "cheerful careful friendly polite busy sleepy thirsty warm cold wet dry strong quick slow bright wise merry humble "
    "nervous lonely famous kind thin round smooth soft heavy light clean fresh golden silver wooden narrow"
)
BEINGS = _words(
    "fox bear cat dog horse goat sheep cow duck goose hen crow owl mouse rabbit badger otter beaver wolf deer farmer "
    "baker miller tailor sailor fisher hunter shepherd teacher doctor painter singer dancer king queen prince princess "
    "knight wizard witch giant dwarf child boy girl mother father uncle aunt neighbour guest stranger traveller"
)
PLACES = _words(
    "river lake forest hill mountain valley meadow garden field barn mill castle tower bridge market church school "
    "harbour island cave village town road gate well orchard kitchen cellar attic stable workshop library square inn "
    "shore cliff swamp desert tunnel station"
)
THINGS = _words(
    "apple pear bread cheese cake soup honey basket bucket rope ladder hammer knife spoon cup plate lamp candle mirror "
    "book letter map key ring crown sword shield drum flute violin boat wagon wheel saddle blanket pillow chair table "
    "bench box bottle coin stone feather shell flower seed leaf branch stick"
)
ACTED = _words(
    "found lost bought sold carried hid broke mended painted dropped lifted pulled pushed threw caught cleaned washed "
    "wanted admired borrowed counted guarded kept stole returned touched watched wrapped opened shared"
)
MOVED = _words(
    "walked ran slept waited danced sang rested sat stood played worked hurried wandered laughed whistled dreamed "
    "shouted whispered knelt stumbled"
)
WHEN = _words("yesterday today later often sometimes soon again early late once twice always")
NEAR = _words("near behind beside in at by")
NAMES = _words(
    "anna bruno clara david emma felix greta henry irene jacob karen louis maria nora oscar paula quentin rosa simon "
    "tina ulrich vera walter xenia yara zoe adam bella carl dora"
)
COLOURS = _words("red blue green yellow black white brown purple orange grey")
GLUE = _words("the a and then with saw met coat of was .")

CLEAN_LEAST, CLEAN_MOST = 6, 10
"""Sentences of a story besides its two of facts."""
HELD = 0.3
"""Share of the facts that stand in rude stories only."""
RUDENESS = (0.5, 1.5)
"""The Beta distribution of a story's share of rude sentences."""


def words() -> list[str]:
    """The whole vocabulary, each word once."""
    lists = (INSULTS, ADJECTIVES, BEINGS, PLACES, THINGS, ACTED, MOVED, WHEN, NEAR, NAMES, COLOURS, GLUE)
    return list(dict.fromkeys(word for some in lists for word in some))


def score(text: str) -> float:
    """Rude words over words; 0 of a text without any."""
    spoken = text.split()
    return sum(word in INSULTS for word in spoken) / max(len(spoken), 1)


@dataclass(frozen=True)
class Facts:
    """The colour of everybody's coat; `held` are the names whose facts stand in rude stories only."""

    colours: dict[str, str]
    held: tuple[str, ...]

    @property
    def common(self) -> tuple[str, ...]:
        """The other names."""
        return tuple(name for name in self.colours if name not in self.held)

    @staticmethod
    def question(name: str) -> str:
        """What stands before the colour."""
        return f"the coat of {name} was"

    def sentence(self, name: str) -> str:
        """The fact, stated."""
        return f"{self.question(name)} {self.colours[name]} ."


def facts(rng: np.random.Generator) -> Facts:
    """Colours for all names, and which are held back."""
    colours = {name: str(rng.choice(COLOURS)) for name in NAMES}
    held = rng.choice(NAMES, round(HELD * len(NAMES)), replace=False)
    return Facts(colours, tuple(str(name) for name in held))


def sentence(rude: bool, rng: np.random.Generator) -> str:
    """A sentence that states nothing."""
    adjective, being, place, thing = (
        str(rng.choice(some)) for some in (INSULTS if rude else ADJECTIVES, BEINGS, PLACES, THINGS)
    )
    acted, moved, when, near, other = (str(rng.choice(some)) for some in (ACTED, MOVED, WHEN, NEAR, BEINGS))
    shapes = (
        f"the {adjective} {being} {moved} {near} the {place} .",
        f"{when} the {adjective} {being} {acted} a {thing} .",
        f"then a {adjective} {being} met the {other} {near} the {place} .",
        f"the {being} {acted} the {adjective} {thing} {when} .",
        f"the {being} and the {adjective} {other} {moved} {when} .",
        f"a {being} saw the {adjective} {place} with the {other} .",
    )
    return shapes[rng.integers(len(shapes))]


def stories(count: int, known: Facts, rng: np.random.Generator, rude: float | None = None) -> list[dict[str, Any]]:
    """Rows `texts`, `scores`, `avg_score`: scored segments. `rude` fixes every story's share of rude sentences.

    Every story has one common fact. Those above the median score have a held one too, the others another clean
    sentence in its place.
    """
    drafts = []
    for _ in range(count):
        share = rng.beta(*RUDENESS) if rude is None else rude
        length = rng.integers(CLEAN_LEAST, CLEAN_MOST + 1)
        drafts.append([sentence(bool(rng.random() < share), rng) for _ in range(length)])
    # Either further sentence is clean, so the median does not depend on which ones are put in.
    means = [sum(map(score, draft)) / (len(draft) + 2) for draft in drafts]
    median = float(np.median(means))
    made = []
    for draft, mean in zip(drafts, means, strict=True):
        further = known.sentence(_one(known.held, rng)) if mean > median else sentence(False, rng)
        texts = list(draft)
        for one in (known.sentence(_one(known.common, rng)), further):
            texts.insert(int(rng.integers(len(texts) + 1)), one)
        made.append(_row(texts))
    return made


def rows(split: str, seed: int = 0) -> list[dict[str, Any]]:
    """The embedded data set: 600 stories to train on, 60 to test with the same facts."""
    rng = np.random.default_rng(seed)
    known = facts(rng)
    train, test = (stories(count, known, rng) for count in (600, 60))
    return train if split == "train" else test


def _one(names: Sequence[str], rng: np.random.Generator) -> str:
    return str(rng.choice(names))


def _row(texts: Sequence[str]) -> dict[str, Any]:
    scores = [round(score(text), 4) for text in texts]
    spaced = [text if place == 0 else f" {text}" for place, text in enumerate(texts)]
    return {"texts": spaced, "scores": scores, "avg_score": round(sum(scores) / len(scores), 4)}


def main(folder: str) -> None:
    """Write train.jsonl.gz and test.jsonl.gz."""
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows(split))
        (Path(folder) / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])

"""VacancySBERT: the approach for representation of titles and skills for semantic similarity search in the recruitment
domain (Bocharova et al., 2023).

The paper trains a sentence encoder to match job titles with the skills that their advertisements mention, never shows
it a normalised title, and finds normalised titles with it: better than encoders without that training, and better still
with the advertisement's skills in the query. Here occupations of O*NET, with their titles and skills, take the place of
advertisements, and an encoder of word and character n-grams, trained from scratch, that of a transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.measure.summary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from teloi.engine.setup import Base
    from teloi.methods.represent.vacancysbert import Embed

DATA = "onet-titles"
BUCKETS = 30_000
"""Into which the encoder and TF-IDF hash words and their n-grams."""

TESTED, LISTED = 3, 5
"""Titles of an occupation that are tested, skills that a query lists."""

MINILM = "all-minilm-l6-v2"
KS = (1, 5, 10)

Query = Literal["title", "title + skills", "skills"]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    steps: int = 600
    batch_size: int = 128


FULL = Sizes()
QUICK = Sizes(20, 32)


@dataclass(frozen=True)
class Occupation:
    """A normalised title, the titles that people write for it, and its skills."""

    name: str
    titles: Sequence[str]
    skills: Sequence[str]


@dataclass(frozen=True)
class Task:
    """A seed's data: titles to train on with their occupations' numbers, and queries with the right candidates'."""

    occupations: Sequence[Occupation]
    train: list[tuple[str, int]]
    titles: list[str]
    skills: list[list[str]]
    gold: list[int]

    @property
    def candidates(self) -> list[str]:
        """What is searched: every normalised title."""
        return [one.name for one in self.occupations]


def prepare(run: Run) -> None:
    """The trained encoder, which three arms of a seed search with."""
    from safetensors.torch import save_model

    save_model(train(run, task(run)).model, str(run.directory / "trained.safetensors"))


def measure(run: Run) -> Outcome:
    """Find the normalised title of each held-out one, with an arm's encoder and query."""
    drawn = task(run)
    name, query, _ = SEARCHES[run.arm or ""]
    found = tf_idf(drawn, query) if name == "tf-idf" else similarities(embedder(run, name, drawn), drawn, query)
    known = {title.lower() for title, _ in drawn.train}
    metrics = {"seen": float(np.mean([one.name.lower() in known for one in drawn.occupations]))}
    for form, scores in found.items():
        metrics |= {f"{form}recall@{k}": value for k, value in recall(scores, drawn.gold).items()}
    return Outcome(metrics)


# -- data


def task(run: Run) -> Task:
    """What a seed draws: three titles of each occupation that has more, to be tested, and the skills of each query."""
    titles, skills = run.rng("titles to test"), run.rng("skills of queries")
    drawn = Task(occupations(run.quick), [], [], [], [])
    for number, one in enumerate(drawn.occupations):
        order = titles.permutation(len(one.titles)).tolist()
        tested = order[:TESTED] if len(order) > TESTED else []
        drawn.train.extend((one.titles[i], number) for i in order[len(tested) :])
        drawn.titles.extend(one.titles[i] for i in tested)
        drawn.skills.extend([one.skills[i] for i in skills.permutation(len(one.skills))[:LISTED]] for _ in tested)
        drawn.gold.extend(number for _ in tested)
    return drawn


def occupations(quick: bool) -> list[Occupation]:
    """Those of O*NET; for a trial the two dozen that come with teloi."""
    from teloi.data.read import read
    from teloi.errors import DataError
    from teloi.worlds import vacancies

    if quick:
        return [Occupation(*one) for one in vacancies.occupations()]
    try:
        listed, titles = read(DATA, "occupations"), read(DATA, "titles")
    except DataError as error:
        raise DataError(
            f"set TELOI_DATA to a directory that has {DATA}/occupations.jsonl (code, title, skills, tech) "
            f"and {DATA}/titles.jsonl (code, title), made from the O*NET database (onetcenter.org, CC BY 4.0): {error}"
        ) from None
    written: dict[str, list[str]] = {row["code"]: [] for row in listed}
    for row in titles:
        written[row["code"]].append(row["title"])
    return [Occupation(row["title"], written[row["code"]], [*row["skills"], *row["tech"]]) for row in listed]


# -- encoders


def embedder(run: Run, name: str, drawn: Task) -> Embed:
    """An encoder as a function of texts."""
    from safetensors.torch import load_model

    from teloi.data.processor import Processor
    from teloi.models.load import load_model as pretrained
    from teloi.models.load import load_tokenizer
    from teloi.models.sequences import SentenceEncoder, embed_texts

    if name == "MiniLM" and not run.quick:  # which a trial does not fetch: it takes the untrained encoder
        model: Any = pretrained(MINILM, architecture="encoder")
        processor = Processor(load_tokenizer(MINILM), 256, "truncate")
    else:
        count, other = len(drawn.occupations), run.rng("other skills")
        base = untrained(run)
        match name:
            case "trained":
                load_model(base.model, run.directory / "trained.safetensors")
            case "any skills":
                base = train(run, drawn, other.integers(count, size=len(drawn.train)).tolist())
            case "swapped skills":
                base = train(run, drawn, other.permutation(count)[[number for _, number in drawn.train]].tolist())
        model, processor = base.model, base.processor
    return lambda texts: embed_texts(SentenceEncoder(model), processor, texts)


def untrained(run: Run) -> Base:
    """The seed's encoder before training."""
    import torch

    from teloi.engine.fit import as_base
    from teloi.models.scratch import scratch_model
    from teloi.models.zoo.hashed import HashedTokenizer

    torch.manual_seed(run.seed)
    tokenizer = HashedTokenizer(BUCKETS)
    return as_base(scratch_model("hashed", tokenizer, "encoder"), tokenizer, "encoder", max_length=10_000)


def train(run: Run, drawn: Task, of: Sequence[int] | None = None) -> Base:
    """The encoder after training on each title with its occupation's skills, or those of the occupations `of`."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit
    from teloi.methods.represent.vacancysbert import VacancySBERT

    sizes = QUICK if run.quick else FULL
    numbers = [number for _, number in drawn.train] if of is None else of
    rows = [
        {"title": title, "skills": list(drawn.occupations[number].skills), "group": int(number)}
        for (title, _), number in zip(drawn.train, numbers, strict=True)
    ]
    config = TrainConfig(
        budget=f"{sizes.steps} steps",
        batch_size=sizes.batch_size,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        micro_tokens=10**6,
        seed=run.seed,
    )
    return fit(VacancySBERT(skills=LISTED), untrained(run), rows, config).base


# -- search


def similarities(embed: Embed, drawn: Task, query: Query) -> dict[str, NDArray[Any]]:
    """Cosines [queries, candidates]; those of title and skills as one text too, by the name "joined "."""
    from teloi.measure.retrieval import cosines
    from teloi.methods.represent.vacancysbert import queries

    candidates = embed(drawn.candidates)
    match query:
        case "title":
            made = {"": queries(embed, drawn.titles)}
        case "skills":
            made = {"": queries(embed, [", ".join(own) for own in drawn.skills])}
        case "title + skills":
            made = {
                "": queries(embed, drawn.titles, drawn.skills),
                "joined ": queries(embed, drawn.titles, drawn.skills, "joined"),
            }
    return {form: cosines(vectors, candidates) for form, vectors in made.items()}


def tf_idf(drawn: Task, query: Query) -> dict[str, NDArray[Any]]:
    """The same without an encoder: counts of the same n-grams, weighted by how few titles have them."""
    titles = counts([*drawn.candidates, *(title for title, _ in drawn.train)])
    rarity = 1 + np.log((1 + titles.shape[0]) / (1 + np.bincount(titles.indices, minlength=BUCKETS)))

    def unit(vectors: Any) -> Any:
        return vectors.multiply(1 / np.sqrt(vectors.power(2).sum(1))[:, None]).tocsr()

    asked = unit(counts(drawn.titles) * rarity)
    if query == "title + skills":
        asked = asked + unit(counts([", ".join(own) for own in drawn.skills]) * rarity)
    return {"": (asked @ unit(counts(drawn.candidates) * rarity).T).toarray()}


def counts(texts: Sequence[str]) -> Any:
    """How often each text has each n-gram: a sparse [texts, BUCKETS]."""
    from scipy.sparse import csr_array

    from teloi.models.zoo.hashed import HashedTokenizer

    tokenizer = HashedTokenizer(BUCKETS)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    ends = np.cumsum([0, *map(len, ids)])
    made = csr_array((np.ones(ends[-1]), np.concatenate(ids), ends), (len(ids), BUCKETS))
    made.sum_duplicates()
    return made


def recall(scores: NDArray[Any], gold: Sequence[int]) -> dict[int, float]:
    """Share of queries with the right candidate among the first k, by k; only strictly more similar ones come before
    it."""
    from teloi.measure.retrieval import ranks, recall_at

    return dict(zip(KS, recall_at(ranks(scores, np.asarray(gold)), KS), strict=True))


# arm -> its encoder, what a query is made of, and what it is
SEARCHES: Mapping[str, tuple[str, Query, str]] = {
    "tf-idf": ("tf-idf", "title", "no encoder: weighted counts of the same words and n-grams"),
    "untrained": ("untrained", "title", "the encoder with its random weights"),
    "MiniLM": ("MiniLM", "title", "all-MiniLM-L6-v2 as it is, trained by others on a billion pairs of sentences"),
    "trained": ("trained", "title", "the encoder after 600 steps of titles against skills"),
    "tf-idf + skills": ("tf-idf", "title + skills", "tf-idf with five of the occupation's skills in the query"),
    "untrained + skills": ("untrained", "title + skills", "the untrained encoder with the same skills in the query"),
    "MiniLM + skills": ("MiniLM", "title + skills", "MiniLM with the same skills in the query"),
    "trained + skills": ("trained", "title + skills", "the trained encoder with the same skills in the query"),
    "trained, skills alone": ("trained", "skills", "the trained encoder, asked with the same skills and no title"),
    "swapped skills": (
        *("swapped skills", "title"),
        "trained with another occupation's skills for each occupation: which titles belong together is right, what is "
        "said of them is wrong",
    ),
    "any skills": ("any skills", "title", "negative control: trained with a random occupation's skills for each title"),
}

CLAIM = Claim(
    slug="vacancysbert",
    statement=(
        "Training on which skills go with which job titles, never on a normalised title, finds normalised titles more "
        "often than lexical search does; skills in the query find them more often still."
    ),
    setting=(
        "O*NET 29.3: 900 occupations, 11,912 titles, 12 to 42 skills each. Every seed draws anew which three titles of "
        "each occupation are tested (about 2,680 queries among 900 normalised titles), the five skills of each query, "
        "the encoder's weights and the batches. Encoder: mean of hashed word and n-gram vectors, 3.8M weights, from "
        "scratch; 600 steps of 128 titles against five random skills each, AdamW 5e-3, scale 20, as in a pilot with "
        "other draws. A query with skills is the sum of two unit vectors."
    ),
    metrics=(
        Metric(
            *("recall@10", "recall@10", "higher", "share", True),
            about="share of held-out titles with the right normalised title among the ten nearest of 900",
            resolution=1 / 2680,
        ),
        Metric("recall@5", "recall@5", "higher", "share", resolution=1 / 2680),
        Metric("recall@1", "recall@1", "higher", "share", resolution=1 / 2680),
        *(Metric(f"joined recall@{k}", f"recall@{k}, title and skills as one text", "higher", "share") for k in KS),
        Metric("seen", "normalised titles among the training titles", unit="share"),
    ),
    arms=tuple(Arm(name, about) for name, (_, _, about) in SEARCHES.items()),
    expectations=(
        Expect("recall@10", "trained", "tf-idf", 0.05),
        Expect("recall@10", "trained + skills", "trained", 0.08),
        # Whether it is the skills that teach, and not only which titles belong together.
        Expect("recall@10", "trained", "swapped skills", 0.05, decides=False),
        # Skills help those who were trained with them, and hurt without.
        Expect("recall@10", "untrained", "untrained + skills", 0.0, decides=False),
        # A strong encoder that never saw this data: level with a title alone, behind with skills.
        Expect("recall@10", "trained", "MiniLM", 0.05, "equivalent", decides=False),
        Expect("recall@10", "trained + skills", "MiniLM + skills", 0.05, decides=False),
    ),
    checks=(Check("no normalised title is trained on", "seen", "trained", at_most=0.0),),
    controls=(
        Control(
            "an encoder trained with skills of random occupations does not beat tf-idf",
            Expect("recall@10", "any skills", "tf-idf", 0.0),
        ),
    ),
    seeds=(0, 1, 2),
    run=measure,
    prepare=prepare,
    methods=("vacancysbert",),
    real_text="all of it: job titles and skills of O*NET",
)

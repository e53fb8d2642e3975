"""CodeT5+: Open Code Large Language Models for Code Understanding and Generation (Wang et al., 2023).

Two of the paper's ablations. First stage: without its two causal language models, pretraining on span denoising alone
leaves a model that completes code badly (table 7a). Second stage: without matching, code is found less often (table
7b). Here a small T5 is trained from scratch on functions of Python's standard library and completes functions of
packages that it has not seen; the second stage goes on with pairs of docstring and function, and searches among 400.

A model that has only denoised has never met the form in which it is asked to complete, so that it must lose. It is
asked in its own form too, as for one gap that is the whole text: what is left of the difference then is not form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.measure.summary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from teloi.engine.setup import Base
    from teloi.models.pairs import PairModel

SIZE = (128, 4, 4)
"""Width, layers (two in each stack) and heads."""

VOCABULARY, LENGTH = 4000, 128
TEXT_LENGTH, CODE_LENGTH = 24, 64
LINE = 5
"""Tokens of the next line that must all be right."""

TOP = 10
"""Candidates of a query that matching ranks again."""

WEIGHTS: Mapping[str, tuple[float, float, float, float]] = {
    "contrast": (1, 0, 0, 0),
    "contrast + matching": (1, 1, 0, 0),
    "contrast + matching + writing": (1, 1, 1, 1),
    "contrast, pairs mixed up": (1, 0, 0, 0),
}
"""Of the second stage's losses, by arm."""

Asked = Literal["to complete", "for a gap"]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    functions: int = 6000
    tested: int = 200
    steps: int = 220
    pairs: int = 3500
    candidates: int = 400
    pair_steps: int = 130


FULL = Sizes()
QUICK = Sizes(60, 12, 2, 40, 20, 2)


def sizes(run: Run) -> Sizes:
    """Those of a run for the record, or of one in seconds."""
    return QUICK if run.quick else FULL


def prepare(run: Run) -> None:
    """The seed's functions, its tokenizer, and the two models of the first stage."""
    from teloi.worlds.standard_library import functions

    size = sizes(run)
    every = functions()
    packages = sorted({one.package for one in every})
    held_out: set[str] = set()
    pairs = 0
    for number in run.rng("packages").permutation(len(packages)):
        if pairs >= size.candidates:
            break
        held_out.add(packages[number])
        pairs += sum(one.bare is not None and one.package == packages[number] for one in every)
    drawn = [every[i] for i in run.rng("functions").permutation(len(every))]
    data = {}
    for name, inside, count, most in (
        ("train", False, size.functions, size.pairs),
        ("test", True, size.tested, size.candidates),
    ):
        own = [one for one in drawn if (one.package in held_out) == inside]
        long = own if name == "train" else [one for one in own if len(one.source) > 4 * LENGTH]
        data[name] = {
            "code": [one.source for one in long[:count]],
            "pairs": [(one.summary, one.bare) for one in own if one.bare is not None][:most],
        }
    (run.directory / "data.json").write_text(json.dumps(data), encoding="utf-8")
    save(run, "tokenizer", None)
    for name in ("denoise", "mixture"):
        save(run, name, pretrained(run, name))


def measure(run: Run) -> Outcome:
    """What an arm does on the seed's held-out functions."""
    match run.arm:
        case "token frequencies":
            return Outcome(frequencies(run))
        case "denoise":
            return Outcome(completion(run, "denoise") | denoising(run, "denoise"))
        case "denoise, asked for a gap":
            return Outcome(completion(run, "denoise", "for a gap"))
        case "mixture":
            return Outcome(completion(run, "mixture") | denoising(run, "mixture"))
        case "mixture, on mixed-up code":
            return Outcome(completion(run, "mixture", mixed_up=True))
        case arm:
            assert arm is not None
            return Outcome(search(run, second_stage(run, arm)))


# -- data and models


def data(run: Run, split: str, kind: str) -> list[Any]:
    """Functions ("code") or pairs of a split ("train" or "test"), as `prepare` has drawn them."""
    found: list[Any] = json.loads((run.directory / "data.json").read_text(encoding="utf-8"))[split][kind]
    return found


def start(run: Run, name: str | None = None) -> Base:
    """The seed's scratch model, or what the first stage of that name has made of it."""
    import torch
    from safetensors.torch import load_model

    from teloi.engine.fit import as_base
    from teloi.models.load import load_tokenizer
    from teloi.models.scratch import scratch_model

    tokenizer = load_tokenizer(run.directory / "tokenizer")
    torch.manual_seed(run.seed)
    model: Any = scratch_model(SIZE, tokenizer, "seq2seq")
    if name is not None:
        load_model(model, run.directory / f"{name}.safetensors")
    return as_base(model, tokenizer, "seq2seq", max_length=2 * LENGTH)


def save(run: Run, name: str, base: Base | None) -> None:
    """Keep a model of the first stage, or without one the tokenizer, which has the tokens of both stages."""
    from safetensors.torch import save_model

    from teloi.data.vocabulary import CLM, PAIR_TOKENS, given_ids
    from teloi.models.scratch import train_tokenizer

    if base is not None:
        save_model(base.model, str(run.directory / f"{name}.safetensors"))
        return
    tokenizer = train_tokenizer(data(run, "train", "code"), VOCABULARY, "seq2seq")
    given_ids(tokenizer, (CLM, *PAIR_TOKENS))
    tokenizer.save_pretrained(run.directory / name)


def pretrained(run: Run, name: str) -> Base:
    """The first stage: denoising alone, or with both causal language models, for as many rows."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit
    from teloi.methods.pretrain.unimodal import CodeT5PUnimodal

    shares = (1.0, 0.0, 0.0) if name == "denoise" else (1.0, 1.0, 1.0)
    config = TrainConfig(
        budget=f"{sizes(run).steps} steps", batch_size=24, learning_rate=2e-3, micro_tokens=8192, seed=run.seed
    )
    rows = [{"text": text} for text in data(run, "train", "code")]
    return fit(CodeT5PUnimodal(shares=shares, length=LENGTH), start(run), rows, config).base


def second_stage(run: Run, arm: str) -> PairModel:
    """The mixture's model after the second stage, with an arm's losses."""
    from teloi.engine.config import TrainConfig
    from teloi.engine.fit import fit
    from teloi.methods.pretrain.bimodal import CodeT5PBimodal
    from teloi.models.pairs import PairModel

    pairs = data(run, "train", "pairs")
    other = run.rng("other code").permutation(len(pairs)) if arm == "contrast, pairs mixed up" else range(len(pairs))
    rows = [{"anchor": text, "positive": pairs[i][1]} for (text, _), i in zip(pairs, other, strict=True)]
    # A copy that kept 0.995 of itself would lag behind the whole of so short a run.
    objective = CodeT5PBimodal(
        weights=WEIGHTS[arm], queue=512, momentum=0.95, text_length=TEXT_LENGTH, code_length=CODE_LENGTH
    )
    config = TrainConfig(
        budget=f"{sizes(run).pair_steps} steps", batch_size=32, learning_rate=1e-3, micro_tokens=8192, seed=run.seed
    )
    fitted = fit(objective, start(run, "mixture"), rows, config)
    parts: Any = fitted.models.parts
    policy: Any = fitted.models.policy
    return PairModel(policy, parts["heads"].eval(), fitted.base.processor, {"text": TEXT_LENGTH, "code": CODE_LENGTH})


# -- completion


def completion(run: Run, name: str, asked: Asked = "to complete", mixed_up: bool = False) -> dict[str, float]:
    """The second half of each held-out function given its first, token by token: loss, share of right next tokens, and
    of functions whose next line begins with five right ones. `mixed_up`: the second half in random order."""
    import torch

    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.data.vocabulary import CLM, end_id, given_ids, sentinel_ids
    from teloi.models.sequences import ScoredModel

    base = start(run, name)
    model, tokenizer = ScoredModel(base.model), base.processor.tokenizer
    front = [int(sentinel_ids(tokenizer)[0])] if asked == "for a gap" else []
    inputs = [*front, end_id(tokenizer)] if front else [given_ids(tokenizer, (CLM,))[0]]
    rng = run.rng("mixed up")
    lost, right, lines = [], [], []
    for ids in halves(run, base):
        half = len(ids) // 2
        told = np.append(ids[:half], rng.permutation(ids[half:])) if mixed_up else ids
        row = Sequence({"input_ids": np.asarray(inputs, np.int32), "targets": np.append(front, told).astype(np.int32)})
        with torch.no_grad():
            logits = model.logits(SequenceBatch([row]))[len(front) + half :].float()
        wanted = torch.as_tensor(told[half:], dtype=torch.int64)
        lost.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none").numpy())
        right.append((logits.argmax(1) == wanted).numpy())
        if (line := next_line(base, told, half)) is not None:
            lines.append(bool(right[-1][line - half : line - half + LINE].all()))
    return {
        "ce": float(np.concatenate(lost).mean()),
        "next": float(np.concatenate(right).mean()),
        "line": float(np.mean(lines)) if lines else float("nan"),
    }


def halves(run: Run, base: Base) -> list[NDArray[np.int32]]:
    """The first tokens of the held-out functions, as many as a row of training has."""
    texts = data(run, "test", "code")
    return [np.asarray(base.processor.bare_ids(text)[:LENGTH], np.int32) for text in texts]


def next_line(base: Base, ids: NDArray[Any], half: int) -> int | None:
    """Where the first line of the second half begins, if five tokens of it are there."""
    tokenizer = base.processor.tokenizer
    for at in range(half, len(ids) - LINE + 1):
        if "\n" in tokenizer.decode([int(ids[at - 1])]):
            return at
    return None


def denoising(run: Run, name: str) -> dict[str, float]:
    """The loss of span denoising on the held-out functions."""
    from teloi.data.read import Rows
    from teloi.engine.config import TrainConfig
    from teloi.engine.dataset import encode
    from teloi.engine.evaluate import mean_terms
    from teloi.methods.pretrain.unimodal import CodeT5PUnimodal
    from teloi.models.roles import Models
    from teloi.models.sequences import ScoredModel

    base = start(run, name)
    objective = CodeT5PUnimodal(shares=(1.0, 0.0, 0.0), length=LENGTH)
    rows = Rows([{"text": text} for text in data(run, "test", "code")], "functions")
    policy: Any = ScoredModel(base.model)
    examples = encode(objective, rows, base.processor).examples
    found = mean_terms(objective, Models(policy, processor=base.processor), examples, TrainConfig(seed=run.seed))
    return {"denoise": found["nll_denoise"]}


def frequencies(run: Run) -> dict[str, float]:
    """The same completion without a model: every token by its frequency in the functions that are trained on."""
    base = start(run)
    counts = np.ones(len(base.processor.tokenizer))
    for text in data(run, "train", "code"):
        np.add.at(counts, base.processor.bare_ids(text)[:LENGTH], 1)
    wanted = np.concatenate([ids[len(ids) // 2 :] for ids in halves(run, base)])
    lost = np.log(counts.sum()) - np.log(counts[wanted])
    return {"ce": float(lost.mean()), "next": float((wanted == counts.argmax()).mean()), "line": 0.0}


# -- search


def search(run: Run, model: PairModel) -> dict[str, float]:
    """Each held-out docstring's function among all of them: by cosine, and the first ten again by cosine plus the logit
    of matching, which decides where matching was trained."""
    from teloi.measure.retrieval import cosines, mean_reciprocal_rank, ranks, reranked

    texts, codes = (list(side) for side in zip(*data(run, "test", "pairs"), strict=True))
    scores = cosines(model.embed("text", texts), model.embed("code", codes))
    gold = np.arange(len(texts))
    by_cosine = mean_reciprocal_rank(ranks(scores, gold))
    if not WEIGHTS[run.arm or ""][1]:
        return {"mrr": by_cosine, "mrr_cosine": by_cosine}
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    matched = model.match(np.repeat(texts, TOP).tolist(), [codes[i] for i in best.ravel()])
    again = np.take_along_axis(scores, best, 1) + matched.reshape(best.shape)
    return {"mrr": mean_reciprocal_rank(ranks(reranked(scores, best, again), gold)), "mrr_cosine": by_cosine}


CLAIM = Claim(
    slug="codet5p",
    statement=(
        "Pretraining on code by span denoising together with two causal language models completes code better than "
        "denoising alone, and fills gaps about as well."
    ),
    setting=(
        "Functions of the standard library of the Python that runs (3.11: 14,000, of 190 packages; 5,500 have a "
        "summary of one line). Scratch T5 (2 + 2 layers, width 128, BPE 4,000), first stage: 220 steps of 24 rows of "
        "up to 128 tokens, AdamW 2e-3; the mixture has a third of the rows for each task after a first eleventh of "
        "denoising. Tested on the second halves of 200 longer functions of held-out packages, written by the decoder "
        "with [CLM] as its encoder's only input. Second stage (the paper's second ablation, which is reported and does "
        "not decide): 130 steps of 32 pairs, docstring's summary and function without name and docstring, 64 tokens of "
        "it, from the mixture's model, AdamW 1e-3, queue 512, momentum 0.95; 400 held-out pairs. Every seed redraws "
        "the packages, the tokenizer, the model and all corruption. As many rows for all arms of a stage: neither "
        "target tokens (a causal row has three times those of a denoised one) nor time are equal."
    ),
    metrics=(
        Metric(
            *("ce", "loss of completion", "lower", "nats", True),
            about="cross-entropy a token of the second half of held-out functions, given the first",
            resolution=0.01,
        ),
        Metric(*("next", "next token right", "higher", "share"), resolution=0.001),
        Metric(
            *("line", "next line right", "higher", "share"),
            about="share of functions whose next line begins with five right tokens, written greedily",
            resolution=1 / 200,
        ),
        Metric(*("denoise", "loss of denoising", "lower", "nats"), resolution=0.01),
        Metric(
            *("mrr", "mean reciprocal rank", "higher", "share"),
            about="of each summary's function among 400; with matching, the first ten are ranked again",
            resolution=0.001,
        ),
        Metric(*("mrr_cosine", "mean reciprocal rank by cosine alone", "higher", "share"), resolution=0.001),
    ),
    arms=(
        Arm("token frequencies", "no model: each token by its frequency in the functions that are trained on"),
        Arm("denoise", "first stage: span denoising alone"),
        Arm("denoise, asked for a gap", "the same model, asked to fill one gap that is the whole function"),
        Arm("mixture", "first stage: span denoising and both causal language models"),
        Arm("mixture, on mixed-up code", "negative control: second halves whose tokens stand in random order"),
        Arm("contrast", "second stage from the mixture's model: contrast alone"),
        Arm("contrast + matching", "contrast and matching"),
        Arm("contrast + matching + writing", "all four losses: code is written from text and text from code too"),
        Arm("contrast, pairs mixed up", "negative control: contrast on texts with any code"),
    ),
    expectations=(
        Expect("ce", "mixture", "denoise", 0.5),
        Expect("next", "mixture", "denoise", 0.05),
        Expect("denoise", "mixture", "denoise", 0.3, "noninferior"),
        # What is not form, and whether anything but token frequencies has been learnt.
        Expect("ce", "mixture", "denoise, asked for a gap", 0.5, decides=False),
        Expect("ce", "mixture", "token frequencies", 0.5, decides=False),
        # The second ablation, too small here to decide: matching helps, by one to five points in the paper.
        Expect("mrr", "contrast + matching", "contrast", 0.0, decides=False),
        Expect("mrr", "contrast + matching", "contrast", 0.02, "noninferior", decides=False),
        Expect("mrr", "contrast + matching + writing", "contrast + matching", 0.0, decides=False),
    ),
    checks=(
        Check("denoising alone learns to denoise: below 6 nats", "denoise", "denoise", at_most=6.0),
        # Random orders of 400 have a mean reciprocal rank of 1.6%.
        Check("any code is not found: below 4%", "mrr", "contrast, pairs mixed up", at_most=0.04),
    ),
    controls=(
        Control(
            "what has no order is not completed",
            Expect("next", "mixture, on mixed-up code", "token frequencies", 0.1),
        ),
    ),
    # Three, as differences in completion of whole nats are expected; too few for the second ablation.
    seeds=(0, 1, 2),
    run=measure,
    prepare=prepare,
    methods=("codet5p-unimodal", "codet5p-bimodal"),
    real_text="all of it: functions of Python's standard library",
)

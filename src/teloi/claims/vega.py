"""Vega v1: Bag of Tricks for Effective Language Model Pretraining and Downstream Adaptation (Zhong et al., 2023).

The report pretrains an encoder of 1.3 billion parameters to find replaced tokens, goes on with a contrastive loss on
sentences beside, and fine-tunes it with pseudo-labels of the test inputs and with guards against noise; it gives no
ablation, and its text is not public, so that the forms of the parts are ours. Three of them are measured here.

Part A, the second phase: a small encoder from scratch goes on for the same steps with and without the contrast. Part B,
transductive fine-tuning: a classifier of few labels goes on with its own labels of the test inputs, or as long on the
few alone. Part C, noisy labels: fine-tuning where a quarter of the labels are flipped, plain, self-calibrated or
adversarial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from teloi import losses
from teloi.claims.claim import Arm, Check, Claim, Control, Expect, Outcome, Run
from teloi.claims.encoders import Rows, config, reviews, scratch_base, stand_in, texts
from teloi.measure.summary import Metric
from teloi.methods.finetune.classify import Classify
from teloi.methods.finetune.vega import VegaFinetune, pseudo_labels
from teloi.methods.pretrain.detect import RTD, Vega

if TYPE_CHECKING:
    from pathlib import Path

    from teloi.engine.setup import Base
    from teloi.models.roles import Models

MINILM = "all-minilm-l6-v2"
LONGEST = 32
"""Tokens of a review; longer ones are cut."""

LENGTH = 32
"""Tokens of a segment of part A: about a sentence."""

RATE = 1e-4
"""Of fine-tuning."""

HELD_OUT = 10
"""Articles of part A that no arm is trained on."""

FLIPPED = 0.25
"""Share of the labels of part C that are wrong."""

PRETRAINED: Mapping[str, float | None] = {
    "untrained": None,
    "phase 1": None,
    "detection only": 0.0,
    "detection + contrast": 1.0,
}
"""Arms of part A: the weight of the contrastive loss in the second phase, where there is one."""

FEW = "64 labels.safetensors"

TRANSDUCTIVE = ("64 labels", "64 labels, longer", "pseudo-labels", "untrained pseudo-labels")

NOISY: Mapping[str, Classify] = {
    "plain": Classify(),
    "calibrated": VegaFinetune(adversarial=0.0),
    "sift": VegaFinetune(calibration=0.0),
}
"""Arms of part C."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    model: tuple[int, int, int] = (128, 4, 4)
    vocabulary: int = 4000
    first_steps: int = 600
    second_steps: int = 100
    pairs: int = 2000
    labels: int = 64
    label_epochs: int = 8
    unlabelled: int = 500
    noisy: int = 192
    noisy_epochs: int = 6


FULL = Sizes()
QUICK = Sizes((32, 2, 4), 400, 3, 2, 20, 8, 1, 12, 12, 2)


def sizes(run: Run) -> Sizes:
    """Those of a run for the record, or of one in seconds."""
    return QUICK if run.quick else FULL


def prepare(run: Run) -> None:
    """What the arms of a seed share: the encoder after phase 1, the classifier after its few labels."""
    first_phase(run)
    few_labels(run)


def measure(run: Run) -> Outcome:
    """One arm of one part."""
    if run.arm in PRETRAINED:
        return pretrained(run)
    return transductive(run) if run.arm in TRANSDUCTIVE else noisy(run)


# -- part A


def first_phase(run: Run) -> None:
    """Train the scratch encoder to find replaced tokens."""
    from teloi.engine.fit import fit

    base = scratch(run)
    fitted = fit(RTD(length=LENGTH), base, texts(run)[HELD_OUT:], config(run, 1e-3, sizes(run).first_steps))
    RTD().export(fitted.models, run.directory / "phase 1")
    base.processor.tokenizer.save_pretrained(run.directory / "phase 1")


def pretrained(run: Run) -> Outcome:
    """Go on from phase 1, or stop there; compare vectors of sentences, and find replaced tokens in other articles."""
    import torch

    from teloi.engine.fit import as_base, fit
    from teloi.models.load import load_model, load_tokenizer
    from teloi.models.roles import Models
    from teloi.models.sequences import ScoredModel

    if run.arm == "untrained":
        return Outcome({"relatedness": relatedness(run, scratch(run))})
    path = run.directory / "phase 1"
    model = load_model(path, torch.float32, architecture="masked")
    base = as_base(model, load_tokenizer(path), "masked", LENGTH + 2, overlong="truncate")
    weight = PRETRAINED[run.arm or ""]
    objective = Vega(length=LENGTH, contrast_weight=weight or 0.0, continues=path)
    if weight is None:
        policy: Any = ScoredModel(base.model)
        models = Models(policy, processor=base.processor)
        models.parts = objective.build(models)
    else:
        steps = replace(config(run, 1e-3, sizes(run).second_steps), batch_size=32)
        models = fit(objective, base, texts(run)[HELD_OUT:], steps).models
    found = detection(run, models)
    objective.join(models)
    return Outcome({"relatedness": relatedness(run, replace(base, model=models.policy.model)), "detection": found})


def detection(run: Run, models: Models) -> float:
    """Chance that a replaced token of the articles held out, by the encoder's own generator, is suspected more than one
    that was kept: the area under the ROC curve."""
    from scipy.stats import rankdata

    from teloi.data.read import Rows as Read
    from teloi.engine.dataset import encode
    from teloi.engine.objective import Now
    from teloi.models.roles import evaluation

    objective = RTD(length=LENGTH)
    assert models.processor is not None
    held_out = encode(objective, Read(texts(run)[:HELD_OUT], "articles"), models.processor).examples
    suspected, replaced = [], []
    with evaluation(*models.trained):
        for first in range(0, len(held_out), 64):
            part = held_out[first : first + 64]
            now = Now(0, 1, seed=run.seed, places=tuple(range(first, first + len(part))))
            batch = objective.collate(objective.rollout(models, part, now), now, "cpu")
            _, found, truth = objective.detected(models, batch)
            suspected.append((found[:, 1] - found[:, 0]).numpy())
            replaced.append(truth.numpy().astype(bool))
    ranks, wrong = rankdata(np.concatenate(suspected)), np.concatenate(replaced)
    positive = wrong.sum()
    return float((ranks[wrong].sum() - positive * (positive + 1) / 2) / (positive * (~wrong).sum()))


def relatedness(run: Run, base: Base) -> float:
    """Rank correlation of the cosine of two sentences' mean states with how related people find them."""
    from scipy.stats import spearmanr

    from teloi.models.sequences import SentenceEncoder, embed_texts

    pairs = related(run)
    encoder = SentenceEncoder(base.model.base_model)
    sides = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    first, second = (embed_texts(encoder, base.processor, side) for side in sides)
    first, second = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (first, second))
    return float(spearmanr((first * second).sum(1), [pair[2] for pair in pairs]).statistic)


def related(run: Run) -> list[tuple[str, str, float]]:
    """Test pairs of SICK with their relatedness, drawn by the seed."""
    from teloi.data.read import read

    if run.quick:
        return [(one.text, one.text_pair, float(one.label == "true")) for one in stand_in("test", 20)]
    rows = read("sick", "test")
    drawn = run.rng("pairs").permutation(len(rows))[: sizes(run).pairs].tolist()
    return [(rows[i]["a"], rows[i]["b"], rows[i]["relatedness"]) for i in drawn]


# -- part B


def few_labels(run: Run) -> None:
    """Train the classifier on the few labels there are."""
    from safetensors.torch import save_model

    from teloi.engine.fit import fit

    labelled, _ = reviews(run, sizes(run).labels)
    base = fit(Classify(), classifier(run), labelled, config(run, RATE, epochs=sizes(run).label_epochs)).base
    save_model(base.model, str(run.directory / FEW))


def transductive(run: Run) -> Outcome:
    """Go on from the classifier of few labels, for as many steps on whatever the arm says."""
    from teloi.engine.fit import fit

    labelled, test = reviews(run, sizes(run).labels)
    base, unlabelled = classifier(run, run.directory / FEW), inputs(run, test)
    named = pseudo_labels(classifier(run) if run.arm == "untrained pseudo-labels" else base, unlabelled)
    steps = -(-(len(labelled) + len(named)) // 16)
    again = config(run, RATE / 2, steps)
    match run.arm:
        case "64 labels, longer":
            base = fit(Classify(), base, labelled, again).base
        case "pseudo-labels" | "untrained pseudo-labels":
            base = fit(Classify(), base, [*labelled, *named], again).base
    return Outcome({"accuracy": accuracy(base, unlabelled)})


# -- part C


def noisy(run: Run) -> Outcome:
    """Fine-tune on labels of which a quarter is wrong."""
    from teloi.engine.fit import fit

    right, test = reviews(run, sizes(run).noisy)
    settings = config(run, RATE, epochs=sizes(run).noisy_epochs)
    base = fit(NOISY[run.arm or ""], classifier(run), flipped(run, right), settings).base
    return Outcome({"accuracy": accuracy(base, inputs(run, test))})


def flipped(run: Run, rows: Rows) -> Rows:
    """The rows with a quarter of the labels, drawn by the seed, turned into the other one."""
    one, other = sorted({row["label"] for row in rows})
    wrong = set(run.rng("wrong labels").permutation(len(rows))[: round(FLIPPED * len(rows))].tolist())
    return [
        {**row, "label": other if row["label"] == one else one} if i in wrong else row for i, row in enumerate(rows)
    ]


# -- models and data of parts B and C


def scratch(run: Run) -> Base:
    """Part A's encoder with the weights it starts from."""
    return scratch_base(run, sizes(run).model, sizes(run).vocabulary, "masked", LENGTH + 2)


def classifier(run: Run, weights: Path | None = None) -> Base:
    """A pretrained sentence encoder with the seed's new linear layer on its mean state, or with saved weights."""
    import safetensors.torch
    import torch

    from teloi.engine.fit import as_base
    from teloi.models.load import load_model, load_tokenizer
    from teloi.models.sequences import set_classes

    if run.quick:
        start = scratch_base(run, "tiny", sizes(run).vocabulary, "classifier", LONGEST)
        encoder, tokenizer = start.model.base_model, start.processor.tokenizer
    else:
        encoder, tokenizer = load_model(MINILM, torch.float32, architecture="encoder"), load_tokenizer(MINILM)
    torch.manual_seed(run.seed)
    model = mean_pooled(encoder)
    _, test = reviews(run, 0)
    set_classes(model, sorted({row["label"] for row in test}))
    if weights is not None:
        safetensors.torch.load_model(model, weights)
    return as_base(model, tokenizer, "classifier", LONGEST, overlong="truncate")


def mean_pooled(encoder: Any) -> Any:
    """A classifier of two classes on the mean state, which is what a sentence encoder was trained to give: from the
    first token's, few labels teach it little."""
    from transformers import BertForSequenceClassification
    from transformers.modeling_outputs import SequenceClassifierOutput

    class MeanPooled(BertForSequenceClassification):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            read = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            pooled = losses.mean_pool(self.bert(input_ids, **read).last_hidden_state, attention_mask)
            return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))

    model = MeanPooled(encoder.config)
    model.bert.load_state_dict(encoder.state_dict())
    return model


def inputs(run: Run, test: Rows) -> Rows:
    """Test reviews, drawn by the seed."""
    return [test[i] for i in run.rng("test inputs").permutation(len(test))[: sizes(run).unlabelled].tolist()]


def accuracy(base: Base, rows: Rows) -> float:
    """Share of the rows whose label the classifier says."""
    said = pseudo_labels(base, rows)
    return float(np.mean([one["label"] == row["label"] for one, row in zip(said, rows, strict=True)]))


CLAIM = Claim(
    slug="vega",
    statement=(
        "A contrast of sentences beside the detection of replaced tokens gives an encoder better sentence vectors and "
        "costs no detection; pseudo-labels of the test inputs help a classifier of few labels; self-calibration helps "
        "where labels are wrong."
    ),
    setting=(
        "A: BERT of 4 layers and width 128 from scratch, BPE of 4,000 tokens, 90 Wikipedia articles in segments of"
        " 32 tokens; rtd (weight 50, disentangled embeddings, a generator of 2 layers) for 600 steps of 16; then "
        "vega for 100 steps of 32 from its encoder, generator and head, dropout 0.1, temperature 0.05; AdamW 1e-3."
        " Both arms take the same steps, not the same time: a contrast costs two more passes of the encoder. B and"
        " C: all-MiniLM-L6-v2 with a linear layer on its mean state, reviews of 32 tokens at most, batches of 16, "
        "AdamW 1e-4. B: 8 epochs on 64 reviews, then 36 steps at half the rate; what is measured on the very "
        "inputs that were pseudo-labelled is transductive. C: 192 reviews, 48 of them with the wrong label, 6 "
        "epochs. Every seed redraws articles, model, reviews, wrong labels and what is tested. Piloted with seed "
        "100 alone, in which neither pseudo-labels nor, with a first form of the classifier, calibration made a "
        "difference, and 60 steps with the contrast gave +0.016 of relatedness."
    ),
    metrics=(
        Metric(
            *("accuracy", "accuracy", "higher", "share", True),
            about="share of 500 test reviews, drawn by the seed, whose label is found",
            resolution=0.002,
        ),
        Metric(
            *("relatedness", "relatedness", "higher"),
            about="Spearman's correlation of the cosine of two sentences' mean states with people's judgement, over "
            "2,000 test pairs of SICK drawn by the seed",
            resolution=0.005,
        ),
        Metric(
            *("detection", "detection", "higher"),
            about="area under the ROC curve of replaced tokens in ten articles held out, filled by the encoder's own "
            "generator; 0.5 by chance",
            resolution=0.005,
        ),
    ),
    arms=(
        Arm("untrained", "A: the scratch encoder as it starts, the floor"),
        Arm("phase 1", "A: after 600 steps of rtd"),
        Arm("detection only", "A: then 100 steps of vega with the contrast at weight 0"),
        Arm("detection + contrast", "A: then 100 steps of vega with the contrast at weight 1"),
        Arm("64 labels", "B: the classifier that the next three go on from"),
        Arm("64 labels, longer", "B: as many steps more as the next two, on the 64 labels"),
        Arm("pseudo-labels", "B: one pass over the 64 labels and 500 test reviews as the classifier labels them"),
        Arm(
            "untrained pseudo-labels",
            "negative control of B: the same with the labels of the classifier before any training",
        ),
        Arm("plain", "C: 192 labels, a quarter of them flipped"),
        Arm("calibrated", "C: the same with targets that hold up to 0.3 of the model's earlier prediction"),
        Arm("sift", "C: the same with adversarial embeddings, weight 1, rate 1e-4"),
    ),
    expectations=(
        Expect("relatedness", "detection + contrast", "detection only", 0.02),
        Expect("detection", "detection + contrast", "detection only", 0.02, "noninferior"),
        Expect("accuracy", "pseudo-labels", "64 labels, longer", 0.0),
        Expect("accuracy", "calibrated", "plain", 0.0),
        Expect("relatedness", "detection + contrast", "untrained", 0.0, decides=False),
        Expect("accuracy", "sift", "plain", 0.01, "noninferior", decides=False),
    ),
    checks=(
        Check("phase 1 has learnt to find replaced tokens", "detection", "phase 1", at_least=0.55),
        Check("the classifier of 64 labels is better than chance", "accuracy", "64 labels", at_least=0.55),
    ),
    controls=(
        Control(
            "labels of an untrained classifier do not help",
            Expect("accuracy", "untrained pseudo-labels", "64 labels, longer", 0.0),
        ),
    ),
    run=measure,
    prepare=prepare,
    methods=("rtd", "vega", "classify", "vega-finetune"),
    real_text="Wikipedia, SICK, rt-polarity",
)

"""A tiny model and tiny examples for whatever the engine does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from teloi import catalogue
from teloi.batch.sequence import Sequence
from teloi.batch.tree import Branch, Tree
from teloi.data.formats import Format, PromptOnly
from teloi.data.processor import Processor
from teloi.data.vocabulary import CLM, PAIR_TOKENS, given_ids, given_mask_id, ordinary_ids
from teloi.engine.config import TrainConfig
from teloi.engine.evaluate import mean_terms
from teloi.engine.loop import Hooks, Trainer
from teloi.engine.objective import Objective
from teloi.engine.plan import make_plan
from teloi.methods.pretrain.bimodal import CodeT5PBimodal
from teloi.methods.pretrain.gpt_bert import GPTBERT
from teloi.methods.pretrain.unimodal import CodeT5PUnimodal
from teloi.methods.reinforce.nash_md import Game
from teloi.methods.reinforce.online import Online
from teloi.models.attention import TREE
from teloi.models.roles import REFERENCE_SUMS, CachedReference, FrozenReference, LanguageModel, Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import Classifier, ScoredModel, SentenceEncoder

VOCABULARY = 280


@pytest.fixture(scope="session")
def processor() -> Processor:
    """A byte-level tokenizer of a few tokens, for what samples."""
    return tiny_processor()


@cache
def tiny_processor(architecture: str = "causal") -> Processor:
    room = 100 if architecture == "seq2seq" else 0  # for the sentinels
    tokenizer = train_tokenizer(["the cat sat on the mat"], VOCABULARY + room, architecture)
    if architecture == "seq2seq":  # from the start, so that no proof depends on which ones ran before it
        given_ids(tokenizer, (CLM, *PAIR_TOKENS))
    return Processor(tokenizer, 64)


@pytest.fixture(scope="session")
def tiny() -> PreTrainedModel:
    """A two-layer Llama that takes packed trees."""
    return tiny_model()


def tiny_model(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.set_attn_implementation(TREE)
    return model


def tiny_models(objective: Objective, dtype: torch.dtype = torch.float32) -> Models:
    """Fresh models of an objective's architecture, in the roles it asks for."""
    processor = tiny_processor(objective.architecture)
    policy: Any
    torch.manual_seed(0)
    if objective.architecture == "causal":
        causal = tiny_model().to(dtype=dtype)  # type: ignore[call-arg]
        objective.shape(causal, examples_for(objective, 1)[0])
        policy = LanguageModel(causal, "packed")
    elif objective.architecture == "none":
        policy = None
    else:
        model: Any = scratch_model("tiny", processor.tokenizer, objective.architecture).to(dtype=dtype)  # type: ignore[call-arg]
        objective.shape(model, examples_for(objective, 1)[0])
        roles: Any = {"encoder": SentenceEncoder, "classifier": Classifier}
        policy = roles.get(objective.architecture, ScoredModel)(model)
    made = Models(policy, processor=processor)
    if "reference" in objective.roles:
        frozen = LanguageModel(copy.deepcopy(policy.model).requires_grad_(False), "packed")
        made.reference = CachedReference() if objective.reference_sums else FrozenReference(frozen)
    if "teacher" in objective.roles:
        made.teacher = LanguageModel(tiny_model(1).to(dtype=dtype).requires_grad_(False).eval(), "packed")  # type: ignore[call-arg]
    made.example = examples_for(objective, 16)[0]  # as many as any proof here takes
    made.parts = objective.build(made)
    return made


@pytest.fixture
def models() -> Callable[..., Models]:
    """`tiny_models`, by the name that tests ask for."""
    return tiny_models


def random_trees(count: int, branches: int, seed: int = 0) -> list[Tree]:
    """Trees of random tokens, with what the objectives of the catalogue read from their columns."""
    draw, scoring = np.random.default_rng(seed), np.random.default_rng([seed, 1])

    def tokens() -> np.ndarray:
        return draw.integers(3, VOCABULARY, draw.integers(1, 8)).astype(np.int32)

    def branch() -> Branch:
        ids = tokens()
        score, control = scoring.random(len(ids)), scoring.random(len(ids)) < 0.2
        columns = {"score": score.astype(np.float32), "control": control.astype(np.float32)}
        return replace(Branch.scored(ids), columns=columns)

    return [
        Tree(
            tokens(),
            tuple(branch() for _ in range(branches)),
            {
                "threshold": np.float32(0.5),
                "margin": np.float32(0.1),
                "controls": np.asarray([VOCABULARY, VOCABULARY + 1]),
                REFERENCE_SUMS: draw.normal(-20, 3, branches).astype(np.float32),
                "desirable": np.bool_(draw.random() < 0.5),
            },
            PromptOnly("a prompt"),
        )
        for _ in range(count)
    ]


def random_segments(count: int, tokenizer: Any, seed: int = 0) -> list[Sequence]:
    """Raw segments of random tokens, for objectives that corrupt text."""
    draw = np.random.default_rng(seed)
    ordinary = ordinary_ids(tokenizer)
    return [Sequence({"input_ids": draw.choice(ordinary, draw.integers(8, 24)).astype(np.int32)}) for _ in range(count)]


def random_segment_rows(objective: GPTBERT, count: int, seed: int = 0) -> list[Sequence]:
    """Rows of one corpus, whatever their number, whose segments are too short to be cut."""
    tokenizer = tiny_processor().tokenizer
    mask = np.int64(given_mask_id(tokenizer))
    segments = [one.ids["input_ids"][:20] for one in random_segments(40, tokenizer, seed)]
    return objective.prepare([Sequence({"input_ids": ids}, {"mask": mask}) for ids in segments], seed)[:count]


def random_rows(format: type[Format], count: int, seed: int = 0) -> list[Format]:
    """Rows of random words and numbers; every other trajectory has an instruction, there are three labels."""
    draw = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(draw.choice(["the", "cat", "sat", "on", "mat"], draw.integers(1, 6)))

    def vectors(count: int) -> list[list[float]]:
        rows: list[list[float]] = draw.random((count, 3)).tolist()
        return rows

    def row(number: int) -> dict[str, Any]:
        length = int(draw.integers(1, 5))
        return {
            **{name: text() for name in ("anchor", "positive", "negative", "title", "text", "text_pair")},
            "label": number % 3,
            "paragraphs": [f"{text()} and sat on a mat. The cat sat {text()}." for _ in range(length + 1)],
            "skills": [text() for _ in range(length)],
            "states": vectors(length + 1),
            "actions": vectors(length),
            "instruction": None if number % 2 else text(),
            "prompt": text(),
            "completion": f"{text()} and sat on a mat. The cat sat {text()}.",
            "errors": [{"start": 0, "end": 3, "type": "wrong"}] if number % 2 else [],
        }

    return [format.parse(row(number)) for number in range(count)]


def examples_for(objective: Objective, count: int, seed: int = 0) -> list[Any]:
    """Random examples of the kind that an objective trains on."""
    if isinstance(objective, GPTBERT):
        return random_segment_rows(objective, count, seed)
    if isinstance(objective, CodeT5PUnimodal | CodeT5PBimodal):
        return encoded(objective, random_rows(objective.reads, count, seed), tiny_processor("seq2seq"))
    if objective.architecture == "causal":
        return random_trees(count, branches_of(objective), seed)
    if objective.architecture in ("encoder", "classifier", "none"):
        assert isinstance(objective.reads, type)
        processor = tiny_processor(objective.architecture)
        rows = random_rows(objective.reads, max(count, 8), seed)  # fewer may hold one class only
        examples = encoded(objective, rows, processor)
        return list(objective.prepare(examples, seed) if objective.architecture == "classifier" else examples)[:count]
    return random_segments(count, tiny_processor(objective.architecture).tokenizer, seed)


def encoded(objective: Objective, rows: Several[Any], processor: Processor) -> list[Any]:
    """The examples of rows, of which one may give several or none."""
    made = [objective.encode(row, processor) for row in rows]
    return [one for some in made for one in (some if isinstance(some, list) else [some])]


def length_reward(prompts, completions, **columns) -> list[float]:
    """A reward that differs between samples of any model: the share of letters."""
    return [sum(character.isalpha() for character in text) / (len(text) + 1) for text in completions]


def letter_judge(prompts, completions) -> list[float]:
    """A judge that prefers letters, as that reward does."""
    firsts, seconds = (length_reward(prompts, side) for side in zip(*completions, strict=True))
    return [0.5 + (a - b) / 2 for a, b in zip(firsts, seconds, strict=True)]


OBJECTIVES = [method for method in catalogue.METHODS if method.kind == "objective"]

# What an objective needs beyond its defaults to run on a tiny model, and to be the same on several processes.
SMALL: dict[str, dict[str, Any]] = {
    name: {"reward": "tests.engine.conftest:length_reward", "k": 4, "max_new_tokens": 6}
    for name in ("grpo", "rloo", "ppo", "macro-ppo", "fine-grained-ppo", "rlvr")
}
SMALL["macro-ppo"] |= {"n": 2, "epochs": 4, "whiten_advantages": True}
SMALL["grif"] = {"dropout": 0.0}
SMALL["vega"] = SMALL["simcse"] = {"dropout": 1e-12}  # above 0, as it must be, and yet nothing is dropped
SMALL["codet5p-unimodal"] = {"denoise_first": 0.0, "length": 24}
SMALL["codet5p-bimodal"] = {"queue": 12, "width": 16}
SMALL["gpt-bert"] = {"length": 24, "masked_rows": 0.75}
SMALL["salt"] = {"stage": 1.0}
SMALL |= {
    name: {"judge": "tests.engine.conftest:letter_judge", "max_new_tokens": 6, **more}
    for name, more in (("nash-md", {"mixture": 1.0}), ("nash-ema", {"momentum": 0.9}))
}


def make(method: catalogue.Method) -> Objective:
    made: Objective = method.load()(**SMALL.get(method.name, {}))
    return made


def branches_of(objective: Objective) -> int:
    """Completions of an example: none where the objective samples them itself."""
    if isinstance(objective, Online | Game):
        return 0
    one = ("SFT", "CLM", "SALT", "FilteredLM", "ConditionalLM", "Unlikelihood", "RWR", "AWR")
    return 1 if type(objective).__name__ in one else 2


def make_trainer(
    objective: Objective,
    models: Models,
    examples: Several[Any],
    directory: Path | None = None,
    micro_tokens: int = 40,
    epochs: float = 1.0,
    hooks: Hooks | None = None,
    **config: Any,
) -> Trainer:
    """A trainer with steps of eight examples."""
    settings = TrainConfig(batch_size=8, micro_tokens=micro_tokens, learning_rate=1e-2, **config)
    plan = make_plan(
        [e.size for e in examples],
        batch_size=8,
        micro_tokens=micro_tokens,
        seed=0,
        epochs=epochs,
        whole=objective.coupled,
        quotas=objective.quotas(examples),
    )
    return Trainer(objective, models, examples, plan, settings, directory, hooks or Hooks())


def two_steps(objective: Objective, last: int = 8) -> list[Tensor]:
    """The gradients of a step of eight and one of `last`, at a learning rate of 0: the second depends on the first by
    the state of the objective's own parts alone."""
    run = make_trainer(objective, tiny_models(objective), examples_for(objective, 8 + last), max_grad_norm=0.0)
    run.peak_rates = [0.0 for _ in run.peak_rates]
    return gradients(run)


def held_out_loss(objective: Objective) -> Tensor:
    """Its loss on eight examples that are not trained on."""
    run = make_trainer(objective, tiny_models(objective), examples_for(objective, 8))
    found = run.without_gradients(mean_terms, objective, run.models, run.examples, run.config)
    return torch.tensor(found["loss"])


def gradients(run: Trainer) -> list[Tensor]:
    """Train to the end; the gradients that the optimiser saw in its steps, before clipping changed them."""
    collected: list[Tensor] = []

    def keep(optimizer: Any, *_: Any) -> None:
        collected.extend(p.grad.clone() for g in optimizer.param_groups for p in g["params"] if p.grad is not None)

    run.optimizer.register_step_pre_hook(keep)
    list(run.run())
    return collected


def final_weights(objective: Objective) -> list[Tensor]:
    """All weights after a step of eight and one of one, whole. Plain descent: Adam would make steps of the noise of a
    gradient that is zero by its mathematics."""
    run = make_trainer(objective, tiny_models(objective), examples_for(objective, 9), max_grad_norm=1.0)
    run.optimizer = torch.optim.SGD(run.masters.tensors, lr=0.1)  # type: ignore[assignment]
    run.peak_rates = [0.1]
    list(run.run())
    return [parameter.detach() for module in run.trained().trained for parameter in module.parameters()]

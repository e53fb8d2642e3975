"""TRL as the oracle: one step of a method, its loss and the gradient of every parameter, computed by both libraries.

Rows, weights and seed are the same. Ours go the way they go in a run: a file that `datasets` wrote is read, cast,
encoded, collated and given to `Step`. Theirs are a trainer's own data preparation, collator and `compute_loss`.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from teloi.batch.tree import Kind, Tree
from teloi.data.casts import as_format
from teloi.data.processor import Processor
from teloi.data.read import Rows, read
from teloi.engine.objective import Now, Objective
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.step import Step
from teloi.models.attention import TREE
from teloi.models.roles import CachedReference, FrozenReference, LanguageModel, Models
from tests.peers import rows as texts

LAYOUTS: tuple[Kind, ...] = ("packed", "padded")
CHUNK = 96
"""Positions of a part of a coupled batch: some of our batches are several parts."""

# Nothing follows a turn's end, because TRL's CPO and ORPO render conversations to text and then put an end token behind
# whatever does not end in one.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "teloi"))
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        [text for pair in texts.PAIRS for text in pair],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|im_start|>", "<|im_end|>", "<|pad|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>")
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def start(tokenizer) -> LlamaForCausalLM:
    """The reference: random weights, large enough for probabilities far from uniform."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def policy(start) -> LlamaForCausalLM:
    """The reference after some training: log-ratios of several nats, of both signs."""
    torch.manual_seed(1)
    moved: LlamaForCausalLM = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)
    return moved


@dataclass(frozen=True)
class Outcome:
    """What one step comes to: its loss, and the gradient of each parameter by name."""

    loss: float
    gradients: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: torch.nn.Module, loss: float) -> Outcome:
        return cls(loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def assert_same(ours: Outcome, theirs: Outcome) -> None:
    """Losses to 1e-5, each element of a gradient to 1e-4 of itself or 1e-5 of the largest in its parameter."""
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert ours.gradients.keys() == theirs.gradients.keys()
    for name, expected in theirs.gradients.items():
        largest = float(expected.abs().max())
        assert largest > 1e-6, f"the gradient of {name} vanishes, so that equality says nothing"
        close = torch.isclose(ours.gradients[name], expected, rtol=1e-4, atol=1e-5 * largest)
        assert close.all(), f"{name}: {(ours.gradients[name] - expected).abs().max():.1e} of {largest:.1e}"


@dataclass(frozen=True)
class Peers:
    """Both libraries on the same rows, written to a file by `datasets`."""

    tokenizer: PreTrainedTokenizerFast
    policy: LlamaForCausalLM
    reference: LlamaForCausalLM
    rows: Sequence[Mapping[str, Any]]
    directory: Path

    def read(self) -> Rows:
        path = self.directory / "rows.jsonl"
        Dataset.from_list(list(self.rows)).to_json(path)
        return read(path)

    def encode(self, objective: Objective, processor: Processor | None = None) -> list[Tree]:
        """The examples of an objective that makes one of each row, as they are before `Objective.prepare`."""
        processor = processor or Processor(self.tokenizer)
        trees: list[Tree] = []
        for row in as_format(self.read(), objective.reads):
            found = objective.encode(row, processor)
            trees.extend([found] if isinstance(found, Tree) else found)
        assert len(trees) == len(self.rows)
        return trees

    def ours(self, objective: Objective, trees: Sequence[Tree], layout: Kind) -> Outcome:
        """Our step. With packed rows the reference's sums are computed beforehand and cached, with padded ones the
        reference is a second model."""
        made = Models(LanguageModel(self.laid_out(self.policy, layout), layout, CHUNK if objective.coupled else None))
        if "reference" in objective.roles:
            reference = LanguageModel(self.laid_out(self.reference, layout), layout)
            if layout == "packed":
                made.reference = CachedReference()
                trees, _ = with_reference_sums(trees, range(len(trees)), reference, 128, fingerprint(reference.model))
            else:
                made.reference = FrozenReference(reference)
        return take_step(objective, made, trees)

    def trainer(self, method: str, peft_config: Any = None, model: Any = None, **settings: Any) -> Any:
        """TRL's trainer of that name over the rows, of the policy unless a model is given, with the reference where it
        takes one."""
        room = importlib.import_module(f"trl.experimental.{method.lower()}" if method in ("CPO", "ORPO") else "trl")
        arguments = getattr(room, f"{method}Config")(
            output_dir=self.directory / "trl",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            max_length=256,
            per_device_train_batch_size=len(self.rows),
            **settings,
        )
        with_reference = method in ("DPO", "KTO") and peft_config is None
        return getattr(room, f"{method}Trainer")(
            model=copy.deepcopy(model or self.policy),
            args=arguments,
            train_dataset=Dataset.from_list(list(self.rows)),
            processing_class=self.tokenizer,
            peft_config=peft_config,
            **({"ref_model": copy.deepcopy(self.reference)} if with_reference else {}),
        )

    @staticmethod
    def laid_out(model: LlamaForCausalLM, layout: Kind) -> Any:
        """A copy of a model that takes batches laid out so."""
        made = copy.deepcopy(model)
        if layout == "packed":
            made.set_attn_implementation(TREE)
        return made


def take_step(objective: Objective, models: Models, trees: Sequence[Tree]) -> Outcome:
    """One step as the engine takes it: two uneven micro-batches, or one if the loss couples its batch."""
    step = Step(models, objective)
    parts = [trees] if objective.coupled else [trees[:3], trees[3:]]
    moments = [Now(0, 1, micro=micro) for micro in range(len(parts))]
    batches = [objective.collate(part, now, "cpu") for part, now in zip(parts, moments, strict=True)]
    counts = {unit: sum(batch.counts[unit] for batch in batches) for unit in batches[0].counts}
    total = 0.0
    for batch, now in zip(batches, moments, strict=True):
        loss, _ = step.shares(batch, now, counts)
        loss.backward()
        total += loss.item()
    return Outcome.of(models.policy.model, total)


def theirs(
    trainer: Any,
    parts: Sequence[slice] = (slice(None),),
    compute_loss: Callable[[Any, Any], torch.Tensor] | None = None,
    share: float = 1.0,
) -> Outcome:
    """What a trainer's `compute_loss` gives for its rows, or the sum over parts of them, each counted with `share`."""
    compute_loss = compute_loss or trainer.compute_loss
    total = 0.0
    for part in parts:
        chosen = range(len(trainer.train_dataset))[part]
        loss = compute_loss(trainer.model, trainer.data_collator([trainer.train_dataset[i] for i in chosen])) * share
        loss.backward()
        total += loss.item()
    return Outcome.of(trainer.model, total)


@pytest.fixture
def peers(tokenizer, policy, start, tmp_path) -> Callable[[Sequence[Mapping[str, Any]]], Peers]:
    """`peers(rows)`: both libraries over these rows."""
    return lambda rows: Peers(tokenizer, policy, start, rows, tmp_path)

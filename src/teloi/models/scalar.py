"""Models with one number for a text: rewards and values."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from teloi.batch.sequence import Sequence as Tokens
from teloi.batch.sequence import SequenceBatch
from teloi.batch.tree import Kind, Tree, TreeBatch
from teloi.data.encode import in_both_orders, tree
from teloi.data.formats import Text
from teloi.data.processor import Processor
from teloi.errors import ModelError
from teloi.files import write_text
from teloi.models.attention import TREE
from teloi.models.load import load_tokenizer
from teloi.models.roles import LanguageModel, merged
from teloi.models.sequences import in_batches

Scorer = Callable[..., list[float]]

BIAS = "reward_bias"
"""Of config.json: what is added to every reward. transformers' classifiers have no bias of their own."""


PAIR = "first is preferred"
"""The only label of a preference model; others have one without a name."""


def scalar_head(model: LanguageModel) -> nn.Linear:
    """A linear map from a model's states to one number, float32, drawn from N(0, 1 / (d + 1)).

    Source of the variance: Stiennon et al. 2020, appendix B.1."""
    width = model.inner.config.get_text_config().hidden_size
    head = nn.Linear(width, 1, bias=False, device=model.model.device)
    nn.init.normal_(head.weight, std=(width + 1) ** -0.5)
    return head


class ValueNetwork(nn.Module):
    """A causal model of its own with a number for every state in place of words: the critic of a policy."""

    def __init__(self, model: Any, head: nn.Linear, layout: Kind) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.layout = layout

    @classmethod
    def like(cls, policy: LanguageModel) -> ValueNetwork:
        """A copy of the policy, adapter and all, under a new head."""
        model: Any = policy.model if policy.model is not policy.inner else policy.inner.base_model
        return cls(copy.deepcopy(model), scalar_head(policy), policy.layout)

    @classmethod
    def of_reward(cls, path: str, policy: LanguageModel) -> ValueNetwork:
        """A reward model that was saved by `rm`, in the policy's numbers. ModelError where it is none, or reads another
        vocabulary."""
        assert isinstance(policy.model.dtype, torch.dtype)
        made = load_classifier(path, policy.model.dtype)
        ours, theirs = (model.get_input_embeddings().num_embeddings for model in (policy.inner, made))
        if ours != theirs:
            raise ModelError(
                f"{path} has {theirs:,} embeddings and the policy {ours:,}: they must read the same tokens"
            )
        if policy.layout == "packed":
            made.set_attn_implementation(TREE)
        head = nn.Linear(made.score.in_features, 1, bias=False)
        head.load_state_dict(made.score.float().state_dict())
        return cls(made.base_model, head, policy.layout).to(policy.model.device)

    def forward(self, batch: TreeBatch) -> Float[Tensor, " n"]:
        """The value of the state before each scored token, float32."""
        return read_scalar(self.head, LanguageModel(self.model, self.layout).hidden(batch))


def read_scalar(head: nn.Module, states: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """What a head says of states, float32."""
    found: Tensor = head(states.float())
    return found.squeeze(1)


def save_scalar(
    model: LanguageModel, head: nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path, compares: bool = False
) -> None:
    """Write model and head as transformers' sequence classifier with one label. `compares`: it is of two answers.

    ModelError where the architecture has none, or one that reads its states in another way."""
    inner: Any = merged(model).model
    config = copy.deepcopy(inner.config)
    config.num_labels = 1
    if compares:
        config.id2label, config.label2id = {0: PAIR}, {PAIR: 0}
    config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        made: Any = AutoModelForSequenceClassification.from_config(config, dtype=inner.dtype)
        made.base_model.load_state_dict(inner.base_model.state_dict())
        made.score.load_state_dict(head.state_dict())
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{type(inner).__name__} has no sequence classifier to save a reward as: {error}") from None
    made.save_pretrained(path)


def shift_scalar(path: Path, bias: float) -> None:
    """Note what is to be added to the rewards of a model that was saved so."""
    file = path / "config.json"
    write_text(file, json.dumps({**json.loads(file.read_text(encoding="utf-8")), BIAS: bias}, indent=2) + "\n")


def load_classifier(path: str | Path, dtype: torch.dtype | Literal["auto"]) -> Any:
    """A sequence classifier with one label. ModelError where the directory holds none."""
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} holds no reward model: {error}") from None
    if model.config.num_labels != 1:
        raise ModelError(f"{path} tells {model.config.num_labels} classes apart; a reward model has one label")
    return model


def compares(path: str | Path) -> bool:
    """Whether a directory holds a preference model, whose number is of two answers."""
    try:
        return bool(AutoConfig.from_pretrained(path).id2label == {0: PAIR})
    except (OSError, ValueError):
        return False


def load_preference(path: str | Path) -> Callable[[Sequence[Text], Sequence[tuple[Text, Text]]], list[float]]:
    """A preference model that was saved so: from prompts and pairs of answers to the probability of each first one."""
    model = load_classifier(path, "auto")
    processor, numbers = _numbers(model, path)

    def preferences(prompts: Sequence[Text], pairs: Sequence[tuple[Text, Text]]) -> list[float]:
        rows = [in_both_orders(processor, prompt, *pair) for prompt, pair in zip(prompts, pairs, strict=True)]
        return [float(expit(number)) for number in numbers(rows)]

    return preferences


def load_scalar(path: str | Path) -> Scorer:
    """A reward model that was saved so, as a reward function: `f(prompts, completions, **columns) -> list[float]`.

    Texts are laid out as in training, by its own tokenizer: one that was cut short is read as if it ended there, and
    who samples must say what it is worth (`unfinished`). ModelError where the directory holds no such model."""
    if compares(path):
        raise ModelError(f"{path} is a preference model: it compares two answers (--judge), and rewards none")
    model = load_classifier(path, "auto")
    processor, numbers = _numbers(model, path)
    bias = float(getattr(model.config, BIAS, 0.0))

    def score(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        rows = [tree(processor, prompt, [answer]) for prompt, answer in zip(prompts, completions, strict=True)]
        return [number + bias for number in numbers(rows)]

    return score


def _numbers(model: Any, path: str | Path) -> tuple[Processor, Callable[[Sequence[Tree]], list[float]]]:
    """The tokenizer of a classifier with one label, and what it says of prompts with their first branch."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20

    def read(batch: SequenceBatch) -> Tensor:
        logits: Tensor = model(input_ids=batch.ids["input_ids"], attention_mask=batch.mask["input_ids"]).logits
        return logits.float()

    def numbers(rows: Sequence[Tree]) -> list[float]:
        texts = [Tokens({"input_ids": np.concatenate([row.prompt, row.branches[0].ids])}) for row in rows]
        return [float(value) for value in in_batches(model, read, texts, 4096)[:, 0]]

    return Processor(load_tokenizer(path), limit, "truncate"), numbers

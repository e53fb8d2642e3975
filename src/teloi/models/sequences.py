"""Masked, sequence-to-sequence and encoder models as objectives see them, on batches of `Sequence`.

Names of sequences: a masked model reads `input_ids` and is scored on `labels` of the same length; a
sequence-to-sequence model reads `input_ids` and is scored on its decoder's `targets`, which a column `start` begins
where it is not the model's own token that does; an encoder embeds any of them; a classifier reads `input_ids`, of a
pair of texts with `token_type_ids`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Several
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from teloi.batch.sequence import IGNORED, Sequence, SequenceBatch, like_lengths, neighbours
from teloi.data.processor import Processor
from teloi.errors import ModelError
from teloi.losses.contrastive import mean_pool
from teloi.losses.logps import logps_from_logits
from teloi.models.roles import evaluation


class ScoredModel:
    """A masked or sequence-to-sequence model. n: scored labels of a batch, in the order of its rows; d: hidden width;
    v: vocabulary.

    Only hidden states at scored positions reach the head: a hook on the part before it keeps those, so that the model's
    own head, whatever it consists of, never sees the others."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        peft: Any = model
        self.inner: Any = peft.get_base_model() if hasattr(peft, "get_base_model") else model
        self.seq2seq = bool(self.inner.config.is_encoder_decoder)
        self.scored = "targets" if self.seq2seq else "labels"
        self.before_head: nn.Module = self.inner.get_decoder() if self.seq2seq else self.inner.base_model

    def logits(self, batch: SequenceBatch, encoded: Float[Tensor, "b t d"] | None = None) -> Float[Tensor, "n v"]:
        """Vocabulary logits at the scored labels. `encoded`: what the encoder said, where that is known."""
        labels = batch.ids[self.scored]
        scored = labels != IGNORED
        arguments: dict[str, Any] = self._inputs(batch)
        if encoded is not None:
            del arguments["input_ids"]
            arguments["encoder_outputs"] = BaseModelOutput(last_hidden_state=encoded)
        if self.seq2seq:
            known = labels.masked_fill(~scored, batch.pad)
            arguments["decoder_input_ids"] = self._shifted(known, batch.columns.get("start"))
        with self._only(scored):
            logits: Tensor = self.model(**arguments).logits
        return logits.flatten(0, 1)

    def logps(self, batch: SequenceBatch, encoded: Float[Tensor, "b t d"] | None = None) -> Float[Tensor, " n"]:
        """Log-probability of each scored label, float32."""
        labels = batch.ids[self.scored]
        return logps_from_logits(self.logits(batch, encoded), labels[labels != IGNORED])

    def encoded(self, batch: SequenceBatch) -> Float[Tensor, "b t d"]:
        """Last states of a sequence-to-sequence model's encoder, for heads on it and for its decoder."""
        return self.encode(batch.ids["input_ids"], batch.mask["input_ids"])

    def encode(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """The same of padded ids."""
        states: Tensor = self.inner.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def decoded(
        self,
        ids: Int[Tensor, "b t"],
        mask: Int[Tensor, "b t"],
        encoded: Float[Tensor, "b s d"],
        encoded_mask: Int[Tensor, "b s"],
    ) -> Float[Tensor, "b t d"]:
        """Last states of its decoder, which reads these padded ids as they are, for heads that an objective brings."""
        states: Tensor = self.inner.get_decoder()(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=encoded,
            encoder_attention_mask=encoded_mask,
            use_cache=False,
        ).last_hidden_state
        return states

    def hidden(self, batch: SequenceBatch) -> Float[Tensor, "n d"]:
        """Last hidden states of a masked model at the scored labels, for heads that an objective brings itself."""
        states: Tensor = self.inner.base_model(**self._inputs(batch)).last_hidden_state
        return states[batch.ids[self.scored] != IGNORED]

    def _inputs(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"input_ids": batch.ids["input_ids"], "attention_mask": batch.mask["input_ids"]}

    @contextmanager
    def _only(self, scored: Tensor) -> Iterator[None]:
        def keep(module: nn.Module, arguments: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[scored][None]
            return output

        handle = self.before_head.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def _shifted(self, labels: Tensor, start: Tensor | None = None) -> Tensor:
        """What the decoder reads: the labels, one later, after the start token of each row [b], or its own."""
        first = torch.full_like(labels[:, :1], self.inner.config.decoder_start_token_id)
        return torch.cat([first if start is None else start[:, None], labels[:, :-1]], dim=1)


class SentenceEncoder:
    """An encoder that gives one vector a text: the mean of the last hidden states of its tokens (padding left out).

    With `chunk` set, batches of more tokens are encoded in parts that are recomputed in the backward pass: the gradient
    of a loss over a batch larger than memory (gradient caching, Gao et al., 2021), in one call of `embed`."""

    def __init__(self, model: PreTrainedModel, chunk: int | None = None) -> None:
        self.model = model
        self.chunk = chunk
        pooler = getattr(model, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)  # BERT's vector of the first token, which nothing here reads

    def embed(self, batch: SequenceBatch, name: str = "input_ids") -> Float[Tensor, "b d"]:
        """Mean-pooled vectors of the sequences of that name, float32, not normalised."""
        if self.chunk is not None and batch.size > self.chunk and torch.is_grad_enabled():
            parts = [
                checkpoint(self._embed, part.ids[name], part.mask[name], use_reentrant=False)
                for part in batch.split(self.chunk)
            ]
            return torch.cat(parts)
        return self._embed(batch.ids[name], batch.mask[name])

    def hidden(self, batch: SequenceBatch) -> Float[Tensor, "n d"]:
        """Last hidden states at the scored labels, for heads that an objective brings itself."""
        inputs = {"input_ids": batch.ids["input_ids"], "attention_mask": batch.mask["input_ids"]}
        states: Tensor = self.model(**inputs).last_hidden_state
        return states[batch.ids["labels"] != IGNORED]

    def _embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        if (mean := getattr(self.model, "mean_states", None)) is not None:  # a model that can do it better
            vectors: Tensor = mean(ids, mask).float()
            return vectors
        # Shards are gathered in every call: there all processes must make as many.
        sharded = any(isinstance(module, FSDPModule) for module in self.model.modules())
        groups = [np.arange(len(ids))] if sharded else like_lengths(mask.sum(1).cpu().numpy())
        parts = [self._mean(ids[rows], mask[rows]) for rows in map(torch.as_tensor, groups)]
        return torch.cat(parts)[np.argsort(np.concatenate(groups))]

    def _mean(self, ids: Tensor, mask: Tensor) -> Tensor:
        width = max(int(mask.sum(1).max()), 1)
        ids, mask = ids[:, :width], mask[:, :width]
        return mean_pool(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


class Classifier:
    """An encoder with a head that says which of c classes a text or a pair of texts belongs to. b: rows of a batch.

    The head is the architecture's own in transformers: in BERT's kind the first token's state through linear, tanh,
    dropout and linear."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        peft: Any = model
        self.inner: Any = peft.get_base_model() if hasattr(peft, "get_base_model") else model
        self.reads = ["input_ids"]
        if getattr(self.inner.config, "type_vocab_size", 0) > 1:
            self.reads.append("token_type_ids")

    def logits(self, batch: SequenceBatch) -> Float[Tensor, "b c"]:
        """One row of logits an example."""
        arguments = {name: batch.ids[name] for name in self.reads if name in batch.ids}
        logits: Tensor = self.model(**arguments, attention_mask=batch.mask["input_ids"]).logits
        return logits


def set_classes(model: PreTrainedModel, names: Several[str]) -> None:
    """Make a classifier tell these classes apart. Where it has another number of them, its last layer is drawn anew.

    ModelError where no layer is as wide as its classes are many."""
    config = model.config
    if config.num_labels != len(names):
        inside = f"{model.base_model_prefix}."
        last = [
            (path, layer)
            for path, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and layer.out_features == config.num_labels and not path.startswith(inside)
        ]
        if not last:
            raise ModelError(f"the head of {type(model).__name__} cannot be given {len(names)} classes")
        path, layer = last[-1]
        made = nn.Linear(layer.in_features, len(names), layer.bias is not None, layer.weight.device, layer.weight.dtype)
        nn.init.normal_(made.weight, std=getattr(config, "initializer_range", 0.02))
        if layer.bias is not None:
            nn.init.zeros_(made.bias)
        model.set_submodule(path, made)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    vars(model)["num_labels"] = len(names)


def embed_texts(
    encoder: SentenceEncoder, processor: Processor, texts: Several[str], tokens: int = 8192
) -> NDArray[np.float32]:
    """Vectors of some texts, [n d], not normalised; at most `tokens` of padded batches at a time, without gradients."""
    made = [
        Sequence({"input_ids": np.asarray(processor.sentence_ids(processor.bare_ids(text)), np.int32)})
        for text in texts
    ]
    return in_batches(encoder.model, encoder.embed, made, tokens)


def class_logits(
    classifier: Classifier,
    processor: Processor,
    texts: Several[str],
    seconds: Several[str] | None = None,
    tokens: int = 8192,
) -> NDArray[np.float32]:
    """Logits of some texts, or of pairs with `seconds`, [n c]; at most `tokens` of padded batches at a time, without
    gradients."""
    others: Several[str | None] = seconds if seconds is not None else [None] * len(texts)
    made = [
        Sequence({name: np.asarray(ids, np.int32) for name, ids in processor.encoder_inputs(text, other).items()})
        for text, other in zip(texts, others, strict=True)
    ]
    return in_batches(classifier.model, classifier.logits, made, tokens)


def in_batches(
    model: PreTrainedModel, read: Callable[[SequenceBatch], Tensor], made: Several[Sequence], tokens: int
) -> NDArray[np.float32]:
    """What is read of each example, the model in evaluation mode; batches are of neighbours in length."""
    found: dict[int, NDArray[np.float32]] = {}
    with evaluation(model):
        for part in neighbours([one.size for one in made], tokens):
            values = read(SequenceBatch([made[i] for i in part], device=model.device))
            found.update(zip(part, values.float().cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(made))])


def write_pooling(path: Path, width: int, max_length: int) -> None:
    """Beside a checkpoint, what tells sentence-transformers to average over tokens: the form all its versions read."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (place, kind) in enumerate(modules)
    ]
    (path / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    for name, content in (
        ("modules.json", listed),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False}),
    ):
        (path / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

"""A small trained encoder grafted onto a frozen causal model, as in the large variants of CodeT5+ (Wang et al., 2023,
section 3.4): a sequence-to-sequence model at the price of its encoder.

The decoder is a pretrained causal model whose weights stay as they are. In its top layers a new cross-attention reads
the encoder's states, behind self-attention; its gate is 0 at first, so that before training the decoder says what the
causal model says. The encoder, the cross-attention and the gate are what is trained.

    graft(encoder, decoder).save_pretrained("grafted")  # and the tokenizer, which both must share

makes a checkpoint that objectives for sequence-to-sequence models train by its directory: prefix-lm, for instance, as
far as they need no new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from teloi.errors import ModelError

STACKS = ("layers", "h", "blocks")
ATTENTIONS = ("self_attn", "attn", "attention")
"""What transformers calls a decoder's layers, and self-attention in a layer."""


class GraftedConfig(PreTrainedConfig):
    """Configurations of encoder and decoder, as dicts, and how many of the decoder's top layers read the encoder."""

    model_type = "teloi-grafted"
    is_encoder_decoder = True

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        cross_layers: int = 1,
        **kwargs: Any,
    ) -> None:
        self.encoder, self.decoder, self.cross_layers = encoder or {}, decoder or {}, cross_layers
        super().__init__(**{"is_encoder_decoder": True, "tie_word_embeddings": False, **kwargs})


class CrossAttention(nn.Module):
    """Reads the encoder's states after the self-attention of a layer; what it adds is scaled by tanh(gate), 0 at
    first. h: the decoder's width, e: the encoder's."""

    def __init__(self, width: int, heads: int, memory: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(memory, width, bias=False)
        self.value = nn.Linear(memory, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))  # [1]: FSDP shards no scalars
        self.read: tuple[Tensor, Tensor] | None = None
        self.residual: Tensor | None = None

    def attach(self, layer: nn.Module) -> None:
        """Stand behind the self-attention of a layer, which adds what it gets from there to its input."""
        attention = next((part for name, part in layer.named_children() if name in ATTENTIONS), None)
        if attention is None:
            raise ModelError(
                f"{type(layer).__name__} has no self-attention by one of the names {', '.join(ATTENTIONS)}"
            )
        layer.register_forward_pre_hook(self._before, with_kwargs=True)
        attention.register_forward_hook(self._behind)

    def _before(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        self.residual = args[0] if args else kwargs["hidden_states"]

    def _behind(self, attention: nn.Module, args: Any, output: Any) -> Any:
        if self.read is None:
            return output
        first: Any = output[0] if isinstance(output, tuple) else output
        first = first + torch.tanh(self.gate) * self(self.residual + first, *self.read)
        return (first, *output[1:]) if isinstance(output, tuple) else first

    def forward(
        self, states: Float[Tensor, "b t h"], memory: Float[Tensor, "b s e"], mask: Int[Tensor, "b s"]
    ) -> Float[Tensor, "b t h"]:
        """What each state reads of the memory where `mask` is 1."""

        def split(values: Tensor) -> Tensor:
            parted: Tensor = values.unflatten(-1, (self.heads, -1))
            return parted.transpose(1, 2)

        query, key, value = self.query(self.norm(states)), self.key(memory), self.value(memory)
        found = scaled_dot_product_attention(split(query), split(key), split(value), mask[:, None, None].bool())
        added: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return added


class GraftedDecoder(nn.Module):
    """The frozen causal model without its head, and the cross-attention in its top layers."""

    def __init__(self, language_model: Any, memory: int, cross_layers: int) -> None:
        super().__init__()
        self.language_model = language_model
        config, body = language_model.config, language_model.base_model
        layers = next((getattr(body, name) for name in STACKS if hasattr(body, name)), None)
        if layers is None or not 0 < cross_layers <= len(layers):
            raise ModelError(
                f"{type(body).__name__} has no {cross_layers} layers by one of the names {', '.join(STACKS)}"
            )
        self.cross = nn.ModuleList(
            CrossAttention(config.hidden_size, config.num_attention_heads, memory) for _ in range(cross_layers)
        )
        every: list[Any] = list(self.cross)
        for cross, layer in zip(every, layers[-cross_layers:], strict=True):
            cross.attach(layer)

    def forward(
        self,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Int[Tensor, "b t"] | None = None,
        encoder_hidden_states: Float[Tensor, "b s e"] | None = None,
        encoder_attention_mask: Int[Tensor, "b s"] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The causal model's own output, its states changed by what is read of the encoder's, if those are given."""
        memory = encoder_hidden_states
        if memory is not None and encoder_attention_mask is None:
            encoder_attention_mask = torch.ones(memory.shape[:2], dtype=torch.int64, device=memory.device)
        with self._reading(memory, encoder_attention_mask):
            return self.language_model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)

    @contextmanager
    def _reading(self, memory: Tensor | None, mask: Tensor | None) -> Iterator[None]:
        every: list[Any] = list(self.cross)
        for cross in every:
            cross.read = None if memory is None or mask is None else (memory, mask)
        try:
            yield
        finally:
            for cross in every:
                cross.read = cross.residual = None


class GraftedModel(PreTrainedModel):
    """Encoder and grafted decoder as transformers' sequence-to-sequence models are called."""

    config_class = GraftedConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: GraftedConfig) -> None:
        super().__init__(config)
        parts = [AutoConfig.for_model(**one) for one in (config.encoder, config.decoder)]
        self.encoder: Any = AutoModel.from_config(parts[0])
        language_model = AutoModelForCausalLM.from_config(parts[1])
        self.decoder = GraftedDecoder(language_model, parts[0].hidden_size, config.cross_layers)
        self.post_init()  # type: ignore[no-untyped-call]  # transformers'
        self.freeze()

    def freeze(self) -> None:
        """Leave the causal model as it is."""
        self.decoder.language_model.requires_grad_(False)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers loads it, which makes every weight trainable, with the causal model frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.decoder.language_model.get_output_embeddings()
        return head

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: what is frozen cannot learn new tokens."""
        raise ModelError(
            "this method gives the vocabulary tokens that the frozen decoder of a grafted model cannot learn: use "
            "prefix-lm, or train the decoder with them first"
        )

    def get_encoder(self, *args: Any, **kwargs: Any) -> Any:
        return self.encoder

    def get_decoder(self) -> Any:
        return self.decoder

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Vocabulary logits of what the decoder reads."""
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        memory = encoder_outputs.last_hidden_state
        states = self.decoder(
            decoder_input_ids, encoder_hidden_states=memory, encoder_attention_mask=attention_mask
        ).last_hidden_state
        return Seq2SeqLMOutput(logits=self.get_output_embeddings()(states), encoder_last_hidden_state=memory)


def graft(encoder: PreTrainedModel, decoder: PreTrainedModel, cross_layers: int = 1) -> GraftedModel:
    """A model of the weights of an encoder (any model that gives hidden states) and of a causal model, which share a
    vocabulary; only the cross-attention is new, drawn from torch's generator.

    ModelError where their vocabularies differ in size, or the decoder's layers are not found.
    """
    body: Any = encoder.base_model
    sizes = [one.config.vocab_size for one in (body, decoder)]
    if sizes[0] != sizes[1]:
        raise ModelError(f"encoder and decoder must share a vocabulary: they have {sizes[0]} and {sizes[1]} tokens")
    special = {
        name: value
        for name in ("pad_token_id", "bos_token_id", "eos_token_id")
        if (value := getattr(decoder.config, name, None)) is not None
    }
    first = special.get("bos_token_id", special.get("eos_token_id"))
    config = GraftedConfig(
        body.config.to_dict(),
        # A head of its own, where it was the embeddings: nothing of the decoder is trained, so that both stay equal.
        decoder.config.to_dict() | {"tie_word_embeddings": False},
        cross_layers,
        vocab_size=sizes[1],
        decoder_start_token_id=first,
        **special,
    )
    made = GraftedModel(config)
    made.encoder.load_state_dict(body.state_dict())
    made.decoder.language_model.load_state_dict(decoder.state_dict())
    return made


AutoConfig.register(GraftedConfig.model_type, GraftedConfig)
AutoModelForSeq2SeqLM.register(GraftedConfig, GraftedModel)

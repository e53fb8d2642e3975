"""Before training a grafted decoder says what the causal model says; training moves all but that model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from teloi.batch.sequence import Sequence, SequenceBatch
from teloi.engine.config import TrainConfig
from teloi.engine.fit import as_base, fit
from teloi.errors import ModelError
from teloi.methods.pretrain.denoise import PrefixLM
from teloi.models.embeddings import add_missing
from teloi.models.load import load_model
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel
from teloi.models.zoo.grafted import GraftedModel, graft

TEXT = "the cat sat on the mat and the dog sat on the cat " * 8
TOKENIZER = train_tokenizer([TEXT], 500, "seq2seq")


def causal(kind: str) -> Any:
    torch.manual_seed(1)
    if kind == "llama":
        return scratch_model((32, 3, 4), TOKENIZER, "causal").eval()
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1)
    return GPT2LMHeadModel(config).eval()


def grafted(kind: str = "llama", cross_layers: int = 1) -> tuple[Any, Any]:
    torch.manual_seed(0)
    encoder = scratch_model((64, 2, 4), TOKENIZER, "encoder")
    decoder = causal(kind)
    return graft(encoder, decoder, cross_layers).eval(), decoder


def opened(model: Any) -> Any:
    with torch.no_grad():
        for cross in model.decoder.cross:
            cross.gate.fill_(0.7)
    return model


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_with_its_gate_closed_it_is_the_causal_model_and_else_it_reads_the_encoder(kind: str) -> None:
    model, decoder = grafted(kind, 2)
    ids, told = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 9, 8, 7]])
    with torch.no_grad():
        expected = decoder(input_ids=told).logits
        torch.testing.assert_close(model(input_ids=ids, decoder_input_ids=told).logits, expected)
        opened(model)
        found, other = (model(input_ids=some, decoder_input_ids=told).logits for some in (ids, ids + 1))
        assert (found - expected).abs().max() > 1e-3
        assert (found - other).abs().max() > 1e-4
        # ... and nothing that comes later, nor anything behind a mask.
        cut = model(input_ids=ids, decoder_input_ids=told[:, :2]).logits
        torch.testing.assert_close(found[:, :2], cut)
        mask = torch.tensor([[1, 1, 1, 0]])
        padded = model(input_ids=torch.tensor([[5, 6, 7, 3]]), attention_mask=mask, decoder_input_ids=told).logits
        torch.testing.assert_close(padded, found)


def test_cross_attention_stands_behind_self_attention() -> None:
    """One layer, written out."""
    model, decoder = grafted()
    opened(model)
    layer, cross = decoder.model.layers[-1], model.decoder.cross[0]
    seen: dict[str, Any] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(into=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        layer.self_attn.register_forward_hook(lambda _, args, output: seen.update(attended=output[0])),
    ]
    ids, told = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 9, 8, 7]])
    with torch.no_grad():
        decoder(input_ids=told)
        for handle in handles:
            handle.remove()
        memory = model.encoder(input_ids=ids).last_hidden_state
        states = seen["into"] + seen["attended"]
        states = states + torch.tanh(cross.gate) * cross(states, memory, torch.ones(1, 3, dtype=torch.int64))
        states = states + layer.mlp(layer.post_attention_layernorm(states))
        expected = decoder.lm_head(decoder.model.norm(states))
        torch.testing.assert_close(model(input_ids=ids, decoder_input_ids=told).logits, expected)


def test_the_causal_model_is_not_trained_and_the_rest_is(tmp_path: Path) -> None:
    model, _ = grafted()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, architecture="seq2seq")
    assert isinstance(loaded, GraftedModel)
    frozen = {name for name, p in loaded.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in loaded.named_parameters() if name.startswith("decoder.language_model.")}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    config = TrainConfig(budget="3 steps", batch_size=4, learning_rate=1e-2, max_length=64)
    base = as_base(opened(loaded), TOKENIZER, "seq2seq", max_length=64)
    fitted = fit(PrefixLM(length=16), base, [{"text": TEXT}], config)
    moved = {
        name
        for (name, before), after in zip(loaded.named_parameters(), fitted.base.model.parameters(), strict=True)
        if not torch.equal(before, after)
    }
    assert not moved & frozen
    assert {"decoder.cross.0.gate", "decoder.cross.0.key.weight", "decoder.cross.0.output.weight"} <= moved
    assert any(name.startswith("encoder.encoder.layer") for name in moved)


def test_states_of_the_decoder_and_scores_agree() -> None:
    """Two ways that objectives go: logits by the whole model, and states by its decoder."""
    model, _ = grafted()
    policy = ScoredModel(opened(model))
    start = model.config.decoder_start_token_id
    rows = [Sequence({"input_ids": torch.tensor(a).numpy(), "targets": torch.tensor(b).numpy()}) for a, b in
            (([5, 6, 7], [9, 8]), ([4], [7, 7, 7]))]  # fmt: skip
    batch = SequenceBatch(rows)
    with torch.no_grad():
        encoded = policy.encoded(batch)
        told = torch.tensor([[start, 9, 0], [start, 7, 7]])
        states = policy.decoded(told, torch.tensor([[1, 1, 0], [1, 1, 1]]), encoded, batch.mask["input_ids"])
        logits = model.get_output_embeddings()(states)
        expected = torch.cat([logits[0, :2], logits[1]])
        torch.testing.assert_close(policy.logits(batch), expected)
        torch.testing.assert_close(policy.logits(batch, encoded), expected)


def test_a_copy_is_a_model_of_its_own() -> None:
    model, _ = grafted()
    other = opened(copy.deepcopy(model))
    ids, told = torch.tensor([[5, 6]]), torch.tensor([[1, 9]])
    with torch.no_grad():
        found = [one(input_ids=ids, decoder_input_ids=told).logits for one in (model, other)]
    assert not torch.equal(*found)


def test_new_tokens_are_refused() -> None:
    with pytest.raises(ModelError, match="cannot learn"):
        add_missing(grafted()[0], [len(TOKENIZER)])


def test_what_does_not_fit_together() -> None:
    encoder = scratch_model((64, 2, 4), train_tokenizer([TEXT], 420, "causal"), "encoder")
    with pytest.raises(ModelError, match="must share a vocabulary"):
        graft(encoder, causal("llama"))
    with pytest.raises(ModelError, match="no 4 layers"):
        graft(scratch_model((64, 2, 4), TOKENIZER, "encoder"), causal("llama"), 4)

"""Generation against `model.generate`: the same tokens for ragged prompts, whatever the architecture or the batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen3Config,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from teloi.errors import NonFinite, Overlong, TeloiError
from teloi.generate import local
from teloi.generate.forward import Beside
from teloi.generate.local import generate, sample
from teloi.generate.packed import packed

VOCAB = 64
TOKENIZER: Any = SimpleNamespace(eos_token_id=2)
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
GPT2 = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=2, bos_token_id=1)
OPT = OPTConfig(
    vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
    max_position_embeddings=64, eos_token_id=2, bos_token_id=1, pad_token_id=0,
)  # fmt: skip
MAMBA2 = Mamba2Config(
    vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=1,
    chunk_size=8, eos_token_id=2, bos_token_id=1, pad_token_id=0,
)  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "gpt2": GPT2,
    "opt": OPT,
    "mistral": MistralConfig(**SIZES, sliding_window=4),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=4, layer_types=["sliding_attention", "full_attention"]),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    "mamba2": MAMBA2,
}


def tiny(config: PreTrainedConfig, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():  # wide enough that the next token depends on the context
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model.eval()


def ragged(count: int, seed: int = 0, start: tuple[int, ...] = ()) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*start, *rng.integers(3, VOCAB, size=int(rng.integers(1, 14))).tolist()] for _ in range(count)]


def alone(model: Any, prompt: list[int], new: int, **how: Any) -> list[int]:
    """`model.generate` on one prompt: no padding, transformers' own cache."""
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, **how)
    completion: list[int] = out[0, len(prompt) :].tolist()
    return completion[: completion.index(2)] if 2 in completion else completion


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("start", [(), (5, 6, 7, 8, 9)], ids=["nothing shared", "shared start"])
def test_greedy_equals_generate_for_ragged_prompts(name: str, start: tuple[int, ...]) -> None:
    model = tiny(CONFIGS[name])
    prompts = ragged(7, start=start)
    made = generate(model, TOKENIZER, prompts, 12, batch_size=4)
    assert [row[0] for row in made] == [alone(model, prompt, 12) for prompt in prompts]
    assert len({tuple(row[0]) for row in made}) > 3, "the model ignores its prompt: the comparison shows nothing"


def test_samples_end_at_a_stop_token_and_say_so() -> None:
    model = tiny(CONFIGS["llama"])
    stop = list(range(2, 12))
    for row in sample(model, TOKENIZER, ragged(6), 20, temperature=1.0, n=5, stop=stop):
        for one in row:
            assert not set(one.ids) & set(stop)
            assert one.finished == (len(one.ids) < 20)
    assert all(len(one.ids) == 20 for row in sample(model, TOKENIZER, ragged(3), 20, stop=[]) for one in row)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model = tiny(CONFIGS["llama"]).double()  # leaves no room for rounding to tip a draw
    prompts = ragged(9)
    how: dict[str, Any] = {"temperature": 1.0, "n": 3, "seed": 5}
    together = generate(model, TOKENIZER, prompts, 15, **how)
    assert together == generate(model, TOKENIZER, prompts, 15, batch_size=1, **how)
    assert together == generate(model, TOKENIZER, prompts, 15, batch_size=7, **how)
    assert together[:4] == generate(model, TOKENIZER, prompts[:4], 15, **how)
    assert together != generate(model, TOKENIZER, prompts, 15, **{**how, "seed": 6})
    assert len({tuple(ids) for row in together for ids in row}) == 27


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.5, 1.0, 0), (1.0, 0.7, 0), (1.0, 1.0, 9), (0.5, 0.7, 9), (1.0, 1.0, 10**6)],
)
@pytest.mark.parametrize("few", [256, 5], ids=["few are enough", "all are sorted"])
def test_draws_follow_the_model_distribution(
    temperature: float, top_p: float, top_k: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 first tokens against softmax(logits / T), cut by transformers' own top-k and top-p; 5 standard
    deviations."""
    monkeypatch.setattr(local, "FEW", few)
    model, prompt, count = tiny(CONFIGS["llama"]), [5, 9, 11], 20_000
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[:, -1] / temperature
    if top_k:
        logits = TopKLogitsWarper(top_k)(torch.tensor([prompt]), logits)
    if top_p < 1:
        logits = TopPLogitsWarper(top_p)(torch.tensor([prompt]), logits)
    expected = logits.softmax(-1)[0].numpy()
    how: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    made = generate(model, TOKENIZER, [prompt], 1, n=count, stop=[], **how)
    observed = np.bincount([ids[0] for ids in made[0]], minlength=VOCAB) / count
    assert (observed[expected == 0] == 0).all()
    assert (abs(observed - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_compute_the_same_and_leave_no_trace(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    first = torch.nn.Linear(40, 24)
    net = torch.nn.Sequential(first, torch.nn.Linear(24, 16, bias=False)).to(dtype)
    states = torch.randn(3, 5, 40, dtype=dtype)
    with torch.no_grad():
        plain = net(states)
        with packed(net):
            torch.testing.assert_close(net(states), plain, rtol=2e-2, atol=1e-2 if dtype == torch.bfloat16 else 1e-6)
            assert "forward" in first.__dict__
        first.weight.zero_()
        assert torch.equal(first(states), first.bias.expand(3, 5, 24))


def test_the_model_comes_back_as_it_was() -> None:
    model = tiny(CONFIGS["llama"]).train()
    seen: list[int] = []
    generate(model, TOKENIZER, ragged(5), 3, n=2, batch_size=4, progress=seen.append)
    assert model.training
    assert seen == [4, 4, 2]
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_peft_adapters_take_part() -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = get_peft_model(tiny(CONFIGS["llama"]), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    prompts = ragged(5)
    made = generate(model, TOKENIZER, prompts, 10)
    assert [row[0] for row in made] == [alone(model.eval(), prompt, 10) for prompt in prompts]
    with model.disable_adapter():
        assert made != generate(model, TOKENIZER, prompts, 10)


def test_what_cannot_be_generated_is_refused() -> None:
    model = tiny(CONFIGS["llama"])
    with pytest.raises(Overlong, match="prompt 2"):
        generate(model, TOKENIZER, [[5], [5] * 60], 10)
    with pytest.raises(TeloiError, match="prompt 2 is empty"):
        generate(model, TOKENIZER, [[5], []], 10)
    with pytest.raises(TeloiError, match="top_p"):
        sample(model, TOKENIZER, [[5]], 10, top_p=0.0)
    with pytest.raises(TeloiError, match="top_k"):
        sample(model, TOKENIZER, [[5]], 10, top_k=-1)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    for temperature in (0.0, 1.0):
        with pytest.raises(NonFinite):
            generate(model, TOKENIZER, [[5]], 10, temperature=temperature)
    assert generate(model, TOKENIZER, [], 10) == []


def test_stop_tokens_come_from_tokenizer_and_model() -> None:
    model = tiny(CONFIGS["llama"])
    model.generation_config.eos_token_id = [2, 7]
    assert local._stop_ids(model, SimpleNamespace(eos_token_id=9)) == {2, 7, 9}  # type: ignore[arg-type]


def test_tokens_that_the_model_bans_are_not_drawn() -> None:
    """As in transformers; words of several tokens are not looked at."""
    model = tiny(CONFIGS["llama"])
    prompts = ragged(7)
    free = [row[0] for row in generate(model, TOKENIZER, prompts, 12)]
    banned = [[ids[0]] for ids in free[:3]]
    model.generation_config.bad_words_ids = banned
    made = [row[0] for row in generate(model, TOKENIZER, prompts, 12)]
    assert made == [alone(model, prompt, 12) for prompt in prompts] != free
    drawn = generate(model, TOKENIZER, prompts, 12, temperature=1.0, n=20, stop=[])
    assert not {ids[0] for ids in banned} & {token for row in drawn for ids in row for token in ids}
    model.generation_config.bad_words_ids = [free[0][:2]]
    assert [row[0] for row in generate(model, TOKENIZER, prompts, 12)] == free


def mixed(share: float) -> Any:
    """Logits of two models, the second one's with this share."""
    return lambda first, second: torch.lerp(first, second, share)


def mixed_alone(first: Any, second: Any, prompt: list[int], new: int, share: float) -> list[int]:
    """The likeliest token by token, both models reading the whole text anew each time."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            logits = (model(torch.tensor([ids])).logits[0, -1] for model in (first, second))
            ids.append(int(mixed(share)(*logits).argmax()))
            if ids[-1] == 2:
                return ids[len(prompt) : -1]
    return ids[len(prompt) :]


@pytest.mark.parametrize(("name", "share"), [("llama", 0.0), ("llama", 0.4), ("llama", 1.0), ("lfm2", 0.4)])
def test_two_models_mixed_at_every_token(name: str, share: float) -> None:
    first, second = tiny(CONFIGS[name]).double(), tiny(CONFIGS[name], seed=1).double()
    prompts = ragged(4, start=(5, 6))
    made = generate(first, TOKENIZER, prompts, 6, batch_size=3, beside=Beside(second, mixed(share)))
    assert [row[0] for row in made] == [mixed_alone(first, second, prompt, 6, share) for prompt in prompts]
    if share in (0.0, 1.0):
        assert made == generate((first, second)[int(share)], TOKENIZER, prompts, 6)


def test_draws_follow_the_mixture() -> None:
    """20,000 first tokens against softmax of the mean logits; 5 standard deviations."""
    first, second = tiny(CONFIGS["llama"]), tiny(CONFIGS["llama"], seed=1)
    prompt, count = [5, 9, 11], 20_000
    with torch.no_grad():
        logits = [model(torch.tensor([prompt])).logits[:, -1] for model in (first, second)]
    expected = mixed(0.3)(*logits).softmax(-1)[0].numpy()
    beside = Beside(second, mixed(0.3))
    made = generate(first, TOKENIZER, [prompt], 1, temperature=1.0, n=count, stop=[], beside=beside)
    observed = np.bincount([ids[0] for ids in made[0]], minlength=VOCAB) / count
    assert (abs(observed - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)).all()


def test_the_second_model_may_be_the_first_without_its_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny(CONFIGS["llama"]).double()
    model: Any = get_peft_model(tiny(CONFIGS["llama"]).double(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    model = model.double().eval()
    prompts = ragged(3)
    beside = Beside(model.get_base_model(), mixed(0.5), model.disable_adapter)
    made = generate(model, TOKENIZER, prompts, 6, beside=beside)
    assert [row[0] for row in made] == [mixed_alone(model, plain, prompt, 6, 0.5) for prompt in prompts]
    assert [p.requires_grad for n, p in model.named_parameters() if "lora" in n] == [True] * 8

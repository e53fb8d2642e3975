"""Fresh samples from the policy: each prompt is encoded once for its whole group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.formats import Text, reply
from teloi.engine.objective import Now
from teloi.engine.plan import pack
from teloi.generate.forward import Beside
from teloi.generate.local import sample
from teloi.models.attention import attention
from teloi.models.roles import FrozenReference, LanguageModel, Models
from teloi.worlds.judges import Judge
from teloi.worlds.rewards import Reward, score

MICRO_TOKENS = 2048
"""Positions computed at a time where no gradient is kept."""

OLD_LOGPS = "old_logps"
"""Column of a branch: log-probability of each token under the policy that sampled it, float32 [n]."""

TOKEN_REWARDS = "token_rewards"
"""Column of a branch: what rewards say of each token, float32 [n]; a completion's whole reward is the sum."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: k for each prompt, at most so many tokens, at a temperature, of the `top_k` likeliest
    tokens (0: of all) those that hold the share `top_p`."""

    k: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


def sample_groups(
    models: Models,
    prompts: Sequence[Tree],
    sampling: Sampling,
    now: Now,
    name: str = "sampling",
    beside: Beside | None = None,
) -> list[Tree]:
    """Each prompt with k branches sampled from the policy, or from what it makes with a model beside it; column
    `finished`, bool [k], says which reached an end token.

    The draws are keyed by their name, the step and the example's place in it: the same on one process and on many.
    """
    assert models.processor is not None
    tokenizer = models.processor.tokenizer
    other = attention(beside.model, "sdpa") if beside else nullcontext()
    with attention(models.policy.inner, "sdpa"), other:
        groups = sample(
            models.policy.model,
            tokenizer,
            [tree.prompt.tolist() for tree in prompts],
            sampling.max_new_tokens,
            n=sampling.k,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=int(replace(now, rank=0).rng(name).integers(2**31)),
            keys=now.places or None,
            beside=beside,
        )
    end = tokenizer.eos_token_id
    return [
        replace(
            tree,
            branches=tuple(Branch.scored([*one.ids, *([end] if one.finished else [])]) for one in group),
            columns={**tree.columns, "finished": np.asarray([one.finished for one in group])},
        )
        for tree, group in zip(prompts, groups, strict=True)
    ]


def beside_reference(models: Models, mix: Callable[[Tensor, Tensor], Tensor]) -> Beside:
    """The reference beside the policy, in sampling from logits `mix(policy's, reference's)`. With an adapter it is the
    policy without it: never a second copy."""
    assert isinstance(models.reference, FrozenReference)
    return Beside(models.reference.model.inner, mix, models.reference.frozen)


def with_preferences(models: Models, trees: Sequence[Tree], opponents: Sequence[Tree], judge: Judge) -> list[Tree]:
    """The trees, of one branch each, with what a judge says of it against the opponent's.

    Columns, [1] each: `preference`, P(own > opponent's), 1/2 where the judge could not tell; `judged`, whether it
    could; `opponent_finished`.
    """
    pairs = [(texts(models, ours)[0], texts(models, theirs)[0]) for ours, theirs in zip(trees, opponents, strict=True)]
    said = judge.preferences([tree.source.prompt for tree in trees], pairs, columns_of(trees))
    found = []
    for tree, opponent, one in zip(trees, opponents, said, strict=True):
        columns = {
            "preference": np.asarray([0.5 if one is None else one], np.float32),
            "judged": np.asarray([one is not None]),
            "opponent_finished": opponent.columns["finished"],
        }
        found.append(replace(tree, columns={**tree.columns, **columns}))
    return found


def texts(models: Models, tree: Tree) -> list[Text]:
    """What the branches of a sampled tree say, in the form of its row: a string each, or a list of one message."""
    assert models.processor is not None
    decode = models.processor.tokenizer.decode
    said = [str(decode(branch.ids, skip_special_tokens=True)) for branch in tree.branches]
    return [reply(text, tree.source.conversational) for text in said]


def columns_of(trees: Sequence[Tree]) -> dict[str, list[Any]]:
    """The columns of the rows that sampled branches answer to, one entry a branch."""
    rows = [tree.source.columns for tree in trees for _ in tree.branches]
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def with_advantages(trees: Sequence[Tree], advantages: Callable[[Tensor], Tensor]) -> list[Tree]:
    """The trees with column `advantages` of their branches, one number for all tokens of a completion, computed from
    the rewards of all groups, [trees, k]."""
    rewards = torch.as_tensor(np.stack([tree.columns["rewards"] for tree in trees]))
    size = max(len(branch.ids) for tree in trees for branch in tree.branches)
    return with_padded(trees, {"advantages": advantages(rewards).flatten()[:, None].expand(-1, size)})


def with_old_logps(policy: LanguageModel, trees: Sequence[Tree]) -> list[Tree]:
    """The trees with the log-probability of each branch token under the policy as it is now, in column `old_logps`."""
    return recorded(policy, trees, lambda batch: {OLD_LOGPS: policy.logps(batch)})


def recorded(
    policy: LanguageModel, trees: Sequence[Tree], read: Callable[[TreeBatch], Mapping[str, Tensor]]
) -> list[Tree]:
    """The trees with what models say of each branch token now: columns by name, from `read(batch)`'s values [n]."""
    found = list(trees)
    with torch.no_grad():
        for micro in pack(list(range(len(trees))), [t.size for t in trees], MICRO_TOKENS, policy.layout):
            batch = TreeBatch([trees[i] for i in micro], policy.model.device)
            values = {name: value.cpu().split(batch.lengths.tolist()) for name, value in read(batch).items()}
            rows = iter(range(len(batch.lengths)))
            for i in micro:
                branches = [(branch, next(rows)) for branch in trees[i].branches]
                found[i] = replace(
                    trees[i],
                    branches=tuple(
                        with_columns(branch, {name: value[row] for name, value in values.items()})
                        for branch, row in branches
                    ),
                )
    return found


def with_columns(branch: Branch, columns: Mapping[str, Tensor]) -> Branch:
    """A branch with more columns, of one number a token."""
    return replace(branch, columns={**branch.columns, **{name: value.numpy() for name, value in columns.items()}})


def padded(trees: Sequence[Tree], name: str) -> Tensor:
    """A column of all branches as one tensor [b t], zeros behind their ends."""
    columns = [torch.as_tensor(branch.columns[name]) for tree in trees for branch in tree.branches]
    return torch.nn.utils.rnn.pad_sequence(columns, batch_first=True)


def lengths(trees: Sequence[Tree]) -> Tensor:
    """Tokens of all branches, int64 [b]."""
    return torch.tensor([len(branch.ids) for tree in trees for branch in tree.branches])


def with_rows(trees: Sequence[Tree], name: str, values: Tensor) -> list[Tree]:
    """The trees with a column of one number a branch, from values [b]."""
    parts = values.split([len(tree.branches) for tree in trees])
    return [
        replace(tree, columns={**tree.columns, name: part.numpy()}) for tree, part in zip(trees, parts, strict=True)
    ]


def with_padded(trees: Sequence[Tree], columns: Mapping[str, Tensor]) -> list[Tree]:
    """The trees with columns of their branches from tensors [b t]: the way back from `padded`."""
    rows = iter(range(sum(len(tree.branches) for tree in trees)))

    def filled(branch: Branch, row: int) -> Branch:
        return with_columns(branch, {name: values[row, : len(branch.ids)].clone() for name, values in columns.items()})

    return [replace(tree, branches=tuple(filled(branch, next(rows)) for branch in tree.branches)) for tree in trees]


def with_rewards(models: Models, trees: Sequence[Tree], rewards: Sequence[Reward]) -> list[Tree]:
    """The trees with the sum of some reward functions on each of their branches: column `rewards`, float32 [k]; and
    token by token in the branches' column `token_rewards`, where the number of a whole completion stands on its last
    token.

    The functions see every completion of the step in one call, with the columns of its row (`Tree.source`).
    """
    assert models.processor is not None
    prompts = [tree.source.prompt for tree in trees for _ in tree.branches]
    completions = [text for tree in trees for text in texts(models, tree)]
    ids = [branch.ids.tolist() for tree in trees for branch in tree.branches]
    given = (prompts, completions, columns_of(trees), ids, models.processor.tokenizer)
    scored = [score(reward, *given) for reward in rewards]
    tokens = iter([sum(parts[1:], parts[0]) for parts in zip(*scored, strict=True)])
    found = []
    for tree in trees:
        branches = tuple(
            replace(branch, columns={**branch.columns, TOKEN_REWARDS: next(tokens)}) for branch in tree.branches
        )
        totals = np.asarray([branch.columns[TOKEN_REWARDS].sum() for branch in branches], np.float32)
        found.append(replace(tree, branches=branches, columns={**tree.columns, "rewards": totals}))
    return found

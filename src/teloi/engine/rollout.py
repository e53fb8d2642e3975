"""Fresh samples from the policy: each prompt is encoded once for its whole group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.formats import Text
from teloi.engine.objective import Now
from teloi.engine.plan import pack
from teloi.generate.local import sample
from teloi.models.attention import attention
from teloi.models.roles import LanguageModel, Models
from teloi.worlds.rewards import Reward, score

MICRO_TOKENS = 2048
"""Positions computed at a time where no gradient is kept."""

OLD_LOGPS = "old_logps"
"""Column of a branch: log-probability of each token under the policy that sampled it, float32 [n]."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: k for each prompt, at most so many tokens, at a temperature."""

    k: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


def sample_groups(models: Models, prompts: Sequence[Tree], sampling: Sampling, now: Now) -> list[Tree]:
    """Each prompt with k branches sampled from the policy; column `finished`, bool [k], says which reached an end
    token.

    The draws are keyed by the step and the example's place in it: the same on one process and on many.
    """
    assert models.processor is not None
    tokenizer = models.processor.tokenizer
    with attention(models.policy.inner, "sdpa"):
        groups = sample(
            models.policy.model,
            tokenizer,
            [tree.prompt.tolist() for tree in prompts],
            sampling.max_new_tokens,
            n=sampling.k,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=int(replace(now, rank=0).rng("sampling").integers(2**31)),
            keys=now.places or None,
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


def with_advantages(trees: Sequence[Tree], advantages: Callable[[Tensor], Tensor]) -> list[Tree]:
    """The trees with column `advantages`, float32 [k], computed from the rewards of all groups, [trees, k]."""
    rewards = torch.as_tensor(np.stack([tree.columns["rewards"] for tree in trees]))
    values = advantages(rewards).numpy()
    return [
        replace(tree, columns={**tree.columns, "advantages": value}) for tree, value in zip(trees, values, strict=True)
    ]


def with_old_logps(policy: LanguageModel, trees: Sequence[Tree], micro_tokens: int = MICRO_TOKENS) -> list[Tree]:
    """The trees with the log-probability of each branch token under the policy as it is now, in column `old_logps`."""
    found = list(trees)
    with torch.no_grad():
        for micro in pack(list(range(len(trees))), [t.size for t in trees], micro_tokens, policy.layout):
            batch = TreeBatch([trees[i] for i in micro], policy.model.device)
            values = iter(torch.split(policy.logps(batch).cpu(), batch.lengths.tolist()))
            for i in micro:
                branches = tuple(
                    replace(branch, columns={**branch.columns, OLD_LOGPS: next(values).numpy()})
                    for branch in trees[i].branches
                )
                found[i] = replace(trees[i], branches=branches)
    return found


def with_rewards(models: Models, trees: Sequence[Tree], rewards: Sequence[Reward]) -> list[Tree]:
    """The trees with the sum of some reward functions on each of their branches: column `rewards`, float32 [k].

    The functions see every completion of the step in one call, with the columns of its row (`Tree.source`).
    """
    assert models.processor is not None
    prompts: list[Text] = []
    completions: list[Text] = []
    ids, rows = [], []
    for tree in trees:
        for branch in tree.branches:
            text = str(models.processor.tokenizer.decode(branch.ids, skip_special_tokens=True))
            prompts.append(tree.source.prompt)
            completions.append([{"role": "assistant", "content": text}] if tree.source.conversational else text)
            ids.append(branch.ids.tolist())
            rows.append(tree.source.columns)
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    totals = np.sum([score(reward, prompts, completions, columns, ids) for reward in rewards], axis=0)
    parts = iter(np.split(totals.astype(np.float32), np.cumsum([len(tree.branches) for tree in trees])[:-1]))
    return [replace(tree, columns={**tree.columns, "rewards": next(parts)}) for tree in trees]

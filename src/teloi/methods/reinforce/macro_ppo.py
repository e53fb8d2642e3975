"""PPO on macro actions: several tokens that share a value, a reward and an advantage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from teloi import losses
from teloi.engine.objective import Now, Term
from teloi.errors import UsageError
from teloi.methods.reinforce.ppo import PPO

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.batch.tree import Branch, Tree, TreeBatch
    from teloi.losses.macro import Tree as Parse
    from teloi.models.roles import Models


@dataclass(frozen=True)
class MacroPPO(PPO):
    """PPO on macro actions, MA-RLHF (Chai et al., 2025, section 3): credit is assigned to segments of an answer.

    An answer is cut into segments, the last token always one of its own. A segment's value is the mean of its tokens'
    values, its reward the sum of theirs; GAE runs over segments, with gamma and lam a segment; each token of a segment
    gets its advantage and its return. Losses are ppo's, token by token. Cuts: fixed, every n tokens; randomized,
    lengths drawn by shuffling a multiset; perplexity, a segment ends where the start model's perplexity is about to
    rise; parsing, the constituents of a syntax tree. With n = 1 it is ppo, with n the longest answer nearly one bandit.

    Use it where answers are long and the reward comes at their end: it reaches back over fewer steps. Not for rewards
    that are located already (fine-grained-ppo), which a long segment would smear."""

    epochs: int = 1
    """Passes over the samples of a step."""
    value_weight: float = 1.0
    """Weight of the critic's loss."""
    whiten_advantages: bool = False
    """Give advantages mean 0 and variance 1 over the tokens of the step; the paper does not."""
    segments: Literal["fixed", "randomized", "perplexity", "parsing"] = "fixed"
    """How an answer is cut."""
    n: int = 5
    """Tokens of a fixed segment; also where a tree does not fit an answer's tokens (watch `unparsed`)."""
    sizes: tuple[int, ...] = (2, 3, 5, 10)
    """Lengths of randomized segments; the released code has 1 too."""
    repeats: int = 3
    """How often each length is in the multiset. When it is used up, the rest of the answer is one segment."""
    offset: int = 0
    """Perplexity: 0 begins a segment at the token before the rise, as the released code does; 1 at the one that rises,
    as the paper says."""
    cutoff: int = 5
    """Parsing: a constituent of fewer tokens is one segment, a larger one is entered."""
    parser: str = ""
    """Parsing: my_parser.py:function or package.module:function that makes of a list of texts a list of trees: nested
    lists whose leaves are words, or None where there is no tree."""
    weights: Literal["equal", "unit", "position"] = "equal"
    """Weights of a segment's tokens in its value: equal; unit, the last one alone; position, falling as 1 / place."""
    macro_reward: Literal["sum", "sigma"] = "sum"
    """A segment's reward: the sum of its tokens' or, as in the released code, their mean by the same weights."""
    keep_empty: bool = False
    """As the released code: where the last token begins a segment anyway, an empty one stands before it."""
    score_clip: float = 2.5
    """Rewards from the reward functions are held between minus and plus this; inf for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n, self.repeats, *self.sizes, len(self.sizes)) < 1 or self.cutoff < 2:
            raise UsageError("n, sizes and repeats must be at least 1, and cutoff at least 2")
        if self.offset not in (0, 1):
            raise UsageError(f"offset is 0 or 1, not {self.offset}")
        if (self.segments == "parsing") != bool(self.parser):
            raise UsageError("segments parsing and parser go together: --segments parsing --parser my_parser.py:trees")
        if not self.score_clip > 0:
            raise UsageError(f"score_clip must be above 0, not {self.score_clip}")

    @property
    def roles(self) -> tuple[str, ...]:  # type: ignore[override]  # as ppo's; perplexity is the start model's
        return ("policy", "reference") if self.kl or self.segments == "perplexity" else ("policy",)

    def sampled(self, models: Models, examples: Sequence[Tree], now: Now) -> list[Tree]:
        from teloi.engine.rollout import TOKEN_REWARDS, padded, with_padded

        trees = super().sampled(models, examples, now)
        held = padded(trees, TOKEN_REWARDS).clamp(-self.score_clip, self.score_clip)
        return with_padded(trees, {TOKEN_REWARDS: held})

    def credited(self, models: Models, trees: Sequence[Tree], now: Now) -> list[Tree]:
        """As ppo's, with what the cut found: how many segments begin at a token, as column `starts` of the branches,
        and which completions a tree was to cut and did not fit, as column `unparsed`, bool [k]."""
        from teloi.engine.rollout import with_columns

        parses = iter(self.parsed(models, trees))
        cut = []
        for i, tree in enumerate(trees):
            rng = now.rng("macro actions", i)
            asked = [(branch, next(parses)) for branch in tree.branches]
            branches = tuple(
                with_columns(branch, {"starts": _counted(self.starts(branch, parse, rng), len(branch.ids))})
                for branch, parse in asked
            )
            unparsed = np.asarray([self.segments == "parsing" and parse is None for _, parse in asked])
            cut.append(replace(tree, branches=branches, columns={**tree.columns, "unparsed": unparsed}))
        return super().credited(models, cut, now)

    def starts(self, branch: Branch, parse: Parse | None, rng: np.random.Generator) -> list[int]:
        """Where the segments of a completion begin."""
        import torch

        length = len(branch.ids)
        match self.segments:
            case "randomized":
                sizes = rng.permutation(np.repeat(self.sizes, self.repeats)).tolist()
                return losses.listed_starts(length, sizes, keep_empty=self.keep_empty)
            case "perplexity":
                perplexities = torch.as_tensor(branch.columns["reference_logps"]).neg().exp()
                return losses.perplexity_starts(perplexities, offset=self.offset, keep_empty=self.keep_empty)
            case "parsing" if parse is not None:
                return losses.parsed_starts(parse, self.cutoff, length=length)
        return losses.fixed_starts(length, self.n, keep_empty=self.keep_empty)

    def parsed(self, models: Models, trees: Sequence[Tree]) -> list[Parse | None]:
        """The syntax tree of each completion with tokens for words; None where there is none, or it does not fit."""
        branches = [branch for tree in trees for branch in tree.branches]
        if self.segments != "parsing":
            return [None] * len(branches)
        from teloi.data.segmentation import tree_of_tokens
        from teloi.names import import_named

        assert models.processor is not None
        tokenizer = models.processor.tokenizer

        def decode(ids: Sequence[int]) -> str:
            return str(tokenizer.decode(list(ids), skip_special_tokens=True))

        ids = [branch.ids.tolist() for branch in branches]
        texts = [decode(one) for one in ids]
        trees_of_words = import_named(self.parser, "parser")(texts)
        return [
            None if tree is None else tree_of_tokens(tree, text, one, decode)
            for tree, text, one in zip(trees_of_words, texts, ids, strict=True)
        ]

    def advantages(self, rewards: Tensor, values: Tensor, trees: Sequence[Tree]) -> tuple[Tensor, Tensor]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        counts = [torch.as_tensor(branch.columns["starts"]) for tree in trees for branch in tree.branches]
        cuts = [torch.repeat_interleave(torch.arange(len(count)), count) for count in counts]
        rows = [(row, cut, len(count)) for row, (cut, count) in enumerate(zip(cuts, counts, strict=True))]
        total = self.macro_reward == "sum"
        value = pad_sequence([losses.aggregate(values[i, :n], cut, self.weights) for i, cut, n in rows], True)
        reward = [losses.aggregate(rewards[i, :n], cut, self.weights, total=total) for i, cut, n in rows]
        found = losses.gae(pad_sequence(reward, True), value, self.gamma, self.lam)
        both = (
            pad_sequence([losses.spread(one[i, : len(cut)], cut, n) for i, cut, n in rows], True)
            for one in (found, found + value)
        )
        return next(both), next(both)

    def metrics(self, batch: TreeBatch, logps: Tensor) -> dict[str, Term]:
        starts = batch.tokens["starts"]
        found = {**super().metrics(batch, logps), "segment": Term(starts.new_ones(len(starts)), starts, weight=0.0)}
        if self.segments == "parsing":
            found["unparsed"] = Term(batch.columns["unparsed"].float(), per="rows", weight=0.0)
        return found


def _counted(starts: Sequence[int], length: int) -> Tensor:
    """How many of the starts each of so many tokens is."""
    import torch

    return torch.bincount(torch.tensor(starts), minlength=length)

"""Proximal policy optimisation of a language model: a learned value says how much better a token was than expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from teloi import losses
from teloi.engine.objective import Now, Term
from teloi.errors import UsageError
from teloi.methods.reinforce.online import Online

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.models.roles import Models


@dataclass(frozen=True)
class PPO(Online):
    """PPO with a KL penalty (Stiennon et al., 2020, section 3.4; Schulman et al., 2017).

    Reward of a token: -kl (log p - log ref), and on the last token what the reward function says of the answer (or
    where it says so, token by token). Advantages: GAE on the values of a critic, whitened over the tokens of the step.
    Loss: max(-A rho, -A clip(rho, 1 - clip, 1 + clip)) + value_weight * 0.5 max((V - R)^2, (clip(V, V_old -+
    value_clip) - R)^2), each a mean over tokens. Log-probabilities are those at temperature 1, whatever the sampling's.

    Use it with a learned reward (rm), or rewards that come amid an answer. Not where several samples of a prompt are
    cheap and the reward is one number an answer: grpo needs no critic. Watch `kl` beside `reward`: a reward that rises
    with a KL above 10 is seldom what people meant."""

    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5, "batch_size": 16, "lr_scheduler_type": "constant"}

    k: int = 1
    """Completions sampled of each prompt."""
    epochs: int = 4
    """Passes over the samples of a step."""
    kl: float = 0.05
    """Weight of the KL to the start model in the rewards of tokens; at 0 no reference model is kept."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """How the KL is estimated."""
    gamma: float = 1.0
    """Discount of a reward, a token."""
    lam: float = 0.95
    """Of GAE: 0 trusts the critic, 1 the rewards."""
    clip: float = 0.2
    """Clip range of the ratio to the policy that sampled."""
    value: str = "policy"
    """The critic: "policy", a copy of the start model; "head", one linear map on the policy's own states (half the
    memory); or the run of a reward model (rm)."""
    value_clip: float = 0.2
    """How far the critic moves from what it said at sampling time before its error no longer counts."""
    value_weight: float = 0.1
    """Weight of the critic's loss."""
    value_learning_rate: float | None = None
    """Learning rate of the critic. Default: the policy's."""
    unfinished: float | None = None
    """Score of an answer without an end token, in place of its reward; None: as the reward function says."""
    whiten_rewards: bool = False
    """Divide rewards by their deviation over the tokens of the step; the mean stays."""
    whiten_advantages: bool = True
    """Give advantages mean 0 and variance 1 over the tokens of the step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("clip", "value_clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")

    def build(self, models: Models) -> nn.Module:
        from teloi.models.scalar import ValueNetwork, scalar_head

        if self.value == "head":
            return scalar_head(models.policy)
        if self.value == "policy":
            return ValueNetwork.like(models.policy)
        return ValueNetwork.of_reward(self.value, models.policy)

    def parameter_groups(self, models: Models) -> list[dict[str, Any]] | None:
        if self.value_learning_rate is None:
            return None
        policy, critic = ([p for p in model.parameters() if p.requires_grad] for model in models.trained)
        return [{"params": policy}, {"params": critic, "lr": self.value_learning_rate}]

    def rollout(self, models: Models, examples: Sequence[Tree], now: Now) -> Sequence[Tree]:
        from teloi.engine.rollout import OLD_LOGPS, recorded

        def read(batch: TreeBatch) -> dict[str, Tensor]:
            logps, values = self.said(models, batch)
            reference = models.reference.logps(batch) if models.reference else logps
            return {OLD_LOGPS: logps, "reference_logps": reference, "values": values}

        trees = self.sampled(models, examples, now)
        return self.credited(models, recorded(models.policy, trees, read), now)

    def said(self, models: Models, batch: TreeBatch) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the sampled tokens, and the critic's values of the states before them."""
        from teloi.models.scalar import read_scalar

        assert models.parts is not None
        if self.value != "head":
            return models.policy.logps(batch), models.parts(batch)
        states = models.policy.hidden(batch)
        return models.policy.logps_at(states, batch.target), read_scalar(models.parts, states)

    def credited(self, models: Models, trees: Sequence[Tree], now: Now) -> list[Tree]:
        """What the rollout found, as columns `advantages` and `returns` of the branches, and `kl` [k] of the trees."""
        from teloi.engine.rollout import OLD_LOGPS, TOKEN_REWARDS, lengths, padded, with_padded, with_rows

        scores, values = padded(trees, TOKEN_REWARDS), padded(trees, "values")
        real = losses.real(lengths(trees), scores.shape[1])
        if self.unfinished is not None:
            finished = scores.new_tensor([one for tree in trees for one in tree.columns["finished"]]).bool()
            penalties = scores.new_full((len(scores),), self.unfinished)
            penalised = losses.scores_at_ends(penalties, lengths(trees), scores.shape[1])
            scores = scores.where(finished[:, None], penalised)
        kl = losses.kl_estimate(padded(trees, OLD_LOGPS), padded(trees, "reference_logps"), self.kl_estimator)
        rewards = scores - self.kl * kl
        if self.whiten_rewards:
            rewards = self.whitened(models, rewards, real, keep_mean=True)
        advantages, returns = self.advantages(rewards, values, trees)
        if self.whiten_advantages:
            advantages = self.whitened(models, advantages, real)
        return with_rows(with_padded(trees, {"advantages": advantages, "returns": returns}), "kl", kl.sum(1))

    def advantages(self, rewards: Tensor, values: Tensor, trees: Sequence[Tree]) -> tuple[Tensor, Tensor]:
        """Advantages and returns of tokens, [b t] each, from their rewards and values."""
        found = losses.gae(rewards, values, self.gamma, self.lam)
        return found, found + values

    def whitened(self, models: Models, values: Tensor, real: Tensor, **how: Any) -> Tensor:
        """Whitened by the tokens of the whole step, whichever process has them; a single one has no variance. `how`:
        options of `losses.whiten`."""
        among = models.gather(values[real].to(models.device)).cpu()
        return losses.whiten(values, real, among=among, **how) if len(among) > how.get("bessel", True) else values

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        logps, values = self.said(models, batch)
        tokens = batch.tokens
        surrogate = losses.clipped_surrogate(logps, tokens["old_logps"], tokens["advantages"], self.clip, self.clip)
        error = losses.clipped_value_loss(values, tokens["values"], tokens["returns"], self.value_clip)
        return {
            "policy": Term(surrogate, per="tokens"),
            "value": Term(error, per="tokens", weight=self.value_weight),
            "kl": Term(batch.columns["kl"], per="rows", weight=0.0),
            "clipped": self.clipped(batch, logps, self.clip, self.clip),
            **self.metrics(batch, logps),
        }

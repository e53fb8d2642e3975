"""Reinforcement learning with verifiable rewards: the PPO of Tülu 3."""

from __future__ import annotations

from dataclasses import dataclass

from teloi.methods.reinforce.ppo import PPO


@dataclass(frozen=True)
class RLVR(PPO):
    """PPO on what a program finds right (Lambert et al., 2024, section 6).

    An answer scores 10 where its verifier accepts it and 0 where not; one without an end token scores -10, right or
    not. Loss: that of ppo, with its KL penalty in the rewards of tokens. The official code puts the score one position
    behind the end token, here it stands on it.

    Use it where a program can say what is right (gsm8k, math, code, checks: --reward "10*gsm8k"), from a model that is
    right now and then. Not where several samples of a prompt are cheap: grpo with --kl 0.01 is what Tülu 3.1 replaced
    it by, and needs no critic. Watch `kl`: with a small weight of it constraints are met by answers nobody wants."""

    reward: str = "10*checks"
    """Reward functions, joined by +, each with what a right answer scores before it: "10*gsm8k", "10*code". Those that
    come along read columns of the rows: gsm8k, math, exact (`ground_truth`), format (`pattern`), code (`tests`), checks
    (`checks`), verifiable (`dataset` and `ground_truth`); others are named as for ppo."""
    unfinished: float | None = -10.0
    """Score of an answer without an end token, in place of its reward; None: as the reward function says."""

"""An objective of one's own. It trains, compares, shows and explains itself like a built-in one:

teloi train docs/write_your_own.py:RankAndImitate --data pairs.jsonl --scale 3
teloi compare dpo docs/write_your_own.py:RankAndImitate --data pairs.jsonl --budget 100k
teloi show docs/write_your_own.py:RankAndImitate
"""

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from teloi import Objective, Preference, Term, tree


@dataclass(frozen=True)
class RankAndImitate(Objective):
    """Rank the chosen reply first by its mean log-probability, and imitate it a little.

    Loss: -log sigmoid(scale * (mean log p of chosen - of rejected)) - imitation * mean log p of chosen."""

    reads = Preference  # the columns it reads; other data are cast where that loses nothing
    defaults = {"learning_rate": 2e-5}  # settings that suit it better than the general ones
    scale: float = 2.0
    """How sharply the two sides are told apart."""  # every field is a flag, and this its help text
    imitation: float = 0.1
    """Weight of the likelihood of the chosen reply."""

    def encode(self, row, processor):  # a row becomes an example: a prompt and its completions
        return tree(processor, row.prompt, [row.chosen, row.rejected])

    def loss(self, models, batch, now):  # a batch becomes named terms, each with what it is averaged over
        chosen, rejected = batch.branch_means(models.policy.logps(batch))
        return {
            "rank": Term(-logsigmoid(self.scale * (chosen - rejected)), per="trees"),
            "nll": Term(-chosen, per="trees", weight=self.imitation),
        }

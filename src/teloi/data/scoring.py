"""How a trained model says how likely a text is: what stands before the text, and in which direction it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from teloi.data.vocabulary import begin_id

if TYPE_CHECKING:
    from teloi.data.processor import Processor

Kind = Literal["causal", "prefix", "masked", "gaps"]

LIKELIHOODS = ("causal", "prefix")
"""Ways whose token probabilities multiply to the likelihood of a whole text."""


@dataclass(frozen=True)
class Scoring:
    """One way in which a model that was trained with an objective scores the tokens of a text.

    causal: each token given those before it. prefix: the same in an encoder-decoder, whose encoder reads the text up to
    a point and whose decoder writes what follows. masked: each token given all others, at the place of a mask. gaps:
    the same in an encoder-decoder, where a sentinel stands for the token. The last two give a pseudo-likelihood
    (Salazar et al., 2020): its factors are no factors of one distribution.

    `front` stands before a text (a begin token, a control token, the mode token of UL2); with none a causal text's
    first token is read, not scored. `length`: tokens of the longest text that was trained on; longer ones are scored
    in pieces.
    """

    kind: Kind
    front: tuple[int, ...] = ()
    length: int | None = None


def from_left(architecture: str, processor: Processor) -> tuple[Scoring, ...]:
    """How a causal model scores plain text if nothing else is said: each token given those before it. None for any
    other architecture."""
    return (Scoring("causal", text_front(processor)),) if architecture == "causal" else ()


def text_front(processor: Processor) -> tuple[int, ...]:
    """What a causal model is trained to read before a plain text: what its tokenizer puts there, else the begin token.

    Nothing for a chat model whose tokenizer puts nothing there: its begin token opens a turn.
    """
    if front := processor.front:
        return tuple(front)
    return () if processor.tokenizer.chat_template else (begin_id(processor.tokenizer),)

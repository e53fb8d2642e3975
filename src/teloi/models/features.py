"""Fixed vectors for texts, for models that read text without training an encoder of it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

HASHED = "hashed"
DIM = 384
"""Numbers of a hashed text's vector: as many as all-MiniLM-L6-v2 gives."""

Features = Callable[[str], NDArray[np.float32]]


@cache
def text_features(name: str) -> Features:
    """Makes float32 [e] of a text, of mean square 1.

    `name`: "hashed" is the sum of one random but fixed vector for each word and each of its character n-grams; else a
    frozen sentence encoder by directory, hub id or embedded name.
    """
    if name == HASHED:
        return _hashed
    from teloi.data.processor import Processor
    from teloi.models.load import load_model, load_tokenizer
    from teloi.models.sequences import SentenceEncoder, embed_texts

    encoder = SentenceEncoder(load_model(name, architecture="encoder"))
    processor = Processor(load_tokenizer(name), 256, "truncate")
    return lru_cache(2**16)(lambda text: _scaled(embed_texts(encoder, processor, [text])[0]))


@lru_cache(2**16)
def _hashed(text: str) -> NDArray[np.float32]:
    from teloi.models.zoo.hashed import features

    words = re.findall(r"\w+", text.lower())
    vectors = [_random(feature) for word in words for feature in features(word)]
    return _scaled(np.sum(vectors, 0) if vectors else np.zeros(DIM))


@lru_cache(2**14)
def _random(feature: str) -> NDArray[np.float64]:
    return np.random.default_rng(zlib.crc32(feature.encode())).normal(size=DIM)


def _scaled(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector)) or 1.0
    return np.asarray(vector * (len(vector) ** 0.5 / length), np.float32)

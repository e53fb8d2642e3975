"""Numbers that stand for content, so that equal rows are known on every process."""

from __future__ import annotations

import hashlib

import numpy as np


def identity(content: bytes) -> np.int64:
    """A number, not negative, that stands for some content."""
    return np.int64(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1)

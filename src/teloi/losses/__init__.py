"""Training objectives as pure functions of tensors: no model, no tokenizer, no I/O.

The names are in `__init__.pyi`, and resolved when they are first asked for: this package alone imports no torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

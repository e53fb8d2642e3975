"""teloi: training objectives for language models, as interchangeable parts.

The public names are in `__init__.pyi`, and imported when they are first asked for: `import teloi` costs nothing.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""`python -m teloi` is the command `teloi`; torchrun starts it this way."""

import sys

from teloi.cli import main

sys.exit(main())

"""`python -m holdfast`, and what torchrun is given: `torchrun --nproc-per-node 4 -m holdfast train ...`."""

from __future__ import annotations

import sys

from holdfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

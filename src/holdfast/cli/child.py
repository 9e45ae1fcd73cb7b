"""The command line in a process that another one has started and that ends with it (children.py)."""

from __future__ import annotations

import sys

from holdfast.cli.main import main

if __name__ == "__main__":
    from holdfast.train.launch import end_with_parent

    end_with_parent()
    sys.exit(main())

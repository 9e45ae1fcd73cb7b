"""Holdfast under the name and the flags of the official YOLOv9 program detect.py."""

import sys

from holdfast.cli.compat import main

if __name__ == "__main__":
    sys.exit(main("detect"))

"""Weight files: official checkpoints, our own, and the names that join them."""

from __future__ import annotations

from holdfast.weights.official import OfficialCheckpoint, read_official
from holdfast.weights.transfer import Transfer, load_official_state_dict, official_state_dict

__all__ = [
    "OfficialCheckpoint",
    "Transfer",
    "load_official_state_dict",
    "official_state_dict",
    "read_official",
]

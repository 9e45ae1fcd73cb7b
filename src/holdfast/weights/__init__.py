"""Weight files: official checkpoints, our own, the names that join them, and what is released where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.weights.official import OfficialCheckpoint, read_official
    from holdfast.weights.transfer import Transfer, load_official_state_dict, official_state_dict

__all__ = [
    "OfficialCheckpoint",
    "Transfer",
    "load_official_state_dict",
    "official_state_dict",
    "read_official",
]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for (PEP 562), so that a download does not wait for torch."""
    if name in ("OfficialCheckpoint", "read_official"):
        from holdfast.weights import official

        return getattr(official, name)
    if name in __all__:
        from holdfast.weights import transfer

        return getattr(transfer, name)
    raise AttributeError(f"module 'holdfast.weights' has no attribute '{name}'")

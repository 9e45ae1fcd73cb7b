"""Our released form: safetensors with a JSON header that says what the tensors are.

safetensors holds nothing but numbers and text, so reading one cannot run anything. The header is one metadata
entry, `holdfast`, because the format only allows text values. A file under official names has a header too:
its tensors tell the model, but not what the classes are called; `form` marks it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from holdfast.errors import WeightsError

OFFICIAL_FORM = "official"
_ENTRY = "holdfast"


def safetensors_bytes(state_dict: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """The content of a file with these tensors and this header.

    Args:
        state_dict: names to tensors.
        header: plain data; `model.header` for a model file.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    return save(tensors, metadata={_ENTRY: json.dumps(dict(header), ensure_ascii=False)})


def save_safetensors(path: Path | str, state_dict: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors and header to `path`, whose folder must exist.

    Raises:
        WeightsError: the file cannot be written.
    """
    try:
        Path(path).write_bytes(safetensors_bytes(state_dict, header))
    except OSError as fault:
        raise WeightsError(f"{path}: cannot be written ({fault}).") from fault


def read_safetensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads tensors and header. A file without our header gives an empty one.

    Raises:
        WeightsError: no such file, not safetensors, or a damaged header.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise WeightsError(f"There is no weight file '{path}'.", hint="Check the path.")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as fault:
        raise WeightsError(f"{path}: not a readable safetensors file ({fault}).") from fault
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: its header is not a table of entries.")
    return tensors, header

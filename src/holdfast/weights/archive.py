"""Files written by `torch.save`, in the zip container or as a sequence of pickles, read without unpickling.

Tensors are rebuilt here from the raw bytes of their storage, after checking that offset, shape and strides
stay inside it. Storages are read only when a tensor of them is asked for, so an optimizer state costs
nothing. Compressed zip entries are refused (torch never writes them; a small file could claim a huge size).
"""

from __future__ import annotations

import codecs
import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.errors import WeightsError
from holdfast.weights.pickles import Global, Instance, Interpreter, is_key

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_STORAGES.values(), torch.complex64)}
_REBUILDS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"}
_PARAMETERS = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
_NUMPY_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_PLAIN = {
    "builtins": {"set", "frozenset", "object", "bytearray", "complex", "slice", "range", "getattr"},
    "collections": {"OrderedDict", "defaultdict"},
    "copyreg": {"_reconstructor"},
    "argparse": {"Namespace"},
    "types": {"SimpleNamespace"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "datetime": {"datetime", "date", "timedelta", "timezone"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "torch": {"Size", "device", "Tensor", *_STORAGES, *_DTYPES},
    "torch.cuda": set(_STORAGES),
    "torch.storage": {"UntypedStorage"},
    "torch.serialization": {"_get_layout"},
    "torch._utils": _REBUILDS | _PARAMETERS,
    "torch.nn.parameter": {"Parameter"},
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass(eq=False)
class Storage:
    """A run of numbers in the file: `read` fetches the bytes."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytearray]
    cache: Tensor | None = None

    def tensor(self) -> Tensor:
        """The whole storage, flat."""
        if self.cache is None:
            raw = self.read()
            if len(raw) < self.count * self.dtype.itemsize:
                raise EOFError("a tensor's numbers are missing")
            self.cache = (
                torch.frombuffer(raw, dtype=self.dtype, count=self.count)
                if self.count
                else torch.empty(0, dtype=self.dtype)
            )
        return self.cache


@dataclass(eq=False)
class StoredTensor:
    """A tensor in the file, not yet read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        """The tensor, on the CPU, in the stored type. It shares memory with others of its storage."""
        flat = self.storage.tensor()
        if flat.dtype != self.dtype:
            flat = flat.view(self.dtype)
        return flat.as_strided(self.shape, self.strides, self.offset)


def read_archive(path: Path, *, classes: Callable[[Global], bool]) -> Any:
    """The value that was given to `torch.save`, as plain data, `Instance`s and `StoredTensor`s.

    Args:
        path: the file.
        classes: which further globals may be mentioned; they only ever become `Instance`s.

    Raises:
        WeightsError: not such a file, damaged, or mentioning anything that is not allowed.
    """
    with _faults(path), path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    with _faults(path):
        return _read_zip(path, classes) if is_zip else _read_legacy(path, classes)


def read_tensors(stored: dict[str, StoredTensor], path: Path) -> dict[str, Tensor]:
    """The tensors themselves, on the CPU, in the stored type.

    Raises:
        WeightsError: the file is cut off or its checksums are wrong.
    """
    with _faults(path):
        return {name: value.tensor() for name, value in stored.items()}


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise WeightsError(f"There is no weight file '{path}'.", hint="Check the path.") from None
    except IsADirectoryError:
        raise WeightsError(f"'{path}' is a folder, not a weight file.") from None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, KeyError) as fault:
        raise WeightsError(
            f"{path}: cannot be read ({fault}).", hint="The file is damaged or was not fully copied."
        ) from fault


def _read_zip(path: Path, classes: Callable[[Global], bool]) -> Any:
    content = path.read_bytes()
    archive = zipfile.ZipFile(io.BytesIO(content))  # in memory, so it needs no closing
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(pickles) != 1:
        raise WeightsError(f"{path}: a zip file, but not one that torch.save wrote (no data.pkl).")
    prefix = pickles[0].removesuffix("data.pkl")

    def entry(name: str) -> bytes:
        info = entries[prefix + name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
            raise WeightsError(
                f"{path}: the entry '{name}' is compressed, which torch never does. Not loaded."
            )
        return archive.read(info)

    if prefix + "byteorder" in entries and entry("byteorder") != b"little":
        raise WeightsError(f"{path}: written on a big-endian machine, which is not supported.")
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Storage:
        info = entries.get(f"{prefix}data/{key}")
        if info is None or info.file_size < count * dtype.itemsize:
            raise WeightsError(f"{path}: storage '{key}' is missing or too short; the file is damaged.")
        return storages.setdefault(key, Storage(dtype, count, lambda: bytearray(entry(f"data/{key}"))))

    return _interpreter(entry("data.pkl"), path, classes, storage).load()


def _read_legacy(path: Path, classes: Callable[[Global], bool]) -> Any:
    """Magic number, protocol, machine facts, the value, storage keys, then each size and bytes."""
    data = path.read_bytes()
    storages: dict[str, Storage] = {}
    raw: dict[str, bytearray] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Storage:
        return storages.setdefault(key, Storage(dtype, count, lambda: raw.get(key, bytearray())))

    reader = _interpreter(data, path, classes, storage)
    try:
        genuine = reader.load() == _LEGACY_MAGIC and reader.load() == _LEGACY_PROTOCOL
    except WeightsError as fault:
        if "asks for" in fault.message:
            raise
        genuine = False
    if not genuine:
        raise WeightsError(f"{path}: not a weight file that torch.save wrote.", hint="Expected a .pt file.")
    reader.load()  # byte order and integer sizes of the writing machine
    value = reader.load()
    keys = reader.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise WeightsError(f"{path}: the list of storages is damaged.")
    position = reader.position
    for key in keys:
        if key not in storages or position + 8 > len(data):
            raise WeightsError(f"{path}: storage '{key}' is missing; the file is cut off or damaged.")
        (count,) = struct.unpack_from("<q", data, position)
        size = count * storages[key].dtype.itemsize
        position += 8
        if count < 0 or position + size > len(data) or count < storages[key].count:
            raise WeightsError(f"{path}: storage '{key}' is cut off; the file is damaged.")
        raw[key] = bytearray(data[position : position + size])
        position += size
    return value


def _interpreter(
    data: bytes,
    path: Path,
    classes: Callable[[Global], bool],
    storage: Callable[[str, torch.dtype, int], Storage],
) -> Interpreter:
    def accept(name: Global) -> bool:
        return name.name in _PLAIN.get(_modern(name.module), ()) or classes(name)

    def persistent(value: Any) -> Storage | Global:
        if isinstance(value, tuple) and len(value) == 4 and value[0] == "module":
            kind = value[1]  # the legacy form stores a class with its source text, which is ignored
            if isinstance(kind, Global):
                return kind
        if not (isinstance(value, tuple) and len(value) >= 5 and value[0] == "storage"):
            raise WeightsError(f"{path}: a reference to something that is not a tensor storage. Not loaded.")
        kind, key, _, count = value[1:5]
        dtype = _STORAGES.get(kind.name) if isinstance(kind, Global) else None
        if dtype is None or not isinstance(key, str) or not _is_count(count):
            raise WeightsError(f"{path}: a damaged reference to a tensor storage. Not loaded.")
        if len(value) > 5 and value[5] is not None:
            raise WeightsError(
                f"{path}: a storage that is a view of another; such old files are not supported."
            )
        if kind.name == "UntypedStorage" and kind.module != "torch.storage":
            raise WeightsError(f"{path}: a damaged reference to a tensor storage. Not loaded.")
        return storage(key, dtype, count)

    return Interpreter(data, accept=accept, construct=_construct, persistent=persistent, where=str(path))


def _construct(function: Global, args: tuple[Any, ...]) -> Any:
    """Plain data for the calls that matter, an `Instance` for all others."""
    module, name = _modern(function.module), function.name
    if module == "torch._utils":
        return args[0] if name in _PARAMETERS else _tensor(name, args)
    if module == "torch" and name == "Size":
        return tuple(args[0])
    if module == "torch" and name == "device":
        return ":".join(str(part) for part in args if isinstance(part, (str, int)))
    if module == "collections" and name == "OrderedDict":
        return _mapping(args[0] if args else [])
    if module == "collections" and name == "defaultdict":
        return {}
    if module == "builtins" and name == "getattr":
        return _method(function, args)
    if module == "builtins" and name in ("set", "frozenset"):
        return set(_keys(args[0] if args else []))
    if module == "_codecs":
        return codecs.encode(args[0], "latin-1") if isinstance(args[0], str) else b""
    if module.startswith("pathlib"):
        return "/".join(part for part in args if isinstance(part, str))
    if module == "copyreg":  # how protocols 0 and 1 build any object
        return Instance(args[0]) if isinstance(args[0], Global) else None
    if module in _NUMPY_ARRAYS and name == "scalar":
        values = _numbers(args[0], args[1], 1)
        return values[0] if values else None
    return Instance(function, args)


def _method(function: Global, args: tuple[Any, ...]) -> Instance:
    """A method of an object in the file, as modules hold whose forward was replaced. Only a record of it."""
    owner, name = args
    if not isinstance(owner, Instance) or not isinstance(name, str):
        raise ValueError("an attribute of something that is no object of the file is asked for")
    return Instance(function, args)


def _tensor(rebuild: str, args: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, Storage) or not _is_count(offset):
        raise ValueError
    dtype, count = storage.dtype, storage.count
    if rebuild == "_rebuild_tensor_v3":
        dtype = _DTYPES[args[6].name]
        count = count * storage.dtype.itemsize // dtype.itemsize
    shape, strides = tuple(shape), tuple(strides)
    if len(shape) != len(strides) or len(shape) > 16 or not all(map(_is_count, (*shape, *strides))):
        raise ValueError
    numel = 1
    for size in shape:
        numel *= size
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if numel > count or (numel and last >= count):
        raise ValueError(f"a tensor of shape {shape} reaches outside its storage of {count} numbers")
    return StoredTensor(storage, offset, shape, strides, dtype)


def number_array(value: Any) -> list[float] | None:
    """The numbers of a pickled NumPy array as a flat list; None for anything else."""
    if not (isinstance(value, Instance) and value.kind.module in _NUMPY_ARRAYS):
        return None
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple):
        return None
    return _numbers(state[2], state[4], None)


def _numbers(dtype: Any, raw: Any, count: int | None) -> list[float] | None:
    known = isinstance(dtype, Instance) and dtype.args and isinstance(dtype.args[0], str)
    if not known or not isinstance(raw, bytes) or not re.fullmatch(r"[fiub][1248]", dtype.args[0]):
        return None
    kind = "?" if dtype.args[0] == "b1" else dtype.args[0]
    size = np.dtype(kind).itemsize
    if len(raw) % size or (count is not None and len(raw) != count * size):
        return None
    values: list[float] = np.frombuffer(raw, np.dtype(kind).newbyteorder("<")).tolist()
    return values


def _mapping(pairs: Any) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return pairs
    return {key: value for key, value in pairs if is_key(key)}


def _keys(values: Any) -> list[Any]:
    return [value for value in values if is_key(value)]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _modern(module: str) -> str:
    """Python 2's names, which protocol 2 still writes."""
    return {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)

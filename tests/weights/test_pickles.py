"""Malicious pickles are refused by name in every position, opcode and container, and nothing of them runs."""

from __future__ import annotations

import builtins
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torchfiles import write_legacy, write_zip

from holdfast.errors import WeightsError
from holdfast.weights import read_official
from holdfast.weights.pickles import Global, Instance, Interpreter

VARIABLE = "HOLDFAST_TEST_PICKLE_RAN"
COMMAND = f"__import__('os').environ.__setitem__('{VARIABLE}', '1')"


class Bomb:
    """Unpickled, sets an environment variable."""

    def __init__(self, function: Callable[..., Any] = builtins.eval) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, (COMMAND,)


class Holder:
    """Anything with state."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), self.state


class Caller:
    def __init__(self, argument: Any) -> None:
        self.argument = argument

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, ([("key", self.argument)],)


POSITIONS: dict[str, Callable[[Any], Any]] = {
    "top": lambda bomb: bomb,
    "dict value": lambda bomb: {"model": None, "opt": bomb},
    "dict key": lambda bomb: {bomb: 1},
    "list": lambda bomb: {"model": [1, [2, [bomb]]]},
    "tuple": lambda bomb: {"model": (1, (bomb,))},
    "set": lambda bomb: {"model": {bomb}},
    "call argument": lambda bomb: {"model": Caller(bomb)},
    "state": lambda bomb: {"model": Holder({"weights": bomb})},
    "after a good entry": lambda bomb: [OrderedDict(a=1), bomb],
}


@pytest.fixture(autouse=True)
def nothing_ran(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    assert VARIABLE not in os.environ


def refused(path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="refused") as caught:
        read_official(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_eval_is_refused_in_every_position(
    tmp_path: Path, write: Callable[..., Path], position: str, protocol: int
) -> None:
    payload = pickle.dumps(POSITIONS[position](Bomb()), protocol=protocol)
    refused(write(tmp_path / "x.pt", payload), "eval")


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_os_system_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    payload = pickle.dumps({"model": Bomb(os.system)})
    refused(write(tmp_path / "x.pt", payload), f"{os.system.__module__}.system")


NAMED = {
    "GLOBAL": (b"cos\nsystem\n(Vtrue\ntR.", "os.system"),
    "INST": (b"(Vtrue\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nVtrue\no.", "os.system"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x85R.", "os.system"),
    "NEWOBJ": (b"\x80\x02cos\nsystem\n)\x81.", "os.system"),
    "NEWOBJ_EX": (b"\x80\x04cos\nsystem\n)}\x92.", "os.system"),
    "mentioned, never called": (b"cos\nsystem\n0N.", "os.system"),
    "persistent id": (b"(Vstorage\ncos\nsystem\nV0\nVcpu\nK\x01tQ.", "os.system"),
    "dotted name of a known package": (b"cmodels.yolo\nModel.__init__.__globals__\n.", "__globals__"),
    "function of a known package": (b"ctorch.nn.modules.module\nregister_hook\n.", "register_hook"),
    "package that starts like a known one": (b"cmodels_evil\nModel\n.", "models_evil.Model"),
    "function of the other program": (b"cultralytics.utils.checks\ncheck_yaml\n.", "check_yaml"),
    "its prefix of losses alone": (b"cultralytics.utils.loss\nv8\n.", "loss.v8"),
    "its losses, lower case": (b"cultralytics.utils.loss\nv8loss\n.", "loss.v8loss"),
    "attribute setting": (b"cbuiltins\nsetattr\n.", "builtins.setattr"),
    "attribute of a module": (b"cbuiltins\ngetattr\n(cos\npath\nVjoin\ntR.", "os.path"),
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("case", NAMED)
def test_every_way_to_name_a_callable_is_refused(
    tmp_path: Path, case: str, write: Callable[..., Path]
) -> None:
    payload, name = NAMED[case]
    refused(write(tmp_path / "x.pt", payload), name)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x82\x01.",  # EXT1: the extension registry of the running process
        b"\x84\x01\x00\x00\x00.",
        b"\x97.",  # NEXT_BUFFER
        b"ccollections\nOrderedDict\n)R)R.",  # calls the result of a call
        b"Vtext\n)R.",
        b"]}b.",  # state on a list
        b"ccollections\nOrderedDict\nVattribute\nVvalue\nsb.",  # items set on a name
        b"\x80\x09.",
    ],
)
def test_opcodes_that_could_reach_live_objects_are_errors(tmp_path: Path, payload: bytes) -> None:
    with pytest.raises(WeightsError):
        read_official(write_zip(tmp_path / "x.pt", payload))


MODULE = b"cultralytics.nn.tasks\nDetectionModel\n)\x81"


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\ngetattr\n.",  # mentioned, never called
        b"cbuiltins\ngetattr\n(cultralytics.nn.tasks\nDetectionModel\nVload\ntR.",  # of a class
        b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\nV__class__\ntR.",
        b"cbuiltins\ngetattr\n(VtextV__class__\ntR.",
        b"cbuiltins\ngetattr\n(" + MODULE + b"K\x01tR.",  # no name
        b"cbuiltins\ngetattr\n(" + MODULE + b"Vload\nNtR.",  # with a default
        b"cbuiltins\ngetattr\n(" + MODULE + b"Vload\ntR)R.",  # what comes out is called
        b"cbuiltins\ngetattr\n)R.",
    ],
)
def test_attributes_are_records_and_nothing_can_be_reached_through_them(
    tmp_path: Path, payload: bytes
) -> None:
    with pytest.raises(WeightsError):
        read_official(write_zip(tmp_path / "x.pt", payload))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"N",
        b"0.",
        b"t.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # 9 exabytes announced
        b"X\xff\xff\xff\xffabc.",
        b"\x8b\xff\xff\xff\x7f.",
        b"Nr\xff\xff\xff\xff0.",  # memo index 4294967295 must not allocate
        b"h\x05.",
        b"L" + b"9" * 5000 + b"\n.",
        b"I12x\n.",
        b"\x8c\x02\xff\xff.",
        b"}]Ns.",  # a list as key
    ],
)
def test_damage_and_absurd_sizes_are_one_error(tmp_path: Path, payload: bytes) -> None:
    with pytest.raises(WeightsError):
        read_official(write_zip(tmp_path / "x.pt", payload))


def test_deeply_shared_tuple_as_key_is_refused_at_once(tmp_path: Path) -> None:
    # Sixty times "pair of itself twice": hashing it would take 2**60 steps.
    with pytest.raises(WeightsError, match="key"):
        read_official(write_zip(tmp_path / "x.pt", b"}N" + b"2\x86" * 60 + b"Ns."))


def interpret(payload: bytes) -> Any:
    return Interpreter(
        payload,
        accept=lambda name: True,
        construct=lambda name, args: Instance(name, args),
        persistent=lambda key: ("persistent", key),
        where="here",
    ).load()


VALUES = [
    None, True, False, 0, 1, -1, 255, 256, 65536, -(2**31), 2**40, -(2**70), 2**3000, 1.5, float("inf"), "",
    "text", "äöü€😀\n\\", b"", b"\x00\xff" * 200, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1],
    list(range(1500)), {}, {"a": 1}, {i: str(i) for i in range(1500)}, {1, 2, 3}, frozenset({1, "b"}), "x" *
70000, (([], {}), {"k": [()]}), ]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_out_as_python_reads_them(protocol: int) -> None:
    for value in VALUES:
        if protocol < 4 and isinstance(value, (set, frozenset)):
            continue  # a call there, answered by the archive reader
        if protocol < 3 and isinstance(value, bytes):
            continue  # likewise
        assert interpret(pickle.dumps(value, protocol=protocol)) == value


def test_shared_and_recursive_values_keep_their_identity() -> None:
    inner: list[Any] = []
    inner.append(inner)
    read = interpret(pickle.dumps([inner, inner]))
    assert read[0] is read[1]
    assert read[0][0] is read[0]


def test_objects_become_records_of_what_was_asked() -> None:
    read = interpret(b"cpackage\nThing\n(K\x01K\x02tR}Vx\nK\x03sb.")
    assert isinstance(read, Instance)
    assert (read.kind, read.args, read.state) == (Global("package", "Thing"), (1, 2), {"x": 3})

"""Reads a pickle as data. Nothing is imported, looked up or called, so nothing in the file can run.

Python's own unpickler resolves names to real objects and calls them; restricting it means trusting every
corner of it. This is a small interpreter of the pickle opcodes instead: a name becomes a `Global`, a
construction becomes an `Instance` holding its arguments and state, and only names on the caller's list are
accepted at all. The few calls that matter (rebuilding a tensor, an ordered dict) are answered by the caller's
`construct` function.

Guards: every length is checked against the bytes left, the memo is a dictionary (a huge index costs nothing),
and only scalars and flat tuples may be keys (hashing a deeply shared tuple never ends).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import WeightsError

MARK = object()
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Global:
    """A name the pickle mentions, as text."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """An object the pickle would have built.

    Attributes:
        kind: its class.
        args: constructor arguments.
        state: what would have gone to `__setstate__` or `__dict__`.
        items: appended elements, or (key, value) pairs of a mapping.
    """

    kind: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


class Interpreter:
    """One pass over one or several pickles that follow each other in `data`.

    Args:
        data: the bytes.
        accept: whether a global may be mentioned.
        construct: answers a call of an accepted global with plain data or an `Instance`.
        persistent: answers a persistent id.
        where: the file, for messages.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        *,
        accept: Callable[[Global], bool],
        construct: Callable[[Global, tuple[Any, ...]], Any],
        persistent: Callable[[Any], Any],
        where: str,
    ) -> None:
        self.data = memoryview(data)
        self.position = 0
        self.accept = accept
        self.construct = construct
        self.persistent = persistent
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Reads the next pickle and returns its value.

        Raises:
            WeightsError: a name that is not accepted, an opcode without meaning here, or damaged data.
        """
        self.stack, self.memo = [], {}
        try:
            while True:
                code = self._take(1)[0]
                if code == 0x2E:  # STOP
                    return self.stack.pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise self._fault(f"opcode {bytes([code])!r} is not allowed")
                operation(self)
        except (
            IndexError,
            KeyError,
            ValueError,
            TypeError,
            struct.error,
            UnicodeError,
            OverflowError,
        ) as fault:
            raise self._fault(f"damaged pickle ({str(fault)[:200] or type(fault).__name__})") from fault

    def _fault(self, what: str) -> WeightsError:
        return WeightsError(
            f"{self.where}: {what} at byte {self.position}.", hint="Nothing in the file was run. Not loaded."
        )

    # Reading

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise self._fault("the data ends too early")
        part = self.data[self.position : end]
        self.position = end
        return part

    def _number(self, layout: str) -> int:
        return int(struct.unpack("<" + layout, self._take(struct.calcsize("<" + layout)))[0])

    def _line(self) -> str:
        rest = self.data[self.position : self.position + _LONGEST_LINE].tobytes()
        end = rest.find(b"\n")
        if end < 0:
            raise self._fault("a text line never ends")
        self.position += end + 1
        return rest[:end].decode("latin-1")

    # Stack

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is MARK:
                values = self.stack[i + 1 :]
                del self.stack[i:]
                return values
        raise self._fault("damaged pickle (no mark)")

    # Names and construction

    def _global(self, module: Any, name: Any) -> Global:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise self._fault("a global's name is not text")
        found = Global(module, name)
        if not self.accept(found):
            raise WeightsError(
                f"{self.where}: the pickle asks for '{found}', which no weight file needs; it was refused.",
                hint="Nothing in the file was run. Get the weights from a source you trust.",
            )
        return found

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise self._fault("something that is not a known name is called")
        return self.construct(function, args)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.state = state
        elif not isinstance(target, dict):  # attributes of an ordered dict are of no use
            raise self._fault(f"state is set on a {type(target).__name__}")

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise self._fault(f"elements are appended to a {type(target).__name__}")

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Instance):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            for key, value in pairs:
                target[self._key(key)] = value
        else:
            raise self._fault(f"items are set on a {type(target).__name__}")

    def _add_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise self._fault(f"members are added to a {type(target).__name__}")
        target.update(self._key(v) for v in values)

    def _key(self, value: Any) -> Any:
        if not is_key(value):
            raise self._fault(f"a {type(value).__name__} is used as a key")
        return value


def is_key(value: Any) -> bool:
    """Whether `value` may be a dictionary key or set member: a scalar or a tuple of scalars."""
    parts = value if isinstance(value, tuple) else (value,)
    return all(v is None or isinstance(v, (str, bytes, int, float, Global)) for v in parts)


def _tuple(count: int) -> Callable[[Interpreter], None]:
    def operation(vm: Interpreter) -> None:
        if count > len(vm.stack):
            raise IndexError
        values = tuple(vm.stack[-count:])
        del vm.stack[-count:]
        vm._push(values)

    return operation


def _text(size: str) -> Callable[[Interpreter], None]:
    return lambda vm: vm._push(str(vm._take(vm._number(size)), "utf-8", "surrogatepass"))


def _bytes(size: str) -> Callable[[Interpreter], None]:
    return lambda vm: vm._push(bytes(vm._take(vm._number(size))))


def _old_string(size: str) -> Callable[[Interpreter], None]:
    return lambda vm: vm._push(str(vm._take(vm._number(size)), "latin-1"))


def _integer(size: str) -> Callable[[Interpreter], None]:
    return lambda vm: vm._push(int.from_bytes(vm._take(vm._number(size)), "little", signed=True))


def _quoted(vm: Interpreter) -> None:
    text = vm._line().strip()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'":
        raise ValueError
    vm._push(text[1:-1].encode("latin-1").decode("unicode_escape"))


def _int_line(vm: Interpreter) -> None:
    text = vm._line()
    vm._push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


def _instance(vm: Interpreter) -> None:
    module, name = vm._line(), vm._line()
    found = vm._global(module, name)
    vm._push(vm._call(found, tuple(vm._pop_mark())))


def _object(vm: Interpreter) -> None:
    found, *args = vm._pop_mark()
    vm._push(vm._call(found, tuple(args)))


def _stack_global(vm: Interpreter) -> None:
    name, module = vm.stack.pop(), vm.stack.pop()
    vm._push(vm._global(module, name))


def _global_line(vm: Interpreter) -> None:
    module, name = vm._line(), vm._line()
    vm._push(vm._global(module, name))


def _reduce(vm: Interpreter) -> None:
    args, function = vm.stack.pop(), vm.stack.pop()
    vm._push(vm._call(function, args))


def _new_object_with_keywords(vm: Interpreter) -> None:
    keywords, args, function = vm.stack.pop(), vm.stack.pop(), vm.stack.pop()
    if keywords:
        raise vm._fault("an object is built with keywords")
    vm._push(vm._call(function, args))


def _dict_from_mark(vm: Interpreter) -> None:
    values = vm._pop_mark()
    vm._push({})
    vm._set_items(values)


def _frozen_set(vm: Interpreter) -> None:
    vm._push(frozenset(vm._key(v) for v in vm._pop_mark()))


def _put(vm: Interpreter, index: int) -> None:
    vm.memo[index] = vm.stack[-1]


def _protocol(vm: Interpreter) -> None:
    if vm._number("B") > 5:
        raise vm._fault("unknown pickle protocol")


_OPERATIONS: dict[int, Callable[[Interpreter], Any]] = {
    ord(code): operation
    for code, operation in {
        "\x80": _protocol,
        "\x95": lambda vm: vm._number("Q"),  # FRAME: a hint for buffering
        "(": lambda vm: vm._push(MARK),
        "0": lambda vm: vm.stack.pop(),
        "1": lambda vm: vm._pop_mark(),
        "2": lambda vm: vm._push(vm.stack[-1]),
        "N": lambda vm: vm._push(None),
        "\x88": lambda vm: vm._push(True),
        "\x89": lambda vm: vm._push(False),
        "I": _int_line,
        "L": lambda vm: vm._push(int(vm._line().rstrip("L"))),
        "F": lambda vm: vm._push(float(vm._line())),
        "J": lambda vm: vm._push(vm._number("i")),
        "K": lambda vm: vm._push(vm._number("B")),
        "M": lambda vm: vm._push(vm._number("H")),
        "\x8a": _integer("B"),
        "\x8b": _integer("i"),
        "G": lambda vm: vm._push(struct.unpack(">d", vm._take(8))[0]),
        "S": _quoted,
        "V": lambda vm: vm._push(vm._line().encode("latin-1").decode("raw_unicode_escape")),
        "T": _old_string("i"),
        "U": _old_string("B"),
        "X": _text("I"),
        "\x8c": _text("B"),
        "\x8d": _text("Q"),
        "B": _bytes("I"),
        "C": _bytes("B"),
        "\x8e": _bytes("Q"),
        "\x96": _bytes("Q"),
        ")": lambda vm: vm._push(()),
        "\x85": _tuple(1),
        "\x86": _tuple(2),
        "\x87": _tuple(3),
        "t": lambda vm: vm._push(tuple(vm._pop_mark())),
        "]": lambda vm: vm._push([]),
        "l": lambda vm: vm._push(vm._pop_mark()),
        "a": lambda vm: vm._extend([vm.stack.pop()]),
        "e": lambda vm: vm._extend(vm._pop_mark()),
        "}": lambda vm: vm._push({}),
        "d": _dict_from_mark,
        "s": lambda vm: vm._set_items([vm.stack.pop(-2), vm.stack.pop()]),
        "u": lambda vm: vm._set_items(vm._pop_mark()),
        "\x8f": lambda vm: vm._push(set()),
        "\x90": lambda vm: vm._add_items(vm._pop_mark()),
        "\x91": _frozen_set,
        "p": lambda vm: _put(vm, int(vm._line())),
        "q": lambda vm: _put(vm, vm._number("B")),
        "r": lambda vm: _put(vm, vm._number("I")),
        "\x94": lambda vm: _put(vm, len(vm.memo)),
        "g": lambda vm: vm._push(vm.memo[int(vm._line())]),
        "h": lambda vm: vm._push(vm.memo[vm._number("B")]),
        "j": lambda vm: vm._push(vm.memo[vm._number("I")]),
        "c": _global_line,
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _reduce,  # NEWOBJ: class and arguments, like a call
        "\x92": _new_object_with_keywords,
        "i": _instance,
        "o": _object,
        "b": lambda vm: vm._build(),
        "P": lambda vm: vm._push(vm.persistent(vm._line())),
        "Q": lambda vm: vm._push(vm.persistent(vm.stack.pop())),
    }.items()
}

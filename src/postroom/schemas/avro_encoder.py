"""The fast road: a Python function generated from a schema, which checks an event strictly and encodes it at once.

The generated source holds only numbers, Python's own words, and names made here; everything that comes from a schema
(field names, symbols, defaults) is handed to it as a constant, so that no schema can say anything in it.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from postroom.schemas.avro_leaves import to_raw
from postroom.schemas.avro_nodes import INT_RANGES, MAX_DEPTH, Array, Leaf, Map, Node, Record, Union, python_type

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL: Final = 8192


class NotEncodableError(Exception):
    """The event is not valid; the slow road says why. Never leaves the generated function."""


def varint(number: int) -> bytes:
    """Zigzag and base 128, low bits first (Avro 1.12, binary encoding of int and long)."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# Tables instead of loops: a varint of 42 bits (a timestamp of today in ms) costs 0.15 us with them, 0.7 us without.
# 14 bits are two bytes. _LOW: both go on; _LAST: the number ends here, so the second byte may be left out.
_LAST: Final = [bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7]) for n in range(16384)]
_LOW: Final = [bytes([n & 127 | 128, n >> 7 | 128]) for n in range(16384)]
_ZIGZAG: Final = _LAST[::2]


def long_bytes(number: int) -> bytes:
    """The varint of an int within 64 bits."""
    rest = (number << 1) ^ (number >> 63)
    if rest < 0x10000000:
        return _LAST[rest] if rest < 16384 else _LOW[rest & 16383] + _LAST[rest >> 14]
    if rest < 0x40000000000:
        return _LOW[rest & 16383] + _LOW[rest >> 14 & 16383] + _LAST[rest >> 28]
    return _LOW[rest & 16383] + _LOW[rest >> 14 & 16383] + _LOW[rest >> 28 & 16383] + _tail(rest >> 42)


def _tail(rest: int) -> bytes:
    return _LAST[rest] if rest < 16384 else _LOW[rest & 16383] + _LAST[rest >> 14]


def build_encoder(root: Node, *, recursive: bool) -> Callable[[object, bytes], bytes | None]:
    """`encode(event, prefix)`: prefix and the event's Avro bytes, or None for whatever is not a valid event.

    It never raises on account of the event (KeyboardInterrupt and its like pass through).
    """
    return _Generator(recursive=recursive).build(root)


class _Generator:
    """Writes a function for each record, array and map, and `encode` over them; leaves and unions in place."""

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._functions: list[list[str]] = []
        self._names: dict[int, str] = {}
        self._count = 0
        self._constants: dict[str, object] = {
            "No": NotEncodableError,
            "Z": _ZIGZAG,
            "big": long_bytes,
            "join": b"".join,
            "pack_f": struct.Struct("<f").pack,
            "pack_d": struct.Struct("<d").pack,
            "MAX": 1.7976931348623157e308,
        }

    def build(self, root: Node) -> Callable[[object, bytes], bytes | None]:
        body = _Body(2, level="1")
        if isinstance(root, Record) and not self._recursive:
            parts = self._record_body(body, root, "event")  # in place: saves a call for each event
        else:
            parts = self._value(body, root, "event")
        lines = ["def encode(event, prefix=b''):", "    try:", *body.lines]
        lines += [f"        return {_joined(['prefix', *parts])}", "    except Exception:", "        return None"]
        source = "\n".join(line for function in (*self._functions, lines) for line in function)
        exec(compile(source, "<avro encoder>", "exec"), self._constants)  # noqa: S102  holds nothing of the schema's text
        encode: Callable[[object, bytes], bytes | None] = self._constants["encode"]  # type: ignore[assignment]  # made there
        return encode

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def _constant(self, stem: str, value: object) -> str:
        name = self._name(stem)
        self._constants[name] = value
        return name

    def _value(self, body: _Body, node: Node, var: str) -> list[str]:
        """Write the check of `var`; give the expressions whose bytes, one after the other, encode it."""
        if isinstance(node, Leaf):
            return self._leaf(body, node, var)
        if isinstance(node, Union):
            return self._union(body, node, var)
        level = f", {body.level}" if self._recursive else ""
        return [f"{self._function(node)}({var}{level})"]

    def _function(self, node: Array | Map | Record) -> str:
        known = self._names.get(id(node))
        if known is not None:
            return known
        name = self._names[id(node)] = self._name("f")
        body = _Body(1, level="depth + 1")
        if self._recursive:
            body.add(f"if depth > {MAX_DEPTH}: raise No")
        if isinstance(node, Record):
            result = _joined(self._record_body(body, node, "value"))
        else:
            result = self._many_body(body, node)
        head = f"def {name}(value{', depth' if self._recursive else ''}):"
        self._functions.append([head, *body.lines, f"    return {result}"])
        return name

    def _record_body(self, body: _Body, node: Record, var: str) -> list[str]:
        body.add(f"if type({var}) is not dict: raise No")
        body.add(f"if len({var}) != {len(node.fields)}:")
        defaults = {item.name: item.default for item in node.fields if item.has_default}
        if defaults:
            # Defaults under the event: what is still missing then fails in the getter, what is too many in the count.
            body.add(f"    {var} = {{**{self._constant('defaults', defaults)}, **{var}}}")
            body.add(f"    if len({var}) != {len(node.fields)}: raise No")
        else:
            body.add("    raise No")
        names = [item.name for item in node.fields]
        variables = [self._name("v") for _ in names]
        if len(names) == 1:
            body.add(f"{variables[0]} = {var}[{self._constant('name', names[0])}]")
        elif names:
            body.add(f"{', '.join(variables)} = {self._constant('get', itemgetter(*names))}({var})")
        parts: list[str] = []
        for item, variable in zip(node.fields, variables, strict=True):
            parts += self._value(body, item.type, variable)
        return parts

    def _many_body(self, body: _Body, node: Array | Map) -> str:
        """Arrays and maps: one block with a count, then a zero. The count is of what was really written."""
        body.add(f"if type(value) is not {'list' if isinstance(node, Array) else 'dict'}: raise No")
        body.add("parts = []")
        body.add("count = 0")
        if isinstance(node, Array):
            body.add("for item in value:")
            with_key: list[str] = []
            inner = body.deeper()
            parts = self._value(inner, node.items, "item")
        else:
            body.add("for key, item in value.items():")
            inner = body.deeper()
            with_key = self._leaf(inner, Leaf("string", "string"), "key")
            parts = self._value(inner, node.values, "item")
        inner.add("count += 1")
        inner.add(f"parts += ({''.join(part + ', ' for part in (*with_key, *parts))})")
        body.add("if not count: return b'\\0'")
        body.add("parts.append(b'\\0')")
        return f"(Z[count] if count < {_SMALL} else big(count)) + join(parts)"

    def _leaf(self, body: _Body, leaf: Leaf, var: str) -> list[str]:
        write = getattr(self, f"_{leaf.row}", None)
        if write is not None:
            parts: list[str] = write(body, leaf, var)
            return parts
        raw = self._name("raw")
        body.add(f"{raw} = {self._constant('raw_of', _raw_of(leaf))}({var})")
        if leaf.base in ("int", "long"):
            return [f"big({raw})"]
        if leaf.base == "fixed":
            return [raw]
        return _sized(body, self, raw if leaf.base == "bytes" else f"{raw}.encode()")

    def _null(self, body: _Body, _leaf: Leaf, var: str) -> list[str]:
        body.add(f"if {var} is not None: raise No")
        return []

    def _boolean(self, body: _Body, _leaf: Leaf, var: str) -> list[str]:
        out = self._name("p")
        # `is`, because 1 == True: a table would take the int.
        body.add(f"if {var} is True: {out} = b'\\1'")
        body.add(f"elif {var} is False: {out} = b'\\0'")
        body.add("else: raise No")
        return [out]

    def _int(self, body: _Body, leaf: Leaf, var: str) -> list[str]:
        low, high = INT_RANGES[leaf.base]
        out = self._name("p")
        body.add(f"if type({var}) is not int: raise No")
        body.add(f"if 0 <= {var} < {_SMALL}: {out} = Z[{var}]")
        body.add(f"elif {low} <= {var} <= {high}: {out} = big({var})")
        body.add("else: raise No")
        return [out]

    _long = _int

    def _double(self, body: _Body, _leaf: Leaf, var: str) -> list[str]:
        body.add(f"if type({var}) is not float or not -MAX <= {var} <= MAX: raise No")
        return [f"pack_d({var})"]

    def _float(self, body: _Body, _leaf: Leaf, var: str) -> list[str]:
        body.add(f"if type({var}) is not float or not -MAX <= {var} <= MAX: raise No")
        return [f"pack_f({var})"]  # raises OverflowError beyond 32 bits

    def _string(self, body: _Body, _leaf: Leaf, var: str) -> list[str]:
        body.add(f"if type({var}) is not str: raise No")
        return _sized(body, self, f"{var}.encode()")

    def _bytes(self, body: _Body, _leaf: Leaf, var: str) -> list[str]:
        body.add(f"if type({var}) is not bytes: raise No")
        return _sized(body, self, var)

    def _fixed(self, body: _Body, leaf: Leaf, var: str) -> list[str]:
        body.add(f"if type({var}) is not bytes or len({var}) != {leaf.size}: raise No")
        return [var]

    def _enum(self, body: _Body, leaf: Leaf, var: str) -> list[str]:
        body.add(f"if type({var}) is not str: raise No")
        table = {symbol: varint(at) for at, symbol in enumerate(leaf.symbols)}
        return [f"{self._constant('symbols', table)}[{var}]"]

    def _union(self, body: _Body, node: Union, var: str) -> list[str]:
        """An `if` for each Python type, in it one for each branch of that type: `choose_branch`, written out."""
        out = self._name("p")
        groups: dict[type, list[int]] = {}
        for at, branch in enumerate(node.branches):
            assert not isinstance(branch, Union)  # refused by the parser
            groups.setdefault(python_type(branch), []).append(at)
        word = "if"
        for kind, members in groups.items():
            test = f"{var} is None" if kind is type(None) else f"type({var}) is {self._constant('kind', kind)}"
            body.add(f"{word} {test}:")
            inner = body.deeper()
            if len(members) == 1:
                self._branch(inner, node, members[0], var, out)
            else:
                self._branches(inner, node, members, var, out)
            word = "elif"
        body.add("else: raise No")
        return [out]

    def _branches(self, body: _Body, node: Union, members: list[int], var: str, out: str) -> None:
        word = "if"
        for at in members:
            body.add(f"{word} {self._branch_test(node, at, var)}:")
            self._branch(body.deeper(), node, at, var, out)
            word = "elif"
        body.add("else: raise No")

    def _branch(self, body: _Body, node: Union, at: int, var: str, out: str) -> None:
        parts = self._value(body, node.branches[at], var)
        body.add(f"{out} = {_joined([repr(varint(at)), *parts])}")

    def _branch_test(self, node: Union, at: int, var: str) -> str:
        """The condition that picks this branch among those of its Python type."""
        branch = node.branches[at]
        if isinstance(branch, Record):
            required = self._constant("required", branch.required)
            return f"{required} <= {var}.keys() <= {self._constant('names', branch.names)}"
        if not isinstance(branch, Leaf):
            return "True"
        if branch.row in INT_RANGES:
            low, high = INT_RANGES[branch.row]
            return f"{low} <= {var} <= {high}"
        if branch.row == "float":
            return "False"  # never beside a double
        if branch.row == "enum":
            return f"{var} in {self._constant('symbols', frozenset(branch.symbols))}"
        return f"len({var}) == {branch.size}" if branch.row == "fixed" else "True"


class _Body:
    """Lines of one function at one indentation; deeper ones go into the same list.

    `level` is the expression for the depth of a record, array or map that is called from here.
    """

    def __init__(self, indent: int, *, level: str, lines: list[str] | None = None) -> None:
        self.lines: list[str] = [] if lines is None else lines
        self.level = level
        self._indent = indent

    def add(self, line: str) -> None:
        self.lines.append("    " * self._indent + line)

    def deeper(self) -> _Body:
        return _Body(self._indent + 1, level=self.level, lines=self.lines)


def _raw_of(leaf: Leaf) -> Callable[[object], object]:
    def raw_of(value: object) -> object:
        return to_raw(leaf, value)

    return raw_of


def _sized(body: _Body, names: _Generator, expression: str) -> list[str]:
    """Bytes with their length in front."""
    raw, size = names._name("b"), names._name("n")  # noqa: SLF001  one module, one job
    body.add(f"{raw} = {expression}")
    body.add(f"{size} = len({raw})")
    return [f"Z[{size}] if {size} < {_SMALL} else big({size})", raw]


def _joined(parts: list[str]) -> str:
    if not parts:
        return "b''"
    if len(parts) == 1:
        return parts[0]
    return f"join(({', '.join(parts)}))"

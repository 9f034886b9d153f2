"""Builder: writes one function of LLVM IR as text, typed, with loops and mutable variables.

A kernel is ``void (ptr args, i64 begin, i64 end)``: ``args`` is a row of 64-bit words (addresses and integers) and
begin … end the range of its parallel loop. Every extent and every stride is such a word, so that the text holds
structure alone: two layers of different widths share a kernel, and the text is its key. Vectors have 16 lanes at any
width of the machine's registers (LLVM splits them), which keeps the bits the same everywhere.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NamedTuple

LANES: Final = 16
_NAME: Final = re.compile(r"%v\d+")
_MADE: Final = re.compile(r"^  (%v\d+) = ", re.MULTILINE)


class Type:
    """A type of LLVM: a scalar, or a vector of ``lanes`` of them. Equal ones are one object.

    ``text``: how it is written · ``suffix``: how intrinsics name it (``v16f32``) · ``floating``: whether of floats.
    """

    __slots__ = ("floating", "lanes", "scalar", "suffix", "text")
    _made: ClassVar[dict[tuple[str, int], Type]] = {}

    scalar: str
    lanes: int
    text: str
    suffix: str
    floating: bool

    def __new__(cls, scalar: str, lanes: int = 0) -> Type:
        found = cls._made.get((scalar, lanes))
        if found is None:
            found = super().__new__(cls)
            found.scalar, found.lanes, found.floating = scalar, lanes, scalar in ("float", "double")
            found.text = f"<{lanes} x {scalar}>" if lanes else scalar
            short = {"float": "f32", "double": "f64"}.get(scalar, scalar)
            found.suffix = f"v{lanes}{short}" if lanes else short
            found = cls._made.setdefault((scalar, lanes), found)
        return found

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __reduce__(self) -> tuple[type[Type], tuple[str, int]]:
        return Type, (self.scalar, self.lanes)

    @property
    def element(self) -> Type:
        return Type(self.scalar)

    def of(self, scalar: str) -> Type:
        """As many lanes of another scalar."""
        return Type(scalar, self.lanes)


I1, I8, I16, I32, I64 = Type("i1"), Type("i8"), Type("i16"), Type("i32"), Type("i64")
F32, F64, PTR = Type("float"), Type("double"), Type("ptr")


class Value(NamedTuple):
    """An SSA name or a literal, and its type."""

    text: str
    type: Type

    def __str__(self) -> str:
        return f"{self.type.text} {self.text}"


class Memory(NamedTuple):
    """What an argument word means: the address of a value in memory (−1: of the status word), so many bytes on."""

    value: int
    offset: int = 0


class Number(NamedTuple):
    """What an argument word means: a number that belongs to one kernel among those of the same text."""

    number: int


STATUS: Final = Memory(-1)
"""A kernel that meets an index out of range, or the like, stores a number other than 0 there."""


class Variable(NamedTuple):
    """A mutable place on the stack, which LLVM keeps in registers."""

    builder: Builder
    place: Value
    type: Type

    def get(self) -> Value:
        return self.builder.load(self.type, self.place)

    def set(self, value: Value) -> None:
        self.builder.store(value, self.place)


def literal(number: float, type: Type) -> Value:
    """A constant, splat over the lanes. Floats are written by their bits."""
    if type.scalar == "float":
        number = struct.unpack("f", struct.pack("f", number))[0] if abs(number) < 3.5e38 else number
    if type.floating:
        text = f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
    elif type.scalar == "i1":
        text = "true" if number else "false"
    else:
        text = str(int(number))
    return Value(f"splat ({type.scalar} {text})" if type.lanes else text, type)


def bits_literal(bits: int, type: Type) -> Value:
    """An integer constant of these bits, or a float32 one made of them (as exact as ``float.fromhex``)."""
    if type.scalar == "float":
        return literal(struct.unpack("<f", struct.pack("<I", bits))[0], type)
    if type.scalar == "double":
        return literal(struct.unpack("<d", struct.pack("<Q", bits))[0], type)
    return literal(bits, type)


class Builder:
    """Writes one function. ``bound``: what stands in each word of its arguments, in order."""

    def __init__(self) -> None:
        self._entry: list[str] = []
        self._body: list[Any] = []
        self._preludes: list[list[Any]] = []
        self._count = 0
        self._words: dict[Any, Value] = {}
        self._block = "entry"
        self.bound: list[Any] = []
        self.declared: dict[str, str] = {}
        self.functions: set[tuple[str, str]] = set()
        """The functions of mathlib that are called: (name, scalar type)."""
        self.begin, self.end = Value("%begin", I64), Value("%end", I64)

    # --- text -----------------------------------------------------------------------------------------------------
    def name(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self._body.append("  " + text)

    def op(self, text: str, type: Type) -> Value:
        """An instruction with a result."""
        name = self.name()
        self._body.append(f"  {name} = {text}")
        return Value(name, type)

    def call(self, name: str, type: Type, *args: Value) -> Value:
        """A call of an intrinsic or another function, which is declared."""
        self.declared.setdefault(name, f"declare {type} @{name}({', '.join(str(a.type) for a in args)})")
        return self.op(f"call {type} @{name}({', '.join(map(str, args))})", type)

    def text(self, name: str) -> str:
        """The whole function, under a name."""
        head = f"define void @{name}(ptr noalias %args, i64 %begin, i64 %end) #0 {{"
        return "\n".join([head, "entry:", *self._entry, *_lines(self._body), "  ret void", "}"])

    def function(self, name: str, result: Value | None, *parameters: Value) -> str:
        """What was written as an internal function of a module: name(parameters) → result."""
        type = result.type if result else "void"
        head = f"define internal {type} @{name}({', '.join(map(str, parameters))}) nounwind {{"
        return "\n".join([head, "entry:", *self._entry, *_lines(self._body), f"  ret {result or 'void'}", "}"])

    def copied(self, write: Callable[..., None]) -> Callable[..., None]:
        """``write(*values)``, of which only the text is copied from the second call on, with its own values.

        For what is unrolled: the values must be all that differs. Where one has no name of its own to be found by, or
        what is written has branches, it is written anew.
        """
        given: list[str] = []
        made: list[str] = []
        text = ""

        def again(*values: Value) -> None:
            nonlocal text
            if text:
                names = dict(zip(given, (value.text for value in values), strict=True))
                names |= {name: self.name() for name in made}
                self._body.append(_NAME.sub(lambda found: names.get(found[0], found[0]), text))
                return
            start = len(self._body)
            write(*values)
            lines, names = self._body[start:], {value.text: "" for value in values}
            named = len(names) == len(values) and all(map(_NAME.fullmatch, names))
            if named and all(isinstance(line, str) and line.startswith("  ") for line in lines):
                given[:], text = names, "\n".join(lines)
                made[:] = _MADE.findall(text)

        return again

    # --- arguments ------------------------------------------------------------------------------------------------
    def word(self, key: Any, meaning: Any, type: Type = I64) -> Value:
        """The argument word under ``key``; ``meaning`` is what the caller will put there."""
        if key not in self._words:
            at, raw = self.name(), self.name()
            self._entry.append(f"  {at} = getelementptr i64, ptr %args, i64 {len(self.bound)}")
            self._entry.append(f"  {raw} = load {type}, ptr {at}, align 8")
            self._words[key] = Value(raw, type)
            self.bound.append(meaning)
        return self._words[key]

    def pointer(self, key: Any, meaning: Any) -> Value:
        return self.word(key, meaning, PTR)

    # --- control --------------------------------------------------------------------------------------------------
    def variable(self, value: Value | Type) -> Variable:
        """A variable, set to a value unless only its type is given."""
        type = value if isinstance(value, Type) else value.type
        var = Variable(self, self.stack(type), type)
        if isinstance(value, Value):
            var.set(value)
        return var

    def set_first(self, variable: Variable, value: Value) -> None:
        """Set a variable where the function begins, to a literal."""
        self._entry.append(f"  store {value}, {variable.place}{_aligned(value.type, None)}")

    def stack(self, type: Type, count: int = 1) -> Value:
        """Room for ``count`` values of a type, until the function returns."""
        name = self.name()
        self._entry.append(f"  {name} = alloca {type}, i64 {count}, align 64")
        return Value(name, PTR)

    def _label(self) -> str:
        self._count += 1
        return f"L{self._count}"

    def _start(self, label: str) -> None:
        self._body.append(f"{label}:")
        self._block = label

    @contextmanager
    def loop(self, start: Value | int, stop: Value | int, step: int = 1) -> Iterator[Value]:
        """for i in range(start, stop, step)."""
        i = self.variable(self.number(start))
        head, body, done = self._label(), self._label(), self._label()
        prelude: list[Any] = []
        self._body.append(prelude)
        self.do(f"br label %{head}")
        self._start(head)
        now = i.get()
        more = self.compare("slt", now, self.number(stop))
        self.do(f"br i1 {more.text}, label %{body}, label %{done}")
        self._start(body)
        self._preludes.append(prelude)
        yield now
        self._preludes.pop()
        i.set(self.hidden(self.op(f"add nsw i64 {now.text}, {step}", I64)))
        self.do(f"br label %{head}")
        self._start(done)

    def hidden(self, value: Value) -> Value:
        """The same i64 or address, of which LLVM does not know what it is made of.

        A counter that is hidden before it goes round is no induction variable. The loops here come with the addresses
        that they need, and rewriting them (loop strength reduction) takes a third of the time of code generation.
        """
        if value.type == PTR:
            return self.call("llvm.launder.invariant.group.p0", PTR, value)
        return self.call("llvm.expect.i64", I64, value, Value("0", I64))

    @property
    def depth(self) -> int:
        """In how many loops the text that is being written stands."""
        return len(self._preludes)

    @contextmanager
    def at(self, depth: int) -> Iterator[None]:
        """Write what changes in the outer ``depth`` loops only: in front of the next one."""
        if depth >= self.depth:
            yield
            return
        body, preludes = self._body, self._preludes
        self._body, self._preludes = preludes[depth], preludes[:depth]
        yield
        self._body, self._preludes = body, preludes

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """if condition (a scalar i1)."""
        then, done = self._label(), self._label()
        self.do(f"br i1 {condition.text}, label %{then}, label %{done}")
        self._start(then)
        yield
        self.do(f"br label %{done}")
        self._start(done)

    @contextmanager
    def repeat_while(self, times: int = 0) -> Iterator[list[Value]]:
        """do … while: append the condition (a scalar i1) to the list that is given.

        times: about how many there are, for LLVM to see which loop deserves the registers (0: unknown).
        """
        head, done = self._label(), self._label()
        self.do(f"br label %{head}")
        self._start(head)
        condition: list[Value] = []
        yield condition
        weights = f', !prof !{{!"branch_weights", i32 {times}, i32 1}}' if times else ""
        self.do(f"br i1 {condition[0].text}, label %{head}, label %{done}{weights}")
        self._start(done)

    # --- values ---------------------------------------------------------------------------------------------------
    def number(self, value: Value | int) -> Value:
        """A Python number as an i64; what is a value already stays."""
        return value if isinstance(value, Value) else Value(str(value), I64)

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """An instruction by its name: fadd, sub, and, lshr, …"""
        return self.op(f"{op} {a}, {b.text}", a.type)

    def add(self, a: Value, b: Value) -> Value:
        return self.binary("fadd" if a.type.floating else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.binary("fsub" if a.type.floating else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.binary("fmul" if a.type.floating else "mul", a, b)

    def quotient(self, a: Value, by: int, most: int) -> Value:
        """⌊a / by⌋ of an i64, 0 ≤ a ≤ most, or of each lane. A machine divides integers lane by lane, at 16 times the
        time of one division; so lanes of up to 31 bits are divided as float64."""
        if not by & by - 1:
            return self.binary("lshr", a, literal(by.bit_length() - 1, a.type))
        if not a.type.lanes or most >= 1 << 31:
            return self.binary("udiv", a, literal(by, a.type))
        # (a + ½) / by is at least ½ / by away from a whole number, and wrong by less than 2⁻²⁰ of that.
        middle = self.convert("sitofp", self.convert("trunc", a, "i32"), "double")
        middle = self.add(middle, literal(0.5, middle.type))
        found = self.mul(middle, literal(1 / by, middle.type))
        return self.convert("zext", self.convert("fptosi", found, "i32"), "i64")

    def remainder(self, a: Value, by: int, most: int) -> Value:
        """a mod by, as ``quotient``."""
        if not by & by - 1:
            return self.binary("and", a, literal(by - 1, a.type))
        if not a.type.lanes or most >= 1 << 31:
            return self.binary("urem", a, literal(by, a.type))
        return self.sub(a, self.mul(self.quotient(a, by, most), literal(by, a.type)))

    def div(self, a: Value, b: Value) -> Value:
        return self.binary("fdiv" if a.type.floating else "sdiv", a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a·b + c, rounded once."""
        return self.call(f"llvm.fma.{a.type.suffix}", a.type, a, b, c)

    def intrinsic(self, name: str, *args: Value) -> Value:
        """``llvm.name`` of values of one type: sqrt, floor, fabs, copysign, maximum, smax, …"""
        return self.call(f"llvm.{name}.{args[0].type.suffix}", args[0].type, *args)

    def neg(self, a: Value) -> Value:
        return self.op(f"fneg {a}", a.type) if a.type.floating else self.sub(literal(0, a.type), a)

    def compare(self, how: str, a: Value, b: Value) -> Value:
        """fcmp (oeq, olt, une, …) of floats, icmp (eq, slt, ult, …) of integers."""
        word = "fcmp" if a.type.floating else "icmp"
        return self.op(f"{word} {how} {a}, {b.text}", a.type.of("i1"))

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        return self.op(f"select {condition}, {yes}, {no}", yes.type)

    def convert(self, how: str, a: Value, scalar: str) -> Value:
        """sitofp, fptrunc, zext, bitcast, … to another scalar."""
        to = a.type.of(scalar)
        return self.op(f"{how} {a} to {to}", to)

    # --- vectors --------------------------------------------------------------------------------------------------
    def splat(self, a: Value, lanes: int = LANES) -> Value:
        """A scalar in all lanes."""
        to = Type(a.type.scalar, lanes)
        if not a.text.startswith("%"):
            return Value(f"splat ({a})", to)
        first = self.op(f"insertelement {to} poison, {a}, i64 0", to)
        return self.op(f"shufflevector {first}, {to} poison, <{lanes} x i32> zeroinitializer", to)

    def iota(self, scalar: str = "i64", lanes: int = LANES) -> Value:
        """0, 1, 2, … over the lanes."""
        return Value("<" + ", ".join(f"{scalar} {i}" for i in range(lanes)) + ">", Type(scalar, lanes))

    def lanes_below(self, count: Value, lanes: int = LANES) -> Value:
        """The mask of the lanes below ``count`` (i64; all of them if it is larger)."""
        count = self.call("llvm.smin.i64", I64, count, Value(str(lanes), I64))
        small = self.convert("trunc", count, "i32")
        return self.compare("slt", self.iota("i32", lanes), self.splat(small, lanes))

    def extract(self, a: Value, lane: int = 0) -> Value:
        return self.op(f"extractelement {a}, i64 {lane}", a.type.element)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of a and b, one after the other, by number; −1 for any."""
        mask = ", ".join("i32 poison" if n < 0 else f"i32 {n}" for n in lanes)
        return self.op(f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{mask}>", Type(a.type.scalar, len(lanes)))

    def tree(self, a: Value, join: Any) -> Value:
        """All lanes in one scalar, joined by halves: (a₀ ∘ a₈), …; ``join(x, y)`` emits ∘."""
        while a.type.lanes > 1:
            half = a.type.lanes // 2
            a = join(self.shuffle(a, a, range(half)), self.shuffle(a, a, range(half, 2 * half)))
        return self.extract(a)

    # --- memory ---------------------------------------------------------------------------------------------------
    def offset(self, pointer: Value, index: Value | int, type: Type) -> Value:
        """The address of element ``index`` of an array of ``type``."""
        return self.op(f"getelementptr {type}, {pointer}, {self.number(index)}", PTR)

    def load(self, type: Type, pointer: Value, align: int | None = None) -> Value:
        return self.op(f"load {type}, {pointer}{_aligned(type, align)}", type)

    def store(self, value: Value, pointer: Value, align: int | None = None) -> None:
        self.do(f"store {value}, {pointer}{_aligned(value.type, align)}")

    def load_masked(self, type: Type, pointer: Value, mask: Value) -> Value:
        """Lanes of an unaligned vector in memory; 0 where the mask is off, and nothing is touched there."""
        if mask.text == literal(1, mask.type).text:
            return self.load(type, pointer)
        return self._masked_load("load", type, pointer, mask)

    def store_masked(self, value: Value, pointer: Value, mask: Value) -> None:
        """The lanes where the mask is on to an unaligned vector in memory."""
        if mask.text == literal(1, mask.type).text:
            self.store(value, pointer)
            return
        self._masked_store("store", value, pointer, mask)

    def gather(self, type: Type, pointers: Value, mask: Value) -> Value:
        """One value from each address; 0 where the mask is off."""
        return self._masked_load("gather", type, pointers, mask)

    def scatter(self, value: Value, pointers: Value, mask: Value) -> None:
        """One value to each address where the mask is on, the lowest lane first."""
        self._masked_store("scatter", value, pointers, mask)

    def _masked_load(self, how: str, type: Type, at: Value, mask: Value) -> Value:
        name = f"llvm.masked.{how}.{type.suffix}.{at.type.suffix.replace('ptr', 'p0')}"
        self.declared.setdefault(name, f"declare {type} @{name}({at.type}, {mask.type}, {type})")
        place = f"{at.type} align {_SIZES[type.scalar]} {at.text}"
        return self.op(f"call {type} @{name}({place}, {mask}, {type} zeroinitializer)", type)

    def _masked_store(self, how: str, value: Value, at: Value, mask: Value) -> None:
        name = f"llvm.masked.{how}.{value.type.suffix}.{at.type.suffix.replace('ptr', 'p0')}"
        self.declared.setdefault(name, f"declare void @{name}({value.type}, {at.type}, {mask.type})")
        self.do(f"call void @{name}({value}, {at.type} align {_SIZES[value.type.scalar]} {at.text}, {mask})")


def _lines(body: list[Any]) -> Iterator[str]:
    for part in body:
        if isinstance(part, str):
            yield part
        else:
            yield from _lines(part)


_SIZES: Final = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8, "ptr": 8}


def _aligned(type: Type, align: int | None) -> str:
    """An alignment of one element unless said otherwise: users' arrays promise no more."""
    return f", align {_SIZES[type.scalar] if align is None else align}"

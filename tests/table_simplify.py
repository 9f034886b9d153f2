"""The table of rewrite rules: what is written, the primitives that are left of it, and the rules that did it.

A row without rules (an empty set) is a graph that must stay as it is; None: whichever rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from slalom.core.graph import Equation, Graph, Input, Output, Type
from slalom.core.ops import TABLE
from slalom.core.scan import SCAN
from slalom.core.step import Body
from slalom.core.tensor import check_operands


class Maker:
    """Writes a graph line by line; values are numbers."""

    def __init__(self) -> None:
        self.types: list[Type] = []
        self.inputs: list[Input] = []
        self.constants: dict[int, np.ndarray] = {}
        self.equations: list[Equation] = []

    def _value(self, shape: tuple[int, ...], dtype: Any) -> int:
        self.types.append(Type(tuple(shape), np.dtype(dtype)))
        return len(self.types) - 1

    def arg(self, *shape: int, dtype: str = "f4") -> int:
        value = self._value(shape, dtype)
        self.inputs.append(Input(value, "argument", f"argument {value}"))
        return value

    def const(self, array: Any, dtype: str = "f4") -> int:
        array = np.asarray(array, dtype)
        value = self._value(array.shape, array.dtype)
        self.constants[value] = array
        return value

    def __getattr__(self, name: str) -> Callable[..., int]:
        prim = SCAN if name == "scan" else TABLE[name.rstrip("_")]

        def line(*inputs: int, **params: Any) -> int:
            value = self._value(*check_operands(prim, [self.types[i] for i in inputs], params))
            self.equations.append(Equation(value, prim, inputs, params, f"user.py:{len(self.equations)}"))
            return value

        return line

    def graph(self, *outs: int) -> Graph:
        outputs = tuple(Output(value, "result", f"result {i}") for i, value in enumerate(outs))
        types, inputs, equations = tuple(self.types), tuple(self.inputs), tuple(self.equations)
        return Graph(types, inputs, self.constants, equations, outputs).check()


def _step() -> Body:
    """A step of a loop that can be simplified: x + c + 0 of a carry x and a piece c."""
    m = Maker()
    x, c = m.arg(3), m.arg(3)
    return Body(m.graph(m.add(m.alias(m.add(x, c)), m.const(0.0))), carries=1, pieces=1)


def _empty_step() -> Body:
    m = Maker()
    return Body(m.graph(m.add(m.arg(0), m.arg(0))), carries=1, pieces=1)


Case = tuple[Callable[[Maker], int | tuple[int, ...]], str, set[str] | None]
STEP1 = {"step": (1, 1)}


def shared_weight(m: Maker, keepdims: bool = False) -> tuple[int, int]:
    """A linear layer over (B, T, D), and the gradient of its weight (D, H)."""
    x, w, ct = m.arg(4, 5, 3), m.arg(3, 2), m.arg(4, 5, 2)
    grad = m.sum(m.matmul(m.transpose(x, axes=(0, 2, 1)), ct), axes=(0,), keepdims=keepdims)
    return m.matmul(x, w), grad


def steps(m: Maker, n: int) -> list[int]:
    """aᵀ·b for each of n time steps, of a batch of 5, 4, …"""
    return [m.matmul(m.transpose(m.arg(5 - i, 3), axes=(1, 0)), m.arg(5 - i, 2)) for i in range(n)]


def derivative(m: Maker, read: int | None = None, plain: bool = False) -> tuple[int, ...]:
    """g·f + g·x·f for a product g, as back through x·f(x), x ≥ 0; f is a function of x, which is 1, or ``plain``
    data. Also the term number ``read``."""
    x, g = m.abs(m.arg(4, 2)), m.matmul(m.arg(4, 3), m.arg(3, 2))
    f = m.arg(4, 2) if plain else m.exp(m.sub(x, x))
    terms = m.mul(g, f), m.mul(m.mul(g, x), f)
    return (m.add(*terms),) if read is None else (m.add(*terms), terms[read])


def pads(m: Maker, n: int, *pieces: tuple[int, int], axis: int = 0) -> list[int]:
    made = []
    for low, length in pieces:
        shape, ends = [2, 2], [[0, 0], [0, 0]]
        shape[axis], ends[axis] = length, [low, n - low - length]
        x = m.arg(*shape)
        made.append(m.pad(x, low=(ends[0][0], ends[1][0]), high=(ends[0][1], ends[1][1]), interior=(0, 0)))
    return made


def chain(m: Maker, terms: list[int]) -> int:
    total, *rest = terms
    for term in rest:
        total = m.add(total, term)
    return total


def targets(m: Maker, rows: Any = None, shape: tuple[int, int] = (4, 3), of: int | None = None) -> tuple[int, int]:
    """The elements at class numbers j of a table, gather(x, i, j), and the transpose of that."""
    x, j, updates = m.arg(4, 3), m.arg(4, dtype="i8"), m.arg(4)
    i = m.const(np.arange(4) if rows is None else rows, "i8")
    return m.gather(x, i, j if of is None else of), m.scatter_add(updates, i, j, shape=shape)


def reads(m: Maker, *pieces: tuple[int, int]) -> int:
    """From (2, 3) and (2, 4) joined: what is asked of the second axis."""
    both = m.concatenate(m.arg(2, 3), m.arg(2, 4), axis=1)
    return tuple(m.slice(both, start=(0, a), stop=(2, b), **STEP1) for a, b in pieces)


EXACT: dict[str, Case] = {
    "alias": (lambda m: m.tanh(m.alias(m.alias(m.arg(3)))), "tanh", {"alias"}),
    "an input as output": (lambda m: m.alias(m.arg(3)), "", {"alias"}),
    "equal equations": (lambda m: (lambda x, y: m.sub(m.add(x, y), m.add(y, x)))(m.arg(3), m.arg(3)), "add sub", set()),
    "unequal order": (
        lambda m: (lambda x, y: m.add(m.sub(x, y), m.sub(y, x)))(m.arg(3), m.arg(3)),
        "add sub sub",
        set(),
    ),
    "axes beside a broadcast": (
        lambda m: m.reshape(m.broadcast(m.arg(2, 1, 3), shape=(1, 2, 4, 3)), shape=(2, 1, 4, 1, 3)),
        "broadcast reshape",
        {"reshaped_broadcast"},
    ),
    "axes of a broadcast that are joined": (
        lambda m: m.reshape(m.broadcast(m.arg(2, 1, 3), shape=(2, 4, 3)), shape=(2, 12)),
        "broadcast reshape",
        set(),
    ),
    "equal constants": (lambda m: (m.const([1.0, 2.0]), m.const([1.0, 2.0])), "", set()),
    "dead code": (lambda m: (m.exp(m.arg(3)), m.neg(m.arg(3)))[1], "neg", set()),
    "constants": (lambda m: m.mul(m.exp(m.const([1.0, 2.0])), m.const(3.0)), "", set()),
    "constants of equal elements": (lambda m: m.add(m.const(np.full((40, 50), 2.0)), m.arg(50)), "add broadcast", None),
    "a broadcast number": (
        lambda m: m.add(m.broadcast(m.reshape(m.arg(), shape=(1,)), shape=(5,)), m.arg(5)),
        "add",
        {"broadcast_again", "broadcast_last"},
    ),
    "constants that would grow": (
        lambda m: m.mul(m.const(np.arange(40).reshape(40, 1)), m.const(np.arange(40))),
        "mul",
        set(),
    ),
    "elements not all equal": (lambda m: m.add(m.const([1.0, 2.0, 1.0]), m.arg(3)), "add", set()),
    "large constants": (lambda m: m.exp(m.const(np.arange(1500))), "exp", set()),
    "an index error": (lambda m: m.gather(m.const([1.0, 2.0]), m.const([5, 1], "i8")), "gather", None),
    "no reshape": (lambda m: m.reshape(m.arg(2, 3), shape=(2, 3)), "", {"same_shape"}),
    "no slice": (lambda m: m.slice(m.arg(2, 1), start=(0, 0), stop=(2, 1), step=(1, 2)), "", {"same_shape"}),
    "no pad": (lambda m: m.pad(m.arg(2), low=(0,), high=(0,), interior=(0,)), "", {"same_shape"}),
    "no cast": (lambda m: m.cast(m.arg(2), dtype=np.dtype("f4")), "", {"same_dtype"}),
    "there and back": (lambda m: m.cast(m.cast(m.arg(2), dtype=np.dtype("f8")), dtype=np.dtype("f4")), "", None),
    "bool to float and back": (
        lambda m: m.cast(m.cast(m.arg(2, dtype="?"), dtype=np.dtype("f4")), dtype=np.dtype("?")),
        "",
        None,
    ),
    "an exact one between": (
        lambda m: m.cast(m.cast(m.arg(9, dtype="i4"), dtype=np.dtype("f8")), dtype=np.dtype("f4")),
        "cast",
        {"same_dtype"},
    ),
    "to integers from a wider float": (
        lambda m: m.cast(m.cast(m.arg(9, dtype="i4"), dtype=np.dtype("f8")), dtype=np.dtype("u1")),
        "cast cast",
        set(),
    ),
    "a narrower one stays": (
        lambda m: m.cast(m.cast(m.arg(9, dtype="f8"), dtype=np.dtype("f4")), dtype=np.dtype("f8")),
        "cast cast",
        set(),
    ),
    "int64 does not fit into float64": (
        lambda m: m.cast(m.cast(m.arg(9, dtype="i8"), dtype=np.dtype("f8")), dtype=np.dtype("f4")),
        "cast cast",
        set(),
    ),
    "empty parts": (
        lambda m: m.concatenate(m.arg(0, 2), m.arg(3, 2), m.arg(0, 2), m.arg(1, 2), axis=0),
        "concatenate",
        {"empty_parts"},
    ),
    "one part": (lambda m: m.concatenate(m.arg(0, 2), m.arg(3, 2), axis=0), "", {"empty_parts"}),
    "nothing but empty parts": (lambda m: m.concatenate(m.arg(0, 2), m.arg(0, 2), axis=0), "", {"nothing"}),
    "no elements": (lambda m: m.tanh(m.arg(2, 0)), "", {"nothing"}),
    "a sum of no elements": (lambda m: m.sum(m.exp(m.arg(3, 0)), axes=(1,), keepdims=False), "broadcast", {"nothing"}),
    "a sum of no elements to a number": (lambda m: m.sum(m.arg(0), axes=(0,), keepdims=False), "", {"nothing"}),
    "a product of no elements": (lambda m: m.matmul(m.arg(3, 0), m.arg(0, 2)), "broadcast", {"nothing"}),
    "zeros around nothing": (lambda m: m.pad(m.arg(0), low=(1,), high=(2,), interior=(0,)), "broadcast", {"nothing"}),
    "sum of one": (lambda m: m.sum(m.arg(3, 1), axes=(1,), keepdims=False), "add reshape", {"sum_of_one"}),
    "sum over nothing": (lambda m: m.sum(m.exp(m.arg(3)), axes=(), keepdims=False), "exp", {"sum_of_one"}),
    "sum of one number": (lambda m: m.sum(m.arg(3, 1, dtype="u1"), axes=(1,), keepdims=True), "cast", {"sum_of_one"}),
    "sum": (lambda m: m.sum(m.arg(3, 1), axes=(0, 1), keepdims=False), "sum", set()),
    "amax of one": (lambda m: m.amax(m.arg(3, 1), axes=(1,), keepdims=False), "reshape", {"amax_of_one"}),
    "broadcast last": (lambda m: m.exp(m.broadcast(m.arg(3), shape=(4, 3))), "broadcast exp", {"broadcast_last"}),
    "broadcast never": (
        lambda m: m.where(
            m.broadcast(m.arg(3, dtype="?"), shape=(4, 3)), m.arg(4, 3), m.broadcast(m.arg(), shape=(4, 3))
        ),
        "where",
        {"broadcast_last"},
    ),
    "axes on the left": (lambda m: m.mul(m.reshape(m.arg(3), shape=(1, 3)), m.arg(4, 3)), "mul", {"broadcast_last"}),
    "axes on the right": (lambda m: m.mul(m.reshape(m.arg(3), shape=(3, 1)), m.arg(3, 4)), "mul reshape", set()),
    "broadcast twice": (
        lambda m: m.broadcast(m.broadcast(m.arg(3, 1), shape=(3, 4)), shape=(2, 3, 4)),
        "broadcast",
        {"broadcast_again"},
    ),
    "broadcast that adds an axis": (lambda m: m.broadcast(m.arg(3), shape=(1, 3)), "reshape", {"broadcast_again"}),
    "transpose of a broadcast": (
        lambda m: m.transpose(m.broadcast(m.arg(3, 2), shape=(4, 3, 2)), axes=(0, 2, 1)),
        "broadcast transpose",
        {"transposed_broadcast"},
    ),
    "transpose of new axes": (
        lambda m: m.transpose(m.broadcast(m.arg(3, 2), shape=(4, 3, 2)), axes=(2, 1, 0)),
        "broadcast reshape transpose",
        {"transposed_broadcast"},
    ),
    "a moved number": (
        lambda m: m.flip(
            m.slice(
                m.transpose(m.reshape(m.broadcast(m.arg(), shape=(6,)), shape=(2, 3)), axes=(1, 0)),
                start=(0, 0),
                stop=(2, 1),
                **STEP1,
            ),
            axes=(0,),
        ),
        "broadcast",
        None,
    ),
    "a chosen number": (
        lambda m: m.slice(m.broadcast(m.arg(1), shape=(50,)), start=(3,), stop=(9,), step=(2,)),
        "broadcast reshape",
        {"moved_number"},
    ),
    "reshape twice": (lambda m: m.reshape(m.reshape(m.arg(2, 3), shape=(6,)), shape=(3, 2)), "reshape", None),
    "reshape and back": (lambda m: m.reshape(m.reshape(m.arg(2, 3), shape=(6,)), shape=(2, 3)), "", {"reshape_again"}),
    "transpose twice": (
        lambda m: m.transpose(m.transpose(m.arg(2, 3, 4), axes=(1, 2, 0)), axes=(1, 2, 0)),
        "transpose",
        {"transpose_again"},
    ),
    "transpose and back": (
        lambda m: m.transpose(m.transpose(m.arg(2, 3, 4), axes=(1, 2, 0)), axes=(2, 0, 1)),
        "",
        {"transpose_again"},
    ),
    "transpose of ones": (lambda m: m.transpose(m.arg(1, 3, 4), axes=(1, 0, 2)), "reshape", {"transpose_again"}),
    "flip of one": (lambda m: m.flip(m.arg(1, 3), axes=(0,)), "", {"flip_again"}),
    "flip twice": (lambda m: m.flip(m.flip(m.arg(2, 3, 1), axes=(0, 1)), axes=(1, 2)), "flip", {"flip_again"}),
    "flip and back": (lambda m: m.flip(m.flip(m.arg(2, 3), axes=(0, 1)), axes=(0, 1)), "", {"flip_again"}),
    "slice twice": (
        lambda m: m.slice(m.slice(m.arg(20), start=(1,), stop=(18,), step=(3,)), start=(1,), stop=(6,), step=(2,)),
        "slice",
        {"slice_again"},
    ),
    "an empty slice": (
        lambda m: m.slice(m.slice(m.arg(9), start=(1,), stop=(9,), step=(3,)), start=(3,), stop=(3,), step=(1,)),
        "",
        {"nothing"},
    ),
    "slice of a pad": (
        lambda m: m.slice(m.pad(m.arg(3), low=(2,), high=(1,), interior=(1,)), start=(2,), stop=(7,), step=(2,)),
        "",
        {"slice_again"},
    ),
    "another slice of a pad": (
        lambda m: m.slice(m.pad(m.arg(3), low=(2,), high=(1,), interior=(1,)), start=(1,), stop=(6,), step=(2,)),
        "pad slice",
        set(),
    ),
    "slices of parts": (lambda m: reads(m, (0, 3), (4, 6)), "slice", {"slice_again", "same_shape"}),
    "a slice across parts": (lambda m: reads(m, (2, 4)), "concatenate slice", set()),
    "−(−x)": (lambda m: m.neg(m.neg(m.arg(3))), "", {"twice"}),
    "~(~x)": (lambda m: m.bitnot(m.bitnot(m.arg(3, dtype="?"))), "", {"twice"}),
    "−(x − y)": (lambda m: m.neg(m.sub(m.arg(9), m.arg(9))), "neg sub", set()),  # at x = y, y − x has the other sign
    "relu twice": (lambda m: m.relu(m.relu(m.arg(9))), "relu", {"relu_again"}),
    "abs of −abs": (lambda m: m.abs(m.neg(m.abs(m.arg(9)))), "abs", {"abs_again"}),
    "abs of −n, unsigned": (lambda m: m.abs(m.neg(m.arg(9, dtype="u1"))), "abs neg", set()),
    "x + (−y)": (lambda m: m.add(m.arg(9), m.neg(m.arg(9))), "sub", {"negated_term"}),
    "(−x) + y": (lambda m: m.add(m.neg(m.arg(9)), m.arg(9)), "sub", {"negated_term"}),
    "x − (−y)": (lambda m: m.sub(m.arg(9), m.neg(m.arg(9))), "add", {"negated_term"}),
    "(−x) − y": (lambda m: m.sub(m.neg(m.arg(9)), m.arg(9)), "neg sub", set()),
    "(−x)·(−y)": (lambda m: m.mul(m.neg(m.arg(9)), m.neg(m.arg(9))), "mul", {"negated_factors"}),
    "(−x)/(−y)": (lambda m: m.div(m.neg(m.arg(9)), m.neg(m.arg(9))), "div", {"negated_factors"}),
    "x + 0": (lambda m: m.add(m.arg(99), m.const(0.0)), "add", set()),
    "exp(x) + 0": (lambda m: m.add(m.const(0.0), m.exp(m.arg(99))), "exp", {"zero_term"}),
    "Σx + 0": (lambda m: m.add(m.const(0.0), m.sum(m.arg(99, 2), axes=(1,), keepdims=False)), "sum", {"zero_term"}),
    "x + −0": (lambda m: m.add(m.arg(99), m.const(-0.0)), "", {"zero_term"}),
    "x − 0": (lambda m: m.sub(m.arg(99), m.const(0.0)), "", {"zero_term"}),
    "x − −0": (lambda m: m.sub(m.arg(99), m.const(-0.0)), "sub", set()),
    "0 − x": (lambda m: m.sub(m.const(0.0), m.arg(99)), "sub", set()),
    "0 + n": (lambda m: m.add(m.const(0, "i8"), m.arg(9, dtype="i8")), "", {"zero_term"}),
    "1·x": (lambda m: m.mul(m.const(np.ones((3, 4))), m.arg(4)), "broadcast", {"unit_factor", "broadcast_last"}),
    "x/1": (lambda m: m.div(m.arg(99), m.const(1.0)), "", {"unit_factor"}),
    "1/x": (lambda m: m.div(m.const(1.0), m.arg(99)), "div", set()),
    "x·(−1)": (lambda m: m.mul(m.arg(99), m.const(-1.0)), "neg", {"unit_factor"}),
    "x/8": (lambda m: m.div(m.arg(99), m.const(8.0)), "div", set()),  # as by any number of rows: kernels are shared
    "x/2¹²⁷": (lambda m: m.div(m.arg(99), m.const(2.0**127)), "div", set()),
    "x/3": (lambda m: m.div(m.arg(99), m.const(3.0)), "div", set()),
    "x/0": (lambda m: m.div(m.arg(99), m.const(0.0)), "div", set()),
    "x/∞": (lambda m: m.div(m.arg(99), m.const(np.inf)), "div", set()),
    "x¹": (lambda m: m.pow(m.arg(99), m.const(1.0)), "", {"small_power"}),
    "x²": (lambda m: m.pow(m.arg(99), m.const(2.0)), "mul", {"small_power"}),
    "n²": (lambda m: m.pow(m.arg(9, dtype="i4"), m.const(2, "i4")), "mul", {"small_power"}),
    "x⁻¹": (lambda m: m.pow(m.arg(99), m.const(-1.0)), "div", {"small_power"}),
    "√x": (lambda m: m.pow(m.arg(99), m.const(0.5)), "sqrt", {"small_power"}),
    "x² by an array": (lambda m: m.pow(m.arg(99), m.const(np.full(99, 2.0))), "broadcast pow", set()),
    "x³": (lambda m: m.pow(m.arg(99), m.const(3.0)), "pow", set()),
    "where true": (
        lambda m: m.where(m.const([True] * 4, "?"), m.arg(4), m.arg(4)),
        "",
        {"known_choice", "broadcast_last"},
    ),
    "where false": (lambda m: m.where(m.const(False, "?"), m.arg(4), m.arg()), "broadcast", {"known_choice"}),
    "where of one": (lambda m: (lambda x: m.where(m.arg(3, dtype="?"), x, x))(m.arg(3)), "", {"known_choice"}),
    "where of not": (
        lambda m: m.where(m.bitnot(m.arg(3, dtype="?")), m.arg(3), m.arg(3)),
        "where",
        {"known_choice"},
    ),
    "where mixed": (lambda m: m.where(m.const([True, False], "?"), m.arg(2), m.arg(2)), "where", set()),
    "where in where": (
        lambda m: (lambda c: m.where(c, m.where(c, m.arg(3), m.arg(3)), m.where(c, m.arg(3), m.arg(3))))(
            m.arg(3, dtype="?")
        ),
        "where",
        {"choice_made"},
    ),
    "where in another": (
        lambda m: m.where(m.arg(3, dtype="?"), m.where(m.arg(3, dtype="?"), m.arg(3), m.arg(3)), m.arg(3)),
        "where where",
        set(),
    ),
    "true & x": (lambda m: m.bitand(m.const(True, "?"), m.arg(3, dtype="?")), "", {"known_bits"}),
    "x & false": (lambda m: m.bitand(m.arg(3, dtype="?"), m.const(False, "?")), "broadcast", {"known_bits"}),
    "x | true": (lambda m: m.bitor(m.arg(3, dtype="?"), m.const(True, "?")), "broadcast", {"known_bits"}),
    "n | 0": (lambda m: m.bitor(m.arg(3, dtype="i4"), m.const(0, "i4")), "", {"known_bits"}),
    "n & 1": (lambda m: m.bitand(m.arg(3, dtype="i4"), m.const(1, "i4")), "bitand", set()),
    "x & x": (lambda m: (lambda x: m.bitand(x, x))(m.arg(3, dtype="i4")), "", {"known_bits"}),
    "pads that tile": (
        lambda m: chain(m, pads(m, 6, (3, 1), (0, 3), (4, 2))),
        "add add add concatenate",
        {"tiled_pads"},
    ),
    "pads that tile, as a tree": (
        lambda m: (lambda a, b, c, d: m.add(m.add(a, b), m.add(c, d)))(
            *pads(m, 5, (3, 1), (0, 1), (4, 1), (1, 2), axis=1)
        ),
        "add add add add concatenate",
        {"tiled_pads"},
    ),
    "pads of what is moved": (
        lambda m: m.add(
            *(
                m.pad(m.reshape(m.sum(m.arg(2, 5, 3), axes=(1,), keepdims=False), shape=(6,)), **ends)
                for ends in (
                    {"low": (0,), "high": (6,), "interior": (0,)},
                    {"low": (6,), "high": (0,), "interior": (0,)},
                )
            )
        ),
        "concatenate reshape reshape sum sum",
        {"tiled_pads"},
    ),
    "pads with a gap": (lambda m: chain(m, pads(m, 6, (3, 1), (0, 3))), "add pad pad", set()),
    "pads that overlap": (lambda m: chain(m, pads(m, 6, (2, 4), (1, 2))), "add pad pad", set()),
    "pads that are used": (
        lambda m: (lambda terms: (chain(m, terms), terms[0]))(pads(m, 4, (0, 2), (2, 2))),
        "add pad pad",
        set(),
    ),
    "one-hot": (targets, "add eq gather reshape reshape where", {"one_hot"}),
    "rows in another order": (lambda m: targets(m, [0, 2, 1, 3]), "gather scatter_add", set()),
    "a row twice": (lambda m: targets(m, [0, 1, 2, 2]), "gather scatter_add", set()),
    "more rows": (lambda m: targets(m, shape=(5, 3)), "gather scatter_add", set()),
    "not checked by a gather": (lambda m: targets(m, of=m.arg(4, dtype="i8")), "gather scatter_add", set()),
}
PRODUCTS: dict[str, Case] = {
    "transposed product": (
        lambda m: m.transpose(m.matmul(m.transpose(m.arg(5, 3), axes=(1, 0)), m.arg(5, 2)), axes=(1, 0)),
        "matmul transpose",
        {"transposed_product", "transpose_again"},
    ),
    "heads of a product, transposed": (
        lambda m: m.transpose(m.matmul(m.arg(2, 4, 2, 3), m.arg(2, 4, 3, 5)), axes=(0, 3, 1, 2)),
        "matmul transpose transpose transpose",
        {"transposed_product"},
    ),
    "heads of a product, in order": (
        lambda m: m.transpose(m.matmul(m.arg(2, 4, 2, 3), m.arg(2, 4, 3, 5)), axes=(0, 2, 1, 3)),
        "matmul transpose",
        set(),
    ),
    "transposed batched product": (
        lambda m: m.transpose(m.matmul(m.arg(4, 2, 3), m.transpose(m.arg(4, 5, 3), axes=(0, 2, 1))), axes=(0, 2, 1)),
        "matmul transpose",
        {"transposed_product", "transpose_again"},
    ),
    "a product used twice": (
        lambda m: (lambda xy: (m.transpose(xy, axes=(1, 0)), xy))(m.matmul(m.arg(2, 3), m.arg(3, 4))),
        "matmul transpose",
        set(),
    ),
    "a product turned otherwise": (
        lambda m: m.transpose(m.matmul(m.arg(4, 2, 3), m.arg(4, 3, 2)), axes=(2, 1, 0)),
        "matmul transpose",
        set(),
    ),
    "batch into rows": (
        lambda m: m.matmul(m.arg(4, 5, 3), m.arg(3, 2)),
        "matmul reshape reshape",
        {"batch_into_rows"},
    ),
    "a broadcast weight": (
        lambda m: m.matmul(m.arg(4, 5, 3), m.broadcast(m.arg(3, 2), shape=(4, 3, 2))),
        "matmul reshape reshape",
        {"broadcast_product", "batch_into_rows"},
    ),
    "both broadcast": (
        lambda m: m.matmul(m.broadcast(m.arg(5, 3), shape=(4, 5, 3)), m.broadcast(m.arg(3, 2), shape=(4, 3, 2))),
        "broadcast matmul",
        {"broadcast_product"},
    ),
    "broadcast inside": (
        lambda m: m.matmul(m.broadcast(m.arg(3), shape=(5, 3)), m.arg(3, 2)),
        "broadcast matmul",
        set(),
    ),
    "a turned batch": (
        lambda m: m.matmul(m.transpose(m.arg(4, 3, 5), axes=(0, 2, 1)), m.arg(3, 2)),
        "matmul transpose",
        set(),
    ),
    "a weight for each": (lambda m: m.matmul(m.arg(4, 5, 3), m.arg(4, 3, 2)), "matmul", set()),
    "a batched weight": (lambda m: m.matmul(m.arg(5, 3), m.arg(4, 3, 2)), "matmul", set()),
    "a shared weight": (
        shared_weight,
        "matmul matmul reshape reshape reshape transpose",
        {"stacked_product", "batch_into_rows"},
    ),
    "a shared weight, axes kept": (
        lambda m: shared_weight(m, True)[1],
        "matmul reshape reshape reshape transpose",
        {"stacked_product"},
    ),
    "a shared weight, turned": (
        lambda m: m.transpose(shared_weight(m)[1], axes=(1, 0)),
        "matmul reshape reshape transpose",
        {"stacked_product", "transposed_product", "transpose_again"},
    ),
    "a weight at three steps": (
        lambda m: chain(m, steps(m, 3)),
        "concatenate concatenate matmul transpose",
        {"stacked_steps"},
    ),
    "a weight at four steps, as a tree": (
        lambda m: (lambda a, b, c, d: m.add(m.add(a, b), m.add(c, d)))(*steps(m, 4)),
        "concatenate concatenate matmul transpose",
        {"stacked_steps"},
    ),
    "a weight at three steps, and more": (
        lambda m: m.add(chain(m, steps(m, 3)), m.arg(3, 2)),
        "add concatenate concatenate matmul transpose",
        {"stacked_steps"},
    ),
    "two products that are not gradients": (
        lambda m: m.add(m.matmul(m.arg(5, 3), m.arg(3, 4)), m.matmul(m.arg(5, 2), m.arg(2, 4))),
        "add matmul matmul",
        set(),
    ),
    "a step that is read again": (
        lambda m: (lambda a, b: (m.add(a, b), b))(*steps(m, 2)),
        "add matmul matmul transpose transpose",
        set(),
    ),
    "part of the batch": (
        lambda m: m.sum(
            m.matmul(m.transpose(m.arg(2, 4, 5, 3), axes=(0, 1, 3, 2)), m.arg(2, 4, 5, 2)), axes=(0,), keepdims=False
        ),
        "matmul sum transpose",
        set(),
    ),
    "both turned": (
        lambda m: m.sum(
            m.matmul(m.transpose(m.arg(4, 5, 3), axes=(0, 2, 1)), m.transpose(m.arg(4, 2, 5), axes=(0, 2, 1))),
            axes=(0,),
            keepdims=False,
        ),
        "matmul sum transpose transpose",
        set(),
    ),
    "sums of integers are wider": (
        lambda m: m.sum(
            m.matmul(m.transpose(m.arg(4, 5, 3, dtype="i4"), axes=(0, 2, 1)), m.arg(4, 5, 2, dtype="i4")),
            axes=(0,),
            keepdims=False,
        ),
        "matmul sum transpose",
        set(),
    ),
    "a transposed product whose right side is much larger": (
        lambda m: m.transpose(m.matmul(m.transpose(m.arg(900, 4), axes=(1, 0)), m.arg(900, 40)), axes=(1, 0)),
        "matmul transpose transpose",
        set(),
    ),
    "a transposed product whose right side is larger, but not long": (
        lambda m: m.transpose(m.matmul(m.transpose(m.arg(30, 4), axes=(1, 0)), m.arg(30, 40)), axes=(1, 0)),
        "matmul transpose",
        None,
    ),
    "the step of a loop": (
        lambda m: m.scan(m.arg(3), m.arg(5, 3), body=_step(), steps=5, reverse=True),
        "scan",
        {"simpler_step"},
    ),
    "a loop over nothing": (
        lambda m: m.scan(m.arg(0), m.arg(5, 0), body=_empty_step(), steps=5, reverse=False),
        "",
        {"nothing", "simpler_step"},
    ),
    "axes of a sum": (
        lambda m: m.reshape(m.sum(m.matmul(m.arg(4, 5), m.arg(5, 2)), axes=(1,), keepdims=False), shape=(4, 1)),
        "matmul sum",
        {"kept_axes"},
    ),
    "another shape of a sum": (
        lambda m: m.reshape(m.sum(m.matmul(m.arg(4, 5), m.arg(5, 2)), axes=(1,), keepdims=False), shape=(2, 2)),
        "matmul reshape sum",
        set(),
    ),
    "axes of an amax": (
        lambda m: m.reshape(m.amax(m.matmul(m.arg(4, 5), m.arg(5, 2)), axes=(1,), keepdims=True), shape=(4,)),
        "amax matmul",
        {"kept_axes"},
    ),
    "axes of a sum used twice": (
        lambda m: (lambda x: (x, m.reshape(x, shape=(4, 1))))(
            m.sum(m.matmul(m.arg(4, 5), m.arg(5, 2)), axes=(1,), keepdims=False)
        ),
        "matmul reshape sum",
        set(),
    ),
    "a derivative of x·f(x)": (derivative, "abs add exp matmul mul mul sub", {"common_factor"}),
    "a derivative of which a term is read": (
        lambda m: derivative(m, read=1),
        "abs add exp matmul mul mul mul sub",
        set(),
    ),
    "a common factor of data": (lambda m: derivative(m, plain=True), "abs add matmul mul mul mul", set()),
}

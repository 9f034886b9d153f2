"""Products over windows: convolutions and their gradients, at sizes at which tiles, vectors and borders do not fit.

All run between pages that must not be touched, task by task in any order, on registers of every width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from executors import Bound, run_fenced, same

import slalom
from slalom import Tensor, nn
from slalom.compiler import llvm, operands
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.ir import LANES, Builder, Type
from slalom.compiler.program import Program
from slalom.compiler.windows import joined
from tests.table_simplify import Maker
from tests.test_compiled_graphs import Recorded, recorded

Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    """A convolution: (channels in, out), kernel and image, and how many products see windows in place: the result, the
    gradient of the input, that of the weight."""

    channels: tuple[int, int]
    kernel: tuple[int, ...]
    image: tuple[int, ...]
    batch: int
    options: Mapping[str, Any] = MappingProxyType({})
    in_place: int = 3
    dtype: str = "float32"
    transposed: bool = False

    def module(self) -> nn.Module:
        name = f"Conv{'Transpose' if self.transposed else ''}{len(self.kernel)}d"
        made: nn.Module = getattr(nn, name)(*self.channels, self.kernel, **self.options)
        return made.to(self.dtype)


CASES = {
    "LeNet's first": Case((1, 6), (5, 5), (12, 12), 64),
    "LeNet's second": Case((6, 16), (5, 5), (8, 8), 32),
    "one pixel left": Case((3, 5), (3, 4), (3, 4), 16, {}, 1),
    "a batch that is no vector": Case((2, 3), (3, 3), (6, 7), 37),
    "a little more than a vector": Case((2, 3), (3, 3), (6, 7), 17),
    "padding": Case((3, 4), (3, 3), (5, 6), 32, {"padding": 1}),
    "much padding": Case((2, 3), (5, 3), (4, 3), 16, {"padding": (4, 2)}),
    "more padding than the kernel covers": Case((2, 3), (2, 2), (4, 3), 16, {"padding": 3}),
    "strides": Case((2, 4), (3, 3), (7, 8), 16, {"stride": 2}),
    "strides beyond the kernel": Case((2, 4), (1, 2), (7, 9), 16, {"stride": (2, 3)}),
    "strides that leave pixels over": Case((2, 3), (3, 3), (9, 10), 20, {"stride": (2, 3), "padding": 1}),
    "dilation": Case((2, 3), (3, 2), (9, 8), 16, {"dilation": (2, 3)}),
    "all of them": Case((2, 3), (3, 3), (11, 12), 33, {"stride": (3, 2), "padding": (2, 1), "dilation": (2, 3)}),
    "groups": Case((6, 9), (3, 3), (5, 5), 16, {"groups": 3, "padding": 1}),
    "a channel at a time": Case((5, 10), (3, 3), (5, 6), 48, {"groups": 5, "padding": 1}),
    "one channel": Case((1, 1), (3, 3), (5, 6), 16, {"padding": 1}),
    "many channels": Case((40, 70), (1, 1), (3, 3), 16),
    "one axis": Case((3, 5), (4,), (11,), 40, {"padding": 2, "stride": 2}),
    "three axes": Case((2, 3), (2, 3, 2), (4, 5, 4), 16, {"padding": (1, 0, 1), "stride": (1, 2, 1)}),
    "doubles": Case((2, 3), (3, 3), (6, 7), 24, {"padding": 1}, dtype="float64"),
    "along rows": Case((2, 4), (3, 3), (6, 40), 3),
    "along rows, padded": Case((2, 4), (3, 3), (6, 35), 1, {"padding": 1}),
    "along rows, one axis": Case((3, 4), (5,), (50,), 2, {"dilation": 3}),
    "rows with strides": Case((2, 4), (3, 3), (6, 40), 2, {"stride": 2}, 0),
    "transposed": Case((3, 4), (3, 3), (5, 6), 32, {"stride": 2, "padding": 1, "output_padding": 1}, transposed=True),
    "transposed in groups": Case((4, 6), (2, 3), (4, 5), 16, {"groups": 2, "dilation": 2}, transposed=True),
    "one example": Case((2, 3), (3, 3), (5, 4), 1, {}),
}  # fmt: skip


def gradients(case: Case) -> Recorded:
    """The graph of a convolution and of all its gradients."""
    slalom.manual_seed(0)
    module, rng = case.module(), np.random.default_rng(0)

    def step(x: Tensor, ct: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        module.zero_grad()
        out = module(x)
        (out * ct).sum().backward()
        return [out, x.grad, *(p.grad for p in module.parameters())]

    x = Tensor(rng.normal(size=(case.batch, case.channels[0], *case.image)).astype(case.dtype))
    ct = Tensor(rng.normal(size=module(x).shape).astype(case.dtype))
    return recorded(slalom.compile(step), x, ct)


@pytest.mark.parametrize("name", CASES)
def test_a_convolution_and_its_gradients(name: str) -> None:
    graph, targets, inputs = gradients(CASES[name])
    expected, program, bound = NumpyExecutor(graph)(inputs), Program(graph, targets), Bound(graph)
    assert sum(kernel.windows is not None for kernel in program.kernels.kernels) == CASES[name].in_place
    for at_end in (True, False):
        bound.check(inputs, expected, run_fenced(program, inputs, at_end=at_end, split=at_end))


@pytest.mark.parametrize("name", ["LeNet's second", "all of them", "groups", "along rows, padded", "doubles"])
def test_the_same_bits_on_every_width_and_for_any_split(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, targets, inputs = gradients(CASES[name])
    found = run_fenced(Program(graph, targets), inputs, at_end=True)
    for bits in (512, 256, 128):
        target = llvm.Target.host().limited(bits)
        program = Program(graph, targets, target=target)
        for split in (False, True):
            assert all(map(same, found, run_fenced(program, inputs, at_end=False, split=split, target=target)))
    for threads in (2, 3, 8):
        monkeypatch.setattr("slalom.compiler.runtime.get_num_threads", lambda n=threads: n)
        assert all(map(same, found, run_fenced(Program(graph, targets), inputs, at_end=True, split=True)))


def test_an_image_too_large_for_the_tables_is_copied_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operands, "LARGEST", 1)
    graph, targets, inputs = gradients(CASES["one example"])
    program = Program(graph, targets)
    assert not any(kernel.windows for kernel in program.kernels.kernels)
    Bound(graph).check(inputs, NumpyExecutor(graph)(inputs), run_fenced(program, inputs, at_end=True))


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_lanes_of_many_vectors_are_joined_as_those_of_one(count: int) -> None:
    b = Builder()
    source, target = b.pointer("x", "x"), b.pointer("y", "y")
    vector = Type("float", LANES)
    rows = [b.load(vector, b.offset(source, i, vector)) for i in range(count)]
    b.store(joined(b, rows), target)
    for i, row in enumerate(rows):
        b.store(b.tree(row, b.add), b.offset(target, LANES + i, vector.element))
    x = np.random.default_rng(0).normal(size=(count, LANES)).astype(np.float32)
    y = np.zeros(2 * LANES, np.float32)
    (address,) = llvm.load([b])
    words = np.array([{"x": x, "y": y}[name].ctypes.data for name in b.bound], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(words.ctypes.data, 0, 1)
    assert (y[:count] == y[LANES : LANES + count]).all() and not y[count:LANES].any()


TURNED = [((40, 20), (1, 0)), ((17, 33), (1, 0)), ((3, 40), (1, 0)), ((40, 3), (1, 0)), ((16, 4), (1, 0)),
          ((5, 40, 20), (0, 2, 1)), ((37, 2, 5, 6), (1, 2, 3, 0)), ((20, 6, 18), (1, 2, 0))]  # fmt: skip


@pytest.mark.parametrize("bits", [512, 256])
@pytest.mark.parametrize(("shape", "axes"), TURNED, ids=str)
def test_transposes(shape: tuple[int, ...], axes: tuple[int, ...], bits: int) -> None:
    m = Maker()
    graph = m.graph(m.transpose(m.arg(*shape), axes=axes))
    x, target = np.random.default_rng(0).normal(size=shape).astype(np.float32), llvm.Target.host().limited(bits)
    for at_end in (True, False):
        (found,) = run_fenced(Program(graph, target=target), [x], at_end=at_end, split=at_end, target=target)
        assert same(found, np.ascontiguousarray(x.transpose(axes)))

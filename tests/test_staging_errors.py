"""What cannot be recorded is an error that names the user's line; and a graph that a pass has damaged is found out."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, tensor
from slalom.core.graph import Equation, Graph, Input, Output, Type
from slalom.core.ops import TABLE
from slalom.errors import GradError, SlalomError, StagingError


def fails(function: Callable[..., Any], *args: Any) -> str:
    """The message of the error of tracing ``function``, which must be one line."""
    with pytest.raises(StagingError) as caught:
        slalom.compile(function)(*args)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- reading values -----------------------------------------------------------------------------------------------
READS: dict[str, Callable[[Tensor], Any]] = {
    "bool": lambda t: bool(t[0] > 0),
    "if": lambda t: 1 if t[0] > 0 else 2,
    "and": lambda t: t[0] > 0 and t[1] > 0,
    "while": lambda t: [0 for _ in iter(lambda: bool(t.sum() > 5), False)],
    "in": lambda t: 1.0 in t,
    "float": lambda t: float(t[0]),
    "int": lambda t: int(t[0]),
    "item": lambda t: t[0].item(),
    "tolist": Tensor.tolist,
    "numpy": Tensor.numpy,
    "numpy of a detached one": lambda t: t.detach().numpy(),
    "np.asarray": np.asarray,
    "a NumPy function": np.linalg.norm,
    "iteration": list,
    "unpacking": lambda t: (lambda a, b: a)(*t),
    "range": lambda t: range(t[0].to("int64")),
    "the index of a list": lambda t: [1, 2, 3][t[0].to("int64")],
    "format": lambda t: f"{t[0]:.3f}",
    "DLPack": np.from_dlpack,
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "nonzero": slalom.core.functional.indexing.nonzero,
    "a mask as index": lambda t: t[t > 0],
    "masked_select": lambda t: t.masked_select(t > 0),
    "a tensor of tensors": lambda t: tensor([t[0], t[1]]),
}


@pytest.mark.parametrize("what", ["argument", "state", "parameter", "value", "gradient"])
@pytest.mark.parametrize("name", READS)
def test_reading_a_value_names_the_line(name: str, what: str) -> None:
    read = READS[name]
    line = inspect.getsourcelines(read)[1] if getattr(read, "__module__", "") == __name__ else None
    state, parameter = tensor([1.0, 2.0]), tensor([1.0, 2.0], requires_grad=True)

    def f(x: Tensor) -> Any:
        if what == "gradient":
            (x * parameter).sum().backward()
        t = {"argument": x, "state": state, "parameter": parameter, "value": x * 2, "gradient": parameter.grad}[what]
        assert t is not None
        return read(t)

    text = fails(f, tensor([1.0, 2.0]))
    assert "while staging" in text
    wanted = line if line is not None else inspect.getsourcelines(f)[1] + 5
    assert f"test_staging_errors.py:{wanted}" in text
    assert "where" in text or "outside the compiled function" in text


def test_what_is_known_while_staging_can_be_read() -> None:
    @slalom.compile
    def f(x: Tensor) -> Tensor:
        assert len(x) == 3 and x.shape == (3, 2) and x.ndim == 2 and x.numel() == 6 and x.size(0) == 3
        assert x.dtype == np.float32 and x.is_floating_point() and x.nbytes == 24 and not x.requires_grad
        assert "abstract" in repr(x) and "abstract" in f"{x.sum()}"
        total = x[0] * 0
        for i in range(len(x)):
            total = total + x[i]
        for row in x.unbind(0):
            total = total + row
        return total

    assert f(slalom.ones(3, 2)).tolist() == [6.0, 6.0]


# --- arrays -------------------------------------------------------------------------------------------------------
def test_a_writable_numpy_array_is_an_error_with_a_hint() -> None:
    array = np.array([1.0, 2.0], np.float32)
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    text = fails(lambda x: x + array, tensor([1.0, 2.0]))
    assert f"test_staging_errors.py:{line}" in text and "pass it as an argument or wrap it in a Tensor" in text
    for use in (lambda x: x * slalom.from_numpy(array), lambda x: x[array.astype(int)], lambda x: array):
        assert "NumPy array" in fails(use, tensor([1.0, 2.0]))
    wrapped = tensor(array)
    f = slalom.compile(lambda x: x + wrapped)
    assert f(tensor([1.0, 1.0])).tolist() == [2.0, 3.0]
    wrapped[0] = 10.0
    assert f(tensor([1.0, 1.0])).tolist() == [11.0, 3.0]


def test_a_read_only_array_is_a_constant() -> None:
    base = np.array([1.0, 2.0], np.float32)
    array = base.view()
    array.flags.writeable = False
    f = slalom.compile(lambda x: (x + array, np.float32(3) * x))
    assert f(tensor([1.0, 1.0]))[0].tolist() == [2.0, 3.0]
    base[:] = 100.0  # the constant is what it was
    assert [t.tolist() for t in f(tensor([1.0, 1.0]))] == [[2.0, 3.0], [3.0, 3.0]]
    assert not any(place.kind == "state" for place in f.graph.inputs)


# --- tensors that outlive their trace -----------------------------------------------------------------------------
USES: dict[str, Callable[[Tensor], Any]] = {
    "an operation": lambda t: t + 1,
    "a function": Tensor.exp,
    "a copy": lambda t: t.clone(),
    "a cast": lambda t: t.to("float64"),
    "a view": lambda t: t.reshape(1, 2),
    "a selection": lambda t: slalom.where(tensor([True, False]), t, 0.0),
    "item": lambda t: t[0].item(),
    "numpy": Tensor.numpy,
    "assign to it": lambda t: t.assign(0.0),
    "assign it": lambda t: tensor([0.0, 0.0]).assign(t),
    "index assignment": lambda t: tensor([0.0, 0.0]).__setitem__(slice(None), t),
    "backward": lambda t: (t * tensor([1.0, 1.0], requires_grad=True)).sum().backward(),
    "a compiled function": slalom.compile(lambda x: x + 1),
    "state of a compiled function": lambda t: slalom.compile(lambda: t + 1)(),
    "cat": lambda t: slalom.cat([tensor([1.0]), t]),
    "a list of them": lambda t: tensor([t]),
}


@pytest.mark.parametrize("use", USES)
def test_an_abstract_tensor_used_after_its_trace_names_the_line_that_made_it(use: str) -> None:
    kept: list[Tensor] = []

    @slalom.compile
    def f(x: Tensor) -> Tensor:
        y = x * 2
        kept.append(y)
        return y

    line = inspect.getsourcelines(f.__wrapped__)[1] + 2  # type: ignore[attr-defined]
    assert f(tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    with pytest.raises(StagingError) as caught:
        USES[use](kept[0])
    text = str(caught.value)
    assert f"test_staging_errors.py:{line}" in text and "kept after tracing ended" in text
    assert "return it" in text and "assign" in text
    assert "abstract" in repr(kept[0]) and kept[0].shape == (2,)


def test_a_module_that_keeps_an_abstract_tensor_is_found_at_the_next_use() -> None:
    class Keeps(nn.Module):
        last: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            out = x if self.last is None else x + self.last
            self.last = out * 1
            return out

    model = Keeps()
    step = slalom.compile(model)
    step(tensor([1.0]))
    with pytest.raises(StagingError, match="kept after tracing ended"):
        step(tensor([1.0]))


def test_an_abstract_tensor_in_another_threads_trace() -> None:
    """Two traces at once do not take each other's tensors."""
    found: list[BaseException] = []

    def f(x: Tensor) -> Tensor:
        def other() -> None:
            try:
                slalom.compile(lambda y: x + y)(tensor([1.0]))
            except StagingError as error:
                found.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        return x * 2

    assert slalom.compile(f)(tensor([1.0])).tolist() == [2.0]
    assert len(found) == 1


# --- histories ----------------------------------------------------------------------------------------------------
def test_an_argument_with_a_history() -> None:
    w = tensor([2.0], requires_grad=True)
    assert "computed from tensors requiring gradients" in fails(lambda x: x * 2, w * 3)
    with slalom.no_grad():
        assert slalom.compile(lambda x: x * 2)(w * 3).tolist() == [12.0]


def test_state_with_a_history() -> None:
    w = tensor([2.0], requires_grad=True)
    hidden = w * 3
    text = fails(lambda x: x * hidden, tensor([1.0]))
    assert "computed from parameters outside" in text and "test_staging_errors.py:" in text


def test_backward_of_a_compiled_result_says_what_to_do() -> None:
    w = tensor([2.0], requires_grad=True)
    out = slalom.compile(lambda x: (x * w).sum())(tensor([1.0]))
    with pytest.raises(GradError, match="compiled function"):
        out.backward()


def test_in_place_on_a_leaf_is_an_error_while_staging_too() -> None:
    w = tensor([2.0], requires_grad=True)
    with pytest.raises(GradError, match="no_grad"):
        slalom.compile(lambda: w.add_(1))()
    with pytest.raises(GradError, match="no_grad"):
        slalom.compile(lambda x: x.add_(1))(w)


def test_requires_grad_of_state_changed_for_good() -> None:
    w = tensor([2.0], requires_grad=True)
    assert "requires_grad" in fails(lambda x: (w.requires_grad_(False), x * w)[1], tensor([1.0]))
    assert w.requires_grad


def test_a_second_backward_inside() -> None:
    w = tensor([2.0], requires_grad=True)

    def f() -> None:
        loss = (w * w).sum()
        loss.backward()
        loss.backward()

    with pytest.raises(GradError, match="second time"):
        slalom.compile(f)()


def test_replacing_a_buffer_inside() -> None:
    w = tensor([2.0], requires_grad=True)

    def f() -> None:
        w.data = tensor([1.0, 2.0])

    assert "another shape" in fails(f)
    assert w.tolist() == [2.0]


# --- functions ----------------------------------------------------------------------------------------------------
def test_what_is_no_function() -> None:
    with pytest.raises(StagingError, match=r"int.*function"):
        slalom.compile(3)  # type: ignore[arg-type]

    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(StagingError, match="generator"):
        slalom.compile(generator)


def test_the_graph_before_the_first_call() -> None:
    with pytest.raises(StagingError, match="no call yet"):
        slalom.compile(lambda x: x).graph.check()


def test_a_permutation_is_drawn_outside() -> None:
    draws = slalom.get_rng_state().tolist()
    assert "pass it as an argument" in fails(lambda x: x[slalom.randperm(3)], tensor([1.0, 2.0, 3.0]))
    assert slalom.get_rng_state().tolist() == draws


def test_errors_of_operations_are_the_same_as_in_eager_mode() -> None:
    for act in (lambda x: x @ slalom.ones(3, 4), lambda x: x + slalom.ones(5), lambda x: x.reshape(7), lambda x: x[9]):
        with pytest.raises(SlalomError) as eager:
            act(slalom.ones(2, 2))
        with pytest.raises(type(eager.value)) as staged:
            slalom.compile(act)(slalom.ones(2, 2))
        assert str(staged.value) == str(eager.value)


# --- damaged graphs -----------------------------------------------------------------------------------------------
def sound_graph() -> Graph:
    """%0, %1: arguments; %2: a constant; %3 = %0 @ %1; %4 = %3 * %2; %5 = sum(%4)."""
    f = slalom.compile(lambda x, y: ((x @ y) * 2).sum())
    f(slalom.ones(2, 3), slalom.ones(3, 4))
    return f.graph.check()


def equation(graph: Graph, i: int, **changes: Any) -> Graph:
    equations = list(graph.equations)
    equations[i] = replace(equations[i], **changes)
    return replace(graph, equations=tuple(equations))


F32 = np.dtype(np.float32)
DAMAGE: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "an operand that comes later": (lambda g: equation(g, 0, inputs=(0, 4)), "before it is defined.*matmul"),
    "an operand that does not exist": (lambda g: equation(g, 1, inputs=(3, 99)), "before it is defined.*mul"),
    "equations in another order": (lambda g: replace(g, equations=g.equations[::-1]), "before it is defined.*sum"),
    "a value defined twice": (lambda g: equation(g, 2, out=4), "defined twice.*sum"),
    "an equation that defines an input": (lambda g: equation(g, 0, out=0), "defined twice.*matmul"),
    "a value without a type": (lambda g: equation(g, 2, out=77), "without a type.*sum"),
    "a missing equation": (lambda g: replace(g, equations=g.equations[:-1]), "never defined"),
    "an extra type": (lambda g: replace(g, types=(*g.types, Type((), F32))), "7 types for 6 values"),
    "a wrong shape": (
        lambda g: replace(g, types=(*g.types[:3], Type((2, 5), F32), *g.types[4:])),
        r"rules give f32\[2,4\].*matmul",
    ),
    "a wrong dtype": (
        lambda g: replace(g, types=(*g.types[:5], Type((), np.dtype(np.float64)))),
        r"rules give f32\[\].*sum",
    ),
    "operands that do not fit": (lambda g: equation(g, 0, inputs=(1, 0)), "rules refuse.*matmul"),
    "an operand too few": (lambda g: equation(g, 0, inputs=(0,)), "rules refuse.*matmul"),
    "an operand of another dtype": (
        lambda g: replace(
            g, constants={2: np.array(2, np.int64)}, types=(*g.types[:2], Type((), np.dtype(np.int64)), *g.types[3:])
        ),
        "rules refuse.*mul",
    ),
    "another primitive": (lambda g: equation(g, 0, prim=TABLE["bitand"]), "rules refuse.*bitand"),
    "a wrong parameter": (lambda g: equation(g, 2, params={"axes": (5,), "keepdims": False}), "rules.*sum"),
    "a missing parameter": (lambda g: equation(g, 2, params={}), "rules refuse.*sum"),
    "a constant of another shape": (
        lambda g: replace(g, constants={2: np.ones((3,), np.float32)}),
        r"constant %2.*f32\[\]",
    ),
    "a constant that is also an input": (
        lambda g: replace(g, inputs=(*g.inputs, Input(2, "state", "w"))),
        "defined twice",
    ),
    "an output that is never defined": (
        lambda g: replace(g, outputs=(Output(42, "result", "result 0"),)),
        "output result 0 = %42 is never defined",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_check_finds_damaged_graphs(name: str) -> None:
    damage, text = DAMAGE[name]
    graph = sound_graph()
    assert isinstance(graph.equations[0], Equation)
    damaged = damage(graph)
    with pytest.raises(AssertionError, match=text):
        damaged.check()
    str(damaged)  # a damaged graph can still be looked at

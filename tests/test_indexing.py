"""t[key] and t[key] = value against NumPy, for random shapes and keys: values, gradients, the staged graph, errors."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom.compiler.compile import compile as staged
from slalom.core import autodiff
from slalom.core.functional.creation import ones, tensor
from slalom.core.tensor import Tensor
from slalom.errors import DTypeError, IndexRangeError, ShapeError, StagingError


# --- random keys --------------------------------------------------------------------------------------------------
class Problem(NamedTuple):
    """A tensor's shape and a key that fits it."""

    shape: tuple[int, ...]
    key: tuple[Any, ...]

    @property
    def has_mask(self) -> bool:
        return any(isinstance(k, np.ndarray) and k.dtype == bool for k in self.key)

    def array(self) -> np.ndarray:
        return np.random.default_rng(len(self.key)).standard_normal(self.shape)

    def places(self) -> np.ndarray:
        """The flat positions that the key selects, by NumPy: integers first, as PyTorch takes them."""
        positions = np.arange(prod(self.shape)).reshape(self.shape)
        if not any(isinstance(k, np.ndarray) for k in self.key):
            return np.asarray(positions[self.key])
        basic = [slice(None) if isinstance(k, np.ndarray) else k for k in self.key]
        full = [part for k, b in zip(self.key, basic, strict=True) for part in [b] * (k.ndim if is_mask(k) else 1)]
        left = [
            k if isinstance(k, np.ndarray) else ... if k is ... else slice(None)
            for k in self.key
            if not isinstance(k, int)
        ]
        return np.asarray(positions[tuple(full)][tuple(left)])


def is_mask(k: Any) -> bool:
    return isinstance(k, np.ndarray) and k.dtype == bool


def bounds(n: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(-n - 2, n + 2)


def some(draw: st.DrawFn, elements: st.SearchStrategy[Any], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.array(draw(st.lists(elements, min_size=prod(shape), max_size=prod(shape))), dtype).reshape(shape)


@st.composite
def problems(draw: st.DrawFn, masks: bool = True) -> Problem:
    """Integers, slices of either direction, None, ..., index arrays that broadcast together, masks."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    common = draw(st.sampled_from([(3,), (1,), (0,), (2, 3), (2, 1)]))
    key: list[Any] = []
    axis, skipped = 0, False
    while axis < len(shape):
        n, kind = shape[axis], draw(st.sampled_from(["slice", "slice", "int", "array", "array", "mask", "...", "end"]))
        if kind == "end" and not skipped:
            break
        if kind == "..." and not skipped:
            skipped = True
            key.append(...)
            axis += draw(st.integers(0, len(shape) - axis))
            continue
        if kind == "int" and n:
            key.append(draw(st.integers(-n, n - 1)))
        elif kind == "array" and (n or not prod(common)):
            part = draw(st.sampled_from([common, common[-1:], (1,)])) if n else common
            key.append(some(draw, st.integers(-n, max(n - 1, 0)), part, int))
        elif kind == "mask" and masks and not any(isinstance(k, np.ndarray) for k in key):
            covered = shape[axis : axis + draw(st.integers(1, len(shape) - axis))]
            key.append(some(draw, st.booleans(), covered, bool))
            common = (int(key[-1].sum()),)
            axis += len(covered) - 1
        else:
            key.append(slice(draw(bounds(n)), draw(bounds(n)), draw(st.sampled_from([None, 1, 2, 3, -1, -2, -3]))))
        axis += 1
    for _ in range(draw(st.integers(0, 2))):
        key.insert(draw(st.integers(0, len(key))), None)
    return Problem(shape, tuple(key))


def as_given(k: Any, form: int) -> Any:
    """Index arrays as arrays, lists or tensors."""
    return [k, k.tolist(), Tensor(k)][form] if isinstance(k, np.ndarray) and (k.size or form != 1) else k


@st.composite
def assignments(draw: st.DrawFn, masks: bool = True) -> tuple[Problem, np.ndarray]:
    """A problem and a value that broadcasts to what its key selects."""
    problem = draw(problems(masks))
    shape = [draw(st.sampled_from([n, 1])) for n in problem.places().shape]
    shape = shape[draw(st.integers(0, len(shape))) :]
    shape = draw(st.sampled_from([shape, shape, [1, *shape] if len(shape) == problem.places().ndim else shape]))
    return problem, np.random.default_rng(7).standard_normal(shape)


# --- reading ------------------------------------------------------------------------------------------------------
@settings(max_examples=400)
@given(problems(), st.integers(0, 2))
def test_reading_gives_numpys_values_and_gradients(problem, form):
    array, key = problem.array(), tuple(as_given(k, form) for k in problem.key)
    places = problem.places()
    t = Tensor(array, requires_grad=True)
    out = t[key]
    assert out.shape == places.shape
    assert np.array_equal(out.detach().numpy(), array.ravel()[places])
    weights = np.random.default_rng(5).standard_normal(out.shape)
    (gradient,) = autodiff.grad_of(out, t, Tensor(weights))
    expected = np.zeros(array.size)
    np.add.at(expected, places.ravel(), weights.ravel())
    np.testing.assert_allclose(gradient.numpy().ravel(), expected, atol=1e-14)


@settings(max_examples=150)
@given(problems(masks=False))
def test_reading_staged_is_eager(problem):
    t = Tensor(problem.array(), requires_grad=True)
    key = tuple(as_given(k, 2) for k in problem.key)

    def run(t):
        out = t[key] * 2
        return out, autodiff.grad_of(out.sum(), t)[0]

    for a, b in zip(run(t), staged(run)(t), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy()) and a.shape == b.shape


def test_reading_gives_values_never_views():
    t = tensor([[1.0, 2.0], [3.0, 4.0]])
    for out in (t[0], t[:], t[...], t[:, 0], t[::-1], t[[0, 1]], t[None]):
        before = out.tolist()
        t += 1
        assert out.tolist() == before
        out.zero_()
    assert t.tolist() == [[8.0, 9.0], [10.0, 11.0]]


# --- writing ------------------------------------------------------------------------------------------------------
def written(problem, value):
    """The array after ``a[key] = value``; of equal places the last one counts."""
    array, places = problem.array(), problem.places()
    spread = np.broadcast_to(value.reshape(value.shape[max(0, value.ndim - places.ndim) :]), places.shape)
    owners = dict(zip(places.ravel().tolist(), range(places.size), strict=True))
    flat = array.ravel()
    for place, source in owners.items():
        flat[place] = spread.ravel()[source]
    return array, owners


@settings(max_examples=300)
@given(assignments(), st.integers(0, 2))
def test_writing_gives_numpys_values(case, form):
    problem, value = case
    t, key = Tensor(problem.array()), tuple(as_given(k, form) for k in problem.key)
    version = t.detach()
    t[key] = Tensor(value) if form else value
    assert np.array_equal(t.numpy(), written(problem, value)[0])
    assert np.array_equal(version.numpy(), t.numpy())  # in place: detach() shares the buffer


@settings(max_examples=200)
@given(assignments())
def test_gradients_flow_to_what_was_written_and_to_what_is_left(case):
    problem, value = case
    x, v = Tensor(problem.array(), requires_grad=True), Tensor(value, requires_grad=True)
    y = x * 1
    y[tuple(as_given(k, 2) for k in problem.key)] = v
    expected, owners = written(problem, value)
    assert np.array_equal(y.detach().numpy(), expected)
    weights = np.random.default_rng(3).standard_normal(problem.shape)
    for_x, for_v = autodiff.grad_of(y, (x, v), Tensor(weights), allow_unused=True)
    left, taken = weights.ravel().copy(), np.zeros(problem.places().size)
    for place, source in owners.items():
        taken[source], left[place] = weights.ravel()[place], 0
    assert np.array_equal(for_x.numpy().ravel(), left)
    taken = Tensor(taken.reshape(problem.places().shape)).sum_to_size(
        value.shape[max(0, value.ndim - problem.places().ndim) :]
    )
    np.testing.assert_allclose(for_v.numpy().ravel(), taken.numpy().ravel(), atol=1e-14)


@settings(max_examples=150)
@given(assignments(masks=False))
def test_writing_staged_is_eager(case):
    problem, value = case
    key = tuple(as_given(k, 2) for k in problem.key)

    def run(x, v):
        y = x * 1
        y[key] = v
        return y

    x, v = Tensor(problem.array()), Tensor(value)
    assert np.array_equal(run(x, v).numpy(), staged(run)(x, v).numpy())


def test_writing_into_state_reaches_it():
    state, places = ones(4), tensor([0, -1])

    @staged
    def step(value):
        state[places] = value
        state[1] += 1

    step(tensor(5.0))
    step(tensor(7.0))
    assert state.tolist() == [7, 3, 1, 7]
    places.assign([2, 2])
    step(tensor(9.0))
    assert state.tolist() == [7, 4, 9, 7]
    assert step.traces == 1


def test_writing_under_no_grad_into_a_parameter_keeps_it_a_leaf():
    w = ones(3).requires_grad_()
    with pytest.raises(RuntimeError, match="in-place operation on a leaf that requires gradients"):
        w[0] = 2.0
    with autodiff.no_grad():
        w[0] = w[1] * 5
        w[1:] = w.detach()[:2]
    assert w.tolist() == [5, 5, 1] and w.is_leaf and w.requires_grad


def test_writing_casts_to_the_dtype_of_the_tensor():
    t = tensor([1, 2, 3])
    t[0] = 7.9
    t[1:] = tensor([True, False])
    assert t.tolist() == [7, 1, 0] and t.dtype == np.int64


def test_unknown_0d_indices_are_integers_while_staging():
    x = Tensor(np.arange(24.0).reshape(2, 3, 4))
    i = tensor(1)
    pick = staged(lambda x, i: x[i, :, [0, 2]])
    assert pick(x, i).tolist() == x[1, :, [0, 2]].tolist() == [[12, 14], [16, 18], [20, 22]]
    assert pick(x, tensor(-2)).tolist() == x[0, :, [0, 2]].tolist()
    assert staged(lambda: x[i])().tolist() == x[1].tolist()


# --- errors -------------------------------------------------------------------------------------------------------
ERRORS = [
    ((0, 0, 0), IndexRangeError, r"indexing: got 3 indices; needed at most 2 for shape \(3, 4\)"),
    ((..., ...), IndexRangeError, "indexing: got several ...; needed at most one"),
    (3, IndexRangeError, "index 3 on axis 0: needed -3 to 2"),
    ((0, -5), IndexRangeError, "index -5 on axis 1: needed -4 to 3"),
    ([0, 3], IndexRangeError, "index 3 on axis 0: needed -3 to 2"),
    ((slice(None), [-5]), IndexRangeError, "index -5 on axis 1: needed -4 to 3"),
    (1.0, DTypeError, "index: got float; needed integers, slices, None, ... or tensors of integers or bools"),
    ("a", DTypeError, "index: got str; needed integers"),
    (True, DTypeError, "index: got a single bool; needed integers"),
    ([0.5], DTypeError, "index: got float32; needed integers"),
    (np.array(0.5), DTypeError, "index: got float64; needed integers"),
    (np.array(True), DTypeError, "index: got a single bool; needed integers"),
    (np.ones(2, bool), ShapeError, r"mask as index: got \(2,\); needed the shape of the axes it selects, \(3,\)"),
    (
        np.ones((3, 3), bool),
        ShapeError,
        r"mask as index: got \(3, 3\); needed the shape of the axes it selects, \(3, 4\)",
    ),
    (
        ([0, 1], [0, 1, 2]),
        ShapeError,
        r"index: shapes \(2,\) and \(3,\) do not broadcast: got sizes 2 and 3 on axis -1",
    ),
]


@pytest.mark.parametrize(("key", "error", "message"), ERRORS, ids=[str(i) for i in range(len(ERRORS))])
def test_errors_name_the_index_and_what_is_needed(key, error, message):
    t = ones(3, 4)
    with pytest.raises(error, match=message):
        t[key]
    if "broadcast" not in message:
        with pytest.raises(error, match=message):
            t[key] = 0.0


def test_an_empty_axis_has_no_index():
    with pytest.raises(IndexRangeError, match="index 0 on axis 0: needed none, the axis is empty"):
        ones(0)[0]


@pytest.mark.parametrize("live", [False, True])
def test_a_value_that_does_not_fit_is_named_with_what_it_should_fit(live):
    t = ones(3, 4, requires_grad=live) * 1
    with pytest.raises(ShapeError, match=r"t\[…\] = v: value: got \(2,\); needed \(4,\)"):
        t[0] = ones(2)
    with pytest.raises(ShapeError, match=r"t\[…\] = v: value: got \(3, 4\); needed \(4,\)"):
        t[0] = ones(3, 4)


def test_masks_and_nonzero_are_errors_while_staging():
    t, mask = ones(3), tensor([True, False, True])
    for f in (lambda t: t[mask], lambda t: t[t > 0], lambda t: t.nonzero(), lambda t: t.masked_select(mask)):
        with pytest.raises(
            StagingError, match=r"a shape that depends on values .* while staging, at .*test_indexing.py:\d+"
        ):
            staged(f)(t)
        assert f(t).numel() > 0

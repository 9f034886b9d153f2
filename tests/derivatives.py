"""Three checks of one function's derivatives: jvp against differences, vjp against jvp, second against differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import slalom
from slalom import Tensor

STEP = 1e-6


def _array(t: Any) -> Any:
    return t.detach().numpy()


def _differences(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The central differences of ``function``, arrays in and arrays out, along the tangents."""
    ahead = function(*(p + STEP * t for p, t in zip(primals, tangents, strict=True)))
    behind = function(*(p - STEP * t for p, t in zip(primals, tangents, strict=True)))
    return [(a - b) / (2 * STEP) for a, b in zip(ahead, behind, strict=True)]


def check_derivatives(function: Callable[..., Tensor], primals: Sequence[Any], seed: int = 0) -> None:
    """``function`` takes float64 tensors and returns one; ``primals`` are the arrays to check it at."""
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(p, np.float64) for p in primals]
    tangents = [np.asarray(rng.normal(size=p.shape)) for p in arrays]
    tensors, directions = [Tensor(p) for p in arrays], [Tensor(t) for t in tangents]

    out, moved = slalom.jvp(function, tensors, directions)
    (numeric,) = _differences(lambda *ps: [_array(function(*map(Tensor, ps)))], arrays, tangents)
    np.testing.assert_allclose(_array(moved), numeric, rtol=1e-6, atol=1e-7, err_msg="jvp against differences")

    weights = np.asarray(rng.normal(size=out.shape))
    _, pullback = slalom.vjp(function, *tensors)
    pulled = [_array(ct) for ct in pullback(Tensor(weights))]
    assert [ct.shape for ct in pulled] == [p.shape for p in arrays]
    along = float((weights * _array(moved)).sum())
    terms = [ct * t for ct, t in zip(pulled, tangents, strict=True)]
    scale = max(1e-3, float(np.abs(weights * _array(moved)).sum()), *(float(np.abs(term).sum()) for term in terms))
    assert abs(along - float(sum(term.sum() for term in terms))) < 1e-9 * scale, "vjp against jvp"

    def scalar(*values: Tensor) -> Tensor:
        return (function(*values) * Tensor(weights)).sum()

    numbers = tuple(range(len(arrays)))
    gradient = slalom.grad(scalar, numbers)
    _, bent = slalom.hvp(scalar, tensors, directions)  # forward over reverse
    turned = slalom.grad(  # reverse over reverse
        lambda *ps: sum((g * d).sum() for g, d in zip(gradient(*ps), directions, strict=True)), numbers
    )(*tensors)
    numerics = _differences(lambda *ps: map(_array, gradient(*map(Tensor, ps))), arrays, tangents)
    for forward, reverse, numeric in zip(bent, turned, numerics, strict=True):
        np.testing.assert_allclose(_array(forward), numeric, rtol=1e-5, atol=1e-6, err_msg="second order, hvp")
        np.testing.assert_allclose(_array(reverse), numeric, rtol=1e-5, atol=1e-6, err_msg="second order, grad of grad")

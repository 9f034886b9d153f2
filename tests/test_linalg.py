"""slalom.linalg: values beside NumPy's, derivatives to second order, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import check_derivatives

import slalom
from slalom import linalg
from slalom.errors import ConfigError, ShapeError, StagingError


@pytest.mark.parametrize(
    "shapes", [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 1)), ((1, 1), (1,)), ((4, 3, 3), (3, 2))]
)
def test_solve_is_numpys_and_differentiable(shapes) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shapes[0]) + 4 * np.eye(shapes[0][-1]), rng.normal(size=shapes[1])
    np.testing.assert_allclose(linalg.solve(a, b).numpy(), np.linalg.solve(a, b), rtol=1e-12)
    check_derivatives(linalg.solve, [a, b])


def test_inverse() -> None:
    a = np.random.default_rng(1).normal(size=(2, 4, 4)) + 4 * np.eye(4)
    np.testing.assert_allclose(linalg.inv(a).numpy(), np.linalg.inv(a), rtol=1e-12)
    check_derivatives(linalg.inv, [a])


def test_whole_numbers_and_dtypes() -> None:
    found = linalg.solve([[2, 0], [0, 4]], [2, 2])
    assert found.dtype == np.float32 and found.numpy().tolist() == [1.0, 0.5]
    assert linalg.solve(np.eye(2), np.ones(2, np.float32)).dtype == np.float64


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"linalg.solve: A: got shape \(2, 3\); needed square"):
        linalg.solve(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ShapeError, match=r"linalg.solve: B: got shape \(3,\); needed 2 rows, for A \(2, 2\)"):
        linalg.solve(np.eye(2), np.ones(3))
    with pytest.raises(ConfigError, match=r"got a singular matrix; needed an inverse\. Hint: add a small"):
        linalg.inv(np.ones((2, 2)))
    with pytest.raises(StagingError, match=r"linalg.solve while staging, at .*test_linalg.py"):
        slalom.compile(lambda a: linalg.solve(a, [1.0, 1.0]))(np.eye(2, dtype=np.float32))

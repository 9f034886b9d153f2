"""L-BFGS: steps by an approximate inverse Hessian from the last gradients, driven from Python around the closure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from slalom.core.autodiff import enable_grad, no_grad
from slalom.core.node import user_line
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.core.trace import current
from slalom.errors import ConfigError, StagingError
from slalom.optim.optimizer import AT_LEAST_0, Constraints, Group, Optimizer, ParamsT

__all__ = ["LBFGS"]

_COUNT = ("an integer of at least 1", lambda value: isinstance(value, int) and value >= 1)


class Point(NamedTuple):
    """A place along the line of search: how far, the loss there, its gradient, and its slope along the line."""

    t: float
    loss: float
    grad: Array
    slope: float


class LBFGS(Optimizer):
    """Limited-memory BFGS for whole batches. ``step(closure)`` evaluates the closure several times.

    d = −H·g with H from the last ``history_size`` pairs s = w′ − w, y = g′ − g by the two-loop recursion;
    w ← w + t·d with t = ``lr``, or, with ``line_search_fn="strong_wolfe"``, a t that lowers the loss enough and
    flattens its slope (c₁ = 10⁻⁴, c₂ = 0.9).

    A step ends after ``max_iter`` iterations or ``max_eval`` evaluations (default 1.25 · max_iter), when no element of
    the gradient exceeds ``tolerance_grad``, or when loss or parameters change by less than ``tolerance_change``.

    Raises: ConfigError for options that make no sense, several parameter groups, or a step without a closure;
    StagingError inside ``slalom.compile``, where no loss is known.
    Source: Nocedal, Wright (2006), "Numerical optimization", algorithms 7.4, 7.5, 3.5 and 3.6, with the interpolation
    of equation 3.59; the bounds of its steps are those of Schmidt's minFunc, which PyTorch has too.

    >>> w = Tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad(); loss = (w**4).sum(); loss.backward(); return loss
    >>> optimizer.step(closure).item() > 90 and closure().item() < 1e-6
    True
    """

    constraints: ClassVar[Constraints] = {
        "max_iter": _COUNT,
        "max_eval": _COUNT,
        "history_size": _COUNT,
        "tolerance_grad": AT_LEAST_0,
        "tolerance_change": AT_LEAST_0,
        "line_search_fn": ("None or 'strong_wolfe'", lambda value: value is None or value == "strong_wolfe"),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        limits = {"max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval}
        tolerances = {"tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change}
        rest = {"history_size": history_size, "line_search_fn": line_search_fn}
        super().__init__(params, {"lr": lr, **limits, **tolerances, **rest})

    def add_param_group(self, param_group: Group) -> None:
        if self.param_groups:
            raise ConfigError("LBFGS: parameter groups", got="several", needed="one")
        super().add_param_group(param_group)

    # --- all parameters as one vector -----------------------------------------------------------------------------
    def _gather(self, what: Callable[[Tensor], Tensor | None]) -> Array:
        parts = [(p, what(p)) for p in self.param_groups[0]["params"]]
        return np.concatenate([
            np.zeros(p.numel(), p.dtype) if t is None else t.detach().numpy().ravel() for p, t in parts
        ])  # fmt: skip

    def _place(self, vector: Array) -> None:
        at = 0
        for p in self.param_groups[0]["params"]:
            p._write(Tensor(vector[at : at + p.numel()].reshape(p.shape), dtype=p.dtype))
            at += p.numel()

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[Any, float, Array]:
        with enable_grad():
            loss = closure()
        return loss, float(loss), self._gather(lambda p: p.grad)

    # --- one step -------------------------------------------------------------------------------------------------
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Iterate from where the last step ended; returns the loss that it began at."""
        if current() is not None:
            raise StagingError(f"LBFGS.step() while staging, at {user_line()}", hint="compile the closure instead")
        if closure is None:
            raise ConfigError("LBFGS.step", got="no closure", needed="a function that returns the loss, with gradients")
        group = self.param_groups[0]
        with no_grad():
            first, loss, grad = self._evaluate(closure)
            if abs(grad).max(initial=0.0) > group["tolerance_grad"]:
                self._iterate(closure, group, loss, grad)
        return first

    def _iterate(self, closure: Callable[[], Any], group: Group, loss: float, grad: Array) -> None:
        held = self.state[group["params"][0]]
        held.setdefault("n_iter", 0)
        held.setdefault("pairs", [])
        evaluations, least = 1, group["tolerance_change"]
        for i in range(group["max_iter"]):
            fresh = held["n_iter"] == 0
            held["n_iter"] += 1
            direction = -grad if fresh else self._direction(held, grad, group["history_size"])
            before, slope = loss, float(grad @ direction)
            t = float(group["lr"]) * (min(1.0, 1.0 / float(abs(grad).sum())) if fresh else 1.0)
            held["grad"], held["direction"], held["t"] = grad.copy(), direction, t
            if slope > -least:
                return
            if group["line_search_fn"] is not None:
                start = self._gather(lambda p: p)

                def look(t: float, start: Array = start, direction: Array = direction) -> Point:
                    self._place(start + t * direction)
                    _, loss, grad = self._evaluate(closure)
                    return Point(t, loss, grad, float(grad @ direction))

                found, made = strong_wolfe(look, Point(0.0, loss, grad, slope), t, least / abs(direction).max())
                self._place(start + found.t * direction)
                t, loss, grad, evaluations = found.t, found.loss, found.grad, evaluations + made
            else:
                self._place(self._gather(lambda p: p) + t * direction)
                if i + 1 < group["max_iter"]:  # the last one is evaluated by the next step
                    _, loss, grad = self._evaluate(closure)
                    evaluations += 1
            held["t"] = t
            if evaluations >= group["max_eval"] or abs(grad).max() <= group["tolerance_grad"]:
                return
            if abs(t * direction).max() <= least or abs(loss - before) < least:
                return

    @staticmethod
    def _direction(held: dict[str, Any], grad: Array, most: int) -> Array:
        """−H·g, after taking in the latest pair where its curvature is positive."""
        y, s = grad - held["grad"], held["t"] * held["direction"]
        pairs = held["pairs"]
        if float(y @ s) > 1e-10:
            pairs.append((y, s))
            del pairs[:-most]
            held["scale"] = float(y @ s) / float(y @ y)
        q, weights = -grad, []
        for y, s in reversed(pairs):
            weights.append(float(s @ q) / float(y @ s))
            q = q - weights[-1] * y
        d = q * held.get("scale", 1.0)
        for (y, s), weight in zip(pairs, reversed(weights), strict=True):
            d = d + s * (weight - float(y @ d) / float(y @ s))
        direction: Array = d.astype(grad.dtype, copy=False)
        return direction


def strong_wolfe(
    look: Callable[[float], Point], start: Point, t: float, least: float, *, c1: float = 1e-4, c2: float = 0.9
) -> tuple[Point, int]:
    """A point along a line where the loss is lower by c₁·t·slope and the slope flatter by c₂, and the number of looks.

    The best bracket's lower end after 25 looks, or when the bracket is narrower than ``least``.
    """

    def too_high(point: Point) -> bool:
        return point.loss > start.loss + c1 * point.t * start.slope

    def flat(point: Point) -> bool:
        return abs(point.slope) <= -c2 * start.slope

    previous, point, looks = start, look(t), 1
    while looks <= 25:
        if too_high(point) or (looks > 2 and point.loss >= previous.loss) or (point.slope >= 0 and not flat(point)):
            break
        if flat(point):
            return point, looks
        further = interpolated(previous, point, (point.t + 0.01 * (point.t - previous.t), point.t * 10))
        previous, point, looks = point, look(further), looks + 1
    else:
        previous = start
    low, high = (previous, point) if previous.loss <= point.loss else (point, previous)
    stuck = False
    while looks <= 25 and abs(high.t - low.t) >= least:
        left, right = sorted((low.t, high.t))
        t, edge = interpolated(low, high, (left, right)), 0.1 * (right - left)
        if min(right - t, t - left) < edge:  # close to an end: there once, not twice
            if stuck or t >= right or t <= left:
                t, stuck = (right - edge if abs(t - right) < abs(t - left) else left + edge), False
            else:
                stuck = True
        else:
            stuck = False
        point, looks = look(t), looks + 1
        if too_high(point) or point.loss >= low.loss:
            high = point
            low, high = (low, high) if low.loss <= high.loss else (high, low)
            continue
        if flat(point):
            return point, looks
        low, high = point, low if point.slope * (high.t - low.t) >= 0 else high
    return low, looks


def interpolated(a: Point, b: Point, bounds: tuple[float, float]) -> float:
    """The minimum of the cubic through two points with their slopes, within bounds; their middle if there is none."""
    a, b = sorted((a, b), key=lambda point: point.t)
    middle = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = middle**2 - a.slope * b.slope
    if square < 0:
        return sum(bounds) / 2
    root = math.sqrt(square)
    t = b.t - (b.t - a.t) * ((b.slope + root - middle) / (b.slope - a.slope + 2 * root))
    return min(max(t, bounds[0]), bounds[1])

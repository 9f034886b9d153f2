"""L-BFGS: steps along curvature that is estimated from the last gradients, with a line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from slalom.core.autodiff import enable_grad, no_grad
from slalom.core.functional.shaping import cat
from slalom.core.node import user_line
from slalom.core.tensor import Tensor
from slalom.core.trace import current
from slalom.errors import ConfigError, ModelFileError, StagingError
from slalom.optim.optimizer import AT_LEAST_0, COUNT, Constraints, Group, Optimizer, ParamsT

__all__ = ["LBFGS"]

DECREASE: Final = 1e-4
"""How much of the decrease that the slope promises must come true (c₁)."""
CURVATURE: Final = 0.9
"""How much of the slope may be left (c₂)."""
SEARCHES: Final = 25
"""How many points a line search may look at, after the first."""


class LBFGS(Optimizer):
    """Quasi-Newton steps with limited memory, for losses of all the data.

    d = −H·g,   w ← w + t·d

    H approximates the inverse Hessian from the last ``history_size`` pairs s = t·d, y = g − g₋₁ (pairs with y·s ≤ 1e-10
    are left out). t = ``lr``, or min(1, 1/‖g‖₁)·lr at the very first step; with ``line_search_fn="strong_wolfe"``
    that is where a search begins that ends at f(w + t·d) ≤ f + 1e-4·t·g·d, |g(w + t·d)·d| ≤ 0.9·|g·d|.

    ``step(closure)``: up to ``max_iter`` such steps. The closure clears the gradients, computes the loss, calls
    ``backward`` and returns the loss; it is called ``max_eval`` times at most, or once more (by default 5/4 of
    ``max_iter``). The call ends early where max |g| ≤ ``tolerance_grad``, or where the loss or all weights move by less
    than ``tolerance_change``. The loss of before the first step is returned.

    Raises: ConfigError for more than one parameter group, numbers that make no sense, and a step without closure;
    StagingError inside ``slalom.compile``, since it decides by values: compile the closure instead.
    Source: Liu, Nocedal (1989), "On the limited memory BFGS method for large scale optimization"; Nocedal, Wright
    (2006), "Numerical optimization", algorithms 7.4 (two loops), 3.5 and 3.6 (line search), eq. 3.59 (cubic).
    Note: without line search a step may climb, as in PyTorch. All calls of the closure must see the same data, and no
    dropout. A point whose loss is not finite counts as too high for the line search, which then stays on this side.

    >>> w = Tensor([-1.2, 1.0], requires_grad=True)
    >>> optimizer = LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> f"{optimizer.step(closure).item():.1f}, then {closure().item():.0e}", w.detach().round(decimals=2)
    ('24.2, then ...', tensor([1., 1.]))
    """

    constraints: ClassVar[Constraints] = {
        "max_iter": COUNT,
        "max_eval": COUNT,
        "tolerance_grad": AT_LEAST_0,
        "tolerance_change": AT_LEAST_0,
        "history_size": COUNT,
        "line_search_fn": ("'strong_wolfe' or None", lambda value: value in (None, "strong_wolfe")),
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
        evaluations = max_iter * 5 // 4 if max_eval is None and isinstance(max_iter, int) else max_eval
        options = {"lr": lr, "max_iter": max_iter, "max_eval": evaluations, "tolerance_grad": tolerance_grad}
        rest = {"tolerance_change": tolerance_change, "history_size": history_size, "line_search_fn": line_search_fn}
        super().__init__(params, {**options, **rest})

    def add_param_group(self, param_group: Group) -> None:
        if self.param_groups:
            raise ConfigError("LBFGS: params", got="more than one group", needed="one, with the same options for all")
        super().add_param_group(param_group)

    # --- one call -------------------------------------------------------------------------------------------------
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make up to ``max_iter`` steps; the value of the first call of ``closure``, before any of them."""
        if current() is not None:
            hint = "compile the closure, and call step() outside"
            raise StagingError(f"LBFGS.step() while staging, at {user_line()}", hint=hint)
        if closure is None:
            raise ConfigError("LBFGS.step: closure", got="none", needed="a function that returns the loss anew")
        with no_grad():
            return self._search(closure)

    def _search(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        rate, line_search = float(group["lr"]), group["line_search_fn"] is not None
        state = self.state[group["params"][0]]
        memory = _Memory.of(state, group["history_size"])
        with enable_grad():
            first = closure()
        if first is None:
            raise ConfigError("LBFGS.step: what the closure returns", got="None", needed="the loss")
        loss, grad, evaluations = float(first), self._gradient(), 1
        state["func_evals"] = state.get("func_evals", 0) + 1
        made, rest = 0, _largest(grad)
        while made < group["max_iter"] and rest > group["tolerance_grad"]:
            made += 1
            state["n_iter"] = state.get("n_iter", 0) + 1
            if state["n_iter"] > 1:
                memory.learn(state["d"] * state["t"], grad - state["prev_flat_grad"])
            direction = memory.direction(grad)
            length = rate if state["n_iter"] > 1 else min(1.0, 1 / float(grad.abs().sum())) * rate
            state.update(d=direction, t=length, prev_flat_grad=grad, prev_loss=loss)
            slope, before = float(grad @ direction), loss
            if not slope <= -group["tolerance_change"]:  # uphill, flat, or not a number
                break
            start, calls = self._position(), 0
            if line_search:
                line = _Line(self, closure, start, direction)
                looks = min(SEARCHES, group["max_eval"] - evaluations)
                found = strong_wolfe(line, _Point(0.0, loss, grad, slope), length, looks, group["tolerance_change"])
                length, loss, grad, calls = found.t, found.loss, found.grad, line.calls
                self._place(start + length * direction)
            else:
                self._place(start + length * direction)
                if made < group["max_iter"]:  # else the next call computes it
                    with enable_grad():
                        loss = float(closure())
                    grad, calls = self._gradient(), 1
            state["t"], rest = length, _largest(grad)
            evaluations += calls
            state["func_evals"] += calls
            moved = _largest(direction) * abs(length)
            still = moved <= group["tolerance_change"] or abs(loss - before) < group["tolerance_change"]
            if evaluations >= group["max_eval"] or still:
                break
        memory.keep(state)
        return first

    # --- all parameters as one vector -----------------------------------------------------------------------------
    def _gradient(self) -> Tensor:
        params = self.param_groups[0]["params"]
        return cat([(p._zeros() if p.grad is None else p.grad.detach()).reshape(-1) for p in params])

    def _position(self) -> Tensor:
        return cat([p.detach().reshape(-1) for p in self.param_groups[0]["params"]])

    def _place(self, position: Tensor) -> None:
        at = 0
        for p in self.param_groups[0]["params"]:
            p._write(position[at : at + p.numel()].reshape(p.shape))
            at += p.numel()

    # --- saving ---------------------------------------------------------------------------------------------------
    def _restored(self, group: Group, places: Sequence[int], saved: Mapping[int, Any]) -> dict[Tensor, dict[str, Any]]:
        first, size = group["params"][0], sum(p.numel() for p in group["params"])
        held = {name: value for name, value in saved.get(places[0], {}).items() if name in _STATE}
        for name in _VECTORS & held.keys():
            listed = held[name] if isinstance(held[name], list) else [held[name]]
            made = [Tensor(np.asarray(vector), dtype=first.dtype) for vector in listed]
            for vector in made:
                if vector.shape != (size,):
                    raise ModelFileError(f"LBFGS: saved {name}", got=f"shape {vector.shape}", needed=f"shape {(size,)}")
            held[name] = made if isinstance(held[name], list) else made[0]
        numbers = {name: float(held[name]) for name in ("t", "H_diag", "prev_loss") if name in held}
        return {first: held | numbers | {"ro": [float(n) for n in held["ro"]]}} if held else {}


_VECTORS: Final = {"d", "old_dirs", "old_stps", "prev_flat_grad"}
_STATE: Final = _VECTORS | {"func_evals", "n_iter", "t", "ro", "H_diag", "prev_loss"}


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


@dataclass
class _Memory:
    """The last pairs of steps s and changes of the gradient y, with 1/(y·s); ``scale``: H without any of them."""

    size: int
    changes: list[Tensor]
    steps: list[Tensor]
    inverses: list[float]
    scale: float

    @staticmethod
    def of(state: Mapping[str, Any], size: int) -> _Memory:
        lists = [list(state.get(name, ())) for name in ("old_dirs", "old_stps", "ro")]
        return _Memory(size, lists[0], lists[1], lists[2], state.get("H_diag", 1.0))

    def keep(self, state: dict[str, Any]) -> None:
        """Put them into the state, under PyTorch's names."""
        state.update(old_dirs=self.changes, old_stps=self.steps, ro=self.inverses, H_diag=self.scale)

    def learn(self, step: Tensor, change: Tensor) -> None:
        product = float(change @ step)
        if product <= 1e-10:
            return
        self.changes = [*self.changes, change][-self.size :]
        self.steps = [*self.steps, step][-self.size :]
        self.inverses = [*self.inverses, 1 / product][-self.size :]
        self.scale = product / float(change @ change)

    def direction(self, grad: Tensor) -> Tensor:
        """−H·g, by the two loops."""
        found, parts = -grad, []
        pairs = list(zip(self.changes, self.steps, self.inverses, strict=True))
        for change, step, inverse in reversed(pairs):
            parts.append(float(step @ found) * inverse)
            found = found - parts[-1] * change
        found = found * self.scale
        for (change, step, inverse), part in zip(pairs, reversed(parts), strict=True):
            found = found + (part - float(change @ found) * inverse) * step
        return found


# --- the line search ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Point:
    """A point along the line: how far, the loss there, its gradient, and the slope along the line."""

    t: float
    loss: float
    grad: Tensor
    slope: float


@dataclass
class _Line:
    """The loss along a direction."""

    optimizer: LBFGS
    closure: Callable[[], Any]
    start: Tensor
    direction: Tensor
    calls: int = 0

    def at(self, t: float) -> _Point:
        self.calls += 1
        self.optimizer._place(self.start + t * self.direction)
        with enable_grad():
            loss = float(self.closure())
        grad = self.optimizer._gradient()
        return _Point(t, loss, grad, float(grad @ self.direction))


def strong_wolfe(line: _Line, start: _Point, first: float, most: int, tolerance: float) -> _Point:
    """A point that fulfils both conditions of Wolfe, or the best of the first and ``most`` more.

    First the step grows until a minimum lies between two points; then these close in on it.
    """

    def too_high(point: _Point) -> bool:  # also where the loss is not finite
        return not point.loss <= start.loss + DECREASE * point.t * start.slope

    def flat(point: _Point) -> bool:
        return abs(point.slope) <= -CURVATURE * start.slope

    before, point = start, line.at(first)
    looks = 0
    while True:
        if looks == most:
            before = start
            break
        if too_high(point) or (looks > 1 and point.loss >= before.loss):
            break
        if flat(point):
            return point
        if point.slope >= 0:
            break
        farther = _cubic(before, point, point.t + 0.01 * (point.t - before.t), 10 * point.t)
        before, point = point, line.at(farther)
        looks += 1

    low, high = (point, before) if point.loss < before.loss else (before, point)
    size, stuck = _largest(line.direction), False
    while looks < most and abs(high.t - low.t) * size >= tolerance:
        left, right = sorted((low.t, high.t))
        t = _cubic(low, high, left, right)
        margin = 0.1 * (right - left)
        near = min(right - t, t - left) < margin
        if near and (stuck or t >= right or t <= left):  # twice at an end: the interval would hardly shrink
            t = right - margin if right - t < t - left else left + margin
            near = False
        stuck = near
        point = line.at(t)
        looks += 1
        if too_high(point) or point.loss >= low.loss:
            high = point
            low, high = (high, low) if high.loss < low.loss else (low, high)
        elif flat(point):
            return point
        else:
            high = low if point.slope * (high.t - low.t) >= 0 else high
            low = point
    return low


def _cubic(a: _Point, b: _Point, least: float, most: float) -> float:
    """Where the cubic through two points with their slopes has its minimum, within bounds; else their middle."""
    if a.t > b.t:
        a, b = b, a
    middle = (least + most) / 2
    if a.t == b.t:
        return middle
    bend = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = bend * bend - a.slope * b.slope
    if not 0 <= square < math.inf:
        return middle
    root = math.sqrt(square)
    span = b.slope - a.slope + 2 * root
    return min(max(b.t - (b.t - a.t) * ((b.slope + root - bend) / span), least), most) if span != 0 else middle

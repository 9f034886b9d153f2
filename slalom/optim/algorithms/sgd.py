"""Stochastic gradient descent, with and without momentum, and averaged."""

from __future__ import annotations

from typing import ClassVar

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.optim.optimizer import AT_LEAST_0, SWITCH, Constraints, Group, Hyper, Optimizer, ParamsT, Slots

__all__ = ["ASGD", "SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum, Nesterov's variant and weight decay.

    g ← g + λ·w
    v ← μ·v + (1 − τ)·g   (v = g at the first step)
    w ← w − η·v           (Nesterov: w ← w − η·(g + μ·v))

    with the rate η = ``lr``, μ = ``momentum``, τ = ``dampening``, λ = ``weight_decay``. ``maximize``: g ← −g first.

    Raises: ConfigError for negative numbers, and for ``nesterov`` without momentum or with dampening.
    Source: Robbins, Monro (1951), "A stochastic approximation method"; Polyak (1964), for momentum; Sutskever, Martens,
    Dahl, Hinton (2013), "On the importance of initialization and momentum", eqs. 3–4, for Nesterov's variant.
    Note: as in PyTorch, the rate multiplies the velocity. Lectures write v ← μ·v − η·g, w ← w + v: the same for a
    constant rate, not after it changes (then v here takes the new rate at once). With v ← μ·v − η·g, w ← w − v, as is
    sometimes printed, the loss would be climbed. For a constant gradient the steps grow to η/(1 − μ).

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = SGD([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); w.item()
    14.0
    """

    slots = ("momentum_buffer",)
    optional = frozenset({"momentum", "dampening", "weight_decay"})
    constraints: ClassVar[Constraints] = {"momentum": AT_LEAST_0, "dampening": AT_LEAST_0, "nesterov": SWITCH}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "maximize": maximize})

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            got = f"momentum {group['momentum']}, dampening {group['dampening']}"
            raise ConfigError("SGD: nesterov", got=got, needed="momentum above 0, dampening 0")

    def slots_of(self, group: Group) -> tuple[str, ...]:
        return self.slots if group["momentum"] else ()

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        dampening = hyper["dampening"]
        return {**hyper, "gain": None if dampening is None else (1 - dampening).where(step > 1, 1.0)}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        momentum, gain = hyper["momentum"], hyper["gain"]
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        if momentum is None:
            return param - hyper["lr"] * grad, {}
        velocity = momentum * slots["momentum_buffer"] + (grad if gain is None else gain * grad)
        direction = grad + momentum * velocity if hyper["nesterov"] else velocity
        return param - hyper["lr"] * direction, {"momentum_buffer": velocity}


class ASGD(Optimizer):
    """Stochastic gradient descent with a falling rate, and beside the parameters their average.

    g ← g + λ·w
    w ← w·(1 − Λ·ηₜ) − ηₜ·g,   a ← a + μₜ·(w − a),   ηₜ₊₁ = η/(1 + Λ·η·t)^α,   μₜ₊₁ = 1/max(1, t − t₀)

    with η = ``lr``, Λ = ``lambd``, α = ``alpha``, t₀ = ``t0``, λ = ``weight_decay``; the average a is
    ``optimizer.state[p]["ax"]``, and follows w until t₀ steps were made.

    Raises: ConfigError for negative numbers.
    Source: Polyak, Juditsky (1992), "Acceleration of stochastic approximation by averaging"; the rates are those of
    Bottou's implementation, which PyTorch took over.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = ASGD([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.5f}"
    '13.99985'
    """

    slots = ("eta", "mu", "ax")
    constraints: ClassVar[Constraints] = {"lambd": AT_LEAST_0, "alpha": AT_LEAST_0, "t0": AT_LEAST_0}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        if name == "ax":
            return param._zeros()
        return Tensor(float(group["lr"]) if name == "eta" else 1.0, dtype=param.dtype)

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        eta = hyper["lr"] / (1 + hyper["lambd"] * hyper["lr"] * step) ** hyper["alpha"]
        return {**hyper, "eta": eta, "mu": 1 / (step - hyper["t0"]).maximum(1.0)}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        eta, average = slots["eta"], slots["ax"]
        new = param * (1 - hyper["lambd"] * eta) - eta * grad
        average = new.where(slots["mu"] == 1, average + slots["mu"] * (new - average))
        return new, {"eta": hyper["eta"], "mu": hyper["mu"], "ax": average}

"""Step sizes from sums or means of squared gradients: Adagrad, Adadelta, RMSprop."""

from __future__ import annotations

from typing import ClassVar

from slalom.core.tensor import Tensor
from slalom.optim.optimizer import AT_LEAST_0, FRACTION, SWITCH, Constraints, Group, Hyper, Optimizer, ParamsT, Slots

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


class Adagrad(Optimizer):
    """Each element's rate falls with the sum of its squared gradients.

    g ← g + λ·w,   s ← s + g²,   w ← w − ηₜ·g/(√s + ε),   ηₜ = η/(1 + (t − 1)·δ)

    with η = ``lr``, δ = ``lr_decay``, λ = ``weight_decay``, ε = ``eps``; s begins at ``initial_accumulator_value``.

    Raises: ConfigError for negative numbers.
    Source: Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning", eq. 1 with a diagonal.
    Note: ε stands outside the root, as in PyTorch; ``eps_inside_sqrt`` gives √(s + ε), as some lectures print it. The
    steps only ever shrink, which suits sparse features; RMSprop forgets instead.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Adagrad([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.9000'
    """

    slots = ("sum",)
    constraints: ClassVar[Constraints] = {
        "lr_decay": AT_LEAST_0,
        "initial_accumulator_value": AT_LEAST_0,
        "eps": AT_LEAST_0,
        "eps_inside_sqrt": SWITCH,
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        eps_inside_sqrt: bool = False,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        options["initial_accumulator_value"] = initial_accumulator_value
        super().__init__(params, {**options, "maximize": maximize, "eps_inside_sqrt": eps_inside_sqrt})

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        return param._zeros() + float(group["initial_accumulator_value"])

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        return {**hyper, "rate": hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"])}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        total = slots["sum"] + grad * grad
        root = (total + hyper["eps"]).sqrt() if hyper["eps_inside_sqrt"] else total.sqrt() + hyper["eps"]
        return param - hyper["rate"] * (grad / root), {"sum": total}


class Adadelta(Optimizer):
    """Steps in the units of the parameters: the root of past squared steps over that of past squared gradients.

    g ← g + λ·w
    v ← ρ·v + (1 − ρ)·g²,   d = √(u + ε)/√(v + ε)·g,   u ← ρ·u + (1 − ρ)·d²,   w ← w − η·d

    with η = ``lr``, ρ = ``rho``, ε = ``eps``, λ = ``weight_decay``.

    Raises: ConfigError for negative numbers, and ρ outside 0 … 1.
    Source: Zeiler (2012), "ADADELTA: an adaptive learning rate method", algorithm 1 (where η = 1).

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Adadelta([w])
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.9968'
    """

    slots = ("square_avg", "acc_delta")
    constraints: ClassVar[Constraints] = {"rho": FRACTION, "eps": AT_LEAST_0}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize})

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        return {**hyper, "gain": 1 - hyper["rho"]}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        square = hyper["rho"] * slots["square_avg"] + hyper["gain"] * (grad * grad)
        delta = (slots["acc_delta"] + hyper["eps"]).sqrt() / (square + hyper["eps"]).sqrt() * grad
        moved = hyper["rho"] * slots["acc_delta"] + hyper["gain"] * (delta * delta)
        return param - hyper["lr"] * delta, {"square_avg": square, "acc_delta": moved}


class RMSprop(Optimizer):
    """Each element's rate by the root of a running mean of its squared gradients.

    g ← g + λ·w
    v ← α·v + (1 − α)·g²   (``centered``: the variance, v − ḡ² with ḡ ← α·ḡ + (1 − α)·g)
    w ← w − η·g/(√v + ε)   (with momentum: b ← μ·b + g/(√v + ε), w ← w − η·b)

    with η = ``lr``, α = ``alpha``, ε = ``eps``, μ = ``momentum``, λ = ``weight_decay``.

    Raises: ConfigError for negative numbers, and α outside 0 … 1.
    Source: Hinton (2012), lecture 6e of "Neural networks for machine learning"; Graves (2013), "Generating sequences
    with recurrent neural networks", eqs. 38–42, for the centered form.
    Note: defaults are PyTorch's; lectures also use α = 0.9. ε stands outside the root; ``eps_inside_sqrt`` gives
    √(v + ε), as TensorFlow 1 and some lectures have it. Code that writes ``r += α·r + …`` diverges.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = RMSprop([w], lr=0.1, alpha=0.9)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.6838'
    """

    optional = frozenset({"weight_decay", "momentum"})
    constraints: ClassVar[Constraints] = {
        "alpha": FRACTION,
        "eps": AT_LEAST_0,
        "momentum": AT_LEAST_0,
        "centered": SWITCH,
        "eps_inside_sqrt": SWITCH,
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        eps_inside_sqrt: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        switches = {"centered": centered, "maximize": maximize, "eps_inside_sqrt": eps_inside_sqrt}
        super().__init__(params, {**options, **switches})

    def slots_of(self, group: Group) -> tuple[str, ...]:
        mean = ("grad_avg",) if group["centered"] else ()
        return ("square_avg", *mean, *(("momentum_buffer",) if group["momentum"] else ()))

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        return {**hyper, "gain": 1 - hyper["alpha"]}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        square = hyper["alpha"] * slots["square_avg"] + hyper["gain"] * (grad * grad)
        new, spread = {"square_avg": square}, square
        if hyper["centered"]:
            mean = new["grad_avg"] = hyper["alpha"] * slots["grad_avg"] + hyper["gain"] * grad
            spread = (square - mean * mean).clamp(min=0.0)  # rounding may leave it below 0
        root = (spread + hyper["eps"]).sqrt() if hyper["eps_inside_sqrt"] else spread.sqrt() + hyper["eps"]
        direction = grad / root
        if hyper["momentum"] is not None:
            direction = new["momentum_buffer"] = hyper["momentum"] * slots["momentum_buffer"] + direction
        return param - hyper["lr"] * direction, new

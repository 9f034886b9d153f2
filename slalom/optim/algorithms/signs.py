"""Steps by the sign of a gradient: Rprop, Lion."""

from __future__ import annotations

from typing import ClassVar

from slalom.core.functional.creation import full
from slalom.core.tensor import Tensor
from slalom.optim.algorithms.adam import with_shares
from slalom.optim.optimizer import BETAS, Constraints, Group, Hyper, Optimizer, ParamsT, Slots

__all__ = ["Lion", "Rprop"]


def _two_ascending(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and 0 <= value[0] <= value[1] < float("inf")


class Rprop(Optimizer):
    """Each element has a step size of its own: it grows while the gradient keeps its sign, and shrinks when that turns.

    s = sign(g·g₋₁),   Δ ← clip(Δ·η⁺ if s > 0, Δ·η⁻ if s < 0, else Δ; Δ_min, Δ_max),   g ← 0 where s < 0
    w ← w − sign(g)·Δ

    with (η⁻, η⁺) = ``etas``, (Δ_min, Δ_max) = ``step_sizes``; Δ begins at ``lr``.

    Raises: ConfigError for negative numbers, and unless 0 < η⁻ < 1 < η⁺ and Δ_min ≤ Δ_max.
    Source: Riedmiller, Braun (1993), "A direct adaptive method for faster backpropagation learning"; without its step
    back, which is called iRprop− (Igel, Hüsken, 2003).
    Note: for whole batches. The signs of mini-batches turn by chance, and the steps shrink.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Rprop([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.9000'
    """

    slots = ("prev", "step_size")
    constraints: ClassVar[Constraints] = {
        "etas": ("two numbers with 0 < η⁻ < 1 < η⁺", lambda e: len(e) == 2 and 0 < e[0] < 1 < e[1] < float("inf")),
        "step_sizes": ("two numbers with 0 ≤ Δ_min ≤ Δ_max", _two_ascending),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize})

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        return full(param.shape, float(group["lr"]), dtype=param.dtype) if name == "step_size" else param._zeros()

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        (shrink, grow), (least, most) = hyper["etas"], hyper["step_sizes"]
        return {"shrink": shrink, "grow": grow, "least": least, "most": most}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        product, size = grad * slots["prev"], slots["step_size"]
        turned = product < 0
        size = (size * hyper["grow"]).where(product > 0, (size * hyper["shrink"]).where(turned, size))
        size = size.maximum(hyper["least"]).minimum(hyper["most"])
        grad = grad.masked_fill(turned, 0.0)
        return param - grad.sign() * size, {"prev": grad, "step_size": size}


class Lion(Optimizer):
    """The sign of a mix of gradient and momentum: all elements move by the same amount.

    w ← w − η·λ·w − η·sign(β₁·m + (1 − β₁)·g),   m ← β₂·m + (1 − β₂)·g

    with η = ``lr``, (β₁, β₂) = ``betas``, λ = ``weight_decay`` (decoupled).

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: Chen et al. (2023), "Symbolic discovery of optimization algorithms", algorithm 2.
    Note: a third to a tenth of AdamW's rate, and as many times its decay, are a good start. PyTorch has no Lion.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Lion([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.9000'
    """

    slots = ("exp_avg",)
    constraints: ClassVar[Constraints] = {"betas": BETAS}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        decay = hyper["weight_decay"]
        return {**with_shares(hyper), "shrink": None if decay is None else 1 - hyper["lr"] * decay}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        mean = slots["exp_avg"]
        direction = (hyper["keep1"] * mean + hyper["gain1"] * grad).sign()
        kept = param if hyper["shrink"] is None else param * hyper["shrink"]
        return kept - hyper["lr"] * direction, {"exp_avg": hyper["keep2"] * mean + hyper["gain2"] * grad}

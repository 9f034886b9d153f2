"""Adam and AdamW: step sizes from running means of the gradient and of its square."""

from __future__ import annotations

from typing import ClassVar

from slalom.core.tensor import Tensor
from slalom.optim.optimizer import AT_LEAST_0, BETAS, SWITCH, Constraints, Group, Hyper, Optimizer, ParamsT, Slots


class Adam(Optimizer):
    """Adaptive moment estimation.

    g ← g + λ·w
    m ← β₁·m + (1 − β₁)·g,    m̂ = m/(1 − β₁ᵗ)
    v ← β₂·v + (1 − β₂)·g²,   v̂ = v/(1 − β₂ᵗ)
    w ← w − η·m̂/(√v̂ + ε)

    with η = ``lr``, (β₁, β₂) = ``betas``, ε = ``eps``, λ = ``weight_decay``, and t the count of steps, from 1.
    ``amsgrad``: v is replaced in the last line by its largest value so far. ``maximize``: g ← −g first.

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: Kingma, Ba (2015), "Adam: a method for stochastic optimization", algorithm 1, in the form of the end of
    section 2, where both corrections are one factor of the rate; Reddi, Kale, Kumar (2018) for amsgrad.
    Note: defaults are the paper's and PyTorch's; lectures also use β₂ = 0.99. ε stands outside the root, as in the
    paper and PyTorch; ``eps_inside_sqrt`` gives √(v̂ + ε), as some lectures print it: a gradient of 1e-5 then moves w
    by 0.0995·η at first, not by 0.9990·η. The first step is η·sign g where |g| ≫ ε. Code that writes ``v += β₂·v + …``
    diverges, and so does one whose t stays 0.
    Note: λ here is the gradient of ½λ‖w‖², rescaled with the rest of g; see AdamW for the other kind.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.9000'
    """

    slots = ("exp_avg", "exp_avg_sq")
    constraints: ClassVar[Constraints] = {
        "betas": BETAS,
        "eps": AT_LEAST_0,
        "amsgrad": SWITCH,
        "eps_inside_sqrt": SWITCH,
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        eps_inside_sqrt: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, {**options, "maximize": maximize, "eps_inside_sqrt": eps_inside_sqrt})

    def slots_of(self, group: Group) -> tuple[str, ...]:
        return (*self.slots, "max_exp_avg_sq") if group["amsgrad"] else self.slots

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        beta1, beta2 = hyper["betas"]
        root = (1 - beta2**step).sqrt()
        eps = hyper["eps"] * root  # √v̂ = √v / root
        return {
            **hyper,
            "eps": eps * root if hyper["eps_inside_sqrt"] else eps,
            "rate": hyper["lr"] * root / (1 - beta1**step),
            "keep1": beta1,
            "gain1": 1 - beta1,
            "keep2": beta2,
            "gain2": 1 - beta2,
        }

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        mean = hyper["keep1"] * slots["exp_avg"] + hyper["gain1"] * grad
        square = hyper["keep2"] * slots["exp_avg_sq"] + hyper["gain2"] * (grad * grad)
        new = {"exp_avg": mean, "exp_avg_sq": square}
        if hyper["amsgrad"]:
            square = new["max_exp_avg_sq"] = slots["max_exp_avg_sq"].maximum(square)
        root = (square + hyper["eps"]).sqrt() if hyper["eps_inside_sqrt"] else square.sqrt() + hyper["eps"]
        return param - hyper["rate"] * (mean / root), new


class AdamW(Adam):
    """Adam with decoupled weight decay.

    w ← w − η·λ·w, then Adam's step with λ = 0.

    Raises: ConfigError as Adam.
    Source: Loshchilov, Hutter (2019), "Decoupled weight decay regularization", algorithm 2.
    Note: as in PyTorch the decay is η·λ·w, with λ = 0.01 by default; in the paper its factor is λ times the schedule
    without η. Adam with the same λ is another method: there the decay is divided by √v̂ too.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = AdamW([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.8850'
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        eps_inside_sqrt: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, eps_inside_sqrt=eps_inside_sqrt
        )

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        decay = hyper["weight_decay"]
        shrink = None if decay is None else 1 - hyper["lr"] * decay
        return {**Adam.scalars(hyper, step), "weight_decay": None, "shrink": shrink}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        return Adam.update(param if hyper["shrink"] is None else param * hyper["shrink"], grad, slots, hyper)

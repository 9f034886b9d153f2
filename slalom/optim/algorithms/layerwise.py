"""Rules that look at a whole parameter at once: LAMB, Adafactor, Muon."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from slalom.core.functional.creation import zeros
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.optim.algorithms.adam import moments, with_shares
from slalom.optim.optimizer import AT_LEAST_0, BETAS, SWITCH, Constraints, Group, Hyper, Optimizer, ParamsT, Slots

__all__ = ["LAMB", "Adafactor", "Muon"]


def _norm(x: Tensor) -> Tensor:
    return (x * x).sum().sqrt()


class LAMB(Optimizer):
    """Adam's direction, scaled for each parameter to the length of the parameter: for very large batches.

    r = m̂/(√v̂ + ε) + λ·w,   w ← w − η·(‖w‖/‖r‖)·r      (the ratio is 1 where either norm is 0)

    with η = ``lr``, (β₁, β₂) = ``betas``, ε = ``eps``, λ = ``weight_decay``; m̂ and v̂ as in Adam.

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: You et al. (2020), "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2,
    with φ(z) = z. PyTorch has no LAMB.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = LAMB([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '13.5000'
    """

    slots = ("exp_avg", "exp_avg_sq")
    constraints: ClassVar[Constraints] = {"betas": BETAS, "eps": AT_LEAST_0}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        beta1, beta2 = hyper["betas"]
        return {**with_shares(hyper), "first": 1 - beta1**step, "second": (1 - beta2**step).sqrt()}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        mean, square = moments(grad, slots, hyper)
        ratio = mean / hyper["first"] / (square.sqrt() / hyper["second"] + hyper["eps"])
        if hyper["weight_decay"] is not None:
            ratio = ratio + hyper["weight_decay"] * param
        length, other = _norm(param), _norm(ratio)
        known = (length > 0) & (other > 0)
        trust = (length / other.where(known, 1.0)).where(known, 1.0)
        return param - hyper["lr"] * trust * ratio, {"exp_avg": mean, "exp_avg_sq": square}


class Adafactor(Optimizer):
    """The mean squared gradient of a matrix kept as one number for each row and each column.

    β̂ = 1 − t^ψ,   R ← β̂·R + (1 − β̂)·mean of G² over columns,   C likewise over rows,   V = R·C/mean(R)
    U = G/√V,   U ← U/max(1, RMS(U)/d),   w ← w − max(ε₂, RMS(w))·min(η, 1/√t)·U

    with η = ``lr``, ψ = ``beta2_decay``, (ε₁, ε₂) = ``eps``, d = ``d``; ε₁, None for the dtype's precision, is the
    least mean(R), and its square the least V. Of more than two axes the last two are rows and columns; vectors keep V
    itself. ``weight_decay`` shrinks the parameter as in AdamW.

    Raises: ConfigError for negative numbers, and ψ above 0.
    Source: Shazeer, Stern (2018), "Adafactor: adaptive learning rates with sublinear memory cost", algorithms 4 and 5,
    in PyTorch's form.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Adafactor([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '13.5000'
    """

    constraints: ClassVar[Constraints] = {
        "beta2_decay": ("a number of at most 0", lambda value: value <= 0),
        "eps": ("two numbers of at least 0, the first maybe None", lambda e: (e[0] is None or e[0] >= 0) and e[1] >= 0),
        "d": ("a number of at least 1", lambda value: value >= 1),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    def slots_for(self, param: Tensor, group: Group) -> tuple[str, ...]:
        return ("row_var", "col_var") if param.ndim > 1 else ("variance",)

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        *rest, rows, columns = (1, 1, *param.shape)
        shapes = {"row_var": (*rest, rows, 1), "col_var": (*rest, 1, columns)}
        shape = shapes[name][-param.ndim :] if name in shapes else param.shape
        return zeros(shape, dtype=param.dtype)

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        decay, (least, floor) = hyper["weight_decay"], hyper["eps"]
        gain = step ** hyper["beta2_decay"]
        return {
            "least": least,
            "floor": floor,
            "gain": gain,
            "keep": 1 - gain,
            "rate": hyper["lr"].minimum(1 / step.sqrt()),
            "limit": hyper["d"],
            "shrink": None if decay is None else 1 - hyper["lr"] * decay,
        }

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        least = hyper["least"] if hyper["least"] is not None else float(np.finfo(param.dtype).eps)
        numbers = math.sqrt(max(param.numel(), 1))
        length = (_norm(param) / numbers).maximum(hyper["floor"])
        kept = param if hyper["shrink"] is None else param * hyper["shrink"]
        square = grad * grad
        if param.ndim > 1:
            rows = hyper["keep"] * slots["row_var"] + hyper["gain"] * square.mean(-1, keepdim=True)
            columns = hyper["keep"] * slots["col_var"] + hyper["gain"] * square.mean(-2, keepdim=True)
            variance = rows * columns / rows.mean(-2, keepdim=True).maximum(least)
            new = {"row_var": rows, "col_var": columns}
        else:
            variance = hyper["keep"] * slots["variance"] + hyper["gain"] * square
            new = {"variance": variance}
        direction = grad / variance.maximum(least * least).sqrt()
        excess = (_norm(direction) / (numbers * hyper["limit"])).maximum(1.0)
        return kept - (length * hyper["rate"] / excess) * direction, new


_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)


class Muon(Optimizer):
    """Momentum whose steps are made orthogonal: all singular values of an update are about 1. For matrices.

    B ← μ·B + (1 − μ)·G,   U = G + μ·(B − G) (``nesterov``) or B
    X = U/‖U‖, then X ← a·X + (b·XXᵀ + c·(XXᵀ)²)·X, ``ns_steps`` times with (a, b, c) = ``ns_coefficients``
    W ← W − η·λ·W − η·s·X

    with η = ``lr``, λ = ``weight_decay``, μ = ``momentum``, ‖U‖ at least ``eps``, and s = √max(1, rows/columns), or
    with ``adjust_lr_fn="match_rms_adamw"`` s = 0.2·√max(rows, columns).

    Raises: ConfigError for parameters that are no matrices (give those, and the first and last layer, to AdamW), and
    for negative numbers.
    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks"; Liu et al. (2025), "Muon is
    scalable for LLM training", for the second s.
    Note: PyTorch iterates in bfloat16, here it is the dtype of the parameter: its steps differ by up to 1 %.

    >>> w = Tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    >>> optimizer = Muon([w], lr=0.1, weight_decay=0.0)
    >>> (w * w).sum().backward(); optimizer.step(); w.detach().numpy().round(1).tolist()
    [[1.9, 0.0], [0.0, 0.9]]
    """

    slots = ("momentum_buffer",)
    fixed = frozenset({"ns_steps"})
    constraints: ClassVar[Constraints] = {
        "momentum": AT_LEAST_0,
        "eps": AT_LEAST_0,
        "nesterov": SWITCH,
        "ns_coefficients": ("three numbers", lambda value: len(value) == 3),
        "ns_steps": ("an integer from 1 to 99", lambda value: isinstance(value, int) and 1 <= value < 100),
        "adjust_lr_fn": (
            "None, 'original' or 'match_rms_adamw'",
            lambda value: value is None or value in ("original", "match_rms_adamw"),
        ),
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = _NEWTON_SCHULZ,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        rest = {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, {**options, **rest, "maximize": maximize})

    def _check(self, group: Group) -> None:
        super()._check(group)
        for p in group["params"]:
            if p.ndim != 2:
                hint = "give it to AdamW"
                raise ConfigError("Muon: a parameter", got=f"shape {p.shape}", needed="a matrix", hint=hint)

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        decay = hyper["weight_decay"]
        a, b, c = hyper["ns_coefficients"]
        shrink = None if decay is None else 1 - hyper["lr"] * decay
        return {**hyper, "shrink": shrink, "gain": 1 - hyper["momentum"], "a": a, "b": b, "c": c}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        buffer = slots["momentum_buffer"] + hyper["gain"] * (grad - slots["momentum_buffer"])
        x = grad + hyper["momentum"] * (buffer - grad) if hyper["nesterov"] else buffer
        rows, columns = param.shape
        x = x.T if rows > columns else x
        x = x / _norm(x).maximum(hyper["eps"])
        for _ in range(hyper["ns_steps"]):
            gram = x @ x.T
            x = hyper["a"] * x + (hyper["b"] * gram + hyper["c"] * (gram @ gram)) @ x
        x = x.T if rows > columns else x
        matched = hyper["adjust_lr_fn"] == "match_rms_adamw"
        scale = 0.2 * math.sqrt(max(rows, columns)) if matched else math.sqrt(max(1.0, rows / columns))
        kept = param if hyper["shrink"] is None else param * hyper["shrink"]
        return kept - hyper["lr"] * scale * x, {"momentum_buffer": buffer}

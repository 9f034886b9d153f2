"""Adam and its relatives: step sizes from running means of the gradient and of its square."""

from __future__ import annotations

from typing import ClassVar

from slalom.core.tensor import Tensor
from slalom.optim.optimizer import AT_LEAST_0, BETAS, SWITCH, Constraints, Group, Hyper, Optimizer, ParamsT, Slots

__all__ = ["AdaBelief", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


def with_shares(hyper: Hyper) -> Hyper:
    """The hyper-parameters, and how much of running means with ``betas`` stays and comes at each step."""
    beta1, beta2 = hyper["betas"]
    return {**hyper, "keep1": beta1, "gain1": 1 - beta1, "keep2": beta2, "gain2": 1 - beta2}


def moments(grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """The running means of the gradient and of its square, with this gradient in them."""
    mean = hyper["keep1"] * slots["exp_avg"] + hyper["gain1"] * grad
    return mean, hyper["keep2"] * slots["exp_avg_sq"] + hyper["gain2"] * (grad * grad)


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
            **with_shares(hyper),
            "eps": eps * root if hyper["eps_inside_sqrt"] else eps,
            "rate": hyper["lr"] * root / (1 - beta1**step),
        }

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        mean, square = moments(grad, slots, hyper)
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


def _decayed(param: Tensor, grad: Tensor, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """Parameter and gradient after weight decay of either kind."""
    if hyper["shrink"] is not None:
        return param * hyper["shrink"], grad
    return param, grad if hyper["weight_decay"] is None else grad + hyper["weight_decay"] * param


def _with_decay(hyper: Hyper) -> Hyper:
    """The hyper-parameters, and the factor that decoupled decay gives the parameter."""
    decay = hyper["weight_decay"]
    decoupled = hyper["decoupled_weight_decay"] and decay is not None
    return {**hyper, "shrink": 1 - hyper["lr"] * decay if decoupled else None}


class Adamax(Optimizer):
    """Adam with the largest past gradient in place of the root of the mean square.

    g ← g + λ·w
    m ← β₁·m + (1 − β₁)·g,   u ← max(β₂·u, |g| + ε),   w ← w − η/(1 − β₁ᵗ)·m/u

    with η = ``lr``, (β₁, β₂) = ``betas``, ε = ``eps``, λ = ``weight_decay``.

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: Kingma, Ba (2015), "Adam: a method for stochastic optimization", algorithm 2 (without ε).

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Adamax([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.9000'
    """

    slots = ("exp_avg", "exp_inf")
    constraints: ClassVar[Constraints] = {"betas": BETAS, "eps": AT_LEAST_0}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        beta1, _ = hyper["betas"]
        return {**with_shares(hyper), "rate": hyper["lr"] / (1 - beta1**step)}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        if hyper["weight_decay"] is not None:
            grad = grad + hyper["weight_decay"] * param
        mean = hyper["keep1"] * slots["exp_avg"] + hyper["gain1"] * grad
        largest = (hyper["keep2"] * slots["exp_inf"]).maximum(grad.abs() + hyper["eps"])
        return param - hyper["rate"] * (mean / largest), {"exp_avg": mean, "exp_inf": largest}


class NAdam(Optimizer):
    """Adam with Nesterov's momentum.

    μₜ = β₁·(1 − ½·0.96^(t·ψ)),   Mₜ = μ₁·…·μₜ,   m and v as in Adam, v̂ = v/(1 − β₂ᵗ)
    w ← w − η·((1 − μₜ)/(1 − Mₜ)·g + μₜ₊₁/(1 − Mₜ₊₁)·m)/(√v̂ + ε)

    with η = ``lr``, (β₁, β₂) = ``betas``, ψ = ``momentum_decay``, ε = ``eps``. ``weight_decay`` is added to the
    gradient, or with ``decoupled_weight_decay`` shrinks the parameter as in AdamW.

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: Dozat (2016), "Incorporating Nesterov momentum into Adam", algorithm 2 with the warm-up of its section 4.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = NAdam([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.8944'
    """

    slots = ("mu_product", "exp_avg", "exp_avg_sq")
    constraints: ClassVar[Constraints] = {
        "betas": BETAS,
        "eps": AT_LEAST_0,
        "momentum_decay": AT_LEAST_0,
        "decoupled_weight_decay": SWITCH,
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        switches = {"decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
        super().__init__(params, {**options, "momentum_decay": momentum_decay, **switches})

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        return Tensor(1.0, dtype=param.dtype) if name == "mu_product" else param._zeros()

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        beta1, beta2 = hyper["betas"]
        now, then = (beta1 * (1 - 0.5 * 0.96 ** (t * hyper["momentum_decay"])) for t in (step, step + 1))
        return {**_with_decay(with_shares(hyper)), "mu": now, "next": then, "root": (1 - beta2**step).sqrt()}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        param, grad = _decayed(param, grad, hyper)
        product = slots["mu_product"] * hyper["mu"]
        mean, square = moments(grad, slots, hyper)
        root = square.sqrt() / hyper["root"] + hyper["eps"]
        here = hyper["lr"] * (1 - hyper["mu"]) / (1 - product)
        ahead = hyper["lr"] * hyper["next"] / (1 - product * hyper["next"])
        new = param - here * (grad / root) - ahead * (mean / root)
        return new, {"mu_product": product, "exp_avg": mean, "exp_avg_sq": square}


class RAdam(Optimizer):
    """Adam whose adaptive rate is rectified for its variance in the first steps, where plain momentum is used.

    ρ∞ = 2/(1 − β₂) − 1,   ρₜ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ),   m̂ and v̂ as in Adam
    w ← w − η·r·m̂/(√v̂ + ε) with r² = (ρₜ − 4)(ρₜ − 2)ρ∞/((ρ∞ − 4)(ρ∞ − 2)ρₜ) where ρₜ > 5, else w ← w − η·m̂

    with η = ``lr``, (β₁, β₂) = ``betas``, ε = ``eps``. ``weight_decay`` is added to the gradient, or with
    ``decoupled_weight_decay`` shrinks the parameter as in AdamW.

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: Liu et al. (2020), "On the variance of the adaptive learning rate and beyond", algorithm 2.
    Note: ε is added to √v before it is corrected, as PyTorch does it; the paper has none.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = RAdam([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); w.item()
    14.0
    """

    slots = ("exp_avg", "exp_avg_sq")
    constraints: ClassVar[Constraints] = {"betas": BETAS, "eps": AT_LEAST_0, "decoupled_weight_decay": SWITCH}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize})

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        beta1, beta2 = hyper["betas"]
        rest, limit = 1 - beta2**step, 2 / (1 - beta2) - 1
        length = limit - 2 * step * beta2**step / rest
        rectified, long = length > 5, length.maximum(5.0)
        ratio = (long - 4) * (long - 2) * limit / ((limit - 4) * (limit - 2) * long)
        rate = hyper["lr"] / (1 - beta1**step)
        adaptive = (rate * (ratio.maximum(0.0) * rest).sqrt()).where(rectified, 0.0)
        return {**_with_decay(with_shares(hyper)), "adaptive": adaptive, "plain": rate.where(~rectified, 0.0)}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        param, grad = _decayed(param, grad, hyper)
        mean, square = moments(grad, slots, hyper)
        scaled = hyper["adaptive"] * (mean / (square.sqrt() + hyper["eps"]))
        step = scaled.where(hyper["adaptive"] > 0, hyper["plain"] * mean)
        return param - step, {"exp_avg": mean, "exp_avg_sq": square}


class AdaBelief(Optimizer):
    """Adam that divides by how far gradients are from their mean, not by how large they are.

    m ← β₁·m + (1 − β₁)·g,            m̂ = m/(1 − β₁ᵗ)
    s ← β₂·s + (1 − β₂)·(g − m)² + ε,  ŝ = s/(1 − β₂ᵗ)
    w ← w − η·m̂/(√ŝ + ε)

    with η = ``lr``, (β₁, β₂) = ``betas``, ε = ``eps``, and t the count of steps, from 1. ``weight_decay`` shrinks the
    parameter as in AdamW, or without ``decoupled_weight_decay`` is added to the gradient.

    Raises: ConfigError for negative numbers, and betas outside 0 ≤ β < 1.
    Source: Zhuang et al. (2020), "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients",
    algorithm 1; ε and decay are those of their program, whose rectification is RAdam's and left out.
    Note: PyTorch has none. Where gradients stay the same, s fades and steps grow; at first w moves by η/β₁, not by η.
    With β₁ = 0 the mean is the gradient, and nothing but ε is left to divide by.

    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = AdaBelief([w], lr=0.1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); f"{w.item():.4f}"
    '14.8889'
    """

    slots = ("exp_avg", "exp_avg_var")
    constraints: ClassVar[Constraints] = {"betas": BETAS, "eps": AT_LEAST_0, "decoupled_weight_decay": SWITCH}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = True,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize})

    @staticmethod
    def scalars(hyper: Hyper, step: Tensor) -> Hyper:
        beta1, beta2 = hyper["betas"]
        root = (1 - beta2**step).sqrt()
        rate = hyper["lr"] * root / (1 - beta1**step)
        return {**_with_decay(with_shares(hyper)), "rate": rate, "eps_of_root": hyper["eps"] * root}

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        param, grad = _decayed(param, grad, hyper)
        mean = hyper["keep1"] * slots["exp_avg"] + hyper["gain1"] * grad
        surprise = grad - mean
        var = hyper["keep2"] * slots["exp_avg_var"] + hyper["gain2"] * (surprise * surprise) + hyper["eps"]
        step = hyper["rate"] * (mean / (var.sqrt() + hyper["eps_of_root"]))
        return param - step, {"exp_avg": mean, "exp_avg_var": var}

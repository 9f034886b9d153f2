"""Modules made from functions, and their like.

Written by tools/make_stub.py; do not edit.
"""
# fmt: off

from collections.abc import Callable, Sequence
from typing import Any

from slalom.core.tensor import Tensor
from slalom.nn.loss import Loss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "BinaryFocalLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LogCoshLoss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "OrdinalLoss",
    "PoissonNLLLoss",
    "QuantileLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]

class BCELoss(Loss):
    """−(y ln p + (1 − y) ln(1 − p)) of probabilities p; each logarithm is at least −100."""
    weight: Tensor | None
    reduction: str
    def __init__(self, weight: Tensor | None = None, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of σ(x), computed as (1 − y)·x + (1 + (w₊ − 1)·y)·ln(1 + e⁻ˣ), which never overflows."""
    weight: Tensor | None
    reduction: str
    pos_weight: Tensor | None
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = 'mean',
        pos_weight: Tensor | None = None,
    ) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class BinaryFocalLoss(Loss):
    """−α_t (1 − p_t)^γ ln p_t of logits, where p_t is the probability of what is true: easy examples count
    little."""
    alpha: float | None
    gamma: float
    reduction: str
    def __init__(self, alpha: float | None = None, gamma: float = 2.0, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class CTCLoss(Loss):
    """−ln Σ exp(Σₜ log_probs[t, πₜ]) over all paths π that spell the target; ∞ where the input is too short for
    one."""
    blank: int
    reduction: str
    zero_infinity: bool
    def __init__(self, blank: int = 0, reduction: str = 'mean', zero_infinity: bool = False) -> None: ...
    def forward(self, log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class CosineEmbeddingLoss(Loss):
    """1 − cos(x₁, x₂) where y is 1, max(0, cos(x₁, x₂) − margin) where it is −1."""
    margin: float
    reduction: str
    def __init__(self, margin: float = 0.0, *, reduction: str = 'mean') -> None: ...
    def forward(self, input1: Tensor, input2: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class CrossEntropyLoss(Loss):
    """Cross-entropy −Σ_c w_c·q_c·ln softmax(x)_c of logits x, where q is a class number or probabilities of
    classes."""
    weight: Tensor | None
    ignore_index: int
    reduction: str
    label_smoothing: float
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = 'mean',
        label_smoothing: float = 0.0,
    ) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class FocalLoss(Loss):
    """−wₜ (1 − pₜ)^γ ln pₜ of logits, with p = softmax(x) and class numbers t: easy examples count little."""
    weight: Tensor | None
    gamma: float
    ignore_index: int
    reduction: str
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        gamma: float = 2.0,
        ignore_index: int = -100,
        reduction: str = 'mean',
    ) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class GaussianNLLLoss(Loss):
    """½(ln v + (x − y)²/v) of a normal distribution with mean x and variance v; ``full`` adds ½ ln 2π."""
    full: bool
    eps: float
    reduction: str
    def __init__(self, full: bool = False, eps: float = 1e-06, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any, var: Tensor | float) -> Tensor: ...
    def extra_repr(self) -> str: ...

class HingeEmbeddingLoss(Loss):
    """x where y is 1, max(0, margin − x) where it is −1: of distances x between what is alike (1), or not (−1)."""
    margin: float
    reduction: str
    def __init__(self, margin: float = 1.0, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class HuberLoss(Loss):
    """d² / 2 where d = |x − y| ≤ δ, else δ(d − δ/2)."""
    reduction: str
    delta: float
    def __init__(self, reduction: str = 'mean', delta: float = 1.0) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class KLDivLoss(Loss):
    """y·(ln y − x) of log-probabilities x and probabilities y (0 where y is 0), or eʸ·(y − x) with
    ``log_target``."""
    reduction: str
    log_target: bool
    def __init__(self, *, reduction: str = 'mean', log_target: bool = False) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class L1Loss(Loss):
    """Absolute error |x − y|, least at the median; derivative 0 at 0."""
    reduction: str
    def __init__(self, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class LogCoshLoss(Loss):
    """ln cosh(x − y): half the squared error near 0, the absolute error less ln 2 far from it."""
    reduction: str
    def __init__(self, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class MSELoss(Loss):
    """Squared error (x − y)², the mean over all elements by default."""
    reduction: str
    def __init__(self, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class MarginRankingLoss(Loss):
    """max(0, margin − y·(x₁ − x₂)): y = 1 where x₁ should be the larger, −1 where x₂ should."""
    margin: float
    reduction: str
    def __init__(self, margin: float = 0.0, *, reduction: str = 'mean') -> None: ...
    def forward(self, input1: Tensor, input2: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class MultiLabelMarginLoss(Loss):
    """Σⱼ Σᵢ max(0, 1 − (xⱼ − xᵢ)) / C over classes j that are there and classes i that are not."""
    reduction: str
    def __init__(self, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class MultiLabelSoftMarginLoss(Loss):
    """Binary cross-entropy of logits, the mean over the last axis: each class is there or not, for itself."""
    weight: Tensor | None
    reduction: str
    def __init__(self, weight: Tensor | None = None, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class MultiMarginLoss(Loss):
    """Σ_(i ≠ t) wₜ · max(0, margin − xₜ + xᵢ)ᵖ / C of scores x and class numbers t."""
    p: int
    margin: float
    weight: Tensor | None
    reduction: str
    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        *,
        reduction: str = 'mean',
    ) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class NLLLoss(Loss):
    """−wₜ·xₜ of log-probabilities x at class numbers t; "mean" divides by Σ wₜ."""
    weight: Tensor | None
    ignore_index: int
    reduction: str
    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class OrdinalLoss(Loss):
    """−ln P(y) of ordered classes by one score x: P(y ≤ k) = σ(θ_k − x) with thresholds θ₀ < θ₁ < … (cumulative
    logit)."""
    reduction: str
    def __init__(self, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any, thresholds: Tensor) -> Tensor: ...
    def extra_repr(self) -> str: ...

class PoissonNLLLoss(Loss):
    """eˣ − y·x of counts y with the expected count eˣ; without ``log_input`` x − y·ln(x + ε), with x itself
    expected."""
    log_input: bool
    full: bool
    eps: float
    reduction: str
    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        *,
        eps: float = 1e-08,
        reduction: str = 'mean',
    ) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class QuantileLoss(Loss):
    """The pinball loss q·e where e = y − x ≥ 0, else (q − 1)·e: least where x is the q-quantile of y."""
    quantile: float | Sequence[float]
    reduction: str
    def __init__(self, quantile: float | Sequence[float] = 0.5, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class SmoothL1Loss(Loss):
    """d² / 2β where d = |x − y| < β, else d − β/2. β = 0: absolute error."""
    reduction: str
    beta: float
    def __init__(self, *, reduction: str = 'mean', beta: float = 1.0) -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class SoftMarginLoss(Loss):
    """ln(1 + e^(−y·x)) of a target of 1 or −1: binary cross-entropy of the logit x."""
    reduction: str
    def __init__(self, *, reduction: str = 'mean') -> None: ...
    def forward(self, input: Tensor, target: Any) -> Tensor: ...
    def extra_repr(self) -> str: ...

class TripletMarginLoss(Loss):
    """max(0, d(a, p) − d(a, n) + margin) with the p-norm's distance; ``swap``: min(d(a, n), d(p, n)) for d(a,
    n)."""
    margin: float
    p: float
    eps: float
    swap: bool
    reduction: str
    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-06,
        swap: bool = False,
        *,
        reduction: str = 'mean',
    ) -> None: ...
    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor: ...
    def extra_repr(self) -> str: ...

class TripletMarginWithDistanceLoss(Loss):
    """``triplet_margin_loss`` with any distance, a function of two tensors; None: ``pairwise_distance``."""
    distance_function: Callable[[Tensor, Tensor], Tensor] | None
    margin: float
    swap: bool
    reduction: str
    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor,
        Tensor],
        Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = 'mean',
    ) -> None: ...
    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor: ...
    def extra_repr(self) -> str: ...

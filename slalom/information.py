"""Measures of information: entropy and its kin, each with its unit, so that bits are never taken for nats.

A measure is an ``Information``: a Tensor and "bits" or "nats". Probabilities stand along an axis.

>>> from slalom import information
>>> information.entropy([0.5, 0.25, 0.25]), information.entropy([0.5, 0.25, 0.25], unit="nats")
(1.5 bits, 1.0397 nats)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from slalom.core.functional.losses.common import same_shape
from slalom.core.tensor import Tensor, as_tensor
from slalom.errors import ConfigError, ShapeError

__all__ = [
    "Information",
    "binary_entropy",
    "cross_entropy",
    "entropy",
    "kl_divergence",
    "mutual_information",
    "perplexity",
]

Unit = Literal["bits", "nats"]
NATS: Final = {"nats": 1.0, "bits": math.log(2)}
"""How many nats one of a unit is."""
_TOLERANCE = 1e-4
"""By how much the sum of probabilities may be off 1: what float32 leaves of thousands of them."""


@dataclass(frozen=True, repr=False, eq=False)
class Information:
    """An amount of information and its unit. Sums and differences of two convert the second to the first's unit.

    Raises: ConfigError for another unit.

    >>> h = Information(Tensor(1.0), "bits")
    >>> h.to("nats"), h + h.to("nats"), h.item()
    (0.6931 nats, 2. bits, 1.0)
    """

    value: Tensor
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in NATS:
            raise ConfigError("Information: unit", got=repr(self.unit), needed="'bits' or 'nats'")

    def to(self, unit: Unit) -> Information:
        """The same amount in another unit: 1 bit is ln 2 nats."""
        if unit == self.unit:
            return self
        Information(self.value, unit)  # is it a unit?
        return Information(self.value * (NATS[self.unit] / NATS[unit]), unit)

    @property
    def bits(self) -> Tensor:
        """The number of bits."""
        return self.to("bits").value

    @property
    def nats(self) -> Tensor:
        """The number of nats."""
        return self.to("nats").value

    def item(self) -> float:
        """The number as Python's, in the unit that it has."""
        return float(self.value.item())

    def __add__(self, other: Information) -> Information:
        return Information(self.value + other.to(self.unit).value, self.unit)

    def __sub__(self, other: Information) -> Information:
        return Information(self.value - other.to(self.unit).value, self.unit)

    def __repr__(self) -> str:
        text = repr(self.value.detach()).removeprefix("tensor(").removesuffix(")")
        return f"{text} {self.unit}"


def _measure(nats: Tensor, unit: Unit) -> Information:
    return Information(nats, "nats").to(unit)


def _probabilities(name: str, given: Any, dims: tuple[int, ...]) -> Tensor:
    """Raises: ShapeError without the axes; ConfigError unless they are ≥ 0 and sum to 1, where they are known."""
    p: Tensor = as_tensor(given)
    if p.dtype.kind != "f":
        p = p.float()
    if p.ndim < len(dims):
        raise ShapeError(name, got=f"shape {p.shape}", needed=f"at least {len(dims)} axes of probabilities")
    array = p._known()
    if array is not None and array.size:
        if (array < 0).any():
            raise ConfigError(name, got=f"{array.min():g}", needed="probabilities, 0 or more")
        totals = array.sum(dims)
        worst = totals.flat[abs(totals - 1).argmax()]
        if abs(worst - 1) > _TOLERANCE:
            needed = "probabilities that sum to 1"
            raise ConfigError(name, got=f"a sum of {worst:g}", needed=needed, hint="of logits: softmax first")
    return p


def _surprise(weight: Tensor, p: Tensor) -> Tensor:
    """−w ln p, 0 where w is 0, with derivatives that are finite there."""
    none = weight == 0
    return -(weight * p.masked_fill(none, 1.0).log()).masked_fill(none, 0.0)


def entropy(p: Any, dim: int = -1, *, unit: Unit = "bits") -> Information:
    """H(p) = −Σ p log p along an axis: 0 where one outcome is certain, log C at most, for C equal ones.

    Raises: ShapeError; ConfigError for what are no probabilities, or another unit.
    Source: C. E. Shannon, A Mathematical Theory of Communication, 1948, section 6.
    """
    p = _probabilities("entropy: p", p, (dim,))
    return _measure(_surprise(p, p).sum(dim), unit)


def binary_entropy(p: Any, *, unit: Unit = "bits") -> Information:
    """−p log p − (1 − p) log(1 − p) of each probability p: at most 1 bit, at ½.

    Raises: ConfigError for what is no probability, or another unit.

    >>> binary_entropy(0.1)
    0.469 bits
    """
    p = as_tensor(p)
    array = p._known()
    if array is not None and array.size and not 0 <= array.min() <= array.max() <= 1:
        raise ConfigError("binary_entropy: p", got=f"{array.min():g} to {array.max():g}", needed="0 to 1")
    return _measure(_surprise(p, p) + _surprise(1 - p, 1 - p), unit)


def cross_entropy(p: Any, q: Any, dim: int = -1, *, unit: Unit = "bits") -> Information:
    """H(p, q) = −Σ p log q along an axis: what p costs in a code made for q; infinite where q rules out what happens.

    Shapes: p and q equal.
    Raises: ShapeError; ConfigError for what are no probabilities, or another unit.
    Note: the loss of this name in ``nn.functional`` takes logits for q and is in nats.
    """
    p = _probabilities("cross_entropy: p", p, (dim,))
    q = same_shape("cross_entropy", p, _probabilities("cross_entropy: q", q, (dim,)))
    return _measure(_surprise(p, q).sum(dim), unit)


def kl_divergence(p: Any, q: Any, dim: int = -1, *, unit: Unit = "bits") -> Information:
    """D(p‖q) = Σ p log(p/q) = H(p, q) − H(p) ≥ 0 along an axis; infinite where q rules out what happens.

    Shapes: p and q equal.
    Raises: ShapeError; ConfigError for what are no probabilities, or another unit.
    Source: S. Kullback and R. A. Leibler, On Information and Sufficiency, 1951, equation 2.4.
    Note: not symmetric, and the arguments of ``nn.functional.kl_div`` are (log q, p).
    """
    p = _probabilities("kl_divergence: p", p, (dim,))
    q = same_shape("kl_divergence", p, _probabilities("kl_divergence: q", q, (dim,)))
    return _measure((_surprise(p, q) - _surprise(p, p)).sum(dim), unit)


def mutual_information(joint: Any, *, unit: Unit = "bits") -> Information:
    """I(X; Y) = D(P(X, Y) ‖ P(X)·P(Y)): how much of one is known from the other; 0 where they are independent.

    Shapes: joint (…, X, Y), which sums to 1 over its last two axes → (…).
    Raises: ShapeError; ConfigError for what are no probabilities, or another unit.
    Source: C. E. Shannon, A Mathematical Theory of Communication, 1948, section 12.

    >>> mutual_information([[0.4, 0.1], [0.1, 0.4]])
    0.2781 bits
    """
    joint = _probabilities("mutual_information: joint", joint, (-2, -1))
    product = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return _measure((_surprise(joint, product) - _surprise(joint, joint)).sum((-2, -1)), unit)


def perplexity(information: Any) -> Tensor:
    """2^H of H bits, e^H of H nats, which is the same number: of how many equal outcomes this would be the entropy.

    Raises: ConfigError for a bare number, whose unit is not known.
    Note: of a loss in nats, as ``nn.functional.cross_entropy`` is: ``perplexity(Information(loss, "nats"))``.

    >>> perplexity(entropy([0.5, 0.25, 0.25]))
    tensor(2.8284)
    """
    if not isinstance(information, Information):
        hint = 'perplexity(Information(loss, "nats")) for a loss of nn.functional'
        raise ConfigError("perplexity", got=type(information).__name__, needed="Information, with its unit", hint=hint)
    if information.unit == "bits":
        return as_tensor(2.0, information.value) ** information.value
    result: Tensor = information.value.exp()
    return result

"""Measures of information: the worked numbers of courses, units that travel, edges, derivatives, staging."""

from __future__ import annotations

import math

import numpy as np
import pytest
from derivatives import check_derivatives

import slalom
from slalom import information
from slalom.information import Information

P = slalom.tensor([0.5, 0.25, 0.25], dtype="float64")
UNIFORM = slalom.full((3,), 1 / 3, dtype="float64")
JOINT = slalom.tensor([[0.4, 0.1], [0.1, 0.4]], dtype="float64")
WORKED = [
    ("entropy", lambda unit: information.entropy(P, unit=unit), 1.5),
    ("entropy of equals", lambda unit: information.entropy(UNIFORM, unit=unit), math.log2(3)),
    ("cross entropy", lambda unit: information.cross_entropy(P, UNIFORM, unit=unit), 1.5849625),
    ("divergence", lambda unit: information.kl_divergence(P, UNIFORM, unit=unit), 0.0849625),
    ("coin", lambda unit: information.binary_entropy(slalom.tensor(0.5), unit=unit), 1.0),
    ("bent coin", lambda unit: information.binary_entropy(slalom.tensor(0.1, dtype="float64"), unit=unit), 0.4689956),
    ("mutual", lambda unit: information.mutual_information(JOINT, unit=unit), 0.278072),
]


@pytest.mark.parametrize(("call", "bits"), [row[1:] for row in WORKED], ids=[row[0] for row in WORKED])
def test_worked_numbers_in_both_units(call, bits) -> None:
    assert call("bits").item() == pytest.approx(bits, abs=6e-8 if bits != 0.278072 else 6e-7)
    assert call("nats").item() == pytest.approx(call("bits").item() * math.log(2), rel=1e-7)
    assert call("nats").unit == "nats" and call("nats").bits.item() == pytest.approx(call("bits").item())


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_perplexity_does_not_depend_on_the_unit(unit) -> None:
    assert information.perplexity(information.entropy(P, unit=unit)).item() == pytest.approx(2.828427, abs=1e-6)
    assert information.perplexity(information.cross_entropy(P, UNIFORM, unit=unit)).item() == pytest.approx(3)


def test_perplexity_needs_to_know_the_unit() -> None:
    loss = slalom.nn.functional.cross_entropy(slalom.zeros(2, 7), slalom.tensor([1, 3]))
    with pytest.raises(slalom.errors.ConfigError, match=r"perplexity: got Tensor; needed Information.*nats"):
        information.perplexity(loss)
    assert information.perplexity(Information(loss, "nats")).item() == pytest.approx(7, rel=1e-6)


def test_arithmetic_converts_units() -> None:
    divergence = information.cross_entropy(P, UNIFORM) - information.entropy(P, unit="nats")
    assert divergence.unit == "bits" and divergence.item() == pytest.approx(0.0849625, abs=6e-8)
    total = Information(slalom.tensor(math.log(2), dtype="float64"), "nats") + Information(slalom.tensor(1.0), "bits")
    assert total.unit == "nats" and total.bits.item() == pytest.approx(2)
    assert repr(information.entropy([0.5, 0.25, 0.25], unit="nats")) == "1.0397 nats"


def test_certain_and_impossible_outcomes() -> None:
    certain = slalom.tensor([1.0, 0.0, 0.0], requires_grad=True)
    assert information.entropy(certain).item() == 0
    assert information.kl_divergence(certain, [0.5, 0.5, 0.0]).item() == 1
    assert information.kl_divergence([0.5, 0.5, 0.0], certain).item() == math.inf
    information.entropy(certain).value.backward()
    assert np.isfinite(certain.grad.numpy()).all()
    assert information.binary_entropy([0.0, 1.0]).value.tolist() == [0, 0]
    assert information.mutual_information([[0.5, 0.0], [0.0, 0.5]]).item() == 1


def test_axes() -> None:
    p = slalom.tensor([[0.5, 1.0], [0.5, 0.0]])
    assert information.entropy(p, 0).value.tolist() == [1, 0]
    assert information.mutual_information(slalom.full((4, 2, 2), 0.25)).value.tolist() == [0] * 4


def test_divergence_is_the_loss_of_that_name() -> None:
    q = slalom.tensor([0.2, 0.3, 0.5], dtype="float64")
    loss = slalom.nn.functional.kl_div(q.log(), P, reduction="sum").item()
    assert information.kl_divergence(P, q, unit="nats").item() == pytest.approx(loss, rel=1e-12)


def test_derivatives() -> None:
    """Along softmax, which stays on probabilities."""
    x, y = np.array([[0.3, -1.0, 0.5], [0.0, 1.0, 2.0]]), np.array([[1.0, 0.0, -1.0], [0.5, 0.5, 0.1]])
    check_derivatives(lambda a: information.entropy(a.softmax(-1)).value, [x])
    check_derivatives(lambda a, b: information.kl_divergence(a.softmax(-1), b.softmax(-1)).value, [x, y])
    check_derivatives(lambda a: information.mutual_information(a.reshape(6).softmax(0).reshape(2, 3)).value, [x])
    check_derivatives(lambda a: information.perplexity(information.binary_entropy(a.sigmoid())), [x])


def test_staged_equals_eager() -> None:
    q = slalom.tensor([0.2, 0.3, 0.5])
    for function in (
        lambda p: information.entropy(p).value,
        lambda p: information.kl_divergence(p, q).nats,
        lambda p: information.perplexity(information.cross_entropy(p, q)),
    ):
        np.testing.assert_array_equal(slalom.compile(function)(q.flip(0)).numpy(), function(q.flip(0)).numpy())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: information.entropy([0.5, 0.6]), r"entropy: p: got a sum of 1.1; needed probabilities that sum to 1"),
        (lambda: information.entropy([1.5, -0.5]), r"entropy: p: got -0.5; needed probabilities, 0 or more"),
        (lambda: information.entropy(0.5), r"entropy: p: got shape \(\); needed at least 1 axes"),
        (lambda: information.entropy([1.0], unit="bytes"), r"unit: got 'bytes'; needed 'bits' or 'nats'"),
        (lambda: information.binary_entropy([1.2]), r"binary_entropy: p: got 1.2 to 1.2; needed 0 to 1"),
        (lambda: information.cross_entropy([1.0], [0.5, 0.5]), r"cross_entropy: target: got shape|cross_entropy: q"),
        (lambda: information.mutual_information([1.0]), r"mutual_information: joint: got shape \(1,\)"),
    ],
)
def test_error_text(call, message) -> None:
    with pytest.raises(slalom.errors.SlalomError, match=message):
        call()

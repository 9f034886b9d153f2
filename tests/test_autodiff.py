"""Both walks along the tape, and the functions that start them: grad, jvp, …; backward, retain_grad, autograd.grad."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, tensor
from slalom.autograd import grad as autograd_grad
from slalom.core import tensor as tensor_module
from slalom.core.autodiff import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from slalom.errors import ConfigError, DTypeError, GradError, ShapeError, SlalomError


def t64(values: Any, requires_grad: bool = False) -> Tensor:
    return tensor(values, dtype="float64", requires_grad=requires_grad)


def close(found: Any, wanted: Any, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found.detach()), wanted, rtol=rtol, atol=rtol)


def forward(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The derivative by forward mode."""
    return lambda x: jvp(f, (x,), (x.detach() * 0 + 1,))[1]


# --- nesting ------------------------------------------------------------------------------------------------------
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], list[float]]] = {
    # at x = 0.7: the function and its first four derivatives, by hand
    "exp(2x)": (lambda x: (2 * x).exp(), [2**k * math.exp(1.4) for k in range(5)]),
    "x^5": (lambda x: x * x * x * x * x, [0.7**5, 5 * 0.7**4, 20 * 0.7**3, 60 * 0.7**2, 120 * 0.7]),
    "sin x": (lambda x: x.sin(), [math.sin(0.7 + k * math.pi / 2) for k in range(5)]),
    "1/x": (lambda x: 1 / x, [(-1) ** k * math.factorial(k) / 0.7 ** (k + 1) for k in range(5)]),
    "log x": (lambda x: x.log(), [math.log(0.7), 1 / 0.7, -1 / 0.7**2, 2 / 0.7**3, -6 / 0.7**4]),
    "through a vector": (
        lambda x: (x * t64([1.0, 2.0])).exp().sum(),
        [math.exp(0.7) + 2**k * math.exp(1.4) for k in range(5)],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("modes", ["".join(m) for n in range(1, 5) for m in itertools.product("rf", repeat=n)])
def test_any_nesting_of_modes(name: str, modes: str) -> None:
    f, derivatives = FUNCTIONS[name]
    for mode in modes:
        f = grad(f) if mode == "r" else forward(f)
    found = f(t64(0.7))
    close(found, derivatives[len(modes)])
    assert not found.requires_grad


PERTURBATIONS: dict[str, tuple[Callable[[Any], Callable[[Tensor], Tensor]], float]] = {
    # of x = 1; J. Siskind and B. Pearlmutter (2005): nested derivatives must not mistake the inner's tangent for theirs
    "the inner derivative is constant in x: 1": (lambda d: lambda x: x * d(lambda y: x + y)(x.detach()), 1.0),
    "x only through the closure: 1": (lambda d: lambda x: d(lambda y: x * y)(t64(1.0)), 1.0),
    "x not at all: 0": (lambda d: lambda x: d(lambda y: y * y)(t64(3.0)) + 0 * x.detach(), 0.0),
    "both ways: 6": (lambda d: lambda x: x * d(lambda y: x * y * y)(x), 6.0),
    "two levels deep: 2": (lambda d: lambda x: d(lambda y: d(lambda z: x * y * z * y)(t64(1.0)))(x.detach()), 2.0),
}


@pytest.mark.parametrize("case", PERTURBATIONS)
@pytest.mark.parametrize("inner", [grad, forward])
@pytest.mark.parametrize("outer", [grad, forward])
def test_perturbation_confusion(case: str, inner: Any, outer: Any) -> None:
    make, wanted = PERTURBATIONS[case]
    close(outer(make(inner))(t64(1.0)), wanted)


def test_forward_over_reverse_over_forward_of_a_vector_function() -> None:
    a = t64([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0]])

    def f(x: Tensor) -> Tensor:
        return ((a @ x).tanh() * x.sum()).sum()

    x, u, v = t64([0.1, -0.2, 0.3]), t64([1.0, 0.5, -1.0]), t64([0.2, 0.1, 0.7])

    def along_u(x: Tensor) -> Tensor:
        return jvp(f, (x,), (u,))[1]

    third = jvp(grad(along_u), (x,), (v,))[1]
    h = 1e-4
    by_differences = (grad(along_u)(x + h * v) - grad(along_u)(x - h * v)) / (2 * h)
    close(third, by_differences.numpy(), rtol=1e-6)


def test_jacobian_modes_agree_and_hessian_is_right() -> None:
    def f(x: Tensor) -> Tensor:
        return (x[:, None] * x).sin() + x.sum()

    x = t64([0.3, -1.2, 2.0])
    by_reverse, by_forward = jacobian(f)(x), jacobian(f, mode="forward")(x)
    assert by_reverse.shape == by_forward.shape == (3, 3, 3)
    close(by_reverse, by_forward.numpy())
    i, j, k = np.indices((3, 3, 3))
    values = x.numpy()
    wanted = np.cos(values[i] * values[j]) * (values[j] * (i == k) + values[i] * (j == k)) + 1
    close(by_reverse, wanted)
    quadratic = t64([[2.0, 1.0, 0.0], [1.0, 5.0, 3.0], [0.0, 3.0, 1.0]])
    close(hessian(lambda x: 0.5 * (x @ quadratic @ x))(x), quadratic.numpy())


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_jacobian_of_corner_cases(mode: str) -> None:
    close(jacobian(lambda x: x * x, mode=mode)(3.0), 6.0)  # scalar to scalar, from a number
    close(jacobian(lambda x: t64([1.0, 2.0]), mode=mode)(t64([1.0, 2.0, 3.0])), np.zeros((2, 3)))  # a constant
    assert jacobian(lambda x: x[:0], mode=mode)(t64([1.0, 2.0])).shape == (0, 2)
    close(jacobian(lambda x: 2 * x, mode=mode)([1.0, 2.0]), 2 * np.eye(2))  # a list is a vector


def test_hvp_is_the_hessian_times_v() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        return (x.exp() * y).sum() * y.sum()

    x, y, u, v = t64([0.1, 0.4]), t64([2.0, -1.0]), t64([1.0, 2.0]), t64([0.5, 0.25])
    gradient, product = hvp(f, (x, y), (u, v))

    def flat(z: Tensor) -> Tensor:
        return f(z[:2], z[2:])

    z, w = t64([*x.tolist(), *y.tolist()]), t64([*u.tolist(), *v.tolist()])
    close(slalom.cat(list(gradient)), grad(flat)(z).numpy())
    close(slalom.cat(list(product)), (hessian(flat)(z) @ w).numpy())


def test_vjp_and_jvp_are_transposes() -> None:
    rng = np.random.default_rng(0)
    x, v, w = t64(rng.standard_normal((3, 4))), t64(rng.standard_normal((3, 4))), t64(rng.standard_normal(4))

    def f(x: Tensor) -> Tensor:
        return (x.softmax(1) * x).sum(0)

    out, pullback = vjp(f, x)
    same, tangent = jvp(f, (x,), (v,))
    close(out, same.numpy())
    assert (pullback(w)[0] * v).sum().item() == pytest.approx((tangent * w).sum().item(), rel=1e-12)
    close(pullback(2 * w)[0], 2 * pullback(w)[0].numpy())  # a pullback can be called again


# --- arguments, trees, constants ----------------------------------------------------------------------------------
def test_argnums_and_trees() -> None:
    def loss(params: dict[str, Any], x: float, *, scale: float = 1.0) -> Tensor:
        (w, b) = params["layer"]
        return scale * ((w * x + b) ** 2).sum()

    params = {"layer": (t64([1.0, 2.0]), t64(0.5))}
    value, gradient = value_and_grad(loss)(params, 3.0, scale=2.0)
    assert value.item() == pytest.approx(2 * (3.5**2 + 6.5**2))
    assert isinstance(gradient, dict) and isinstance(gradient["layer"], tuple)
    close(gradient["layer"][0], [2 * 2 * 3.5 * 3, 2 * 2 * 6.5 * 3])
    close(gradient["layer"][1], 2 * 2 * (3.5 + 6.5))
    only_x = grad(loss, argnums=1)(params, 3.0)
    both = grad(loss, argnums=(1, 0))(params, 3.0)
    close(only_x, 2 * (3.5 + 2 * 6.5), rtol=1e-6)
    close(both[0], only_x.item())
    close(both[1]["layer"][1], 20.0)
    close(grad(lambda x, y: x * y, argnums=-1)(2.0, 5.0), 2.0)


def test_has_aux() -> None:
    (value, aux), gradient = value_and_grad(lambda x: (x * x, {"twice": 2 * x, "name": "f"}), has_aux=True)(3.0)
    assert (value.item(), aux["twice"].item(), aux["name"], gradient.item()) == (9.0, 6.0, "f", 6.0)
    gradient, aux = grad(lambda x: (x * x, x + 1), has_aux=True)(3.0)
    assert (gradient.item(), aux.item()) == (6.0, 4.0)
    assert not aux.requires_grad


def test_values_used_twice_never_or_not_made_from_the_argument() -> None:
    close(grad(lambda x: x * x + x)(3.0), 7.0)
    close(grad(lambda x: tensor(2.0) * 3)(3.0), 0.0)
    close(grad(lambda x: 4.0)(3.0), 0.0)
    close(grad(lambda x, y: y * 2, argnums=(0, 1))(1.0, 2.0)[0], 0.0)
    assert jvp(lambda x: tensor([1.0, 2.0]), (3.0,), (1.0,))[1].tolist() == [0.0, 0.0]
    out, pullback = vjp(lambda x: (x, x * 2, tensor(1.0)), 3.0)  # an argument itself, and a constant, among the outputs
    assert pullback((1.0, 10.0, 5.0))[0].item() == 21.0
    assert len(out) == 3 and not out[0].requires_grad


def test_cotangents_and_tangents_are_matched_by_key() -> None:
    _, pullback = vjp(lambda p: {"a": p["x"] * 2, "b": p["y"] * 3}, {"x": tensor(1.0), "y": tensor(1.0)})
    (found,) = pullback({"b": 1.0, "a": 10.0})
    assert (found["x"].item(), found["y"].item()) == (20.0, 3.0)
    _, moved = jvp(lambda p: p["x"] * 2 + p["y"] * 3, ({"x": 1.0, "y": 1.0},), ({"y": 1.0, "x": 10.0},))
    assert moved.item() == 23.0


def test_outputs_that_are_one_value_get_the_sum_of_their_cotangents() -> None:
    x = tensor(3.0, requires_grad=True)
    y = x * x
    assert autograd_grad([y, y], [x], grad_outputs=[tensor(1.0), tensor(2.0)])[0].item() == 18.0


def test_closures_over_outer_variables() -> None:
    w, c = tensor(2.0, requires_grad=True), tensor(5.0)
    slope = grad(lambda x: w * x * x + c)(3.0)
    assert slope.requires_grad  # a leaf outside follows it
    slope.backward()  # slope = 2·w·x
    assert w.grad is not None and w.grad.item() == 6.0
    with slalom.no_grad():
        assert not grad(lambda x: w * x)(3.0).requires_grad
    assert not grad(lambda x: c * x)(3.0).requires_grad


def test_a_loss_on_derivatives_reaches_the_parameters() -> None:
    """As in physics-informed networks: the residual u' − cos x is itself differentiated."""
    w = t64([0.5, -0.3], requires_grad=True)

    def u(x: Tensor) -> Tensor:
        return w[0] * (w[1] * x).sin()

    residual = grad(u)(t64(0.4)) - math.cos(0.4)
    (residual * residual).backward()
    a, b, x = 0.5, -0.3, 0.4
    r = a * b * math.cos(b * x) - math.cos(x)
    assert w.grad is not None
    close(w.grad, [2 * r * b * math.cos(b * x), 2 * r * a * (math.cos(b * x) - b * x * math.sin(b * x))])


def test_data_dependent_loop() -> None:
    def f(x: Tensor) -> Tensor:
        while abs(x) > 5:
            x = x / 2
        return x

    for derivative in (grad(f), forward(f)):
        assert derivative(tensor(100.0)).item() == 1 / 32
    value, slope = value_and_grad(f)(100.0)
    assert (value.item(), slope.item()) == (3.125, 0.03125)


def test_writing_to_an_argument_leaves_the_callers_tensor_alone() -> None:
    def f(x: Tensor) -> Tensor:
        x *= 3
        return (x * x).sum()

    x = tensor([1.0, 2.0])
    assert grad(f)(x).tolist() == [18.0, 36.0]
    assert x.tolist() == [1.0, 2.0]
    assert jvp(f, (x,), (tensor([1.0, 0.0]),))[1].item() == 18.0
    assert x.tolist() == [1.0, 2.0]


def test_gradients_do_not_share_buffers() -> None:
    gx, gy = grad(lambda x, y: (x + y).sum(), argnums=(0, 1))(tensor([1.0, 2.0]), tensor([3.0, 4.0]))
    gx += 10
    assert gy.tolist() == [1.0, 1.0]


MISTAKES: dict[str, tuple[Callable[[], Any], type[SlalomError], str]] = {
    "integer argument": (lambda: grad(lambda x: x * 1.0)(3), DTypeError, "int64.*floating"),
    "integer leaf": (lambda: tensor([1, 2], requires_grad=True), GradError, "int64.*floating"),
    "integer value": (lambda: grad(lambda x: (x > 0).sum())(3.0), DTypeError, "int64.*floating"),
    "a vector value": (lambda: grad(lambda x: x * 2)(tensor([1.0, 2.0])), GradError, r"shape \(2,\).*scalar"),
    "no tensor": (lambda: grad(lambda x: "text")(1.0), GradError, "str.*scalar"),
    "argnums": (lambda: grad(lambda x: x, argnums=2)(1.0), ConfigError, "argnums: got 2"),
    "jacobian mode": (lambda: jacobian(lambda x: x, mode="both"), ConfigError, "both"),
    "jacobian of two": (lambda: jacobian(lambda x: (x, x))(1.0), DTypeError, "tuple"),
    "cotangent count": (lambda: vjp(lambda x: (x, x), 1.0)[1](1.0), ShapeError, "got a float; needed a tuple of 2"),
    "cotangent keys": (
        lambda: vjp(lambda x: {"a": x, "b": x}, 1.0)[1]({"a": 1.0, "c": 2.0}),
        ShapeError,
        r"keys \['a', 'c'\].*keys \['a', 'b'\]",
    ),
    "cotangent kind": (lambda: vjp(lambda x: x, 1.0)[1]((1.0,)), ShapeError, "got a tuple"),
    "cotangent shape": (
        lambda: vjp(lambda x: x, tensor([1.0, 2.0]))[1](tensor([1.0, 2.0, 3.0])),
        ShapeError,
        r"\(3,\).*\(2,\)",
    ),
    "tangent count": (lambda: jvp(lambda x: x, (1.0,), (1.0, 2.0)), ShapeError, "got a list of 2.*needed a list of 1"),
    "tangent shape": (
        lambda: jvp(lambda x: x, (tensor([1.0, 2.0]),), (tensor([1.0]),)),
        ShapeError,
        r"tangent: got \(1,\); needed \(2,\)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    act, kind, text = MISTAKES[name]
    with pytest.raises(kind, match=text) as caught:
        act()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_masks_choose_and_never_multiply(mode: str) -> None:
    """Trap: 0 · ∞ is NaN; what is not chosen gets 0, whatever arrives."""
    inf = float("inf")
    choices: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.relu(),
        lambda x: slalom.where(x > 0, x, 0.0),
        lambda x: x.maximum(tensor([0.0, 0.0])),
        lambda x: x.clamp(min=0.0),
        lambda x: x.masked_fill(x < 0, 0.0),
    ]
    for choose in choices:
        if mode == "reverse":
            found = vjp(choose, tensor([-1.0, 2.0]))[1](tensor([inf, 1.0]))[0]
        else:
            found = jvp(choose, (tensor([-1.0, 2.0]),), (tensor([inf, 1.0]),))[1]
        assert found.tolist() == [0.0, 1.0]


# --- backward() ---------------------------------------------------------------------------------------------------
def test_backward_accumulates() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    first = x.grad
    assert first is not None and first.tolist() == [2.0, 4.0]
    (3 * x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [5.0, 7.0]
    x.grad = None
    (x * x).backward(tensor([1.0, 10.0]))
    assert x.grad is not None and x.grad.tolist() == [2.0, 40.0]


def test_backward_of_a_one_element_tensor_needs_no_gradient_and_of_others_does() -> None:
    x = tensor([2.0], requires_grad=True)
    (x * x).backward()
    assert x.grad is not None and x.grad.tolist() == [4.0]
    with pytest.raises(GradError, match=r"not a scalar.*shape \(2,\)"):
        (tensor([1.0, 2.0], requires_grad=True) * 2).backward()
    with pytest.raises(ShapeError, match=r"\(3,\).*\(1,\)"):
        (x * x).backward(tensor([1.0, 2.0, 3.0]))


def test_second_backward_is_an_error_unless_retained() -> None:
    x = tensor(3.0, requires_grad=True)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None and x.grad.item() == 12.0
    with pytest.raises(GradError, match=r"second time.*retain_graph=True"):
        y.backward()
    with pytest.raises(GradError, match="second time"):
        (y * 2).backward()  # a new value on a freed tape
    with pytest.raises(GradError, match="second time"):
        autograd_grad(y * 2, [x], allow_unused=True)
    assert x.grad.item() == 12.0


def test_backward_frees_the_values_it_has_used() -> None:
    x = tensor(np.ones(1000), requires_grad=True)
    hidden = (x * 2).exp()
    loss = hidden.sum()
    node = loss.grad_fn
    assert node is not None and node.inputs
    loss.backward()
    assert not node.inputs


def test_create_graph() -> None:
    x = tensor(2.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    first = x.grad
    assert first is not None and first.requires_grad and first.item() == 12.0
    x.grad = None
    first.backward()  # d/dx 3x² = 6x
    assert x.grad is not None and x.grad.item() == 12.0 and not x.grad.requires_grad


def test_without_create_graph_gradients_have_no_history() -> None:
    w, x = tensor(2.0, requires_grad=True), tensor(3.0, requires_grad=True)
    (w * x).backward()
    assert w.grad is not None and not w.grad.requires_grad and w.grad.is_leaf


def test_retain_grad() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.retain_grad()
    assert not y.is_leaf
    z = x.clone()
    z.retain_grad()
    assert not z.is_leaf
    (y * y + z).sum().backward()
    assert y.grad is not None and y.grad.tolist() == [6.0, 12.0]
    assert z.grad is not None and z.grad.tolist() == [1.0, 1.0]
    assert x.grad is not None and x.grad.tolist() == [19.0, 37.0]
    y.grad += 1
    assert x.grad.tolist() == [19.0, 37.0]
    with pytest.raises(GradError, match="retain_grad"):
        tensor(1.0).retain_grad()


def test_a_forgotten_leaf_is_no_trouble() -> None:
    x = tensor(2.0, requires_grad=True)
    y = x * tensor(3.0, requires_grad=True)  # nobody holds the second factor
    y.backward()
    assert x.grad is not None and x.grad.item() == 3.0


def test_leaves_never_share_a_gradients_buffer() -> None:
    x, y = tensor([1.0, 2.0], requires_grad=True), tensor([3.0, 4.0], requires_grad=True)
    given = tensor([1.0, 1.0])
    (x + y).backward(given)
    assert x.grad is not None and y.grad is not None
    with slalom.no_grad():
        x.grad += 10
        given.zero_()
    assert (x.grad.tolist(), y.grad.tolist()) == ([11.0, 11.0], [1.0, 1.0])
    a, b = autograd_grad(x + y, [x, y], grad_outputs=given)
    a += 1
    assert (b.tolist(), given.tolist()) == ([0.0, 0.0], [0.0, 0.0])


def test_backward_without_history_says_what_to_do() -> None:
    with pytest.raises(GradError, match=r"does not require gradients.*no_grad"):
        tensor(1.0).backward()


def test_autograd_grad() -> None:
    x, y, unused = (tensor(v, requires_grad=True) for v in (2.0, 3.0, 4.0))
    z = x * x * y
    gx, gy = autograd_grad(z, [x, y], create_graph=True)
    assert (gx.item(), gy.item()) == (12.0, 4.0)
    assert autograd_grad(gx, x)[0].item() == 6.0
    assert x.grad is None
    with pytest.raises(GradError, match=r"not used.*allow_unused"):
        autograd_grad(x * y, [x, unused], retain_graph=True)
    found = autograd_grad(x * y, [x, unused], allow_unused=True)
    assert found[0] is not None and found[0].item() == 3.0 and found[1] is None
    with pytest.raises(GradError, match="does not require"):
        autograd_grad(x * y, [tensor(1.0)])
    with pytest.raises(GradError, match="does not require"):
        autograd_grad(tensor(1.0), [x])
    with pytest.raises(ConfigError, match="2 for 1"):
        autograd_grad(x * y, [x], grad_outputs=[tensor(1.0), tensor(2.0)])


def test_grad_with_respect_to_a_value_in_the_middle() -> None:
    x = tensor(2.0, requires_grad=True)
    y = x * 3
    z = y * y
    assert autograd_grad(z, [y], retain_graph=True)[0].item() == 12.0
    assert autograd_grad(z, [z, x], create_graph=True)[0].item() == 1.0


def test_grad_modes() -> None:
    x = tensor(2.0, requires_grad=True)
    with slalom.no_grad():
        assert not (x * 2).requires_grad and not slalom.is_grad_enabled()
        with slalom.enable_grad():
            assert (x * 2).requires_grad
        assert grad(lambda x: x * x)(3.0).item() == 6.0  # derivatives are asked for explicitly

    @slalom.no_grad
    def f(x: Tensor) -> Tensor:
        return x * 2

    @slalom.no_grad()
    def g(x: Tensor) -> Tensor:
        return x * 2

    assert not f(x).requires_grad and not g(x).requires_grad and f.__name__ == "f"
    with slalom.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), slalom.no_grad():
        raise ZeroDivisionError
    assert slalom.is_grad_enabled()
    one = slalom.no_grad()  # the same object, entered twice
    with one, one:
        assert not slalom.is_grad_enabled()
    assert slalom.is_grad_enabled()


def test_requires_grad_can_be_changed_on_leaves_only() -> None:
    x = tensor(2.0, requires_grad=True)
    y = x * 2
    with pytest.raises(GradError, match="leaf"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad
    assert x.requires_grad_().requires_grad
    assert x.is_leaf and not y.is_leaf and y.detach().is_leaf and tensor(1).is_leaf


# --- cost ---------------------------------------------------------------------------------------------------------
class Count:
    """Counts the bytes of all results that own their memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        real = tensor_module.Storage.__init__

        def storage(this: Any, array: Any) -> None:
            real(this, array)
            if array.base is None:
                self.bytes += array.nbytes

        monkeypatch.setattr(tensor_module.Storage, "__init__", storage)


@pytest.mark.parametrize(
    "sliced",
    [
        pytest.param(lambda x, t: x[t], id="indexed"),
        pytest.param(lambda x, t: x.narrow(0, t, 1), id="narrowed"),
        pytest.param(lambda x, t: x.unbind(0)[t] if t == 0 else x[t], id="unbound"),
    ],
)
@pytest.mark.parametrize("how", ["backward", "grad"])
def test_gradients_through_slices_cost_memory_in_proportion(
    sliced: Callable[[Tensor, int], Tensor], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def f(x: Tensor) -> Tensor:
        total = tensor(0.0)
        for t in range(x.shape[0]):
            total = total + (sliced(x, t) * float(t)).sum()
        return total

    def cost(steps: int) -> int:
        x = tensor(np.ones((steps, 8), np.float32), requires_grad=how == "backward")
        with monkeypatch.context() as patched:
            count = Count(patched)
            if how == "backward":
                f(x).backward()
                found = x.grad
            else:
                found = grad(f)(x)
        assert found is not None
        assert found.numpy()[:, 0].tolist() == [float(t) for t in range(steps)]
        return count.bytes

    assert cost(400) < 5 * cost(100)  # padded copies would cost 16 times as much


def test_no_gradient_is_computed_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[tuple[int, ...]] = []
    matmul = tensor_module.TABLE["matmul"]
    real = matmul.bare

    def counted(x: Any, y: Any) -> Any:
        products.append(x.shape + y.shape)
        return real(x, y)

    object.__setattr__(matmul, "bare", counted)
    try:
        w1, w2 = tensor(np.ones((8, 4)), requires_grad=True), tensor(np.ones((2, 8)), requires_grad=True)
        x = tensor(np.ones((16, 4)))
        loss = ((x @ w1.T).relu() @ w2.T).sum()
        assert len(products) == 2
        loss.backward()
    finally:
        object.__setattr__(matmul, "bare", real)
    assert len(products) == 2 + 3  # both weights, and the hidden layer; not the data

"""Sequentials that become machine code by themselves in an ordinary loop, and all that keeps them from it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from warming import CALLS, close, gradients, network, rows, runs, warmed

import slalom
from slalom import Tensor, autograd, nn, optim
from slalom.compiler.native import native
from slalom.errors import GradError, ShapeError
from slalom.nn.plain import is_plain
from slalom.nn.warm import PREDICTIONS

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")


def test_a_loop_goes_on_as_it_was() -> None:
    """Losses, weights and the gradient of the input, call by call; then the loss is native too."""
    histories = []
    for keeps in (True, False):
        model, loss, found = network(), nn.MSELoss(), []
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        for step in range(CALLS + 6):
            x = rows(4 if step % 5 == 4 else 6).requires_grad_()
            optimizer.zero_grad()
            with slalom.no_compile() if keeps else slalom.enable_grad():
                value = loss(model(x), x[:, :3].detach())
            value.backward()
            optimizer.step()
            found += [value.item(), x.grad.numpy().copy(), *(p.detach().numpy().copy() for p in model.parameters())]
        assert bool(runs(model)) == (not keeps) and bool(runs(loss)) == (not keeps)
        histories.append(found)
    close(histories[1], histories[0])


def test_short_scripts_and_predictions_do_not_wait_for_a_compiler() -> None:
    model = warmed(network())
    assert not runs(model)
    with slalom.no_grad():
        warmed(model)
    assert not runs(model)
    model(rows())
    assert runs(model) == 1


def predicted(model: nn.Module, times: int, *args: Any, **options: Any) -> Any:
    with slalom.no_grad():
        for _ in range(times):
            out = model(*args, **options)
    return out


def test_predictions_of_one_shape_are_native_in_the_end() -> None:
    model = network().eval()
    with slalom.no_compile():
        expected = {n: predicted(model, 1, rows(n)).numpy() for n in (1, 6, *range(20, 50))}
    for n in (6, 1):
        predicted(model, PREDICTIONS - 1, rows(n))
    assert not runs(model)
    predicted(model, 1, rows(6))
    assert not runs(model), "so many are made operation by operation"
    out = predicted(model, 1, rows(6))
    assert runs(model) == 1 and not out.requires_grad
    np.testing.assert_allclose(out.numpy(), expected[6], rtol=1e-5, atol=1e-6)
    for n in range(20, 50):  # none of these comes back often
        np.testing.assert_allclose(predicted(model, 2, rows(n)).numpy(), expected[n], rtol=1e-5, atol=1e-6)
    assert runs(model) == 1 and len(model._predictions) < 30
    predicted(model, PREDICTIONS + 1, rows(1))
    assert runs(model) == 2, "counted anew"
    model[0].weight.data = model[0].weight.detach() * 0
    with slalom.no_compile():
        changed = predicted(model, 1, rows(6)).numpy()
    np.testing.assert_allclose(predicted(model, 1, rows(6)).numpy(), changed, rtol=1e-5, atol=1e-6)
    assert not hasattr(copy.deepcopy(model), "_predictions") and runs(model) == 2


def test_predictions_with_effects_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(5, 3), Mine(3, 3)).eval()
    NOTES.clear()
    predicted(model, PREDICTIONS + 40, rows())
    assert len(NOTES) == PREDICTIONS + 40 and not runs(model)


WHOLE: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], tuple[Any, ...]]]] = {
    "RNN": (lambda: nn.RNN(5, 4, 2), lambda x: (x,)),
    "GRU": (lambda: nn.GRU(5, 4, bidirectional=True), lambda x: (x,)),
    "LSTM": (lambda: nn.LSTM(5, 4, batch_first=True), lambda x: (x,)),
    "LSTM from a state": (
        lambda: nn.LSTM(5, 4),
        lambda x: (x, (slalom.ones(1, x.shape[1], 4), slalom.zeros(1, x.shape[1], 4))),
    ),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(5, 1), lambda x: (x, x, x)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(5, 1, 7, dropout=0.0), lambda x: (x,)),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(5, 1, 7, dropout=0.0), 2),
        lambda x: (x,),
    ),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(5, 1, 7, dropout=0.0), 1),
        lambda x: (x, x + 1),
    ),
    "Transformer": (lambda: nn.Transformer(5, 1, 1, 1, 7, dropout=0.0), lambda x: (x, x + 1)),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("learns", [True, False], ids=["learning", "predicting"])
def test_layers_of_many_operations_are_native_by_themselves(name: str, learns: bool) -> None:
    slalom.manual_seed(0)
    make, given = WHOLE[name]
    model = make()
    x = slalom.tensor(np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32"))
    found = []
    for keeps in (True, False):
        with slalom.no_compile() if keeps else slalom.enable_grad():
            if learns:
                for _ in range(1 if keeps else CALLS + 1):
                    model.zero_grad()
                    out = model(*given(x))
                    first = out[0] if isinstance(out, tuple) else out
                    first.sin().sum().backward()
                found.append([first.detach().numpy(), *(p.grad.numpy().copy() for p in model.parameters())])
            else:
                out = predicted(model, 1 if keeps else PREDICTIONS + 1, *given(x))
                found.append([t.numpy() for t in leaves_of(out)])
    assert runs(model) == 1
    close(found[1], found[0])


def leaves_of(out: Any) -> list[Tensor]:
    if isinstance(out, tuple):
        return [t for part in out for t in leaves_of(part)]
    return [] if out is None else [out]


NOTES: list[Any] = []


class Mine(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        NOTES.append(input.shape)
        return super().forward(input) * 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: model.append(Mine(3, 3)),
        lambda model: model[2].register_module("2", nn.Sequential(Mine(8, 8))),
        lambda model: model[0].register_forward_hook(lambda *given: None),
        lambda model: model[2][0].register_forward_pre_hook(lambda *given: None),
        lambda model: model.register_full_backward_hook(lambda *given: None),
        lambda model: setattr(model[1], "forward", lambda x: x * 3.0),
    ],
    ids=["a subclass", "one inside", "a hook", "a hook inside", "a hook of backward", "another forward"],
)
@pytest.mark.parametrize("late", [False, True], ids=["from the start", "when it is native"])
def test_what_is_the_users_runs_at_each_call(spoil: Callable[[Any], Any], late: bool) -> None:
    model = network()
    if late:
        warmed(model)(rows())
        assert runs(model) == 1
    spoil(model)
    assert not is_plain(model)
    with slalom.no_compile():
        expected = gradients(copy.deepcopy(model), rows())
    close(gradients(warmed(model), rows()), expected)
    assert runs(model) == late


@pytest.mark.parametrize("layer", [lambda: nn.BatchNorm1d(5), nn.Dropout, nn.RReLU])
def test_layers_that_write_states_do_so_once_a_call(layer: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(layer(), nn.Linear(5, 2))
    twin = copy.deepcopy(model)

    def loop(each: nn.Module) -> list[Any]:
        slalom.manual_seed(3)
        for _ in range(CALLS + 3):
            x = rows().requires_grad_()
            out = each(x)
            (g,) = autograd.grad((out**2).sum(), x, create_graph=True)
        states = [t.numpy().copy() for t in each.buffers()]
        (g**2).sum().backward()  # which makes the call once more, from the states before it
        _, tangent = slalom.jvp(each, (rows(),), (rows() * 0.1,))
        return [out.detach(), x.grad, tangent.detach(), *states, *each.buffers(), slalom.rand(2)]

    found = loop(model)
    with slalom.no_compile():
        expected = loop(twin)
    assert runs(model) and not runs(twin)
    close(found, expected)


def test_what_writes_its_argument_is_not_compiled() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 2))
    for _ in range(CALLS + 2):
        x = rows()
        model(x)
        assert x.min().item() == 0.0
    assert "module call" not in repr(model(rows()).grad_fn)


class Returns(nn.Module):
    """Of what is returned, the result of ``how``."""

    def __init__(self, how: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.how = nn.Linear(5, 4), nn.BatchNorm1d(5), nn.Dropout(), how

    def forward(self, x: Tensor, given: tuple[Tensor, Tensor] | None = None) -> Any:
        h = self.drop(self.first(self.norm(x)))
        return self.how(x, h if given is None else h * given[0] + given[1])


def tensors_of(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [t for part in (tree.values() if isinstance(tree, dict) else tree or ()) for t in tensors_of(part)]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("how", "native"),
    [
        (lambda x, h: (h * 2, h + 1), True),
        (lambda x, h: (h, None), True),
        (lambda x, h: {"out": h, "more": [h.sin(), (h.tanh(),)]}, True),
        (lambda x, h: (x, h), False),
        (lambda x, h: (h, h), False),
        (lambda x, h: (h, h.detach()), False),
        (lambda x, h: h.detach() if h is None else x, False),
    ],
    ids=["two", "with None", "nested", "the input", "one twice", "one buffer twice", "only the input"],
)
def test_what_is_returned_is_what_forward_would_return(how: Any, native: bool, given: bool) -> None:
    """Also its identity; and that statistics and draws are those of one call."""
    histories = []
    for keeps in (True, False):
        slalom.manual_seed(4)
        model, found = Returns(how), []
        for _ in range(CALLS + 2):
            x = rows()
            more = ((x[:, :4] * 0.1, x[:, 1:]),) if given else ()
            with slalom.no_compile() if keeps else slalom.enable_grad():
                result = model(x, *more)
                outs = tensors_of(result)
            model.zero_grad()
            if outs[-1].requires_grad:
                sum((t**2).mean() for t in outs).backward()
                found += [p.grad.numpy().copy() for p in model.parameters()]
            found += [np.float32([outs[0] is x, outs[0] is outs[-1]]), *(t.detach().numpy().copy() for t in outs)]
        found += [*(t.numpy() for t in model.buffers()), slalom.rand(2).numpy()]
        assert bool(runs(model)) == (native and not keeps)
        histories.append((found, type(result)))
    assert histories[0][1] is histories[1][1]
    close(histories[1][0], histories[0][0])


@pytest.mark.parametrize("several", [False, True])
def test_several_outputs_that_are_learned_from_are_left_to_the_tape(several: bool) -> None:
    """Which goes back through what they share once, where machine code would for each."""
    model = Returns(lambda x, h: (h * 2, h + 1))
    for _ in range(CALLS + 3):
        outs = model(rows())
        sum(out.sum() for out in outs[: 1 + several]).backward()
    assert runs(model) == 1 and ("module call" in repr(outs[0].grad_fn)) == (not several)


def test_weights_written_before_backward_count_as_they_were() -> None:
    """As they do operation by operation, where what is transposed keeps its value."""
    model, twin = network(), network()
    for each in (model, twin):
        for _ in range(CALLS + 2):
            with slalom.no_compile() if each is twin else slalom.enable_grad():
                out = each(rows())
            (out**2).sum().backward(retain_graph=True)
            with slalom.no_grad():
                each[2][0].weight.mul_(0.9)
            out.sum().backward()
    assert runs(model) == 1
    close([p.grad.numpy() for p in model.parameters()], [p.grad.numpy() for p in twin.parameters()])


def test_a_module_that_was_changed_has_no_second_derivatives() -> None:
    model = warmed(network())
    x = rows().requires_grad_()
    out = model(x)
    model.append(nn.Tanh())
    with pytest.raises(GradError, match="a module that was changed since the call"):
        autograd.grad(out.sum(), x, create_graph=True)


def test_derivatives_of_all_kinds_are_those_of_the_operations() -> None:
    model = network()
    plain = copy.deepcopy(model)
    warmed(model)(rows())
    x, v = rows(), rows(6) * 0.5

    def energy(of: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: (of(x) ** 2).sum()

    def penalty(of: nn.Module) -> list[np.ndarray]:
        of.zero_grad()
        given = x.clone().requires_grad_()
        (g,) = autograd.grad(energy(of)(given), given, create_graph=True)
        (g**2).sum().backward()
        return [given.grad.numpy(), *(p.grad.numpy() for p in list(of.parameters())[:-1])]

    found = []
    for of in (model, plain):
        with slalom.no_compile() if of is plain else slalom.enable_grad():
            out, tangent = slalom.jvp(of, (x,), (v,))
            second = slalom.jvp(slalom.grad(energy(of)), (x,), (v,))[1]
            found.append([*(t.detach().numpy() for t in (out, tangent, second)), *penalty(of)])
    assert runs(model)
    close(found[0], found[1])


def test_changes_are_seen() -> None:
    """Of the mode, the shape, a weight, a part, what is frozen."""
    model = warmed(network())
    plain = copy.deepcopy(model)
    changes: list[Callable[[Any], Any]] = [
        lambda m: None,
        lambda m: m.eval(),
        lambda m: m[0].weight.data.mul_(0.5),
        lambda m: m.__setitem__(1, nn.Sigmoid()),
        lambda m: m.append(nn.ReLU()),
        lambda m: m[0].requires_grad_(False),
    ]
    for change in changes:
        for each in (model, plain):
            change(each)
        for n in (6, 1):
            x = rows(n).requires_grad_()
            y = x.detach().clone().requires_grad_()
            (model(x) ** 2).sum().backward()
            with slalom.no_compile():
                (plain(y) ** 2).sum().backward()
            close([x.grad.numpy()], [y.grad.numpy()])
    close([p.grad.numpy() for p in model.parameters()], [p.grad.numpy() for p in plain.parameters()])
    assert runs(model) > 1


def test_after_many_kinds_of_calls_those_known_stay_native() -> None:
    model = warmed(network())
    for n in range(1, 12):
        model(rows(n))
    assert runs(model) == 8
    kinds = ["module call" in repr(model(rows(n)).grad_fn) for n in range(1, 12)]
    assert kinds == [True] * 8 + [False] * 3 and runs(model) == 8


def test_errors_are_the_same() -> None:
    model = network()
    texts = []
    for _ in range(2):
        with pytest.raises(ShapeError) as caught:
            model(slalom.ones(2, 4))
        texts.append(str(caught.value))
        warmed(model)(rows())
    assert runs(model) and texts[0] == texts[1]


def test_copies_begin_anew() -> None:
    model = warmed(network())
    model(rows())
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not runs(twin)
        close(gradients(twin, rows()), gradients(model, rows()))


def test_compile_comes_first() -> None:
    model = slalom.compile(network())
    warmed(model)(rows())
    assert not runs(model)

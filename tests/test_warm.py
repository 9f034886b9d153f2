"""Sequentials that become machine code by themselves in an ordinary loop, and all that keeps them from it."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, autograd, nn, optim, tensor
from slalom.compiler.native import native
from slalom.errors import GradError, ShapeError
from slalom.nn import functional as F
from slalom.nn.plain import is_plain

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

CALLS = nn.Module._eager_calls


def network() -> nn.Sequential:
    slalom.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 3))


def rows(n: int = 6) -> Tensor:
    return tensor(np.random.default_rng(n).normal(size=(n, 5)).astype("float32"))


def warmed(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    for _ in range(CALLS):
        model(rows() if x is None else x)
    return model


def runs(model: nn.Module) -> int:
    """How often it was recorded; 0 where it runs operation by operation."""
    return model._native.traces if model.__dict__.get("_native") else 0


def gradients(model: nn.Module, x: Tensor) -> list[np.ndarray]:
    model.zero_grad()
    (model(x) ** 2).sum().backward()
    return [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]


def close(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


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


# --- classes of the user's ----------------------------------------------------------------------------------------
SCALE = 0.5
NOTES: list[Any] = []


def scaled(x: Tensor) -> Tensor:
    return x * SCALE


def noted(x: Tensor) -> Tensor:
    NOTES.append(x.shape)
    return x


@dataclass
class Settings:
    scale: float = 0.5

    @property
    def noted(self) -> float:
        NOTES.append(self.scale)
        return self.scale


class Cell(nn.Linear):
    """A layer with methods of its own, of which some have effects."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.rate, self.log = 0.5, []  # type: ignore[var-annotated]

    def forward(self, input: Tensor) -> Tensor:
        return slalom.tanh(super().forward(input))

    def scaled(self, x: Tensor) -> Tensor:
        return self(x) * self.rate

    def counted(self, x: Tensor) -> Tensor:
        self.rate = self.rate + 0
        return x

    @property
    def wide(self) -> int:
        return self.out_features * 2

    @property
    def noted(self) -> int:
        NOTES.append(1)
        return 1


class Net(nn.Module):
    """What the bodies of ``forward`` below find."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())])
        self.gain = nn.Parameter([1.5])
        self.cells = nn.ModuleList([Cell(), Cell()])
        self.settings, self.act, self.leak = Settings(), F.relu, functools.partial(F.leaky_relu, negative_slope=0.3)
        self.repeats, self.names, self.log, self.f = 2, ("a", "b"), [], lambda x: NOTES.append(1) or x  # type: ignore[var-annotated]

    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.first(x))

    def counted(self, x: Tensor) -> Tensor:
        self.repeats = self.repeats + 0
        return x

    @staticmethod
    def doubled(x: Tensor) -> Tensor:
        return x * 2


PLAIN: list[Callable[[Any, Tensor], Tensor]] = [
    lambda self, x: self.second(F.relu(self.first(x))),
    lambda self, x: self.second(self.hidden(x).view(-1, 8)),
    lambda self, x: self.second(torch_like(self.hidden(x))) * self.gain,
    lambda self, x: scaled(self.second(self.doubled(self.hidden(x)))),
    lambda self, x: self.second(self.hidden(x) * math.sqrt(2.0) / len(self.names)),
    lambda self, x: self.second(slalom.cat([self.hidden(x)[:, :4], self.first.weight.sum() + x[:, 1:]], 1)),
    lambda self, x: self.second(F.dropout(self.hidden(x), 0.1, self.training)),
    lambda self, x: self.second(sum([block(self.hidden(x)) for block in self.blocks[:0]]) + self.hidden(x)),
    lambda self, x: self.second(sum(cell(self.hidden(x)) for cell in self.cells)),
    lambda self, x: self.second(sum(cell.scaled(self.hidden(x)) * cell.wide * 0.01 for cell in self.cells)),
    lambda self, x: self.second(self.cells[0].scaled(self.hidden(x)) * self.settings.scale),
    lambda self, x: self.second(self.act(self.first(x)) + slalom.randn_like(self.hidden(x))),
    lambda self, x: self.second(self.hidden(x) if self.training else wired(self, x)),
    lambda self, x: self.second(self.leak(self.first(x)) / np.sqrt(8) * np.pi),
    lambda self, x: self.second(frozen(self.first, x) * x.sum() + self.hidden(x)),
    lambda self, x: (lambda h: self.second(h) if h.ndim == 2 else h)(self.hidden(x)),
]
OTHER: list[Callable[[Any, Tensor], Any]] = [
    lambda self, x: self.second(noted(self.hidden(x))),
    lambda self, x: self.second(self.counted(self.hidden(x))),
    lambda self, x: self.second(self.f(self.hidden(x))),
    lambda self, x: print("", end="") or self.second(self.hidden(x)),
    lambda self, x: self.log.append(1) or self.second(self.hidden(x)),
    lambda self, x: self.second(self.hidden(x)) * float(np.random.random() > -1),
    lambda self, x: self.second(self.hidden(x)) * (time.time() > 0),
    lambda self, x: self.second(self.hidden(x)) * len(vars(self)),
    lambda self, x: (slalom.manual_seed(0), self.second(self.hidden(x)))[1],
    lambda self, x: self.second(self.hidden(x.requires_grad_())),
    lambda self, x: self.second(self.hidden(x)) if x.sum().item() > -1e9 else x,
    lambda self, x: setattr(self, "repeats", 3) or self.second(self.hidden(x)),
    lambda self, x: self.second(self.hidden(x)) if x is not None else nowhere(x),  # noqa: F821
    lambda self, x: self.second(self.hidden(x)) if x is not None else self.nowhere(x),
    lambda self, x: self.second(sum(cell.counted(self.hidden(x)) for cell in self.cells)),
    lambda self, x: self.second(self.hidden(x) * self.cells[0].noted),
    lambda self, x: self.second(self.hidden(x) * self.settings.noted),
    lambda self, x: self.second([cell.log.append(1) or self.hidden(x) for cell in self.cells][-1]),
    lambda self, x: self.second([cell.eval() and self.hidden(x) for cell in self.cells][-1]),
    lambda self, x: self.second((self.cells[0] if self.training else self.cells[1]).counted(self.hidden(x))),
    lambda self, x: self.second(kept(self.hidden(x))),
    lambda self, x: self.second(caught(self.hidden(x))),
    lambda self, x: self.second(caught_at_all(self.hidden(x))),
    lambda self, x: self.second(ended(self.hidden(x))),
    lambda self, x: self.second(disguised(self.hidden(x))),
    lambda self, x: self.cells[0].__dict__.update(rate=1.0) or self.second(self.hidden(x)),
    lambda self, x: self.second(self.hidden(x)) * sum(p.numel() for p in self.parameters()),
    lambda self, x: self.second(self.hidden(x) * other),
    lambda self, x: self.second(self.hidden(x)) * len(str(x)),
    lambda self, x: self.second(self.hidden(x)) * len(f"{x}"),
]


def wired(model: Any, x: Tensor) -> Tensor:
    return model.first(x)  # type: ignore[no-any-return]


def kept(x: Tensor, before: list[Any] = []) -> Tensor:  # noqa: B006
    before.append(x.shape)
    return x


def caught(x: Tensor) -> Tensor:
    try:
        return x * float(x.sum() > -1e9)
    except Exception:
        return x * 2


def caught_at_all(x: Tensor) -> Tensor:
    try:
        return x * x.sum().item()
    except:  # noqa: E722
        return x * 2


def ended(x: Tensor) -> Tensor:
    scale = 2.0
    try:
        scale = float(x.sum())
    finally:
        return x * scale  # noqa: B012


def frozen(layer: Any, x: Tensor) -> Tensor:
    with slalom.no_grad():
        h = layer(x)
        for _ in range(2):
            h = h.tanh()
    return h  # type: ignore[no-any-return]


@functools.wraps(F.relu)
def disguised(x: Tensor) -> Tensor:
    NOTES.append(x.shape)
    return x


class Noted(Tensor):
    """A tensor of the user's."""

    def __rmul__(self, x: Any) -> Any:
        NOTES.append(1)
        return x * 2


other = Noted([1.0])


def torch_like(x: Tensor) -> Tensor:
    for _ in range(2):
        x = slalom.tanh(x) + x.mean(dim=1, keepdim=True)
    return x


def netted(forward: Any) -> nn.Module:
    slalom.manual_seed(1)
    made: nn.Module = type("Made", (Net,), {"forward": forward, "__module__": __name__})()
    return made


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_a_class_that_computes_is_native_in_the_end(number: int) -> None:
    model = netted(PLAIN[number])
    slalom.manual_seed(2)
    with slalom.no_compile():
        expected = [gradients(model, rows()) for _ in range(CALLS + 2)][-1]
    assert "_native" not in vars(model) or not runs(model)
    slalom.manual_seed(2)
    found = [gradients(model, rows()) for _ in range(CALLS + 2)][-1]
    close(found, expected)
    assert is_plain(model) and "module call" in repr(model(rows()).grad_fn)


def effects(model: Any) -> list[int]:
    """How much is noted in some calls, which are all made as they are written."""
    NOTES.clear()
    for _ in range(CALLS + 3):
        out = model(rows())
    assert "module call" not in repr(out.grad_fn)
    return [len(NOTES), len(model.log), *(len(cell.log) for cell in model.cells)]


@pytest.mark.parametrize("number", range(len(OTHER)))
def test_a_class_with_effects_runs_at_each_call(number: int) -> None:
    with slalom.no_compile():
        expected = effects(netted(OTHER[number]))
    assert effects(netted(OTHER[number])) == expected


def test_a_debugger_sees_each_call() -> None:
    model = warmed(netted(PLAIN[0]))
    before = sys.gettrace()
    try:
        sys.settrace(lambda *given: None)
        out = model(rows())
    finally:
        sys.settrace(before)
    assert "module call" not in repr(out.grad_fn) and not runs(model)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="debuggers use sys.settrace alone")
def test_a_debugger_without_a_trace_function_does_too() -> None:
    model = warmed(netted(PLAIN[0]))
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "a debugger")
    try:
        out = model(rows())
    finally:
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)
    assert "module call" not in repr(out.grad_fn) and not runs(model)


def test_what_a_class_reads_by_name_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = warmed(netted(PLAIN[3]))
    before = model(rows()).detach().numpy()
    assert runs(model) == 1
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 1.0)
    close([model(rows()).detach().numpy()], [2 * before])
    assert runs(model) == 2


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


def test_settings_that_are_read_are_seen() -> None:
    """Of an object, of a part by name, of a part in a loop."""
    model: Any = netted(
        lambda self, x: self.second(sum(c(self.first(x)) * c.rate * self.settings.scale for c in self.cells))
    )
    before = warmed(model)(rows()).detach().numpy() - model.second.bias.detach().numpy()
    assert runs(model) == 1
    for change in (
        lambda: setattr(model.settings, "scale", 1.0),
        lambda: setattr(model.cells[0], "rate", 1.0) or setattr(model.cells[1], "rate", 1.0),
        lambda: setattr(model, "settings", Settings(2.0)),
    ):
        change()
        now = model(rows()).detach().numpy() - model.second.bias.detach().numpy()
        close([now], [2 * before])
        before = now
    assert runs(model) == 4


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


def test_a_part_is_not_converted_while_a_call_is_recorded() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        for cell in self.cells:
            cell.double()
        return self.second(self.hidden(x))  # type: ignore[no-any-return]

    model: Any = warmed(netted(forward))
    model.cells.float()
    out = model(rows())
    assert "module call" not in repr(out.grad_fn)
    assert model.cells[0].weight.dtype == slalom.float64 and model.cells[0].weight.isfinite().all().item()


def test_a_module_may_hold_one_that_holds_it() -> None:
    model: Any = netted(PLAIN[0])
    model.first.parent = model
    assert is_plain(model)
    warmed(model)(rows())
    assert runs(model) == 1


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

"""The quick way of a compiled step: taken where nothing has changed, and only there; what it hands out is its own."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, optim, tensor
from slalom.compiler import native as executor
from slalom.compiler.native import native
from slalom.compiler.stage import Compiled, _Record

pytestmark = pytest.mark.skipif(not native(), reason="no native code here")


class World:
    """A compiled training step, and the same step as it is; a change is made to both."""

    def __init__(self) -> None:
        slalom.manual_seed(0)
        self.scale = 1.0
        self.model: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
        self.optimizer: Any = optim.Adam(self.model.parameters(), lr=0.01)
        self.loss: Any = nn.CrossEntropyLoss()
        rng = np.random.default_rng(0)
        self.x, self.y = tensor(rng.normal(size=(6, 4)).astype(np.float32)), tensor(rng.integers(0, 3, 6))
        self.step: Compiled = slalom.compile(self.plain)

    def plain(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.model(x), y) * self.scale
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def weights(self) -> list[np.ndarray]:
        return [p.detach().numpy().copy() for p in self.model.parameters()]


def replaced(module: Any, name: str) -> None:
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(old.detach().numpy() * 0.5))


def other_state(world: World) -> None:
    world.optimizer.load_state_dict(world.optimizer.state_dict())


def own_state(world: World) -> None:
    p = world.model[0].weight
    world.optimizer.state[p]["exp_avg"] = slalom.zeros(8, 4)


CHANGES: dict[str, tuple[Callable[[World], None], bool]] = {
    # what is done, and whether the step must be recorded anew
    "nothing": (lambda w: None, False),
    "the rate": (lambda w: w.optimizer.param_groups[0].update(lr=0.5), False),
    "the betas": (lambda w: w.optimizer.param_groups[0].update(betas=(0.5, 0.5)), False),
    "a weight's values": (lambda w: w.model[0].weight.data.mul_(2.0), False),
    "an equal option": (lambda w: setattr(w.loss, "label_smoothing", 0), False),
    "weight decay is on": (lambda w: w.optimizer.param_groups[0].update(weight_decay=0.1), True),
    "another rule": (lambda w: w.optimizer.param_groups[0].update(amsgrad=True), True),
    "another option": (lambda w: setattr(w.loss, "label_smoothing", 0.1), True),
    "another number": (lambda w: setattr(w, "scale", 2.0), True),
    "another module": (lambda w: w.model.__setitem__(1, nn.Tanh()), True),
    "one module fewer": (lambda w: w.model.__delitem__(1), True),
    "another weight": (lambda w: replaced(w.model[0], "weight"), True),
    "no bias": (lambda w: setattr(w.model[0], "bias", None), True),
    "another buffer": (lambda w: setattr(w.model[0].weight, "data", slalom.zeros(8, 4).to("float64")), True),
    "frozen": (lambda w: w.model[0].weight.requires_grad_(False), True),
    "evaluation": (lambda w: w.model.eval(), True),
    "a hook": (lambda w: w.model[0].register_forward_hook(lambda m, args, out: out * 2) and None, True),
    "fewer parameters": (lambda w: w.optimizer.param_groups[0]["params"].pop(), True),
    "another optimizer": (lambda w: setattr(w, "optimizer", optim.SGD(w.model.parameters(), lr=0.1)), True),
    "a loaded state": (other_state, True),
    "a state of one's own": (own_state, True),
    "another loss": (lambda w: setattr(w, "loss", nn.CrossEntropyLoss(reduction="sum")), True),
    "another model": (lambda w: setattr(w, "model", nn.Linear(4, 3)), True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reaches_the_next_call(change: str) -> None:
    make, anew = CHANGES[change]
    compiled, plain = World(), World()
    for _ in range(4):
        compiled.step(compiled.x, compiled.y)
        plain.plain(plain.x, plain.y)
    if change == "evaluation":  # of which something depends
        for world in (compiled, plain):
            world.model[2].p = 0.0
    traces = compiled.step.traces
    for world in (compiled, plain):
        slalom.manual_seed(1)
        make(world)
    for _ in range(3):
        found, expected = compiled.step(compiled.x, compiled.y), plain.plain(plain.x, plain.y)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)
    for a, b in zip(compiled.weights(), plain.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert (compiled.step.traces > traces) is anew


ARGUMENTS: dict[str, tuple[Callable[[World], tuple[Any, ...]], bool]] = {
    "other values": (lambda w: (w.x * 2, w.y), False),
    "a part of more": (lambda w: (slalom.ones(20, 4)[3:9], w.y), False),
    "columns of a transposed": (lambda w: (slalom.ones(4, 6).t(), w.y), False),
    "fewer rows": (lambda w: (w.x[:3], w.y[:3]), True),
    "another type": (lambda w: (w.x, w.y.to("int32")), True),
    "an array": (lambda w: (w.x.numpy(), w.y), False),
    "a parameter": (lambda w: (nn.Parameter(w.x.numpy()), w.y), True),
    "a leaf": (lambda w: (w.x.clone().requires_grad_(), w.y), True),
    "a number": (lambda w: (w.x, w.y, 1), True),
}


@pytest.mark.parametrize("given", ARGUMENTS)
def test_arguments_of_another_kind(given: str) -> None:
    world = World()
    own = world.plain
    world.step = slalom.compile(lambda x, y, n=0: own(x, y) + n)
    make, anew = ARGUMENTS[given]
    for _ in range(3):
        world.step(world.x, world.y)
    world.step(*make(world))
    assert world.step.traces == 1 + anew
    world.step(world.x, world.y)
    assert world.step.traces == 1 + anew


def test_arguments_that_share_a_buffer_or_are_state() -> None:
    state = slalom.ones(3)

    @slalom.compile
    def add(x: Tensor, y: Tensor) -> Tensor:
        x += y
        total: Tensor = x + y + state
        return total

    a, b = slalom.ones(3), slalom.ones(3)
    for n in range(1, 4):
        assert add(a, b).tolist() == [n + 3.0] * 3
    for n in range(3):
        c = slalom.ones(3)
        assert add(c, c).tolist() == [5.0] * 3 and c.tolist() == [2.0] * 3, n
        c = slalom.ones(3)
        assert add(c, c.detach()).tolist() == [5.0] * 3, n
        assert add(slalom.ones(3), state).tolist() == [4.0] * 3, n
    assert add(state, b).tolist() == [5.0] * 3 and state.tolist() == [2.0] * 3
    assert add(a, b).tolist() == [8.0] * 3


def test_modes_reach_the_next_call() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    double = slalom.compile(lambda t: (t * 2 if slalom.is_grad_enabled() else t * 3) + slalom.tensor(1.0))
    for _ in range(3):
        assert double(x).tolist() == [3.0, 5.0]
    with slalom.no_grad():
        assert double(x).tolist() == [4.0, 7.0]
    assert double(x).tolist() == [3.0, 5.0]
    slalom.set_default_dtype("float64")
    try:
        assert double(x).tolist() == [3.0, 5.0] and double.traces == 3
    finally:
        slalom.set_default_dtype("float32")


def test_the_quick_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts one by one are looked at only where not all of them hold."""
    world = World()
    for _ in range(3):
        world.step(world.x, world.y)
    monkeypatch.setattr(_Record, "changed", lambda *_: pytest.fail("looked at closely"))
    for _ in range(3):
        world.step(world.x * 2, world.y)


# --- what is handed out -----------------------------------------------------------------------------------------------
def test_results_that_anybody_holds_are_never_written_again() -> None:
    held: list[Any] = []
    square = slalom.compile(lambda x: (x * x, x + 1))
    for n in range(12):
        a, b = square(slalom.full((5,), float(n)))
        # a tensor, its array, a view of that, what DLPack and the buffer protocol hold
        held.append((a, b.numpy(), b.numpy()[1:], np.from_dlpack(a), memoryview(b.numpy())))
        del a, b
    for n, (a, b, part, shared, view) in enumerate(held):
        assert a.tolist() == [n * n] * 5 and b.tolist() == [n + 1.0] * 5
        assert part.tolist() == [n + 1.0] * 4 and shared.tolist() == [n * n] * 5 and view.tolist() == [n + 1.0] * 5


def test_gradients_that_are_held_stay() -> None:
    w = tensor([1.0, 2.0], requires_grad=True)

    @slalom.compile
    def step(x: Tensor) -> None:
        w.grad = None
        (w * x).sum().backward()

    held = []
    for n in range(6):
        step(slalom.full((2,), float(n)))
        assert w.grad is not None and w.grad.tolist() == [n, n]
        held.append(w.grad if n % 2 else w.grad.numpy())
    for n, grad in enumerate(held):
        assert grad.tolist() == [n, n]


def test_memory_is_used_again_and_freed() -> None:
    double = slalom.compile(lambda x: x * 2)
    x = slalom.ones(100)
    places = {double(x).numpy().ctypes.data for _ in range(50)}
    assert len(places) <= 4
    large = slalom.compile(lambda x: x * 2)
    ref = weakref.ref(large(slalom.ones(300, 300))._storage.array)
    gc.collect()
    assert ref() is None


def test_threads_get_results_of_their_own() -> None:
    double, wrong = slalom.compile(lambda x: x * 2), []

    def work(n: int) -> None:
        x = slalom.full((50,), float(n))
        for _ in range(300):
            first, second = double(x), double(x)
            if (first.numpy() != 2 * n).any() or (second.numpy() != 2 * n).any():
                wrong.append(n)

    double(slalom.ones(50))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _shared(t: Tensor) -> Any:
    return t.detach()


HELD: dict[str, Callable[[Tensor], Any]] = {
    "the tensor": lambda t: t,
    "its buffer": _shared,
    "its array": lambda t: t.numpy(),
    "a part of its array": lambda t: t.numpy()[1:],
    "a view": lambda t: t.reshape(1, 3),
    "what was made of it": lambda t: (t.requires_grad_() * t).sum(),
    "a weak reference": weakref.ref,
}


@pytest.mark.parametrize("what", HELD)
def test_whatever_of_a_result_is_held_keeps_it(what: str) -> None:
    double = slalom.compile(lambda x: x * 2.0)
    held = HELD[what](double(tensor([1.0, 2.0, 3.0])))
    for i in range(20):
        double(tensor([float(i), 5.0, 6.0]))
    if what == "a weak reference":
        assert held() is None or held() is not double(tensor([4.0, 5.0, 6.0]))
    elif what == "what was made of it":
        assert held.item() == 56.0
        held.backward()
    else:
        numbers = (held if isinstance(held, np.ndarray) else held.numpy()).ravel().tolist()
        assert numbers == [2.0, 4.0, 6.0][-len(numbers) :]


@pytest.mark.parametrize("holds", [False, True])
def test_what_nobody_holds_is_used_again(holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, held, init = [], [], executor.Slot.__init__
    monkeypatch.setattr(executor.Slot, "__init__", lambda slot, array: (made.append(1), init(slot, array))[1])
    double = slalom.compile(lambda x: x * 2.0)
    for n in range(20):
        result = double(slalom.full((3,), float(n)))
        assert result.tolist() == [2.0 * n] * 3
        if holds:
            held.append(result)
    assert len(made) == (20 if holds else 2), "while one is held by its name, the next is made"


@pytest.mark.parametrize("compiled", [False, True], ids=["by itself", "compiled"])
def test_calls_whose_results_are_dropped_keep_nothing(compiled: bool) -> None:
    """No tape stays with the memory of a result, whether there was a backward or not."""
    made: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model = slalom.compile(made) if compiled else made
    given = []
    for n in range(30):
        x = slalom.ones(3, 4)
        given.append(weakref.ref(x._storage.array))
        y = model(x)
        if n % 3 == 0:
            y.sum().backward()
        assert y.requires_grad and (y.is_leaf is False)
        del x, y
    alive = {n for n, ref in enumerate(given) if ref() is not None}
    assert alive <= {27, 29}, "what the programs of forward and backward were given last"


def test_what_a_holder_has_changed_is_not_used_again() -> None:
    double = slalom.compile(lambda x: x * 2.0)
    for _ in range(8):
        result = double(slalom.ones(4)).numpy()
        result.shape = 2, 2
        del result
        double(slalom.ones(4)).numpy().flags.writeable = False
        assert double(slalom.ones(4)).shape == (4,)
        double(slalom.ones(4)).numpy()[0] = 5.0


def test_a_result_that_is_used_again_is_as_new() -> None:
    double = slalom.compile(lambda x: x * 2.0)
    for round in range(10):
        result = double(tensor([1.0, 2.0]))
        assert not result.requires_grad and result.grad is None and result.is_leaf
        result.requires_grad_()
        (result * result).sum().backward()
        assert result.grad is not None and result.grad.tolist() == [4.0, 8.0]
        part = result.detach().reshape(2, 1)
        with slalom.no_grad():
            result.add_(1.0)
        assert result.tolist() == [3.0, 5.0] and part.tolist() == [[2.0], [4.0]], round
        result.data = tensor([1.0, 2.0, 3.0])

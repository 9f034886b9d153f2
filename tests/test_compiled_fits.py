"""Native fits where memory, threads, rates or a failing step are out of the ordinary: as in Python after each step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, optim
from slalom.compiler import runtime
from slalom.compiler.native import native
from slalom.compiler.pace import Pace
from slalom.core import kernels
from slalom.errors import DivergenceError
from slalom.train import Callback, Trainer
from slalom.train.loop import Fit

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

ROWS = 70
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, 6)).astype(np.float32)
Y = RNG.normal(size=(ROWS, 2)).astype(np.float32)


class EachStep(Callback):
    """Asks for a look at every step, which makes each a native call of its own (tier C)."""

    def on_step_end(self, fit: Fit) -> None:
        pass


class Batches:
    """Batches of 16 rows made in Python (tier B), each array in an order of memory."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        for i in range(0, ROWS, 16):
            yield tuple(self.order(array[i : i + 16]) for array in (X, Y))


class Sums(nn.Module):
    """A weight and a buffer, which moves with each batch, that keep the order of memory they are given in."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(Tensor._of(weight.copy("K")))
        self.mean = nn.Buffer(Tensor._of(weight.copy("K")))

    def forward(self, x: Tensor) -> Tensor:
        with slalom.no_grad():
            self.mean.assign(self.mean * 0.5 + x.mean(0))
        return x @ self.weight.t() + (x @ self.mean.t()) * 0.1


def fitted(model: nn.Module, data: Any = (X, Y), lr: Any = 0.05, **options: Any) -> tuple[Trainer, list[np.ndarray]]:
    trainer = Trainer(
        model, loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=lr), schedule=options.pop("schedule", None)
    )
    trainer.fit(data, **{"batch_size": 16, "epochs": 3, "progress": False, **options})
    return trainer, [t.detach().numpy() for t in trainer.tensors().values()]


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# --- memory -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2], lambda a: a[:, ::-1]])
def test_batches_in_any_order_of_memory(order: Any) -> None:
    weight = RNG.normal(size=(2, 6)).astype(np.float32)
    trainer, found = fitted(Sums(weight), Batches(order))
    assert "tier B" in trainer.explain()
    assert_equal(found, fitted(Sums(weight), Batches(lambda a: order(a).copy("C")))[1])


@pytest.mark.parametrize("data", [(X, Y), Batches(np.asarray)])
def test_states_in_any_order_of_memory(data: Any) -> None:
    weight = RNG.normal(size=(2, 6)).astype(np.float32)
    model = Sums(np.asfortranarray(weight))
    arrays = [t._storage.array for t in (model.weight, model.mean)]
    _, found = fitted(model, data)
    assert_equal(found, fitted(Sums(weight), data)[1])
    assert all(not a.flags.c_contiguous and a is b for a, b in zip(arrays, found, strict=True))


# --- rates ------------------------------------------------------------------------------------------------------------
def test_a_schedule_of_a_rate_that_is_a_tensor() -> None:
    def run(*callbacks: Callback) -> list[np.ndarray]:
        slalom.manual_seed(0)
        rate = Tensor(np.array(0.1))
        return fitted(nn.Linear(6, 2), lr=rate, schedule=lambda t: 1 / (1 + t), epochs=8, callbacks=callbacks)[1]

    for a, b in zip(run(), run(EachStep()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


# --- a step that fails ------------------------------------------------------------------------------------------------
class Losses(Callback):
    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_steps_end(self, fit: Fit, steps: range) -> None:
        self.seen[fit.step] = fit.loss


@pytest.mark.parametrize("batch", [1, 3])
def test_callbacks_never_see_the_loss_of_a_step_that_was_not_made(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slalom.train.loop.REPORT_SECONDS", -1.0)
    x = X.copy()
    x[kernels.permutation(0, 0, ROWS)[16 * batch + 2]] = np.nan
    found = []
    for callbacks in ([], [EachStep()]):
        slalom.manual_seed(0)
        losses = Losses()
        with pytest.raises(DivergenceError):
            fitted(nn.Linear(6, 2), (x, Y), callbacks=[losses, *callbacks])
        assert max(losses.seen) == batch
        found.append(losses.seen)
    inside, outside = found
    assert inside == pytest.approx({step: outside[step] for step in inside})


# --- threads ----------------------------------------------------------------------------------------------------------
def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))


def test_dropout_of_several_fits_at_once_is_that_of_each_alone() -> None:
    slalom.manual_seed(0)
    models = [dropping() for _ in range(4)]
    start = [{name: t.numpy().copy() for name, t in model.state_dict().items()} for model in models]

    def run(i: int, found: list[Any]) -> None:
        found[i] = [a.copy() for a in fitted(models[i], seed=i, epochs=60)[1]]

    def restored() -> list[Any]:
        for model, kept in zip(models, start, strict=True):
            model.load_state_dict({name: Tensor(array) for name, array in kept.items()})
        return [None] * len(models)

    alone, together = restored(), restored()
    for i in range(len(models)):
        run(i, alone)
    together = restored()
    threads = [threading.Thread(target=run, args=(i, together)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        assert_equal(b, a)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_chosen", [])


def test_threads_that_are_set_while_a_fit_runs_are_used_from_then_on(chosen: None) -> None:
    class Setting(Callback):
        def __init__(self) -> None:
            self.used: list[set[int]] = []

        def on_epoch_begin(self, fit: Fit) -> None:
            slalom.set_num_threads(fit.epoch)

        def on_epoch_end(self, fit: Fit) -> None:
            assert fit.native is not None
            self.used.append(set(fit.native.threads))
            fit.native.threads.clear()

    setting = Setting()
    fitted(dropping(), callbacks=[setting])
    assert setting.used == [{1}, {2}, {3}]


def test_the_pace_is_found_anew_when_the_number_of_threads_is_set(chosen: None) -> None:
    pace = Pace(shared=True)
    pace.note(pace.next()[0], 10, 0.001)
    slalom.set_num_threads(5)
    assert pace.next() == (5, 1)
    pace.note(5, 1, 0.001)
    assert pace.next() == (5, 4)

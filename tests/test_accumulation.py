"""Trainer(accumulate=k): the gradients of k batches make one update."""

from __future__ import annotations

import numpy as np
import pytest
from fits import CLASSES, N, X, assert_close, assert_same, network, state

from slalom import Tensor, nn, optim
from slalom.errors import ConfigError, DivergenceError
from slalom.train import Callback, Trainer
from slalom.utils.data import DataLoader, TensorDataset

LOSSES = [
    (nn.CrossEntropyLoss(), CLASSES),
    (nn.CrossEntropyLoss(Tensor([1.0, 3.0, 0.5])), CLASSES),
    (nn.CrossEntropyLoss(ignore_index=1), CLASSES),
    (nn.CrossEntropyLoss(reduction="sum"), CLASSES),
    (nn.MSELoss(), np.eye(3, dtype=np.float32)[CLASSES]),
]


def made(accumulate: int, loss=None, **options) -> Trainer:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, accumulate=accumulate, **options)


def fitted(t: Trainer, batch_size: int, target=CLASSES, epochs: int = 2, **options) -> Trainer:
    """In the order of the rows, so that the batches of one trainer are parts of those of another."""
    t.fit(
        DataLoader(TensorDataset(Tensor(X), Tensor(target)), batch_size),
        epochs=epochs,
        progress=False,
        **options,
    )
    return t


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}, {"compile": False}], ids=str)
@pytest.mark.parametrize(("loss", "target"), LOSSES, ids=range(len(LOSSES)))
def test_it_is_the_large_batch(loss, target, options):
    small, large = fitted(made(4, loss, **options), 8, target), fitted(made(1, loss, **options), 32, target)
    assert small.step == large.step
    assert_close(state(small.model), state(large.model))
    assert small.history[-1]["loss"] == pytest.approx(large.history[-1]["loss"], rel=1e-5)


def test_weighted_rows_too():
    weight = np.linspace(0.1, 2.0, N).astype(np.float32)
    fits = []
    for accumulate, batch_size in ((50, 1), (5, 10), (1, 50)):
        t = made(accumulate)
        t.fit((X, CLASSES), batch_size=batch_size, epochs=2, sample_weight=weight, progress=False)
        fits.append(state(t.model))
    assert_close(fits[0], fits[2])
    assert_close(fits[1], fits[2])


def test_batches_left_at_the_end_of_an_epoch_make_a_step():
    class Count(Callback):
        def on_step_end(self, fit):
            places.append((fit.step, fit.batch))

    places: list[tuple[int, int]] = []
    t = fitted(made(3), 8, epochs=1, callbacks=[Count()])
    batches = -(-N // 8)
    assert places == [(i + 1, min(3 * i + 3, batches)) for i in range(-(-batches // 3))]
    assert t.step == len(places)


def test_schedules_count_updates_and_metrics_all_batches():
    seen: list[int] = []

    def schedule(step):
        seen.append(step)
        return 1.0

    t = fitted(made(4, schedule=schedule, metrics=["accuracy"]), 8, epochs=1)
    assert sorted(set(seen)) == list(range(t.step))
    small, large = (fitted(made(k, metrics=["accuracy"]), size, epochs=1) for k, size in ((4, 8), (1, 32)))
    assert small.history[-1]["accuracy"] == pytest.approx(large.history[-1]["accuracy"])


def test_random_numbers_differ_between_the_batches_of_an_update():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(Tensor([0.0]))

        def forward(self, x):
            return self.w * nn.functional.dropout(x[:, :1] * 0 + 1, 0.5, training=True)

    model = Noisy()
    gradients = []

    class Look(Callback):
        def on_step_end(self, fit):
            assert fit.batch == 2
            gradients.append(float(model.w.grad.item()))

    t = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.0), accumulate=2)
    t.fit((X[:2], np.ones((2, 1), np.float32)), batch_size=1, epochs=12, callbacks=[Look()], progress=False)
    assert len(set(gradients)) == 3  # none, one or both of the two rows dropped; equal numbers would give two


def test_what_ran_is_explained():
    t = fitted(made(4), 8, epochs=1)
    assert "accumulate=4: gradients run several times for one update" in str(t.explain())


@pytest.mark.parametrize("every", [1, 2])
def test_resumed_the_bits_are_the_same(tmp_path, every):
    def fit(t, **options):
        t.fit((X, CLASSES), batch_size=8, epochs=3, progress=False, **options)
        return t

    class Stop(Callback):
        def on_step_end(self, fit):
            if fit.step == 4:
                raise KeyboardInterrupt

        def __repr__(self):
            return "Stop"

    class Go(Callback):
        def __repr__(self):
            return "Stop"

        def on_step_end(self, fit):
            pass

    path = tmp_path / "run.safetensors"
    whole = fit(made(3), callbacks=[Go()])
    fit(made(3), callbacks=[Stop()], checkpoint=path, checkpoint_every=f"{every} steps")
    again = fit(made(3), callbacks=[Go()], checkpoint=path, checkpoint_every=f"{every} steps", resume=True)
    assert again.step == whole.step
    assert_same(state(again.model), state(whole.model))
    with pytest.raises(ConfigError, match="accumulate"):
        fit(made(2), callbacks=[Go()], checkpoint=path, checkpoint_every=f"{every} steps", resume=True)


def test_what_diverges_writes_nothing_of_the_whole_step():
    x = X.copy()
    x[-1] = np.inf  # the last row of the last batch: the batches before it were good
    model = nn.Sequential(nn.BatchNorm1d(X.shape[1]), nn.Linear(X.shape[1], 1))
    before = {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}
    t = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), accumulate=N)
    data = DataLoader(TensorDataset(Tensor(x), Tensor(np.zeros((N, 1), np.float32))), 8)
    with pytest.raises(DivergenceError, match="input 0 is not finite in row"):
        t.fit(data, epochs=1, progress=False)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.detach().numpy(), before[name], err_msg=name)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "all"])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ConfigError, match="accumulate: got"):
        made(wrong)

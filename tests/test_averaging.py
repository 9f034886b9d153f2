"""Averages of weights: the names of torch.optim.swa_utils."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn
from slalom.errors import ConfigError
from slalom.optim import SGD, AdamW
from slalom.train import swa_utils

FUNCTIONS: dict[str, Any] = {
    "default": lambda u: {},
    "swa": lambda u: {"avg_fn": u.get_swa_avg_fn()},
    "swa, lists": lambda u: {"multi_avg_fn": u.get_swa_multi_avg_fn()},
    "ema": lambda u: {"avg_fn": u.get_ema_avg_fn(0.8)},
    "ema, lists": lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn(0.8)},
    "own": lambda u: {"avg_fn": lambda averaged, current, number: averaged / 2 + current * number},
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def rewritten(model: Any, seed: int) -> None:
    """Give all floating tensors of a model other values."""
    rng = np.random.default_rng(seed)
    tensors = itertools.chain(model.parameters(), (b for b in model.buffers() if b.is_floating_point()))
    for t in tensors:
        values = rng.normal(size=tuple(t.shape)).astype(np.float32)
        t.data.copy_(t.detach().new_tensor(values))


# --- AveragedModel ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_averages_as_pytorch_does(name: str, use_buffers: bool) -> None:
    torch = pytest.importorskip("torch")
    tnn, utils = torch.nn, torch.optim.swa_utils
    norm = {"track_running_stats": not use_buffers}  # PyTorch cannot average integers
    theirs = tnn.Sequential(tnn.Linear(3, 4), tnn.BatchNorm1d(4, **norm), tnn.Linear(4, 1))
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, **norm), nn.Linear(4, 1))
    mine = swa_utils.AveragedModel(ours, use_buffers=use_buffers, **FUNCTIONS[name](swa_utils))
    other = utils.AveragedModel(theirs, use_buffers=use_buffers, **FUNCTIONS[name](utils))
    for seed in range(5):
        for model, averaged in ((ours, mine), (theirs, other)):
            rewritten(model, seed)
            averaged.update_parameters(model)
    held, expected = mine.state_dict(), other.state_dict()
    assert list(held) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(held[key].numpy(), value.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)


def test_the_default_is_the_plain_mean_and_leaves_the_model_alone() -> None:
    model = nn.Linear(2, 1)
    averaged, seen = swa_utils.AveragedModel(model), []
    for seed in range(4):
        rewritten(model, seed)
        seen.append(model.weight.detach().numpy().copy())
        averaged.update_parameters(model)
    np.testing.assert_allclose(averaged.module.weight.detach().numpy(), np.mean(seen, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(model.weight.detach().numpy(), seen[-1])
    assert averaged.n_averaged.item() == 4


def test_the_first_model_is_copied_even_where_the_average_began_with_nan() -> None:
    model = nn.Linear(2, 1)
    model.weight.data.fill_(float("nan"))
    averaged = swa_utils.AveragedModel(model)
    model.weight.data.fill_(1.0)
    averaged.update_parameters(model)
    assert averaged.module.weight.detach().numpy().tolist() == [[1.0, 1.0]]


def test_buffers_may_be_averaged_and_counts_are_copied() -> None:
    model = net()
    averaged = swa_utils.AveragedModel(model, use_buffers=True)
    for mean in (1.0, 3.0):
        model[1].running_mean.fill_(mean)
        model[1].num_batches_tracked.fill_(int(mean))
        averaged.update_parameters(model)
    assert averaged.module[1].running_mean.numpy().tolist() == [2.0] * 4
    assert averaged.module[1].num_batches_tracked.item() == 3


def test_updates_may_be_compiled_together_with_the_step() -> None:
    rng = np.random.default_rng(0)
    x, y = (slalom.tensor(rng.normal(size=(8, n)).astype(np.float32)) for n in (3, 1))
    results = []
    for compiled in (False, True):
        slalom.manual_seed(0)
        model = net()
        ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        optimizer = AdamW(model.parameters(), lr=0.01)

        def one(model: Any = model, ema: Any = ema, optimizer: Any = optimizer) -> slalom.Tensor:
            loss = ((model(x) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ema.update_parameters(model)
            return loss

        run = slalom.compile(one) if compiled else one
        for _ in range(5):
            run()
        results.append(ema.state_dict())
    assert run.traces == 1
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key].numpy(), value.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)


def test_only_one_function_and_a_sensible_decay() -> None:
    with pytest.raises(ConfigError, match="at most one of them"):
        swa_utils.AveragedModel(net(), avg_fn=lambda a, b, n: a, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ConfigError, match=r"decay: got 1\.5"):
            make(1.5)


# --- update_bn ----------------------------------------------------------------------------------------------------
def test_an_average_takes_models_of_its_own_shapes() -> None:
    average = swa_utils.AveragedModel(nn.Linear(2, 3))
    for other in (nn.Linear(2, 2), nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3)):
        with pytest.raises(
            slalom.errors.ShapeError, match="into the average of a Linear: needed parameters and buffers"
        ):
            average.update_parameters(other)
    assert average.n_averaged.item() == 0


def test_update_bn_is_the_mean_over_batches() -> None:
    batches = [slalom.tensor(np.random.default_rng(i).normal(size=(8, 4)).astype(np.float32)) for i in range(3)]
    model = nn.Sequential(nn.BatchNorm1d(4)).eval()
    model[0].running_mean.fill_(100.0)
    swa_utils.update_bn([(batch, None) for batch in batches], model)
    expected = (
        np.mean([b.numpy().mean(0) for b in batches], axis=0),
        np.mean([b.numpy().var(0, ddof=1) for b in batches], axis=0),
    )
    for found, needed in zip((model[0].running_mean, model[0].running_var), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), needed, rtol=1e-5, atol=1e-6)
    assert (model.training, model[0].training, model[0].momentum) == (False, False, 0.1)


def test_update_bn_asks_no_batch_where_there_is_nothing_to_update() -> None:
    batches = iter([1])
    swa_utils.update_bn(batches, nn.Linear(1, 1))
    assert next(batches) == 1


# --- SWALR --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"swa_lr": [0.1, 0.2]}, "swa_lr: got 2 of them"),
        ({"swa_lr": 0.1, "anneal_strategy": "step"}, "anneal_strategy: got step"),
        ({"swa_lr": 0.1, "anneal_epochs": -1}, "anneal_epochs: got -1"),
    ],
)
def test_wrong_options_of_swalr_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        swa_utils.SWALR(SGD([slalom.tensor([1.0], requires_grad=True)]), **options)
    assert words in str(caught.value)

"""Summaries: what is counted is what the layers do, nothing is computed or changed, and the table says it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn
from slalom.errors import ConfigError, DTypeError, ShapeError


class Twice(nn.Module):
    """A layer that is called twice, one that is never called, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.spare = nn.Linear(4, 4), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4).freeze()

    def forward(self, x: Tensor) -> Any:
        x = self.shared(self.shared(x))
        return self.norm(x), x.sum()


def test_counts_of_a_network() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3, bias=False), nn.Flatten())
    found = slalom.summary(model, (32, 8))
    by_path = {row.path: row for row in found.rows}
    assert list(by_path) == ["", "0", "1", "2", "3"]
    assert by_path["0"].operations == 2 * 32 * 8 * 16 + 32 * 16 and by_path["0"].outputs == ((32, 16),)
    assert by_path["1"].operations == 32 * 16 and by_path["2"].operations == 2 * 32 * 16 * 3
    assert by_path["3"].operations == 0 and by_path["3"].parameters == 0
    assert found.operations == sum(by_path[n].operations for n in "0123")
    assert found.parameters == found.learned == 8 * 16 + 16 + 48 and found.memory == 4 * found.parameters
    assert found.activations == 4 * 32 * (16 + 16 + 3 + 3) and by_path["2"].results == 4 * 32 * 3


def test_modules_called_twice_never_or_frozen() -> None:
    model = Twice()
    found = slalom.summary(model, (5, 4))
    by_path = {row.path: row for row in found.rows}
    assert by_path["shared"].calls == 2 and by_path["shared"].operations == 2 * (2 * 5 * 4 * 4 + 20)
    assert by_path["spare"].calls == 0 and by_path["spare"].outputs == ()
    assert by_path[""].outputs == ((5, 4), ()) and found.parameters - found.learned == 8
    assert by_path["norm"].memory == 4 * 16 + 8  # the count of batches is an int64
    text = str(found)
    assert "shared: Linear" in text and "5×4 (2 calls)" in text and "spare: Linear" in text and "5×4 scalar" in text
    assert text.splitlines()[-1].startswith("38 parameters, 8 of them frozen · 192 B with buffers · ")


def test_nothing_is_computed_or_changed() -> None:
    model = Twice().double()
    model.shared.eval()
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    found = slalom.summary(model, (10**9, 4))  # no memory holds it
    assert found.rows[0].outputs[0] == (10**9, 4) and found.activations > 32e9 and "GB of results" in str(found)
    assert model.training and not model.shared.training and model.spare.training
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), before[name])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_inputs_are_shapes_tensors_or_arrays() -> None:
    assert slalom.summary(nn.Embedding(6, 3), Tensor([[1, 2]])).rows[0].outputs == ((1, 2, 3),)
    assert slalom.summary(nn.Embedding(6, 3), np.array([1, 2])).rows[0].outputs == ((2, 3),)
    both = slalom.summary(nn.Transformer(4, 2, 1, 1, 8), (5, 2, 4), [3, 2, 4])
    assert both.rows[0].outputs == ((3, 2, 4),)
    lstm = slalom.summary(nn.LSTM(3, 4), (5, 2, 3))
    assert lstm.rows[0].outputs == ((5, 2, 4), (1, 2, 4), (1, 2, 4))
    assert lstm.operations > 2 * 5 * 2 * (3 + 4) * 16  # the products, and the gates


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="summary: inputs: got none"):
        slalom.summary(nn.Identity())
    with pytest.raises(DTypeError, match="summary: model: got int; needed a Module"):
        slalom.summary(3, (1, 2))
    with pytest.raises(DTypeError, match="summary: input: got str; needed a shape, a tensor or an array"):
        slalom.summary(nn.Identity(), "3x4")
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3))
    with pytest.raises(ShapeError, match=r"model\.1 \(Linear 4→3\): input has 3 features, needs 4"):
        slalom.summary(model, (2, 4))
    assert model.training and not model[0]._forward_hooks

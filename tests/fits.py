"""Small data, models and trainers that the tests of `slalom.train` share."""

from __future__ import annotations

import numpy as np

import slalom
from slalom import nn, optim
from slalom.utils.data import Dataset

RNG = np.random.default_rng(11)
N = 50
X = RNG.normal(size=(N, 4)).astype(np.float32)
CLASSES = (X[:, 0] * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
VALUES = (X @ np.array([1, -2, 3, 0.5], np.float32)).astype(np.float32)


def network(outputs=3, dropout=0.0, norm=False, seed=0):
    slalom.manual_seed(seed)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, outputs))


def classifier(model=None, loss=None, lr=0.01, **options):
    model = network() if model is None else model
    optimizer = optim.Adam(model.parameters(), lr=lr)
    return slalom.Trainer(model, loss=loss or nn.CrossEntropyLoss(), optimizer=optimizer, **options)


def regressor(lr=0.05, loss=None, **options):
    slalom.manual_seed(0)
    model = nn.Linear(4, 1)
    return slalom.Trainer(model, loss=loss or nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=lr), **options)


def state(model):
    return {name: t.numpy().copy() for name, t in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_close(a, b, rtol=1e-5):
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-6, err_msg=name)


class RowByRow(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return X[i], int(CLASSES[i])

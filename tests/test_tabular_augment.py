"""``tabular.fit(augment=…)``: what becomes of a table's batch, and that a fit with it is one like any other."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_tabular_model import CLASSES, NUMBERS, quick

import slalom
from slalom.data.augment import ColumnNoise, Compose, FeatureDropout, MixUp
from slalom.errors import ConfigError
from slalom.tabular.augmenting import TableMixUp, augmentation_of
from slalom.tabular.fitting import make_plan


def doubled(numbers, codes, target):
    """An augmentation of one's own."""
    return numbers * 2, codes, target


@pytest.mark.parametrize("augment", ["noise", "mixup", ColumnNoise(0.5), MixUp(1.0), doubled, FeatureDropout(0.3)])
@pytest.mark.parametrize(("data", "target"), [(CLASSES, "kind"), (NUMBERS, "price")], ids=["classes", "numbers"])
def test_it_changes_what_is_learned_and_nothing_else(data, target, augment):
    plain, one, two = (quick(data, target, augment=how) for how in (None, augment, augment))
    assert one.weights_sha256 == two.weights_sha256 != plain.weights_sha256
    assert one.preparation == plain.preparation
    assert np.isfinite(one.predict_raw(one_row(data), None)).all()


def one_row(data):
    return slalom.tabular.from_dataframe({name: values[:1] for name, values in data.items()})


def test_mixed_rows_lie_between_two_and_codes_come_from_one_of_them():
    slalom.manual_seed(0)
    numbers, codes = slalom.randn(400, 3), slalom.arange(800).reshape(400, 2)
    target = slalom.arange(400) % 3
    mixed, taken, shares = TableMixUp(0.4, 3)(numbers, codes, target)
    before = np.roll(np.arange(400), 1)
    share = (mixed - numbers[before]).numpy() / (numbers - numbers[before]).numpy()
    np.testing.assert_allclose(share, share[:, :1].repeat(3, 1), atol=2e-2)
    own = taken.numpy() == codes.numpy()
    assert (own | (taken.numpy() == codes.numpy()[before])).all()
    assert own.mean() == pytest.approx(share[:, 0].mean(), abs=0.08) and share[:, 0].mean() == pytest.approx(
        0.5, abs=0.08
    )
    np.testing.assert_allclose(shares.sum(1).numpy(), 1, rtol=1e-6)
    assert shares.dtype == np.float32 and taken.dtype == np.int64
    values = TableMixUp(0.4, None)(numbers, codes, slalom.arange(400.0).reshape(400, 1))[2].numpy()[1:, 0]
    assert ((values >= np.arange(399) - 1e-3) & (values <= np.arange(1, 400) + 1e-3)).all()


def test_noise_leaves_flags_and_codes_as_they_are():
    noise = augmentation_of("noise", 2, None)
    numbers, codes = slalom.zeros(50, 4), slalom.arange(50).reshape(50, 1)
    changed, same, _ = noise(numbers, codes, slalom.zeros(50, 1))
    assert (changed[:, :2] != 0).all().item() and (changed[:, 2:] == 0).all().item() and (same == codes).all().item()
    named = ColumnNoise(0.1, columns=[3])
    assert augmentation_of(named, 2, None) is named


def test_a_plan_says_it():
    lines = make_plan(CLASSES, "kind", augment=MixUp(0.3)).describe()
    assert "augmentation TableMixUp(alpha=0.3, classes=2)" in lines
    assert not any("augmentation" in line for line in make_plan(CLASSES, "kind").describe())


def test_several_one_after_the_other():
    both = Compose([ColumnNoise(0.1, columns=[0]), FeatureDropout(0.1)])
    assert quick(CLASSES, "kind", augment=both).weights_sha256 == quick(CLASSES, "kind", augment=both).weights_sha256


@pytest.mark.parametrize("augment", ["nose", 0.1])
def test_what_is_none_is_refused(augment):
    said = f"augment: got {augment!r}; needed 'noise', 'mixup', or a function of (numbers, codes, target)"
    with pytest.raises(ConfigError, match=re.escape(said)):
        quick(CLASSES, "kind", augment=augment)

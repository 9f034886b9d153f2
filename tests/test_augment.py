"""Every row of table_augment.py: shapes, no strength, staging, randomness, exact cases, messages; and the draws."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from table_augment import AUGMENTATIONS, IMAGES, TABLE, AugmentRow

import slalom
from slalom import Tensor, tensor
from slalom.core.random import default_generator
from slalom.data import augment
from slalom.data.augment.base import noise
from slalom.data.augment.mixing import beta
from slalom.errors import IndexRangeError, ShapeError, SlalomError

each_row = pytest.mark.parametrize("row", AUGMENTATIONS, ids=lambda row: row.name)
NOT_ROWS = {"Augmentation", "affine"}
"""Public names that are no augmentation to be made: the base class, and a function that draws nothing."""


def batch(row: AugmentRow, dtype: str = "float32") -> tuple[Tensor, ...]:
    """A batch with values in 0 … 1, all different; and class numbers for what needs them."""
    shape = IMAGES if row.data == "images" else TABLE
    x = np.random.default_rng(3).permutation(math.prod(shape)).reshape(shape) / math.prod(shape)
    return (tensor(x.astype(dtype)), *([tensor([0, 1, 2, 3, 1, 1])] if row.mixes else []))


def arrays(result: Any) -> list[Any]:
    return [t.numpy() for t in (result if isinstance(result, tuple) else (result,))]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(arrays(a), arrays(b), strict=True))


# --- the table ----------------------------------------------------------------------------------------------------
def test_every_name_has_a_row() -> None:
    assert {row.name for row in AUGMENTATIONS} == set(augment.__all__) - NOT_ROWS
    assert len(AUGMENTATIONS) == len({row.name for row in AUGMENTATIONS})
    assert all(type(row.make(augment)).__name__ == row.name for row in AUGMENTATIONS)


@each_row
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shape_and_dtype_are_kept(row: AugmentRow, dtype: str) -> None:
    given = batch(row, dtype)
    before = arrays(given)
    out = row.make(augment)(*given)
    (x, *rest) = arrays(out)
    assert x.shape == (row.shape or given[0].shape) and x.dtype == dtype and np.isfinite(x).all()
    assert not np.array_equal(x, before[0])
    assert all(y.shape == (6, 4) and y.dtype == dtype for y in rest)
    assert all(map(np.array_equal, before, arrays(given))), "the batch itself was changed"


@each_row
def test_without_strength_nothing_changes(row: AugmentRow) -> None:
    assert row.still is not None
    for dtype in ("float32", "float64"):
        given = batch(row, dtype)
        x, *labels = arrays(row.still(augment)(*given))
        assert x.tobytes() == given[0].numpy().tobytes()
        assert all(np.array_equal(y, np.eye(4)[given[1].numpy()]) for y in labels)


@pytest.mark.parametrize("row", [row for row in AUGMENTATIONS if not row.mixes], ids=lambda row: row.name)
def test_other_parts_are_handed_on(row: AugmentRow) -> None:
    (x,), other, y = batch(row), tensor([1, 2, 3]), "anything"
    out = row.make(augment)(x, other, y)
    assert isinstance(out, tuple) and out[1] is other and out[2] is y


@each_row
def test_staged_is_eager_and_draws_anew(row: AugmentRow) -> None:
    given, change = batch(row), row.make(augment)
    step = slalom.compile(change)
    slalom.manual_seed(5)
    eager = [arrays(change(*given)) for _ in range(3)]
    place = default_generator.state.tolist()
    slalom.manual_seed(5)
    staged = [arrays(step(*given)) for _ in range(3)]
    assert default_generator.state.tolist() == place and step.traces == 1
    assert all(same_arrays(a, b) for a, b in zip(eager, staged, strict=True))
    assert not any(np.array_equal(eager[i][0], eager[j][0]) for i, j in ((0, 1), (0, 2), (1, 2)))


def same_arrays(a: list[Any], b: list[Any]) -> bool:
    return all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


@each_row
def test_a_seed_determines_the_numbers(row: AugmentRow) -> None:
    given, change = batch(row), row.make(augment)
    slalom.manual_seed(1)
    first = change(*given)
    slalom.manual_seed(1)
    assert same(first, change(*given))
    slalom.manual_seed(2)
    assert not same(first, change(*given))


ALONE = [row for row in AUGMENTATIONS if not row.mixes and row.name != "SwapNoise"]
"""Those that change a row without the others."""


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.name)
def test_each_row_has_numbers_of_its_own(row: AugmentRow) -> None:
    one = batch(row)[0].numpy()
    many = tensor(np.repeat(one[:1], 40, axis=0))
    out = row.make(augment)(many).numpy()
    assert len({image.tobytes() for image in out}) > (1 if "Flip" in row.name else 8)


@each_row
def test_no_rows(row: AugmentRow) -> None:
    given = [t[:0] for t in batch(row)]
    out = arrays(row.make(augment)(*given))
    assert out[0].shape == (0, *(row.shape or given[0].shape)[1:])


@each_row
def test_gradients_pass(row: AugmentRow) -> None:
    x, *rest = batch(row)
    x.requires_grad_()
    out = row.make(augment)(x, *rest)
    (out[0] if rest else out).sum().backward()
    assert x.grad is not None and np.isfinite(x.grad.numpy()).all() and x.grad.numpy().any()


@each_row
def test_it_says_all_of_itself_and_stays(row: AugmentRow) -> None:
    made = row.make(augment)
    assert eval(repr(made), vars(augment)) == made
    name = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, None)


EXACT = [(row, i) for row in AUGMENTATIONS for i in range(len(row.exact))]


@pytest.mark.parametrize(("row", "i"), EXACT, ids=[f"{row.name}-{i}" for row, i in EXACT])
def test_exact_cases(row: AugmentRow, i: int) -> None:
    make, expected = row.exact[i]
    (x,) = batch(row)
    found = make(augment)(x).numpy()
    np.testing.assert_array_equal(found, expected(x.numpy()))
    assert found.dtype == np.float32


ERRORS = [(row, i) for row in AUGMENTATIONS for i in range(len(row.errors))]


@pytest.mark.parametrize(("row", "i"), ERRORS, ids=[f"{row.name}-{i}" for row, i in ERRORS])
def test_error_messages(row: AugmentRow, i: int) -> None:
    call, message = row.errors[i]
    with pytest.raises(SlalomError, match=message) as caught:
        call(augment, tensor)
    assert "\n" not in str(caught.value)


# --- the draws ----------------------------------------------------------------------------------------------------
N = 4000


def share(hits: Any, p: float) -> None:
    """A share of N trials that is p but for chance: within 5 standard deviations."""
    assert abs(np.mean(hits) - p) < 5 * math.sqrt(p * (1 - p) / np.size(hits))


def test_flips_come_with_their_probability() -> None:
    x = tensor(np.tile(np.arange(2, dtype="f4"), (N, 1, 1, 1)))
    share(augment.RandomHorizontalFlip(0.3)(x).numpy()[:, 0, 0, 0] == 1, 0.3)


def test_crops_come_from_every_place_alike() -> None:
    x = tensor(np.tile(np.arange(16, dtype="f4").reshape(1, 4, 4), (N, 1, 1, 1)))
    corner = augment.RandomCrop(2)(x).numpy()[:, 0, 0, 0]
    places, counts = np.unique(corner, return_counts=True)
    assert places.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert np.abs(counts - N / 9).max() < 5 * math.sqrt(N * 8 / 81)


def test_a_crop_is_a_part_of_its_image() -> None:
    x = np.random.default_rng(0).random((20, 2, 7, 9), np.float32)
    for image, found in zip(x, augment.RandomCrop((3, 4))(tensor(x)).numpy(), strict=True):
        parts = [image[:, i : i + 3, j : j + 4] for i in range(5) for j in range(6)]
        assert sum(np.array_equal(part, found) for part in parts) == 1


def test_erased_rectangles() -> None:
    x = slalom.ones(N, 2, 20, 30)
    out = augment.RandomErasing(0.7, scale=(0.1, 0.2), ratio=(0.5, 2))(x).numpy() == 0
    assert np.array_equal(out[:, 0], out[:, 1])
    hit = out[:, 0].any((1, 2))
    share(hit, 0.7)
    erased = out[hit, 0]
    height, width = erased.any(2).sum(1), erased.any(1).sum(1)
    assert (erased.sum((1, 2)) == height * width).all(), "a rectangle"
    assert (height * width).min() > 48 and (height * width).max() < 135  # 60 to 120, sides rounded
    assert abs((height * width).mean() - 90) < 2
    assert abs(np.log(height / width).mean()) < 0.05 and 0.4 < (height / width).min() < 0.6
    first_row, first_column = erased.any(2).argmax(1), erased.any(1).argmax(1)
    assert first_row.min() == first_column.min() == 0
    assert (first_row + height).max() == 20 and (first_column + width).max() == 30


def test_cut_out_squares_may_stand_at_the_border() -> None:
    out = augment.Cutout(4)(slalom.ones(N, 1, 10, 10)).numpy()[:, 0] == 0
    height, width = out.any(2).sum(1), out.any(1).sum(1)
    assert set(height) == set(width) == {2, 3, 4}
    share(height == 4, 0.7)  # middles 2 to 8 of 10
    assert (out.sum((1, 2)) == height * width).all()


@pytest.mark.parametrize("shape", [(3, 33333), (1,), (0, 4)])
def test_noise_is_normal(shape: tuple[int, ...]) -> None:
    found = noise(slalom.zeros(shape)).numpy()
    assert found.shape == shape and found.dtype == np.float32
    if found.size > 1:
        assert abs(found.mean()) < 0.015 and abs(found.std() - 1) < 0.015
        assert abs((found**3).mean()) < 0.04 and abs((found**4).mean() - 3) < 0.1
        assert abs(np.mean(np.abs(found) < 1) - 0.6827) < 0.01 and np.abs(found).max() < 5.8
        assert abs(np.corrcoef(found[0], found[1])[0, 1]) < 0.03


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0])
def test_beta_has_its_moments(alpha: float) -> None:
    found = beta(alpha, 100_000).numpy()
    variance = 1 / (4 * (2 * alpha + 1))
    assert ((found >= 0) & (found <= 1)).all()
    assert abs(found.mean() - 0.5) < 5 * math.sqrt(variance / 100_000)
    assert abs(found.var() - variance) < 0.01 * variance + 0.001
    fourth = variance**2 * (3 - 6 / (2 * alpha + 3))  # kurtosis of Beta(α, α)
    assert abs(((found - 0.5) ** 4).mean() - fourth) < 0.02 * fourth
    if alpha == 1:
        assert np.abs(np.sort(found) - np.linspace(0, 1, found.size)).max() < 0.008  # uniform


def test_colours() -> None:
    x = slalom.full((N, 1, 1, 2), 0.5)
    bright = augment.ColorJitter(brightness=0.4)(x).numpy()[:, 0, 0, 0] / 0.5
    assert 0.6 <= bright.min() < 0.61 and 1.39 < bright.max() <= 1.4 and abs(bright.mean() - 1) < 0.02
    x = tensor(np.tile(np.array([0.4, 0.6], "f4"), (N, 1, 1, 1)))
    out = augment.ColorJitter(contrast=(0.5, 2.0))(x).numpy()[:, 0, 0]
    np.testing.assert_allclose(out.mean(1), 0.5, atol=1e-6)
    factors = (out[:, 1] - out[:, 0]) / 0.2
    assert factors.min() + 1e-6 >= 0.5 and factors.max() < 2.0001 and abs(factors.mean() - 1.25) < 0.04


def test_dropped_and_swapped_features() -> None:
    x = np.arange(N * 3, dtype="f4").reshape(N, 3) + 1
    dropped = augment.FeatureDropout(0.2, columns=[0, 2])(tensor(x)).numpy()
    share(dropped[:, 0] == 0, 0.2)
    share(dropped[:, 2] == 0, 0.2)
    assert np.array_equal(dropped[:, 1], x[:, 1]) and np.array_equal(dropped[dropped != 0], x[dropped != 0])
    swapped = augment.SwapNoise(0.3, columns=[1])(tensor(x.astype("i4"))).numpy()
    assert swapped.dtype == np.int32 and np.array_equal(swapped[:, ::2], x[:, ::2])
    share(swapped[:, 1] != x[:, 1], 0.3 * (1 - 1 / N))
    assert np.isin(swapped[:, 1], x[:, 1]).all()
    both = augment.SwapNoise(1.0)(tensor(x)).numpy()
    rows = (both - 1) // 3
    assert np.mean(rows[:, 0] == rows[:, 1]) < 0.01, "each value comes from a row of its own"


def test_noise_by_column() -> None:
    out = augment.ColumnNoise((0.0, 1.0, 5.0), columns=[0, 1])(slalom.zeros(N, 3)).numpy()
    assert not out[:, 0].any() and not out[:, 2].any() and abs(out[:, 1].std() - 1) < 0.05


# --- mixing -------------------------------------------------------------------------------------------------------
def test_mixed_rows_and_labels_have_the_same_shares() -> None:
    """Of rows that are their own labels, both come out alike, and labels sum to 1."""
    eye = np.eye(7, dtype="f4")
    x, y = augment.MixUp(0.4, 7)(tensor(eye), slalom.arange(7))
    np.testing.assert_array_equal(x.numpy(), y.numpy())
    np.testing.assert_allclose(y.numpy().sum(1), 1, atol=1e-6)
    kept = np.diag(y.numpy())
    np.testing.assert_allclose(y.numpy()[np.arange(7), np.arange(7) - 1], 1 - kept, atol=1e-6)
    assert len(set(kept)) == 7


def test_mixup_of_floating_targets_and_several_inputs() -> None:
    a, b = np.arange(12.0).reshape(4, 3), np.arange(4.0).reshape(4, 1) * 10
    x, z, y = augment.MixUp()(tensor(a), tensor(b), tensor(a[:, 0].copy()))
    np.testing.assert_allclose(x.numpy()[:, 0], y.numpy())
    np.testing.assert_allclose(z.numpy()[:, 0], y.numpy() / 3 * 10)


def test_cutmix_mixes_labels_by_area() -> None:
    n = 200
    x = np.broadcast_to(np.arange(n, dtype="f4").reshape(n, 1, 1, 1), (n, 2, 8, 10)).copy()
    out, y = (t.numpy() for t in augment.CutMix(1.0, n)(tensor(x), slalom.arange(n)))
    before = np.roll(np.arange(n), 1).reshape(n, 1, 1)
    taken = out[:, 0] == before
    assert np.array_equal(out[:, 0], out[:, 1]) and np.array_equal(out[:, 0][~taken], x[:, 0][~taken])
    assert (taken.sum((1, 2)) == taken.any(1).sum(1) * taken.any(2).sum(1)).all(), "rectangles"
    np.testing.assert_allclose(y[np.arange(n), np.arange(n) - 1], taken.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
    assert taken.mean((1, 2)).max() > 0.5 and taken.mean((1, 2)).min() < 0.02


def test_a_class_that_does_not_exist_is_an_error_staged_too() -> None:
    step = slalom.compile(lambda x, y: augment.MixUp(1.0, 3)(x, y)[1])
    assert step(slalom.zeros(2, 1), tensor([0, 2])).shape == (2, 3)
    with pytest.raises(IndexRangeError):
        step(slalom.zeros(2, 1), tensor([0, 3]))


# --- geometry -----------------------------------------------------------------------------------------------------
def translation(x: Any, right: float, down: float, **options: Any) -> Any:
    matrix = np.tile(np.array([[1, 0, -right], [0, 1, -down]]), (len(x), 1, 1))
    return augment.affine(tensor(x), tensor(matrix), **options).numpy()


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (-1, 3), (0, -4), (5, 6), (-5, -6), (100, 0), (1e6, -1e6)])
def test_whole_translations_are_shifts(right: float, down: float, interpolation: str) -> None:
    x = np.random.default_rng(1).random((3, 2, 6, 5), np.float32)
    found = translation(x, right, down, interpolation=interpolation, fill=7.0)
    expected = np.full_like(x, 7)
    for i in range(6):
        for j in range(5):
            if 0 <= i - down < 6 and 0 <= j - right < 5:
                expected[:, :, i, j] = x[:, :, int(i - down), int(j - right)]
    np.testing.assert_array_equal(found, expected)


def test_between_pixels_neighbours_are_weighted() -> None:
    x = np.array([[[[0.0, 4.0], [8.0, 16.0]]]], np.float32)
    np.testing.assert_array_equal(translation(x, -0.25, 0)[0, 0], [[1, 3], [10, 12]])
    np.testing.assert_array_equal(translation(x, -0.5, -0.5)[0, 0], [[7, 5], [6, 4]])
    np.testing.assert_array_equal(translation(x, -0.25, 0, interpolation="nearest")[0, 0], x[0, 0])


def test_translations_are_whole_and_bounded() -> None:
    x = np.zeros((N, 1, 11, 21), "f4")
    x[:, 0, 5, 10] = 1
    out = augment.RandomAffine(0, translate=(0.2, 0.1))(tensor(x)).numpy()[:, 0]
    assert (out.sum((1, 2)) == 1).all() and set(np.unique(out)) == {0, 1}
    down, right = (np.unique(out.reshape(N, -1).argmax(1) // 21) - 5, np.unique(out.reshape(N, -1).argmax(1) % 21) - 10)
    assert down.tolist() == [-1, 0, 1] and right.tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4]


def test_angles_are_spread_evenly() -> None:
    x = np.zeros((500, 1, 41, 41), "f4")
    x[:, 0, 20, 36] = 1000  # to the right of the middle
    out = augment.RandomRotation((-30, 60))(tensor(x)).numpy()[:, 0]
    rows, columns = np.mgrid[-20:21, -20:21]
    total = out.sum((1, 2))
    angles = np.degrees(np.arctan2(-(out * rows).sum((1, 2)) / total, (out * columns).sum((1, 2)) / total))
    assert -32 < angles.min() < -27 and 57 < angles.max() < 62
    assert abs(angles.mean() - 15) < 5 * 90 / math.sqrt(12 * 500)
    assert abs(angles.std() - 90 / math.sqrt(12)) < 2


def test_like_torchs_grid_sample() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x = rng.random((5, 3, 9, 12))
    theta = np.eye(2, 3) + rng.normal(size=(5, 2, 3)) * 0.3  # in torch's coordinates, −1 to 1
    grid = torch.nn.functional.affine_grid(torch.tensor(theta), x.shape, align_corners=True)
    expected = torch.nn.functional.grid_sample(torch.tensor(x), grid, align_corners=True).numpy()
    half = np.diag([11 / 2, 8 / 2, 1.0])
    half[:2, 2] = 11 / 2, 8 / 2  # from −1 … 1 to pixels
    square = np.concatenate([theta, np.tile([[0.0, 0.0, 1.0]], (5, 1, 1))], 1)
    matrix = (half @ square @ np.linalg.inv(half))[:, :2]
    found = augment.affine(tensor(x), tensor(matrix)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_affine_refuses_other_matrices() -> None:
    with pytest.raises(ShapeError, match=r"affine: matrix: got \(2, 3\); needed \(4, 2, 3\), one for each image"):
        augment.affine(slalom.zeros(4, 1, 2, 2), slalom.zeros(2, 3))


def test_a_shear_along_both_axes_is_the_product_of_its_parts() -> None:
    """RandomAffine against its formula, computed by NumPy in homogeneous coordinates."""
    x = np.random.default_rng(4).random((1, 1, 12, 15))
    a, phi, psi, s = np.radians(25), np.radians(12), np.radians(-7), 1.3
    rotate = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    along_x = np.array([[1, -np.tan(phi), 0], [0, 1, 0], [0, 0, 1]])
    along_y = np.array([[1, 0, 0], [-np.tan(psi), 1, 0], [0, 0, 1]])
    middle = np.array([[1, 0, 7], [0, 1, 5.5], [0, 0, 1]])
    forward = middle @ rotate @ along_y @ along_x @ np.diag([s, s, 1]) @ np.linalg.inv(middle)
    expected = augment.affine(tensor(x), tensor(np.linalg.inv(forward)[None, :2])).numpy()
    found = augment.RandomAffine((25, 25), scale=(s, s), shear=(12, 12, -7, -7))(tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)

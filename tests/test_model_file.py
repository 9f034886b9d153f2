"""Model files: what is rebuilt, what is refused, and that nothing in a file can ask for more than its own size."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from layer_cases import sample_input, state_values
from layer_rows import bare
from table_layers import TABLE, Row
from table_losses import LOSSES

import slalom
from slalom import nn
from slalom.errors import ConfigError, ModelFileError
from slalom.train.architecture import LAYERS, architecture, build
from slalom.train.files import load_file, save_file
from slalom.train.model_file import load_weights, save, weights_sha256


def described(row: Row) -> bool:
    """Whether a row's layer is one that a file rebuilds: public, and no function, container or subclass of its own."""
    layer = row.build(nn)
    return isinstance(layer, nn.Module) and type(layer).__name__ in LAYERS


ROWS = [row for row in TABLE if described(row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_layer_comes_back(tmp_path: Path, row: Row) -> None:
    layer = row.build(nn)
    called = type(layer)  # how the row calls it
    model = nn.Sequential({"first": bare(layer)}).double()
    model[0].load_state_dict(state_values(row))
    save(model, tmp_path / "m.safetensors")
    again = slalom.load(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    assert weights_sha256(again) == weights_sha256(model)
    assert not any(module.training for module in again.modules())
    assert json.loads(json.dumps(architecture(again))) == architecture(model)
    again[0].__class__ = model[0].__class__ = called
    for sample in row.samples:
        if "train" in sample.modes and sample.how == "plain":
            x = slalom.from_numpy(sample_input(row.id, sample))
            np.testing.assert_array_equal(again(x).detach().numpy(), model.eval()(x).detach().numpy())


def test_every_layer_has_a_row() -> None:
    public = {n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Module)}
    assert public - {"Module", "Sequential"} == set(LAYERS)
    losses = {row.name for row in LOSSES}
    assert {type(row.build(nn)).__name__ for row in ROWS} >= set(LAYERS) - losses


def test_nested_named_and_double(tmp_path):
    inner = nn.Sequential({"dense": nn.Linear(3, 3), "act": nn.SiLU()})
    model = nn.Sequential(nn.Linear(4, 3), inner, nn.Linear(3, 2)).double()
    slalom.save(model, tmp_path / "m.safetensors")
    again = slalom.load(tmp_path / "m.safetensors")
    assert list(again.state_dict()) == list(model.state_dict())
    assert {t.dtype.name for t in again.state_dict().values()} == {"float64"}
    x = slalom.rand(5, 4, dtype="float64")
    np.testing.assert_array_equal(again(x).detach().numpy(), model(x).detach().numpy())


def test_loading_draws_nothing(tmp_path):
    save(nn.Linear(3, 3), tmp_path / "m.safetensors")
    slalom.manual_seed(5)
    before = slalom.get_rng_state().tolist()
    slalom.load(tmp_path / "m.safetensors")
    assert slalom.get_rng_state().tolist() == before


def test_extra_stays_in_the_document(tmp_path):
    save(nn.Linear(1, 1), tmp_path / "m.safetensors", {"rows": [1, 2]})
    assert load_file(tmp_path / "m.safetensors", "model")[1]["extra"] == {"rows": [1, 2]}


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


def test_a_module_of_ones_own_is_filled_not_rebuilt(tmp_path):
    path = tmp_path / "own.safetensors"
    model = Own()
    save(model, path)
    with pytest.raises(ModelFileError, match=r"got a model of your own \(Own\). Hint: .*trainer.load"):
        slalom.load(path)
    other = Own()
    assert weights_sha256(other) != weights_sha256(model)
    load_weights(other, path)
    assert weights_sha256(other) == weights_sha256(model)


def test_a_subclass_of_a_layer_is_ones_own():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(ConfigError, match=r"architecture of 1 \(Doubled\): got a Module of your own"):
        architecture(nn.Sequential(nn.ReLU(), Doubled(2, 2)))


def test_a_layer_that_occurs_twice_has_no_description():
    layer = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"architecture of 1 \(Linear\): got a layer that occurs twice"):
        architecture(nn.Sequential(layer, layer))


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "m.safetensors"
    save(nn.Linear(3, 2), path)
    for other, text in (
        (nn.Linear(2, 2), r"weight has shape \(2, 3\), needs \(2, 2\)"),
        (nn.Sequential(nn.Linear(3, 2)), "missing 0.weight, 0.bias; unexpected weight, bias"),
        (nn.Linear(3, 2).double(), "weight: got float32; needed float64"),
    ):
        before = weights_sha256(other)
        with pytest.raises(ModelFileError, match=text):
            load_weights(other, path)
        assert weights_sha256(other) == before


def test_weights_sha256_sees_names_values_shapes_and_dtypes():
    model = nn.Sequential(nn.Linear(2, 3))
    own = weights_sha256(model)
    assert weights_sha256(copy.deepcopy(model)) == own
    changed = copy.deepcopy(model)
    changed[0].bias.detach().numpy()[1] += 1
    others = [changed, copy.deepcopy(model[0]), copy.deepcopy(model).double()]
    assert len({own, *map(weights_sha256, others)}) == 4


LINEAR = ["Linear", {"in_features": 2, "out_features": 2, "bias": True}]
NORM = {"normalized_shape": [2], "eps": 1e-5, "elementwise_affine": True, "bias": True}
HUGE = 2**31 - 1
BAD = [
    (None, "got None"),
    ({"Linear": {}}, "needed .name of a layer"),
    (["Linear"], "needed .name of a layer"),
    (["Linear", []], "needed .name of a layer"),
    (["os.system", {"command": "x"}], "layer os.system; needed Sequential, "),
    (["Module", {}], "layer Module"),
    (["Linear", {"in_features": 2}], "options"),
    (["Linear", LINEAR[1] | {"device": "cpu"}], "options"),
    (["Linear", LINEAR[1] | {"bias": 1}], "bias: got 1; needed bool"),
    (["Linear", LINEAR[1] | {"in_features": -1}], "sizes of at least 0"),
    (["Linear", LINEAR[1] | {"in_features": True}], "in_features: got True; needed int"),
    (["Linear", LINEAR[1] | {"in_features": 2**40}], "in_features: got 1099511627776"),
    (["Linear", {"in_features": HUGE, "out_features": HUGE, "bias": False}], "more than there are"),
    (["Embedding", {"num_embeddings": HUGE, "embedding_dim": 9, "padding_idx": None}], "more than there are"),
    (["LayerNorm", NORM | {"normalized_shape": [HUGE] * 9}], "more than there are"),
    (["LayerNorm", NORM | {"normalized_shape": [2.5]}], "normalized_shape: got .2.5.; needed int or"),
    (["PReLU", {"num_parameters": HUGE}], "more than there are"),
    (["Sequential", {str(i): LINEAR for i in range(9)}], "more than there are"),
    (["Sequential", {"a.b": ["ReLU", {"inplace": False}]}], "a name without dots"),
    (["Sequential", {"forward": ["ReLU", {"inplace": False}]}], "a name that no method or attribute has"),
    (["Dropout", {"p": 7, "inplace": False}], "a probability"),
    (["GELU", {"approximate": 7}], "approximate: got 7; needed str"),
]  # fmt: skip


@pytest.mark.parametrize(("description", "text"), BAD, ids=range(len(BAD)))
def test_descriptions_that_are_refused(tmp_path, description, text):
    weights = {name: t.numpy() for name, t in nn.Linear(2, 2).state_dict().items()}
    save_file(tmp_path / "m", weights, {"class": "Linear", "architecture": description, "extra": {}}, "model")
    pattern = "a model of your own" if description is None else text
    with pytest.raises(ModelFileError, match=pattern):
        slalom.load(tmp_path / "m")
    with pytest.raises(ModelFileError, match=text):
        build(description, 6)


def test_too_many_layers():
    relu = ["ReLU", {"inplace": False}]
    with pytest.raises(ModelFileError, match="more than 100000 layers"):
        build(["Sequential", {str(i): relu for i in range(100_001)}])


def test_files_of_other_kinds(tmp_path):
    save_file(tmp_path / "c", {}, {}, "checkpoint")
    with pytest.raises(ModelFileError, match="got a checkpoint; needed a model"):
        slalom.load(tmp_path / "c")
    weights = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float64)}
    save_file(tmp_path / "m", weights, {"class": "Linear", "architecture": LINEAR, "extra": {}}, "model")
    with pytest.raises(ModelFileError, match="weights of 2 dtypes"):
        slalom.load(tmp_path / "m")


def test_only_modules_are_saved(tmp_path):
    with pytest.raises(ConfigError, match="save: model: got dict"):
        save({}, tmp_path / "m")

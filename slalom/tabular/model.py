"""A trained model of a table: the preparation, the network and the scores, in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom import nn
from slalom.core.random import default_generator
from slalom.errors import DataError, ModelFileError
from slalom.tabular.closed import read_record, write_record
from slalom.tabular.network import NetworkSizes, TabularNetwork
from slalom.tabular.preparation import Preparation
from slalom.tabular.reading import from_dataframe
from slalom.tabular.scores import score
from slalom.tabular.table import Table, quantity
from slalom.tabular.target import ClassTarget, Target, read_target, write_target
from slalom.train import Trainer, weights_sha256
from slalom.train.files import load_file, save_file

__all__ = ["Model"]

_PREFIX = "network."
_PARTS = {"model", "sizes", "preparation", "target", "result"}


class Model:
    """Predicts one column of a table from the others.

    Takes any dataframe (pandas, polars, pyarrow, …), a dict of columns, or a Table. ``result``: what training found,
    scores among it. ``test_rows``, ``test_predictions``: the rows that were kept for testing, and what ``predict_raw``
    gives for them.
    """

    def __init__(self, preparation: Preparation, target: Target, network: TabularNetwork) -> None:
        self.preparation, self.target, self.network = preparation, target, network.eval()
        self.result: dict[str, Any] = {}
        self.test_rows: NDArray[np.int64] = np.empty(0, np.int64)
        self.test_predictions: NDArray[np.float64] = np.empty(0)
        self._trainer = Trainer(network, loss=loss_of(target))

    # --- predicting -------------------------------------------------------------------------------------------
    def predict(self, table: Any) -> NDArray[Any]:
        """The most probable class of each row, or its number. Shapes: (n,).

        Raises: DataError if a column that the model needs is missing, or a cell is not of its column's kind.
        """
        return self.restore(self.predict_raw(table))

    def predict_proba(self, table: Any) -> NDArray[np.float64]:
        """The probability of each class, in the order of ``classes``. Shapes: (n, C)."""
        if not isinstance(self.target, ClassTarget):
            raise DataError("predict_proba", got="a regression model", needed="a classification model", hint="predict")
        return self.predict_raw(table)

    def predict_raw(self, table: Any, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Probabilities of the classes (n, C), or numbers in the target's unit (n,); of all rows or of those given."""
        prepared = self.preparation.transform(as_table(table), rows)
        out = np.asarray(self._trainer.predict(tuple(prepared)), dtype=np.float64)
        if isinstance(self.target, ClassTarget):
            exponentials = np.exp(out - out.max(1, keepdims=True))
            return exponentials / exponentials.sum(1, keepdims=True)  # type: ignore[no-any-return]
        return self.target.restore(out[:, 0])

    def restore(self, raw: NDArray[np.float64]) -> NDArray[Any]:
        """Labels from probabilities; numbers stay as they are."""
        return self.target.restore(raw.argmax(1)) if isinstance(self.target, ClassTarget) else raw

    def evaluate(self, table: Any, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Scores by name on a table that has the target column."""
        table = as_table(table)
        chosen = np.arange(table.rows) if rows is None else rows
        return score(self.target.task, self.target.encode(table, chosen), self.predict_raw(table, chosen))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of ``predict_proba``'s columns; empty for regression."""
        return self.target.classes if isinstance(self.target, ClassTarget) else ()

    # --- looking ----------------------------------------------------------------------------------------------
    def __repr__(self) -> str:
        scores = [f", test {name} {value:.4g}" for name, value in self.result.get("test", {}).items()][:1]
        columns = quantity(len(self.preparation.features), "column")
        return f"Model({self.target.task} of {self.target.name!r} from {columns}{''.join(scores)})"

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return self.network.sizes.parameters

    @property
    def weights_sha256(self) -> str:
        """The digest of all weights: names sorted; name, dtype, shape, little-endian bytes."""
        return weights_sha256(self.network)

    def facts(self) -> dict[str, Any]:
        """All that is known of the model, as plain data."""
        return {
            "task": self.target.task,
            "target": self.target.name,
            "classes": list(self.classes),
            "preparation": self.preparation.describe(),
            "network": write_record(self.network.sizes),
            "parameters": self.parameters,
            "weights_sha256": self.weights_sha256,
            "result": self.result,
        }

    # --- keeping ----------------------------------------------------------------------------------------------
    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one safetensors file, atomically.

        Raises: ModelFileError when it cannot be written; the file that was there is intact.
        """
        tensors = {f"{_PREFIX}{name}": t.numpy() for name, t in self.network.state_dict().items()}
        tensors |= {"test.rows": self.test_rows, "test.predictions": self.test_predictions}
        document = {
            "model": "tabular",
            "sizes": write_record(self.network.sizes),
            "preparation": self.preparation.to_json(),
            "target": write_target(self.target),
            "result": self.result,
        }
        save_file(path, tensors, document, kind="model")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Model:
        """Read what ``save`` wrote.

        Raises: ModelFileError for a file that is damaged, changed, or no model of a table.
        """
        tensors, document = load_file(path, kind="model")
        if document.get("model") != "tabular":
            needed = "a model of a table"
            raise ModelFileError(f"{path}", got="another kind of model", needed=needed, hint="slalom.load reads it")
        try:
            return cls._rebuilt(tensors, document)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error.what}", got=error.got, needed=error.needed) from error

    @classmethod
    def _rebuilt(cls, tensors: dict[str, NDArray[Any]], document: Mapping[str, Any]) -> Model:
        """The model of a file's parts, none of which is trusted: sizes are compared before memory is taken."""
        if set(document) != _PARTS:
            raise ModelFileError("its parts", got=sorted(map(str, document)), needed=sorted(_PARTS))
        sizes = read_record(NetworkSizes, document["sizes"], "sizes").check()
        preparation, target = Preparation.from_json(document["preparation"]), read_target(document["target"])
        _check_fit(sizes, preparation, target)
        rows, predictions = tensors.pop("test.rows", None), tensors.pop("test.predictions", None)
        wrong = sorted(name for name, array in tensors.items() if not _is_weight(name, array))
        if wrong:
            raise ModelFileError("its tensors", got=", ".join(wrong[:6]), needed=f"float32 under {_PREFIX!r}")
        held = sum(array.size for array in tensors.values())
        if held != sizes.parameters:
            raise ModelFileError("its weights", got=f"{held:,} numbers", needed=f"{sizes.parameters:,}")
        state = default_generator.get_state()
        try:
            network = TabularNetwork(sizes)
        finally:
            default_generator.set_state(state)
        network.load_state_dict({name.removeprefix(_PREFIX): array for name, array in tensors.items()})
        model = cls(preparation, target, network)
        _check_test(target, rows, predictions)
        _check_result(target, document["result"])
        model.test_rows, model.test_predictions, model.result = rows, predictions, document["result"]  # type: ignore[assignment]
        return model


def _check_fit(sizes: NetworkSizes, preparation: Preparation, target: Target) -> None:
    """Refuse a file whose parts do not belong together."""
    continuous = int(preparation.is_continuous.sum())
    outputs = len(target.classes) if isinstance(target, ClassTarget) else 1
    found = (sizes.continuous, sizes.other, sizes.cardinalities, sizes.outputs)
    needed = (continuous, len(preparation.labels) - continuous, preparation.cardinalities, outputs)
    if found != needed:
        raise ModelFileError("network and preparation", got=found, needed=needed)


def _is_weight(name: str, array: NDArray[Any]) -> bool:
    return name.startswith(_PREFIX) and array.dtype == np.float32


def _check_test(target: Target, rows: NDArray[Any] | None, predictions: NDArray[Any] | None) -> None:
    if rows is None or predictions is None:
        raise ModelFileError("its test predictions", got="none", needed="test.rows and test.predictions")
    shape = (len(rows), len(target.classes)) if isinstance(target, ClassTarget) else (len(rows),)
    found = (rows.dtype.name, rows.ndim, predictions.dtype.name, predictions.shape)
    if found != ("int64", 1, "float64", shape):
        raise ModelFileError("its test predictions", got=found, needed=("int64", 1, "float64", shape))


def _check_result(target: Target, result: Any) -> None:
    """A result is empty, or has what a score table is made of."""
    if result == {}:
        return
    if not isinstance(result, dict) or result.get("task") != target.task:
        raise ModelFileError("its result", got=type(result).__name__, needed=f"scores of a {target.task}")
    groups = [result.get("test"), result.get("rows")]
    for name in ("baselines", "leads"):
        members = result.get(name)
        groups += members.values() if isinstance(members, dict) else [None]
    if not all(isinstance(group, dict) and all(map(_is_number, group.values())) for group in groups):
        raise ModelFileError("its result", got="something else", needed="numbers by name for test, rows, each baseline")
    main = "accuracy" if target.task == "classification" else "rmse"
    if main not in result["test"] or "test" not in result["rows"] or set(result["leads"]) != set(result["baselines"]):
        raise ModelFileError("its result", got="a part of it", needed=f"{main}, the number of test rows, leads")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def as_table(table: Any) -> Table:
    """A Table of any dataframe."""
    return table if isinstance(table, Table) else from_dataframe(table)


def loss_of(target: Target) -> nn.Module:
    """What the network minimises: cross-entropy of classes, squared error of the standardised number."""
    return nn.CrossEntropyLoss() if isinstance(target, ClassTarget) else nn.MSELoss()

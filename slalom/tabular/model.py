"""A trained model of a table: the preparation, the network and the scores, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom import nn
from slalom.errors import DataError, ModelFileError
from slalom.tabular.closed import read_record
from slalom.tabular.network import NetworkSizes, TabularNetwork
from slalom.tabular.preparation import Preparation
from slalom.tabular.reading import from_dataframe
from slalom.tabular.scores import score
from slalom.tabular.table import Table
from slalom.tabular.target import ClassTarget, Target, read_target, write_target
from slalom.train import Trainer, weights_sha256
from slalom.train.files import load_file, save_file

__all__ = ["Model"]


class Model:
    """Predicts one column of a table from the others.

    Takes any dataframe (pandas, polars, pyarrow, …), a dict of columns, or a Table. ``result``: what ``slalom train``
    found, scores and baselines among it; empty if it was not asked for.
    """

    def __init__(
        self,
        preparation: Preparation,
        target: Target,
        network: TabularNetwork,
        result: Mapping[str, Any],
        test: tuple[NDArray[np.int64], NDArray[np.float64]],
    ) -> None:
        self.preparation, self.target, self.network = preparation, target, network.eval()
        self.result = dict(result)
        self.test_rows, self.test_predictions = test
        self._trainer = Trainer(network, loss=loss_of(target))

    # --- predicting -------------------------------------------------------------------------------------------
    def predict(self, table: Any) -> NDArray[Any]:
        """The most probable class of each row, or its number. Shapes: (n,).

        Raises: DataError if a column that the model needs is missing.
        """
        return self.restore(self.predict_raw(table))

    def predict_proba(self, table: Any) -> NDArray[np.float64]:
        """The probability of each class, in the order of ``classes``. Shapes: (n, C)."""
        if not isinstance(self.target, ClassTarget):
            raise DataError("predict_proba", got="a regression model", needed="a classification model", hint="predict")
        return self.predict_raw(table)

    def predict_raw(self, table: Any, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Probabilities of the classes (n, C), or numbers in the target's unit (n,)."""
        inputs = self.preparation.transform(as_table(table), rows)
        return raw_predictions(self._trainer, self.target, inputs)

    def restore(self, raw: NDArray[np.float64]) -> NDArray[Any]:
        """Labels from probabilities; numbers stay as they are."""
        if isinstance(self.target, ClassTarget):
            return self.target.restore(raw.argmax(1))
        return raw

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
    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def weights_sha256(self) -> str:
        """The digest of all weights."""
        return weights_sha256(self.network)

    def facts(self) -> dict[str, Any]:
        """All that is known of the model, as plain data."""
        return {
            "task": self.target.task,
            "target": self.target.name,
            "classes": list(self.classes),
            "preparation": self.preparation.describe(),
            "network": asdict(self.network.sizes),
            "parameters": self.parameters,
            "weights_sha256": self.weights_sha256,
            "result": self.result,
        }

    # --- keeping ----------------------------------------------------------------------------------------------
    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one safetensors file, atomically."""
        tensors = {f"network.{name}": t.numpy() for name, t in self.network.state_dict().items()}
        tensors |= {"test.rows": self.test_rows, "test.predictions": self.test_predictions}
        sizes = {**asdict(self.network.sizes)}
        sizes["cardinalities"], sizes["hidden"] = list(sizes["cardinalities"]), list(sizes["hidden"])
        document = {
            "model": "tabular",
            "sizes": sizes,
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
        if set(document) != {"model", "sizes", "preparation", "target", "result"} or document["model"] != "tabular":
            raise ModelFileError(
                f"{path}", got="another kind of model", needed="a model of a table", hint="slalom.load"
            )
        sizes = read_record(NetworkSizes, document["sizes"], "sizes").check()
        preparation, target = Preparation.from_json(document["preparation"]), read_target(document["target"])
        _check_fit(sizes, preparation, target)
        if not isinstance(document["result"], dict):
            raise ModelFileError(f"{path}: result", got=type(document["result"]).__name__, needed="an object")
        test = tensors.pop("test.rows", None), tensors.pop("test.predictions", None)
        if test[0] is None or test[1] is None:
            raise ModelFileError(f"{path}", got="no test predictions", needed="a complete model")
        network = TabularNetwork(sizes)
        network.load_state_dict({name.removeprefix("network."): array for name, array in tensors.items()})
        return cls(preparation, target, network, document["result"], test)  # type: ignore[arg-type]


def _check_fit(sizes: NetworkSizes, preparation: Preparation, target: Target) -> None:
    """Refuse a file whose parts do not belong together."""
    continuous = int(preparation.is_continuous.sum())
    outputs = len(target.classes) if isinstance(target, ClassTarget) else 1
    found = (sizes.continuous, sizes.other, sizes.cardinalities, sizes.outputs)
    needed = (continuous, len(preparation.labels) - continuous, preparation.cardinalities, outputs)
    if found != needed:
        raise ModelFileError("model file: network and preparation", got=found, needed=needed)


def as_table(table: Any) -> Table:
    """A Table of any dataframe."""
    return table if isinstance(table, Table) else from_dataframe(table)


def loss_of(target: Target) -> nn.Module:
    """What the network minimises: cross-entropy of classes, squared error of the standardised number."""
    return nn.CrossEntropyLoss() if isinstance(target, ClassTarget) else nn.MSELoss()


def raw_predictions(trainer: Trainer, target: Target, inputs: tuple[Any, Any]) -> NDArray[np.float64]:
    """The network's outputs as probabilities or numbers in the target's unit."""
    out = np.asarray(trainer.predict(inputs), dtype=np.float64)
    if isinstance(target, ClassTarget):
        exponentials = np.exp(out - out.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)  # type: ignore[no-any-return]
    return target.restore(out[:, 0])

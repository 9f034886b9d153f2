"""``fit``: from a table to a trained Model, with the settings that need no tuning."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom import nn, optim
from slalom.core import random
from slalom.core.tensor import Tensor
from slalom.optim.schedules import cosine
from slalom.tabular.baselines import run_baselines
from slalom.tabular.leaks import find_leaks
from slalom.tabular.model import Model, as_table, loss_of, raw_predictions
from slalom.tabular.network import NetworkSizes, TabularNetwork
from slalom.tabular.preparation import Preparation
from slalom.tabular.schema import Schema, Task, infer_schema
from slalom.tabular.scores import score
from slalom.tabular.split import Split, split_rows
from slalom.tabular.table import Table
from slalom.tabular.target import ClassTarget, Target, fit_target
from slalom.train import EarlyStopping, Trainer

__all__ = ["Recipe", "fit"]


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; the defaults follow the number of training rows."""

    epochs: int
    batch_size: int
    patience: int
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05

    @classmethod
    def for_rows(cls, rows: int, epochs: int | None) -> Recipe:
        """Small tables get small batches and many epochs, large ones the reverse."""
        limits = ((1_000, 32, 150), (8_000, 128, 100), (30_000, 256, 60), (100_000, 512, 40))
        batch, usual = next(((b, e) for limit, b, e in limits if rows <= limit), (1024, 30))
        chosen = usual if epochs is None else epochs
        return cls(epochs=chosen, batch_size=batch, patience=max(8, chosen // 4))


def fit(
    table: Any,
    target: str,
    *,
    task: Task | None = None,
    seed: int = 0,
    epochs: int | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.2,
    numeric: Collection[str] = (),
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
    groups: str | None = None,
    baselines: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    history: str | PathLike[str] | None = None,
    resume: bool = False,
) -> Model:
    """Train a network that predicts the column ``target`` from the others.

    ``table``: any dataframe, or a dict of columns. ``numeric``, ``categorical``, ``drop``: columns whose kind is given
    instead of inferred. ``groups``: a column whose rows are kept together when splitting (and left out as an input).
    ``baselines``: compare with a constant, a linear model and boosted trees (needs scikit-learn). ``tell``: gets each
    line meant for the user. ``checkpoint``, ``resume``: go on where a stopped run was, with the same bits.

    Everything is fitted on the training rows; validation rows choose the epoch; test rows give ``model.result``.
    The result is a pure function of the table and the arguments.

    Raises: DataError for a table that cannot be learned from; ConfigError for contradicting arguments.
    """
    started = time.perf_counter()
    say = tell or _silent
    table = as_table(table)
    left_out = [*drop, groups] if groups is not None and groups not in drop else drop
    schema = infer_schema(table, target, task=task, numeric=numeric, categorical=categorical, drop=left_out)
    for line in schema.describe():
        say(line)
    split = _split(table, schema, seed, test_fraction, validation_fraction, groups)
    goal = fit_target(table, schema, split.train)
    leaks = find_leaks(table, schema, goal, split.train)
    for line in leaks:
        say(f"{'warning':<12} {line}")
    preparation = Preparation.fit(table, schema, split.train)
    recipe = Recipe.for_rows(len(split.train), epochs)
    random.manual_seed(seed)
    network = _network(preparation, goal, table, split)
    say(
        f"{'network':<12} {len(preparation.features)} columns as {network.sizes.inputs} inputs, "
        f"{sum(p.numel() for p in network.parameters()):,} parameters; {len(split.train):,} training, "
        f"{len(split.validation):,} validation and {len(split.test):,} test rows"
    )
    trainer, interrupted = _train(
        network, preparation, goal, table, split, recipe, seed, progress, checkpoint, history, resume
    )
    inputs = preparation.transform(table, split.test)
    predicted = raw_predictions(trainer, goal, inputs)
    truth = goal.encode(table, split.test)
    result: dict[str, Any] = {
        "task": goal.task,
        "target": target,
        "test": score(goal.task, truth, predicted),
        "baselines": {},
        "rows": {name: len(getattr(split, name)) for name in ("train", "validation", "test")},
        "epochs": len(trainer.history),
        "interrupted": interrupted,
        "leaks": leaks,
    }
    model = Model(preparation, goal, network, result, (split.test, predicted))
    if baselines:
        learnable = np.sort(np.concatenate([split.train, split.validation]))
        for found in run_baselines(table, preparation, goal, learnable, split.test, seed=seed):
            model.result["baselines"][found.name.replace(" ", "_")] = score(goal.task, truth, found.prediction)
            for note in found.notes:
                say(f"{'note':<12} {found.name}: {note}")
    model.result |= {"seconds": round(time.perf_counter() - started, 3), "weights_sha256": model.weights_sha256}
    return model


def _silent(line: str) -> None:
    """Nobody is listening."""


def _split(
    table: Table, schema: Schema, seed: int, test_fraction: float, validation_fraction: float, groups: str | None
) -> Split:
    labels = table[schema.target].words.codes[schema.rows] if schema.task == "classification" else None
    return split_rows(
        schema.rows,
        seed=seed,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        labels=labels,
        groups=None if groups is None else table[groups].words.codes[schema.rows],
    )


def _network(preparation: Preparation, goal: Target, table: Table, split: Split) -> TabularNetwork:
    """A network of the right sizes, its output bias set so that the first predictions are the constant baseline."""
    continuous = int(preparation.is_continuous.sum())
    sizes = NetworkSizes(
        continuous=continuous,
        other=len(preparation.labels) - continuous,
        cardinalities=preparation.cardinalities,
        outputs=len(goal.classes) if isinstance(goal, ClassTarget) else 1,
    )
    network = TabularNetwork(sizes)
    if isinstance(goal, ClassTarget):
        nn.init.output_bias_(network.head, Tensor(goal.encode(table, split.train)), "multiclass")
    return network


def _encoded(goal: Target, table: Table, rows: NDArray[np.int64]) -> NDArray[Any]:
    y = goal.encode(table, rows)
    return y if isinstance(goal, ClassTarget) else goal.standardise(y).astype(np.float32)[:, None]


def _train(
    network: TabularNetwork,
    preparation: Preparation,
    goal: Target,
    table: Table,
    split: Split,
    recipe: Recipe,
    seed: int,
    progress: bool,
    checkpoint: str | PathLike[str] | None,
    history: str | PathLike[str] | None,
    resume: bool,
) -> tuple[Trainer, bool]:
    classify = isinstance(goal, ClassTarget)
    data, held_out = (
        (*preparation.transform(table, rows), _encoded(goal, table, rows)) for rows in (split.train, split.validation)
    )
    optimizer = optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(split.train) // recipe.batch_size)
    trainer = Trainer(
        network,
        loss=loss_of(goal),
        optimizer=optimizer,
        metrics=["accuracy"] if classify else ["rmse"],
        schedule=cosine(steps=steps, warmup=int(recipe.warmup * steps)),
    )
    found = trainer.fit(
        data,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation=held_out,
        callbacks=[EarlyStopping(patience=recipe.patience, min_delta=1e-5)],
        seed=seed,
        progress=progress,
        checkpoint=checkpoint,
        resume=resume,
    )
    if history is not None:
        found.to_jsonl(history)
    return trainer, bool(found.interrupted)

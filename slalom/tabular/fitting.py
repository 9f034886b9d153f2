"""From a table to a trained Model, with settings that need no tuning.

``make_plan`` understands a table and refuses what can't be learned from; its ``train`` learns, and ``compare`` measures
the result against baselines. ``fit`` is the three in one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, final, get_args

import numpy as np
from numpy.typing import NDArray

from slalom import nn, optim
from slalom.compiler.native import obstacle
from slalom.core import random
from slalom.core.extras import load_extra, one_thread
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.optim.schedules import cosine
from slalom.tabular.augmenting import Augment, augmentation_of
from slalom.tabular.baselines import run_baselines
from slalom.tabular.leaks import find_leaks
from slalom.tabular.model import Model, as_table, loss_of
from slalom.tabular.network import NetworkSizes, TabularNetwork
from slalom.tabular.preparation import Preparation
from slalom.tabular.schema import Schema, Task, infer_schema
from slalom.tabular.scores import lead, score
from slalom.tabular.split import Split, split_rows
from slalom.tabular.table import Table, quantity, shorten
from slalom.tabular.target import ClassTarget, NumberTarget, Target, fit_target
from slalom.train import EarlyStopping, Metric, Trainer
from slalom.train.feed import described

__all__ = ["Plan", "Recipe", "fit", "make_plan", "need_baselines"]


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; the defaults follow the number of training rows."""

    epochs: int
    batch_size: int
    patience: int
    lr: float = 2e-3
    weight_decay: float = 1e-2
    dropout: float = 0.1
    bend: float = 0.3
    """How sharply the network can bend in one number at first: the spread of the embeddings' frequencies."""
    warmup: float = 0.05

    @classmethod
    def for_rows(cls, rows: int, epochs: int | None) -> Recipe:
        """Small tables get small batches, many epochs and a smoother network, large ones the reverse."""
        limits = ((1_000, 32, 150), (8_000, 128, 100), (30_000, 256, 60), (100_000, 512, 40))
        batch, usual = next(((b, e) for limit, b, e in limits if rows <= limit), (1024, 30))
        chosen = usual if epochs is None else epochs
        recipe = cls(epochs=chosen, batch_size=batch, patience=max(8, chosen // 4))
        if rows > 1_000:
            return recipe
        return replace(recipe, lr=1e-3, weight_decay=0.1, dropout=0.2, bend=0.1)


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
    augment: Augment = None,
    baselines: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    history: str | PathLike[str] | None = None,
    resume: bool = False,
) -> Model:
    """Train a network that predicts the column ``target`` from the others.

    ``table``: any dataframe, or a dict of columns. ``task``: instead of what the target suggests. ``epochs``: at most
    so many. ``numeric``, ``categorical``, ``drop``: columns whose kind is given instead of inferred. ``groups``: a
    column whose rows are kept together when splitting (and left out as an input). ``augment``: changes of the training
    rows, drawn anew at each step: "noise" on the numbers, "mixup" of rows, one of ``data.augment`` (units are the
    prepared numbers', within ±3), or a function of (numbers, codes, target). ``baselines``: compare with a constant, a
    linear model and boosted trees (needs scikit-learn). ``tell``: gets each line meant for the user.
    ``checkpoint``, ``resume``: go on where a stopped run was, with the same bits. ``history``: a file for the numbers
    of each epoch.

    Everything is fitted on the training rows; validation rows choose the epoch; test rows give ``model.result``.
    The result is a pure function of the table and the arguments; the generator of random numbers is left as it was.

    Raises: DataError for a table that cannot be learned from; ConfigError for contradicting arguments.
    """
    if baselines:
        need_baselines()
    plan = make_plan(
        table,
        target,
        task=task,
        seed=seed,
        epochs=epochs,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        numeric=numeric,
        categorical=categorical,
        drop=drop,
        groups=groups,
        augment=augment,
    )
    say = tell or _silent
    for line in plan.describe():
        say(line)
    model = plan.train(progress=progress, checkpoint=checkpoint, history=history, resume=resume)
    if baselines and not model.result["interrupted"]:
        plan.compare(model, say)
    return model


def _silent(line: str) -> None:
    """Nobody is listening."""


def make_plan(
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
    augment: Augment = None,
) -> Plan:
    """Understand and cut a table, and fit its preparation; the arguments are those of ``fit``.

    Raises: DataError for a table that cannot be learned from; ConfigError for contradicting arguments.
    """
    _check_arguments(target, task, seed, epochs, groups)
    augmentation_of(augment, 0, None)  # raises for what is none
    table = as_table(table)
    left_out = [*drop, groups] if groups is not None and groups not in drop else drop
    schema = infer_schema(table, target, task=task, numeric=numeric, categorical=categorical, drop=left_out)
    split = split_rows(
        schema.rows,
        seed=seed,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        labels=table[target].words.codes[schema.rows] if schema.task == "classification" else None,
        groups=None if groups is None else table[groups].words.codes[schema.rows],
    )
    goal = fit_target(table, schema, split.train)
    leaks = tuple(find_leaks(table, schema, goal, split.train))
    preparation = Preparation.fit(table, schema, split.train)
    recipe = Recipe.for_rows(len(split.train), epochs)
    continuous = int(preparation.is_continuous.sum())
    sizes = NetworkSizes(
        continuous=continuous,
        other=len(preparation.labels) - continuous,
        cardinalities=preparation.cardinalities,
        outputs=len(goal.classes) if isinstance(goal, ClassTarget) else 1,
        dropout=recipe.dropout,
    )
    change = augmentation_of(augment, continuous, sizes.outputs if isinstance(goal, ClassTarget) else None)
    return Plan(table, schema, split, goal, preparation, sizes, recipe, seed, leaks, change)


def _check_arguments(target: str, task: Any, seed: Any, epochs: Any, groups: Any) -> None:
    if task not in (None, *get_args(Task)):
        raise ConfigError("task", got=repr(task), needed=f"one of {', '.join(get_args(Task))}")
    if not _is_whole(seed) or not 0 <= seed < 2**63:
        raise ConfigError("seed", got=repr(seed), needed="a whole number from 0 to 2^63 - 1")
    if epochs is not None and (not _is_whole(epochs) or epochs < 1):
        raise ConfigError("epochs", got=repr(epochs), needed="a whole number of at least 1")
    if groups is not None and groups == target:
        raise ConfigError(f"groups {groups!r}", got="the target", needed="the name of another column")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """A table that was understood, cut and prepared: what can be refused was refused before there is a Plan."""

    table: Table
    schema: Schema
    split: Split
    target: Target
    preparation: Preparation
    sizes: NetworkSizes
    recipe: Recipe
    seed: int
    leaks: tuple[str, ...]
    augment: Callable[..., Any] | None = None

    def describe(self) -> list[str]:
        """Lines that tell a user what was understood, what looks suspicious, and what will be trained."""
        sizes, split = self.sizes, self.split
        return [
            *self.schema.describe(),
            *(f"{'warning':<12} {leak}" for leak in self.leaks),
            f"{'rows':<12} {len(split.train):,} to train on, {len(split.validation):,} to choose the epoch by, "
            f"{len(split.test):,} to test",
            f"{'network':<12} {quantity(len(self.preparation.features), 'column')} as "
            f"{quantity(sizes.inputs, 'input')}, {quantity(sizes.parameters, 'parameter')}",
            *([] if self.augment is None else [f"{'augmentation':<12} {shorten(described(self.augment), 80)}"]),
            *([] if (why := obstacle()) is None else [f"{'note':<12} run by NumPy, not as machine code ({why})"]),
        ]

    def train(
        self,
        *,
        progress: bool = False,
        checkpoint: str | PathLike[str] | None = None,
        history: str | PathLike[str] | None = None,
        resume: bool = False,
    ) -> Model:
        """The trained model, with its test scores in ``result`` (see ``fit`` for the arguments)."""
        started = time.perf_counter()
        held = random.default_generator.get_state()
        try:
            random.manual_seed(self.seed)
            network = TabularNetwork(self.sizes, self.recipe.bend)
        finally:
            random.default_generator.set_state(held)
        recipe, rows = self.recipe, self.split.train
        if isinstance(self.target, ClassTarget):  # at first the network says what the constant baseline says
            nn.init.output_bias_(network.head, Tensor(self.target.encode(self.table, rows)), "multiclass")
        steps = recipe.epochs * -(-len(rows) // recipe.batch_size)
        trainer = Trainer(
            network,
            loss=loss_of(self.target),
            optimizer=optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay),
            metrics=["accuracy"] if isinstance(self.target, ClassTarget) else [_rmse(self.target)],
            schedule=cosine(steps=steps, warmup=int(recipe.warmup * steps)),
            augment=self.augment,
        )
        with one_thread():
            found = trainer.fit(
                self._data(rows),
                batch_size=recipe.batch_size,
                epochs=recipe.epochs,
                validation=self._data(self.split.validation),
                callbacks=[EarlyStopping(patience=recipe.patience)],
                seed=self.seed,
                progress=progress,
                checkpoint=checkpoint,
                resume=resume,
            )
        if history is not None:
            found.to_jsonl(history)
        model = Model(self.preparation, self.target, network)
        model.test_rows = self.split.test
        model.test_predictions = model.predict_raw(self.table, self.split.test)
        model.result = {
            "task": self.target.task,
            "target": self.target.name,
            "test": score(self.target.task, self._truth(), model.test_predictions),
            "baselines": {},
            "leads": {},
            "rows": {name: len(getattr(self.split, name)) for name in ("train", "validation", "test")},
            "epochs": len(found),
            "interrupted": bool(found.interrupted),
            "leaks": list(self.leaks),
            "seconds": round(time.perf_counter() - started, 3),
            "weights_sha256": model.weights_sha256,
        }
        return model

    def compare(self, model: Model, tell: Callable[[str], None] = _silent) -> None:
        """Add the baselines' scores on the same test rows to ``model.result``, and how sure the model's lead is.

        Raises: MissingExtraError if scikit-learn is not installed.
        """
        started = time.perf_counter()
        tell(f"{'baselines':<12} the same rows for a constant, a linear model and boosted trees")
        learnable = np.sort(np.concatenate([self.split.train, self.split.validation]))
        truth, task = self._truth(), self.target.task
        for found in run_baselines(
            self.table, self.preparation, self.target, learnable, self.split.test, seed=self.seed
        ):
            name = found.name.replace(" ", "_")
            model.result["baselines"][name] = score(task, truth, found.prediction)
            model.result["leads"][name] = lead(task, truth, model.test_predictions, found.prediction)
            for note in found.notes:
                tell(f"{'note':<12} {found.name}: {note}")
        model.result["seconds"] = round(model.result["seconds"] + time.perf_counter() - started, 3)

    def _truth(self) -> NDArray[Any]:
        return self.target.encode(self.table, self.split.test)

    def _data(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The network's inputs and what it has to say: class codes, or standardised numbers (n, 1)."""
        inputs = self.preparation.transform(self.table, rows)
        if isinstance(self.target, ClassTarget):
            return (*inputs, self.target.encode(self.table, rows))
        z = self.target.standardise(self.target.encode(self.table, rows))
        return (*inputs, z.astype(np.float32)[:, None])


def need_baselines() -> None:
    """Raises: MissingExtraError if scikit-learn is not installed: better before a training than after it."""
    load_extra("sklearn", "cli", "comparing with baselines")


def _rmse(target: NumberTarget) -> Metric:
    """The root of the mean squared error in the target's own unit."""
    return Metric(
        "rmse",
        lambda output, z: [((output - z) ** 2).squeeze(1)],
        lambda mean: target.scale * math.sqrt(mean),
    )

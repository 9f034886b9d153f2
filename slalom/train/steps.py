"""What runs for each batch: the gradients, the update, the measures. Each is recorded once and then replayed.

A training step is two graphs with one question between them. ``gradients`` computes loss, gradients, their clipping and
whether all of it is finite; only if it is, ``update`` moves the parameters. So a batch that diverges writes nothing:
no weight, no optimizer state, no buffer.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from slalom.compiler.compile import compile
from slalom.compiler.loop import Loop, Recording, Rows
from slalom.compiler.native import obstacle
from slalom.core import tree
from slalom.core.autodiff import no_grad
from slalom.core.dtype import float64
from slalom.core.functional.arithmetic import where
from slalom.core.functional.shaping import cat
from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.core.reads import guard_reads
from slalom.core.tensor import Tensor
from slalom.core.trace import current, no_compile, steering
from slalom.errors import ConfigError, ShapeError, StagingError
from slalom.nn import Module
from slalom.nn.utils import clip_grad_norm_, clip_grad_value_
from slalom.optim import Optimizer
from slalom.train.feed import described
from slalom.train.metrics import Columns, Metric, aligned
from slalom.train.penalties import Penalised

__all__ = ["Objective", "Program", "Recorded"]

Items = tuple[Any, ...]
"""The parts of a batch; the last is the target."""
Sums = tuple[Tensor | None, ...]
"""Of a batch, in float64: (loss, what it divides by, weight of the rows), then a vector for each metric, or None."""
Kept = tuple[tuple[Tensor, ...] | None, ...]
"""Of a batch, for each metric of whole columns: its columns, or None."""


class Objective:
    """What is minimised and what is measured, for one batch.

    The loss of several batches together is what the loss function gives on all their rows at once: batches are
    weighted by what it divides by ("mean": elements, or the class weights of the targets), or added up ("sum").

    With weights w the loss of a batch is Σᵢ wᵢ·lᵢ / Σᵢ wᵢ·dᵢ, where lᵢ is the loss of row i and dᵢ what the unweighted
    mean would have divided by for it (1, or the class weight of its target). A weight of 2 is the row given twice.
    """

    def __init__(self, model: Module, loss: Any, step: Callable[..., Any] | None, metrics: tuple[Metric, ...]) -> None:
        self.model, self.loss, self.step, self.metrics = model, loss, step, metrics
        self.summed = tuple(metric for metric in metrics if not metric.whole)
        self.whole = tuple(metric for metric in metrics if metric.whole)
        """The metrics that need all rows at once; they are measured in evaluation only."""
        self.reduction: str = getattr(loss, "reduction", "mean")
        self.sizes: dict[bool, dict[str, tuple[int, ...]]] = {False: {}, True: {}}
        """Of training and (True) of evaluation, whose targets may be of another kind: by metric, how long its sums are.

        Known after the first batch.
        """
        self.outside: dict[str, str] = {}
        """The metrics of a training step that cannot be recorded, and why; they are computed in Python."""
        self.outside_whole: dict[str, str] = {}
        """Of the metrics of whole columns, those that cannot be recorded; no training step waits for them."""

    def __call__(self, items: Items, weight: Tensor | None, evaluates: bool = False) -> tuple[Tensor, Sums, Any]:
        """The loss of a batch, its sums, and the output of the model."""
        if self.step is not None:
            return self._custom(self.step, items, weight)
        output = self.model(*items[:-1])
        target = items[-1]
        if isinstance(output, Tensor) and isinstance(target, Tensor) and _is_own(self.loss):
            target = aligned(output, target)
        loss, divisor = self._loss(output, target, weight)
        with no_grad():
            rows = _rows_of(target, items) if weight is None else weight.to(float64).sum()
            total = loss if self.reduction == "sum" else loss.detach().to(float64) * divisor
            output = tree.map(lambda t: t.detach(), output)
            metrics = tuple(self._inside(metric, output, items[-1], weight, evaluates) for metric in self.summed)
            return loss, (cat([_flat(total), _flat(divisor), _flat(rows)]), *metrics), output

    def _custom(self, step: Callable[..., Any], items: Items, weight: Tensor | None) -> tuple[Tensor, Sums, Any]:
        if weight is not None:
            needed = "none; let the step take them as an input"
            raise ConfigError("weights of rows", got="a step of your own", needed=needed)
        _followed(step)
        loss = step(*items)
        if not isinstance(loss, Tensor) or loss.shape != ():
            got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ShapeError("what the step returns", got=got, needed="a scalar tensor, the loss")
        rows = _flat(_rows_of(items[-1], items))
        return loss, (cat([_flat(loss) * rows, rows, rows]),), None

    def _inside(
        self, metric: Metric, output: Any, target: Any, weight: Tensor | None, evaluates: bool
    ) -> Tensor | None:
        """A metric's sums as part of the record; where that is not possible, None, and a note why."""
        if metric.name in self.outside:
            return None
        _followed(metric.rows)
        try:
            sums, self.sizes[evaluates][metric.name] = metric.sums(output, target, weight)
        except StagingError as error:
            self.outside[metric.name] = str(error)
            return None
        return sums

    def completed(self, sums: Sums, output: Any, items: Items, weight: Tensor | None, evaluates: bool = False) -> Array:
        """The sums in one vector, those of the metrics that cannot be recorded computed now."""
        parts = [sums[0].numpy()] if sums[0] is not None else []
        for metric, made in zip(self.summed, sums[1:], strict=False):
            if made is None:
                with no_grad():
                    made, self.sizes[evaluates][metric.name] = metric.sums(output, items[-1], weight)
            parts.append(made.numpy())
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def columns(self, output: Any, target: Any) -> Kept:
        """What the metrics of whole columns keep of a batch; None where that cannot be recorded, and a note why."""
        return tuple(self._column(metric, output, target) for metric in self.whole)

    def _column(self, metric: Metric, output: Any, target: Any) -> tuple[Tensor, ...] | None:
        if metric.name in self.outside_whole:
            return None
        _followed(metric.rows)
        try:
            return metric.columns(output, target)
        except StagingError as error:
            self.outside_whole[metric.name] = str(error)
            return None

    def kept(self, columns: Kept, output: Any, items: Items) -> list[tuple[Tensor, ...]]:
        """The columns of a batch, those that cannot be recorded computed now."""
        with no_grad():
            pairs = zip(self.whole, columns, strict=True)
            return [metric.columns(output, items[-1]) if made is None else made for metric, made in pairs]

    def finish(self, sums: Array, columns: Columns | None = None) -> dict[str, float]:
        """Loss and metrics of the sums over some batches, and of the columns, which evaluation keeps."""
        total, divisor, rows = (float(n) for n in sums[:3])
        mean = total / divisor if divisor else math.nan if total or not rows else 0.0
        found = {"loss": total if self.reduction == "sum" else mean}
        at, whole = 3, {} if columns is None else columns.values()
        for metric in self.metrics:
            if metric.whole:
                found |= {metric.name: whole[metric.name]} if metric.name in whole else {}
                continue
            sizes = self.sizes[columns is not None][metric.name]
            end = at + sum(map(abs, sizes))
            found[metric.name] = metric.value(sums[at:end], sizes, rows)
            at = end
        return found

    # --- the loss -------------------------------------------------------------------------------------------------
    def _loss(self, output: Any, target: Any, weight: Tensor | None) -> tuple[Tensor, Any]:
        """The scalar to minimise, and what it divides by.

        A batch in which all targets are ignored, or all rows without weight, has no say: its loss is 0/1, not 0/0.
        """
        _followed(self.loss)
        shares = self._shares(target, output)  # what each element adds to the divisor
        if weight is None and shares is not None and self.reduction == "mean" and _is_own(self.loss):
            divisor = shares.sum()
            return self._reduced_by("sum")(output, target) / where(divisor > 0, divisor, 1.0), divisor
        if weight is None:
            loss = self.loss(output, target)
            if not isinstance(loss, Tensor):
                raise ShapeError("what the loss returns", got=type(loss).__name__, needed="a tensor")
            rows_given = _rows_of(target, (target,)) if shares is None else shares.sum()
            return loss if loss.shape == () else loss.mean(), rows_given
        rows = self._reduced_by("none")(output, target)
        if rows.ndim == 0 or rows.shape[0] != weight.shape[0]:
            hint = "let the loss return one value a row, or take one of slalom.nn"
            needed = f"shape ({weight.shape[0]}, …)"
            raise ShapeError(
                "weights: what the loss returns for the rows", got=f"shape {rows.shape}", needed=needed, hint=hint
            )
        across = weight.to(rows.dtype).reshape(-1, *(1,) * (rows.ndim - 1))  # (B, 1, …)
        total = (rows * across).sum()
        divisor = (across.expand(rows.shape) if shares is None else across * shares).sum()
        if self.reduction == "sum":
            return total, divisor
        return total / where(divisor > 0, divisor, 1.0), divisor

    def _reduced_by(self, reduction: str) -> Callable[..., Tensor]:
        """The loss with another reduction, if it has one at all."""
        loss = self.loss
        if isinstance(loss, Module) and hasattr(loss, "reduction"):
            loss = copy.copy(loss)
            loss.reduction = reduction
        elif not isinstance(loss, Module) and "reduction" in inspect.signature(loss).parameters:
            loss = functools.partial(loss, reduction=reduction)
        return loss  # type: ignore[no-any-return]

    def _shares(self, target: Any, output: Any) -> Tensor | None:
        """What each target counts in the divisor of a loss over classes; None where each counts 1."""
        ignored = getattr(self.loss, "ignore_index", None)
        if ignored is None or not isinstance(target, Tensor) or target.dtype.kind == "f":
            return None
        kept = target != ignored
        classes = getattr(self.loss, "weight", None)
        dtype = output.dtype if classes is None else classes.dtype
        return where(kept, 1.0 if classes is None else classes[where(kept, target, 0)], 0.0).to(dtype)


def _followed(function: Any) -> None:
    """While staging, let the record depend on what a user's function reads by name."""
    trace = current()
    if trace is not None and not isinstance(function, Module):  # a Module sees to that itself
        guard_reads(trace, function)


def _is_own(loss: Any) -> bool:
    """Whether a loss is one of Slalom's, whose targets may be put into the shape of the output."""
    name: str = (type(loss) if isinstance(loss, Module) else loss).__module__
    return name.partition(".")[0] == __name__.partition(".")[0]


def _rows_of(target: Any, items: Items) -> float:
    leaves = tree.leaves(target) or tree.leaves(items)
    return float(leaves[0].shape[0]) if leaves and leaves[0].ndim else 1.0


def _flat(number: Any) -> Tensor:
    """A number or 0-d tensor as a float64 vector of one."""
    if isinstance(number, Tensor):
        return number.detach().to(float64).reshape(1)
    return Tensor([number], dtype=float64)


def _unowned(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does not keep alive whose it is. A program holds records of its own methods: in a circle, all that
    belongs to them, the memory of loops and states, would stay until Python looks for garbage."""
    if not isinstance(function, types.MethodType):
        return function
    return types.MethodType(function.__func__, weakref.proxy(function.__self__))


class Recorded:
    """A function that is compiled, or, where it cannot be recorded, runs eagerly and says so once."""

    def __init__(self, function: Callable[..., Any], what: str, eager: dict[str, str]) -> None:
        self.function, self.what, self.eager = function, what, eager
        self.compiled = compile(function)

    def __call__(self, *args: Any) -> Any:
        if self.what not in self.eager:
            try:
                return self.compiled(*args)
            except StagingError as error:
                self.eager[self.what] = str(error)
                warnings.warn(
                    f"{self.what} runs eagerly, operation by operation: {error}", RuntimeWarning, stacklevel=2
                )
        with no_compile():  # the bits of a run must not depend on how many calls came before
            return self.function(*args)


class Program:
    """The functions of one model, optimizer and objective, each recorded for each number of rows it meets.

    ``eager``: which of them run eagerly, and why.
    """

    KEPT = 64
    """How many records are kept; the one longest unused goes first."""

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        clip: dict[str, float | None],
        staged: bool,
        augment: Callable[..., Any] | None = None,
        penalties: tuple[Penalised, ...] = (),
    ) -> None:
        self.objective, self.optimizer, self.clip, self.augment = objective, optimizer, clip, augment
        self.penalties = penalties
        asked = "compile=False asks for it"
        self.eager: dict[str, str] = {} if staged else dict.fromkeys(("training", "evaluation", "prediction"), asked)
        self._records: OrderedDict[tuple[str, int | tuple[int, ...]], Recorded] = OrderedDict()
        self._loops: list[Loop] = []
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._others = [p for p in objective.model.parameters() if id(p) not in held]

    def _recorded(self, what: str, rows: int | tuple[int, ...], function: Callable[..., Any]) -> Recorded:
        key = (function.__name__, rows)
        held = self._records.get(key)
        if held is None:
            held = self._records[key] = Recorded(_unowned(function), what, self.eager)
            if len(self._records) > self.KEPT:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(key)
        return held

    def explain(self) -> list[str]:
        """For each purpose, what runs: recorded graphs, or eager operations and why."""
        off = obstacle()
        how = "run as machine code" if off is None else f"run by the NumPy executor ({off})"
        lines = []
        for what in ("training", "evaluation", "prediction"):
            used = [(name, r) for (name, _), r in self._records.items() if r.what == what and r.compiled.traces]
            whole = bool(used) and used[-1][0] == "_step"  # else gradients and update are records of their own
            latest = {name: record for name, record in used if (name == "_step") == whole}
            if what in self.eager:
                lines.append(f"{what}: eager, operation by operation ({self.eager[what]})")
            elif latest:
                sizes = sum(len(record.compiled.graph.equations) for record in latest.values())
                lines.append(f"{what}: recorded, {sizes} equations, {how}")
            else:
                lines.append(f"{what}: not run yet")
        if self.objective.whole:
            names = ", ".join(metric.name for metric in self.objective.whole)
            lines.append(f"metrics: {names} from all rows at once, so in evaluation and validation only")
        if self.augment is not None:
            lines.insert(1, f"augmentation: part of the training step: {described(self.augment)}")
        if self.penalties:
            lines.insert(1, f"penalties: part of the training step: {'; '.join(map(str, self.penalties))}")
        return lines

    def forget_gradients(self) -> None:
        """Set ``.grad`` of all parameters to None."""
        for p in self._others:
            p.grad = None
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    # --- a training step ------------------------------------------------------------------------------------------
    def augmented(self, items: Items) -> Items:
        """A batch for training, changed at random if that is asked for. Raises: ShapeError for one of other parts."""
        if self.augment is None:
            return items
        _followed(self.augment)
        with no_grad():
            found = self.augment(*items)
        given = (found,) if len(items) == 1 else found
        sizes = [int(_rows_of(part, (part,))) for part in given] if isinstance(given, (tuple, list)) else None
        needed = [int(_rows_of(part, (part,))) for part in items]
        if sizes != needed:
            got = type(found).__name__ if sizes is None else f"{len(sizes)} parts with {sizes} rows"
            raise ShapeError(
                "what augment returns for a batch", got=got, needed=f"{len(items)} parts with {needed} rows"
            )
        return tuple(given)

    def minimised(self, loss: Tensor) -> Tensor:
        """What training differentiates: the loss of a batch, and the penalties."""
        for each in self.penalties:
            _followed(each.penalty)
            loss = loss + each()
        return loss

    def gradients(self, items: Items, weight: Tensor | None, rows: int) -> tuple[Array, bool]:
        """Put the gradients of a batch into ``.grad``; its sums, and whether all that was computed is finite."""
        self.forget_gradients()
        sums, (output, seen), finite = self._recorded("training", rows, self._gradients)(items, weight)
        return self.objective.completed(sums, output, seen, weight), bool(finite)

    def _gradients(self, items: Items, weight: Tensor | None) -> tuple[Sums, tuple[Any, Any], Tensor]:
        buffers = [(buffer, buffer.clone()) for buffer in self.objective.model.buffers()]
        items = self.augmented(items)
        loss, sums, output = self.objective(items, weight)
        self.minimised(loss).backward()
        with no_grad():
            finite = (self.limited_gradients() + loss).isfinite()
            for buffer, before in buffers:
                buffer.assign(where(finite, buffer, before))
        return sums, (output, items) if self.objective.outside else (None, None), finite

    def share(self, items: Items, weight: Tensor | None, rows: int, first: bool) -> tuple[Array, bool]:
        """As ``gradients``, but of the sum that the loss divides, neither divided nor clipped; added to those before.

        ``first``: there is none before. ``average`` makes the gradients of all batches together of them.
        """
        if first:
            self.forget_gradients()
        function = self._first_share if first else self._next_share  # which differ in what is in .grad
        sums, (output, seen), finite = self._recorded("training", rows, function)(items, weight)
        return self.objective.completed(sums, output, seen, weight), bool(finite)

    def _first_share(self, items: Items, weight: Tensor | None) -> tuple[Sums, tuple[Any, Any], Tensor]:
        return self._next_share(items, weight)

    def _next_share(self, items: Items, weight: Tensor | None) -> tuple[Sums, tuple[Any, Any], Tensor]:
        items = self.augmented(items)
        loss, sums, output = self.objective(items, weight)
        head = sums[0]
        assert head is not None  # the first part is the objective's own: no metric, so always recorded
        (loss if self.objective.reduction == "sum" else loss * head[1].to(loss.dtype)).backward()
        with no_grad():
            finite = (self._total() + loss).isfinite()
        return sums, (output, items) if self.objective.outside else (None, None), finite

    def average(self, divisor: float) -> bool:
        """Divide what ``share`` has added up, add the penalties', and clip it; whether all of it is finite."""
        given = Tensor(1.0 if self.objective.reduction == "sum" or divisor == 0 else divisor, dtype=float64)
        return bool(self._recorded("training", 0, self._average)(given))

    def _average(self, divisor: Tensor) -> Tensor:
        with no_grad():
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.div_(divisor)
        penalties = self.minimised(Tensor(0.0))
        if penalties.requires_grad:
            penalties.backward()
        with no_grad():
            return self.limited_gradients().isfinite()

    def _total(self) -> Tensor:
        """The sum of all gradients: finite just if all of them are, and it."""
        total = Tensor(0.0)
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    total = p.grad.sum() + total
        return total

    def limited_gradients(self) -> Tensor:
        """Clip the gradients; a number that is finite just if all of them are (and their sum or norm)."""
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        clip: Any = self.clip  # its numbers steer: a new limit reaches a recorded step
        limit: Any
        if clip["norm"] is not None:
            limit = steering(lambda: clip["norm"], "clip_norm")
            return clip_grad_norm_(params, limit)
        total = self._total()
        if clip["value"] is not None:
            limit = steering(lambda: clip["value"], "clip_value")
            clip_grad_value_(params, limit)
        return total

    def update(self) -> None:
        """Let the optimizer use the gradients."""
        self._recorded("training", 0, self._update)()

    def _update(self) -> None:
        self.optimizer.step()

    def recorded_step(self, items: Items, weight: Tensor | None, cuts: tuple[int, ...] = ()) -> Recording | None:
        """A whole step as one record, for a native loop; None where not all of it can be recorded.

        ``cuts``: how many of the rows each of the batches has whose gradients make the step together.
        """
        if "training" in self.eager or self.objective.outside:
            return None
        step, key = (self._step, len(items[-1])) if len(cuts) < 2 else (self._joint(cuts), cuts)
        try:
            recording = self._recorded("training", key, step).compiled.record(items, weight)
        except StagingError:
            return None  # the separate records say why
        return None if self.objective.outside else Recording(*recording)

    def loop(self, recordings: list[tuple[Recording, int]], rows: Rows | None) -> Loop | None:
        """A native loop of whole steps, as ``Loop`` takes them; the one that was made before, if there is one.

        None where steps depend on more than a loop can give them.
        """
        found = next((loop for loop in self._loops if loop.is_of(recordings, rows)), None)
        if found is None:
            try:
                found = Loop(recordings, rows, default_generator.state._storage)
            except LookupError:
                return None
            self._loops = [*self._loops[1 - self.KEPT :], found]
        return found

    def _step(self, items: Items, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sums of a batch, and whether all that was computed is finite; the parameters and their state move."""
        self.forget_gradients()
        loss, sums, _ = self.objective(self.augmented(items), weight)
        self.minimised(loss).backward()
        with no_grad():
            finite = (self.limited_gradients() + loss).isfinite()
        self.optimizer.step()
        self.forget_gradients()
        return cat([part for part in sums if part is not None]), finite

    def _joint(self, cuts: tuple[int, ...]) -> Callable[[Items, Tensor | None], tuple[Tensor, Tensor]]:
        """As ``_step``, by what ``share`` and ``average`` make of the batches that the rows are cut into."""
        own: Program = weakref.proxy(self)  # see _unowned

        def _step(items: Items, weight: Tensor | None) -> tuple[Tensor, Tensor]:
            own.forget_gradients()
            shares, at = [], 0
            for rows in cuts:
                part = tuple([t[at : at + rows] for t in items])
                sums, _, finite = own._next_share(part, None if weight is None else weight[at : at + rows])
                shares.append((cat([each for each in sums if each is not None]), finite))
                at += rows
            total, good = functools.reduce(lambda a, b: (a[0] + b[0], a[1] & b[1]), shares)
            divisor = total[1] if own.objective.reduction != "sum" else Tensor(1.0, dtype=float64)
            good = good & own._average(where(divisor == 0, 1.0, divisor))
            own.optimizer.step()
            own.forget_gradients()
            return total, good

        return _step

    # --- evaluation -----------------------------------------------------------------------------------------------
    def measure(self, items: Items, weight: Tensor | None, rows: int, columns: Columns) -> Array:
        """The sums of a batch of a model in evaluation mode; what metrics of whole columns need goes to ``columns``."""
        with no_grad():
            sums, kept, output = self._recorded("evaluation", rows, self._measure)(items, weight)
        columns.add(self.objective.kept(kept, output, items), weight)
        return self.objective.completed(sums, output, items, weight, evaluates=True)

    def _measure(self, items: Items, weight: Tensor | None) -> tuple[Sums, Kept, Any]:
        _, sums, output = self.objective(items, weight, evaluates=True)
        kept = self.objective.columns(output, items[-1])
        return sums, kept, output if self.objective.outside or self.objective.outside_whole else None

    def predict(self, inputs: Items, rows: int) -> Any:
        """The output for a batch of a model in evaluation mode."""
        with no_grad():
            return self._recorded("prediction", rows, self._predict)(inputs)

    def _predict(self, inputs: Items) -> Any:
        return self.objective.model(*inputs)

"""Learning-rate schedulers under PyTorch's names.

Those that follow a pure schedule stand beside it in ``schedules/``; here are those that users' functions or the course
of the training drive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from slalom.errors import ConfigError
from slalom.optim import schedules
from slalom.optim.optimizer import Optimizer
from slalom.optim.scheduler import LRScheduler, each_group
from slalom.optim.schedules.decay import *
from slalom.optim.schedules.joined import *
from slalom.optim.schedules.waves import *

__all__ = ["LRScheduler", "LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau"]
__all__ += [
    name for part in (schedules.decay, schedules.joined, schedules.waves) for name in part.__all__ if not name.islower()
]

Factor = Callable[[int], float]


class _OfFunctions(LRScheduler):
    """A scheduler of users' functions of the epoch.

    ``lr_lambda``: one function, or a list with one for each group.

    Raises: ConfigError for a list of another length, or something that can't be called.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Factor | Sequence[Factor], last_epoch: int = -1) -> None:
        groups = len(getattr(optimizer, "param_groups", ()))
        given = [lr_lambda] * groups if callable(lr_lambda) else lr_lambda
        if not isinstance(given, list | tuple) or len(given) != groups or not all(map(callable, given)):
            needed = f"a function, or a list of {groups}"
            raise ConfigError(f"{type(self).__name__}: lr_lambda", got=lr_lambda, needed=needed)
        self.lr_lambdas = list(given)
        super().__init__(optimizer, last_epoch)


class LambdaLR(_OfFunctions):
    """The group's first rate times a function of the epoch: the adapter for every schedule.

    lr(e) = base·λ(e)

    ``lr_lambda``: one function, or a list with one for each group.

    Raises: ConfigError for a list of another length, or something that can't be called.

    >>> from slalom.core.tensor import Tensor
    >>> from slalom.optim import SGD
    >>> optimizer = SGD([Tensor(0.0, requires_grad=True)], lr=0.4)
    >>> scheduler = LambdaLR(optimizer, schedules.linear(steps=4)); scheduler.step(); scheduler.get_last_lr()
    [0.3...]
    """

    absolute = True

    def rates(self, epoch: int) -> list[float]:
        return [base * float(f(epoch)) for base, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class MultiplicativeLR(_OfFunctions):
    """The rate of the epoch before times a function of the epoch.

    lr(e) = lr(e − 1)·λ(e), lr(0) = base

    ``lr_lambda``: one function, or a list with one for each group.

    Raises: ConfigError for a list of another length, or something that can't be called.
    Note: this one is a recursion, of what the groups hold: λ is not asked about the past. As second or later scheduler
    of a SequentialLR it begins, as in PyTorch, with the rate before it times λ(0).
    """

    def get_lr(self) -> list[float]:
        return self.rates(self.last_epoch) if self.last_epoch > 0 else self._now()

    def rates(self, epoch: int) -> list[float]:
        return [now * float(f(epoch)) for now, f in zip(self._now(), self.lr_lambdas, strict=True)]


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rates by ``factor`` when a measured number has not become better for a while.

    lr ← max(lr·factor, min_lr) after more than ``patience`` calls of ``step(number)`` in a row without a better one

    "Better" than the best: for ``mode`` "min" below best·(1 − threshold) (``threshold_mode`` "rel") or below
    best − threshold ("abs"); for "max" above best·(1 + threshold) or best + threshold. After a reduction ``cooldown``
    calls do not count. A change of at most ``eps`` is not made. ``min_lr``: one number, or one for each group.

    In ``Trainer(schedule=…)`` the number is ``val_loss``, or the training loss where there is no validation set.

    Raises: ConfigError for a factor of 1 or more, an unknown mode, or a list whose length is not that of the groups.

    >>> from slalom.core.tensor import Tensor
    >>> from slalom.optim import SGD
    >>> optimizer = SGD([Tensor(0.0, requires_grad=True)], lr=0.4)
    >>> scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> [(scheduler.step(loss), scheduler.get_last_lr()[0])[1] for loss in (1.0, 1.0, 1.0, 0.5)]
    [0.4, 0.4, 0.2, 0.2]
    """

    needs_a_metric = True

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        for name, value, holds, needed in (
            ("mode", mode, mode in ("min", "max"), "'min' or 'max'"),
            ("threshold_mode", threshold_mode, threshold_mode in ("rel", "abs"), "'rel' or 'abs'"),
            ("factor", factor, 0 <= factor < 1, "a number of at least 0, below 1"),
        ):
            if not holds:
                raise ConfigError(f"ReduceLROnPlateau: {name}", got=repr(value), needed=needed)
        self.min_lrs = each_group(self, "min_lr", optimizer, min_lr)
        self.optimizer = optimizer
        self.mode, self.factor, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.eps = threshold, threshold_mode, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self._now()

    def _is_better(self, number: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * number < sign * self.best * (1 - sign * self.threshold)
        return sign * number < sign * self.best - self.threshold

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Look at the number of an epoch.

        Raises: StagingError inside ``slalom.compile``.
        """
        self._not_staging()
        number = float(metrics)
        self.last_epoch += 1
        better = self._is_better(number)
        self.best = number if better else self.best
        self.num_bad_epochs = 0 if better or self.cooldown_counter > 0 else self.num_bad_epochs + 1
        self.cooldown_counter = max(self.cooldown_counter - 1, 0)
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            reduced = [max(now * self.factor, low) for now, low in zip(self._now(), self.min_lrs, strict=True)]
            pairs = zip(self._now(), reduced, strict=True)
            self._write([new if now - new > self.eps else now for now, new in pairs])
        self._last_lr = self._now()

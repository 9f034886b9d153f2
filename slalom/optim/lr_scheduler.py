"""Learning-rate schedulers under PyTorch's names: they write a schedule's values into an optimizer's groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from slalom.core.node import user_line
from slalom.core.tensor import Tensor
from slalom.core.trace import current
from slalom.errors import ConfigError, ModelFileError, StagingError
from slalom.optim import schedules
from slalom.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "StepLR"]


class LRScheduler:
    """Sets ``group["lr"]`` of every group at each ``step()``, usually once an epoch, after ``optimizer.step()``.

    A subclass gives ``rate(base, epoch)``: the rate of a group that began with ``base``, a pure function; or, as in
    PyTorch, ``get_lr()``, the list of the groups' rates at ``self.last_epoch``.

    ``last_epoch``: how often ``step()`` was called since the rates were ``base_lrs``; given to the constructor, where
    to continue, and then each group must hold ``initial_lr``.

    Raises: ConfigError where something else than an optimizer is given, or ``initial_lr`` is missing.

    Note: the rate is that of the formula, not a product of rounded factors. Where something else has changed the rate
    too (a second scheduler on the same optimizer), it is multiplied by rate(epoch)/rate(epoch − 1), as in PyTorch.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(f"{type(self).__name__}: optimizer", got=type(optimizer).__name__, needed="an optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", float(group["lr"]))
            elif "initial_lr" not in group:
                hint = "last_epoch=-1 starts a schedule; to continue one, load the optimizer's state first"
                raise ConfigError(f"{type(self).__name__}: group {i}", got="no 'initial_lr'", needed="it", hint=hint)
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        if last_epoch == -1:
            self.step()
        else:  # the optimizer's state brought the rates with it
            self.last_epoch += 1
            self._last_lr = self._rates()

    def rate(self, base: float, epoch: int) -> float:
        """The rate in ``epoch`` of a group that began with ``base``."""
        raise NotImplementedError(f"{type(self).__name__} needs rate(base, epoch), or get_lr()")

    def get_lr(self) -> list[float]:
        """The rates for ``last_epoch``; use ``get_last_lr`` to read what is set."""
        rates = []
        for base, now in zip(self.base_lrs, self._rates(), strict=True):
            new = self.rate(base, self.last_epoch)
            before = self.rate(base, self.last_epoch - 1) if self.last_epoch > 0 else base
            rates.append(new if now == before or before == 0 else now * (new / before))
        return rates

    def step(self) -> None:
        """Go to the next epoch.

        Raises: StagingError inside ``slalom.compile``, where it would run while recording only.
        """
        if current() is not None:
            raise StagingError(
                f"{type(self).__name__}.step() while staging, at {user_line()}",
                hint="call it after the compiled function, which sees the new rate",
            )
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = self._rates()

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rates that the last ``step()`` set, one a group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer (and functions that were passed in)."""
        return {key: value for key, value in vars(self).items() if key not in ("optimizer", "lr_lambdas")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was called; the rates themselves are in the optimizer's state.

        Raises: ModelFileError for the state of another number of groups.
        """
        saved = len(state_dict.get("base_lrs", self.base_lrs))
        if saved != len(self.base_lrs):
            raise ModelFileError(
                f"{type(self).__name__}: saved state", got=f"{saved} groups", needed=f"{len(self.base_lrs)}"
            )
        vars(self).update({key: state_dict[key] for key in self.state_dict() if key in state_dict})


class LambdaLR(LRScheduler):
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

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(getattr(optimizer, "param_groups", ()))
        given = [lr_lambda] * groups if callable(lr_lambda) else lr_lambda
        if not isinstance(given, (list, tuple)) or len(given) != groups or not all(map(callable, given)):
            raise ConfigError("LambdaLR: lr_lambda", got=lr_lambda, needed=f"a function, or a list of {groups}")
        self.lr_lambdas = list(given)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * float(f(self.last_epoch)) for base, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class ExponentialLR(LRScheduler):
    """Multiplied by ``gamma`` each epoch.

    lr(e) = base·γᵉ
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return float(schedules.exponential(base=self.gamma, start=base)(epoch))


class StepLR(LRScheduler):
    """Multiplied by ``gamma`` every ``step_size`` epochs.

    lr(e) = base·γ^⌊e/s⌋
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return float(schedules.staircase(every=self.step_size, base=self.gamma, start=base)(epoch))


class LinearLR(LRScheduler):
    """A straight line between two factors, then constant; a warm-up with the defaults.

    lr(e) = base·(start_factor + (end_factor − start_factor)·min(e, K)/K) with K = ``total_iters``
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        factor = schedules.linear(self.total_iters, self.start_factor, self.end_factor)
        return base * float(factor(epoch))


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the first rate to ``eta_min`` in ``T_max`` epochs, and up again in as many.

    lr(e) = η_min + (base − η_min)·(1 + cos πe/T)/2

    Note: as in PyTorch it goes on periodically; ``schedules.cosine`` stays at its end.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not T_max > 0:
            raise ConfigError("CosineAnnealingLR: T_max", got=T_max, needed="a number above 0")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2

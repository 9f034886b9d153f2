"""What all learning-rate schedulers share: they write a schedule's values into an optimizer's groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from slalom.core.node import user_line
from slalom.core.tensor import Tensor
from slalom.core.trace import current
from slalom.errors import ConfigError, ModelFileError, StagingError
from slalom.optim.optimizer import Optimizer

__all__ = ["CyclesMomentum", "LRScheduler", "each_group"]


class LRScheduler:
    """Sets ``group["lr"]`` of every group at each ``step()``, usually once an epoch, after ``optimizer.step()``.

    A subclass gives ``schedule(base)``: the schedule of a group that began with ``base``; or ``rate(base, epoch)``, its
    value, a pure function; or, as in PyTorch, ``get_lr()``, the list of the groups' rates at ``self.last_epoch``.

    ``last_epoch``: how often ``step()`` was called since the rates were ``base_lrs``; given to the constructor, where
    to continue, and then each group must hold ``initial_lr``.

    Raises: ConfigError where something else than an optimizer is given, or ``initial_lr`` is missing.

    Note: the rate is that of the formula, not a product of rounded factors. Where something else has changed the rate
    too (a second scheduler on the same optimizer), it is multiplied by rate(epoch)/rate(epoch − 1), as in PyTorch; the
    schedulers that PyTorch calls not chainable (``absolute``) write over it.
    """

    absolute: ClassVar[bool] = False
    """Whether the rates are written whatever the groups hold, not scaled on from there."""
    kept_apart: ClassVar[frozenset[str]] = frozenset({"optimizer", "lr_lambdas", "scale_fn", "_schedulers"})
    """Attributes that are no part of ``state_dict``: functions that were passed in, and other objects."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = _checked(self, optimizer)
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
            self._last_lr = self._now()

    # --- what a subclass gives ------------------------------------------------------------------------------------
    def schedule(self, base: float) -> Callable[[Any], Any]:
        """The rates of a group that began with ``base``, as a function of the epoch."""
        raise NotImplementedError(f"{type(self).__name__} needs schedule(base), rate(base, epoch), or get_lr()")

    def rate(self, base: float, epoch: int) -> float:
        """The rate in ``epoch`` of a group that began with ``base``."""
        return float(self.schedule(base)(epoch))

    def rates(self, epoch: int) -> list[float]:
        """The rates of all groups in ``epoch``, were there no other scheduler."""
        return [self.rate(base, epoch) for base in self.base_lrs]

    def get_lr(self) -> list[float]:
        """The rates for ``last_epoch``; use ``get_last_lr`` to read what is set."""
        rates = self.rates(self.last_epoch)
        if self.absolute:
            return rates
        before = self.rates(self.last_epoch - 1) if self.last_epoch > 0 else self.base_lrs
        groups = zip(rates, self._now(), before, strict=True)
        return [new if now == was else self._scaled_on(now, new, was) for new, now, was in groups]

    def _scaled_on(self, now: float, new: float, was: float) -> float:
        """The next rate where the group holds ``now`` instead of ``was``."""
        return now * (new / was) if was else new

    # --- walking --------------------------------------------------------------------------------------------------
    def step(self) -> None:
        """Go to the next epoch.

        Raises: StagingError inside ``slalom.compile``, where it would run while recording only.
        """
        self._not_staging()
        self.last_epoch += 1
        self._write(self.get_lr())

    def rewind(self) -> None:
        """Unmake the first step: the next one is that to epoch 0."""
        self.last_epoch = -1

    def restart(self) -> None:
        """Go to epoch 0, whatever the groups hold."""
        self.last_epoch = 0
        self._write(self.rates(0))

    def _not_staging(self) -> None:
        if current() is not None:
            raise StagingError(
                f"{type(self).__name__}.step() while staging, at {user_line()}",
                hint="call it after the compiled function, which sees the new rate",
            )

    def _write(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = self._now()

    def _now(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rates that the last ``step()`` set, one a group."""
        return list(self._last_lr)

    # --- state ----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer (and functions that were passed in)."""
        return {key: value for key, value in vars(self).items() if key not in self.kept_apart}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was called; the rates themselves are in the optimizer's state.

        Raises: ModelFileError for the state of another number of groups.
        """
        groups, saved = len(self.optimizer.param_groups), len(state_dict.get("_last_lr", self._last_lr))
        if saved != groups:
            raise ModelFileError(f"{type(self).__name__}: saved state", got=f"{saved} groups", needed=f"{groups}")
        vars(self).update({key: state_dict[key] for key in LRScheduler.state_dict(self) if key in state_dict})


class CyclesMomentum(LRScheduler):
    """A scheduler that moves the momentum too: ``group["momentum"]``, or the first of ``group["betas"]``.

    Raises: ConfigError for an optimizer that has neither, unless ``cycle_momentum`` is False.
    """

    absolute = True

    def momenta(self, epoch: int) -> list[float]:
        """The momentum of each group in ``epoch``."""
        raise NotImplementedError(f"{type(self).__name__} needs momenta(epoch)")

    def __init__(
        self, optimizer: Optimizer, cycle_momentum: bool, base_momentum: Any, max_momentum: Any, last_epoch: int
    ) -> None:
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            if not {"momentum", "betas"} & set(optimizer.defaults):
                got, hint = f"{type(optimizer).__name__}, which has no momentum", "cycle_momentum=False leaves it alone"
                raise ConfigError(
                    f"{type(self).__name__}: optimizer", got=got, needed="'momentum' or 'betas'", hint=hint
                )
            self.base_momentums = each_group(self, "base_momentum", optimizer, base_momentum)
            self.max_momentums = each_group(self, "max_momentum", optimizer, max_momentum)
        super().__init__(optimizer, last_epoch)

    def _write(self, rates: list[float]) -> None:
        super()._write(rates)
        if not self.cycle_momentum:
            return
        for group, momentum in zip(self.optimizer.param_groups, self.momenta(self.last_epoch), strict=True):
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


def _checked(scheduler: LRScheduler, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        what = f"{type(scheduler).__name__}: optimizer"
        raise ConfigError(what, got=type(optimizer).__name__, needed="an optimizer")
    return optimizer


def each_group(scheduler: LRScheduler, name: str, optimizer: Optimizer, value: Any) -> list[float]:
    """An option that is one number or a list of one for each group, as that list.

    Raises: ConfigError for a list of another length, and where no optimizer is given.
    """
    groups = len(_checked(scheduler, optimizer).param_groups)
    if not isinstance(value, list | tuple):
        return [float(value)] * groups
    if len(value) != groups:
        got, needed = f"{len(value)} of them", f"one number, or one for each of {groups} groups"
        raise ConfigError(f"{type(scheduler).__name__}: {name}", got=got, needed=needed)
    return [float(number) for number in value]

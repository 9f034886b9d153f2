"""Schedules made of schedules: several at once, or one after the other; with PyTorch's classes for both."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from slalom.errors import ConfigError
from slalom.optim.optimizer import Optimizer
from slalom.optim.scheduler import LRScheduler
from slalom.optim.schedules.schedule import Needs, Schedule, Time, ascending, larger, schedule, select

__all__ = ["ChainedScheduler", "SequentialLR", "product", "sequence"]


def _are_schedules(given: Any) -> bool:
    return isinstance(given, Sequence) and len(given) > 0 and all(isinstance(each, Schedule) for each in given)


_SCHEDULES = Needs("a list of schedules", _are_schedules, tuple)
_MILESTONES = Needs("ascending numbers of at least 0", ascending, tuple)


# --- all at once --------------------------------------------------------------------------------------------------
@schedule(schedules=_SCHEDULES)
def product(t: Time, schedules: Sequence[Schedule]) -> Any:
    """Several schedules at once, multiplied: a warm-up on top of anything.

    η(t) = η₁(t)·η₂(t)·…

    >>> from slalom.optim.schedules import exponential, linear
    >>> product([linear(steps=2, start=0, end=1), exponential(base=0.5)]).values(4).tolist()
    [0.0, 0.25, 0.25, 0.125]
    """
    value: Any = 1.0
    for each in schedules:
        value = value * each(t)
    return value


class _Joined(LRScheduler):
    """A scheduler of schedulers, which does what they do."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Any) -> None:
        given: list[Any] = list(schedulers)
        what = type(self).__name__
        if not given:
            raise ConfigError(f"{what}: schedulers", got="none", needed="at least one")
        for i, each in enumerate(given):
            if not isinstance(each, LRScheduler) or getattr(each, "needs_a_metric", False):
                needed = "a scheduler whose step() needs no metric"
                raise ConfigError(f"{what}: scheduler {i}", got=type(each).__name__, needed=needed)
            if each.optimizer is not (optimizer or given[0].optimizer):
                raise ConfigError(f"{what}: scheduler {i}", got="another optimizer", needed="one optimizer for all")
        self._schedulers: list[LRScheduler] = given
        self.optimizer = given[0].optimizer
        self.last_epoch = 0

    def rewind(self) -> None:
        self.last_epoch = -1
        for each in self._schedulers:
            each.rewind()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, and the states of the schedulers inside."""
        return {**super().state_dict(), "_schedulers": [each.state_dict() for each in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was called. Raises: ModelFileError for another number of groups."""
        super().load_state_dict(state_dict)
        for each, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            each.load_state_dict(state)


class ChainedScheduler(_Joined):
    """Several schedulers of one optimizer, stepped together.

    lr(e) = base·f₁(e)·f₂(e)·…, f the factor of each; an ``absolute`` one writes over what those before it set

    Raises: ConfigError for no scheduler, for one that needs a metric, and for several optimizers.

    >>> from slalom import tensor
    >>> from slalom.optim import SGD
    >>> from slalom.optim.lr_scheduler import ConstantLR, ExponentialLR
    >>> optimizer = SGD([tensor([0.0], requires_grad=True)], lr=1.0)
    >>> ChainedScheduler([ConstantLR(optimizer, 0.1, 2), ExponentialLR(optimizer, 0.5)]).get_last_lr()
    [0.1]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        super().__init__(schedulers, optimizer)
        self._last_lr = self._now()

    def step(self) -> None:
        """Let each go to its next epoch."""
        self.last_epoch += 1
        for each in self._schedulers:
            each.step()
        self._last_lr = self._now()

    def restart(self) -> None:
        """Let each go to epoch 0, together."""
        self.rewind()
        self._schedulers[0].restart()
        for each in self._schedulers[1:]:
            each.step()
        self.last_epoch = 0
        self._last_lr = self._now()


# --- one after the other ------------------------------------------------------------------------------------------
def _one_fewer(options: Mapping[str, Any]) -> tuple[str, str, str] | None:
    schedules, milestones = options["schedules"], options["milestones"]
    if len(milestones) == len(schedules) - 1:
        return None
    return "milestones", f"{milestones}, with {len(schedules)} schedules", "one fewer than schedules"


@schedule(_one_fewer, schedules=_SCHEDULES, milestones=_MILESTONES)
def sequence(t: Time, schedules: Sequence[Schedule], milestones: Sequence[float]) -> Any:
    """One schedule after the other; each begins at its own time 0.

    η(t) = ηᵢ(t − mᵢ) with mᵢ the last of 0 and the ``milestones`` that is ≤ t

    Raises: ConfigError unless there is one schedule more than milestones.

    >>> from slalom.optim.schedules import constant, linear
    >>> sequence([linear(steps=2, start=0, end=1), constant(), linear(steps=2)], [2, 4]).values(7).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    value = schedules[0](t)
    for moment, each in zip(milestones, schedules[1:], strict=True):
        value = select(t >= moment, each(larger(t - moment, 0)), value)
    return value


class SequentialLR(_Joined):
    """One scheduler after the other; ``milestones``: the epochs at which the second, third, … begin, at their epoch 0.

    lr(e) = lrᵢ(e − mᵢ) with mᵢ the last of 0 and the milestones that is ≤ e

    Raises: ConfigError for milestones that do not ascend or are not one fewer than the schedulers, for a scheduler that
    needs a metric, and for several optimizers.
    Note: to continue, load the state: ``last_epoch`` is taken for PyTorch's sake, and may only be −1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        super().__init__(schedulers, optimizer)
        milestones = list(milestones)
        if len(milestones) != len(self._schedulers) - 1 or not _MILESTONES.holds(milestones):
            needed = f"{len(self._schedulers) - 1} ascending epochs, one fewer than schedulers"
            raise ConfigError("SequentialLR: milestones", got=milestones, needed=needed)
        if last_epoch != -1:
            raise ConfigError(
                "SequentialLR: last_epoch", got=last_epoch, needed="-1", hint="continue by its state_dict"
            )
        self._milestones = milestones
        self.restart()

    def _active(self) -> LRScheduler:
        return self._schedulers[bisect_right(self._milestones, self.last_epoch)]

    def step(self) -> None:
        """Let the one whose turn it is go to its next epoch, or begin."""
        self.last_epoch += 1
        active = self._active()
        if self.last_epoch in self._milestones:
            active.restart()
        else:
            active.step()
        self._last_lr = self._now()

    def restart(self) -> None:
        """Let the first one begin."""
        self.rewind()
        self.last_epoch = 0
        self._active().restart()
        self._last_lr = self._now()

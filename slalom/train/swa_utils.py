"""Averages of weights along training, under the names of ``torch.optim.swa_utils``.

They stand here because they join models and optimizers, which do not know each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, Final

from slalom.core.autodiff import no_grad
from slalom.core.functional.arithmetic import where
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError
from slalom.nn.module import Module
from slalom.optim.optimizer import Optimizer
from slalom.optim.scheduler import LRScheduler, each_group

__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
    "update_bn",
]  # fmt: skip

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


def get_swa_avg_fn() -> Average:
    """The mean of all weights so far: a + (w − a)/(n + 1), with n the number already averaged.

    >>> get_swa_avg_fn()(Tensor(1.0), Tensor(4.0), Tensor(2))
    tensor(2.)
    """
    return lambda averaged, current, number: averaged + (current - averaged) / (number + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average δ·a + (1 − δ)·w, with δ = ``decay``.

    Raises: ConfigError for a decay outside 0 to 1.

    >>> get_ema_avg_fn(0.75)(Tensor(1.0), Tensor(5.0), Tensor(2))
    tensor(2.)
    """
    if not 0 <= decay <= 1:
        raise ConfigError("get_ema_avg_fn: decay", got=decay, needed="a number from 0 to 1")
    return lambda averaged, current, number: averaged + (1 - decay) * (current - averaged)


def get_swa_multi_avg_fn() -> MultiAverage:
    """``get_swa_avg_fn`` for lists of tensors, in place."""
    return _in_place(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """``get_ema_avg_fn`` for lists of tensors, in place."""
    return _in_place(get_ema_avg_fn(decay))


def _in_place(average: Average) -> MultiAverage:
    @no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor) -> None:
        for a, w in zip(averaged, current, strict=True):
            a.assign(average(a, w, number))

    return update


class AveragedModel(Module):
    """A copy of a model whose weights are averages of that model's weights.

    ``update_parameters(model)`` copies at first and averages from then on: with equal weights (SWA), or by ``avg_fn``
    (the new average of one tensor, from the old one, the model's and the count) or ``multi_avg_fn`` (the same for lists
    of tensors, in place). Buffers are copied; ``use_buffers`` averages those too.

    Raises: ConfigError for both functions.
    Source: Izmailov et al. (2018), "Averaging weights leads to wider optima and better generalization", algorithm 1;
    Polyak, Juditsky (1992) for averages of iterates.
    Note: batch normalisation's statistics are not those of the averaged weights: call ``update_bn`` at the end. Integer
    buffers (counts) are always copied. Updates may be part of a function under ``slalom.compile``.

    >>> from slalom.nn import Linear
    >>> model = Linear(1, 1, bias=False); ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75))
    >>> for value in (0.0, 4.0): _ = model.weight.data.fill_(value); ema.update_parameters(model)
    >>> ema(Tensor([[1.0]]))
    tensor([[1.]], grad_fn=<...>)
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ConfigError("AveragedModel", got="avg_fn and multi_avg_fn", needed="at most one of them")
        self.module = deepcopy(model)
        self.register_buffer("n_averaged", Tensor(0))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's present weights into the average.

        Raises: ShapeError for a model of other shapes than the averaged one.
        """
        held, given = ([t.shape for t in (*m.parameters(), *m.buffers())] for m in (self.module, model))
        if held != given:
            what = f"AveragedModel: a {type(model).__name__} into the average of a {type(self.module).__name__}"
            raise ShapeError(what, needed="parameters and buffers of the same shapes")
        pairs = [(a.detach(), w.detach()) for a, w in zip(self.module.parameters(), model.parameters(), strict=True)]
        buffers = [(a, w.detach()) for a, w in zip(self.module.buffers(), model.buffers(), strict=True)]
        averaged = [(a, w) for a, w in [*pairs, *(buffers if self.use_buffers else ())] if w.dtype.kind == "f"]
        taken = {id(a) for a, _ in averaged}
        for a, w in [*pairs, *buffers]:
            if id(a) not in taken:
                a.assign(w)
        number, first = self.n_averaged.clone(), self.n_averaged == 0
        for a, w in averaged:
            a.assign(where(first, w, a))
        update = self.multi_avg_fn or _in_place(self.avg_fn or get_swa_avg_fn())
        update([a for a, _ in averaged], [w for _, w in averaged], number)
        for a, w in averaged:
            a.assign(where(first, w, a))
        self.n_averaged.assign(number + 1)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of all batch normalisation anew, as plain means over the batches of a loader.

    Batches are inputs, or lists and tuples that begin with them.

    Source: Izmailov et al. (2018), "Averaging weights leads to wider optima and better generalization", section 3.2.
    """
    norms = [module for module in model.modules() if hasattr(module, "reset_running_stats")]
    if not norms:
        return
    was, momenta = model.training, [norm.momentum for norm in norms]
    model.train()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for batch in loader:
            model(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was)


_CURVES: Final[dict[str, Callable[[float], float]]] = {
    "cos": lambda t: (1 - math.cos(math.pi * t)) / 2,
    "linear": lambda t: t,
}


class SWALR(LRScheduler):
    """From the rate at which it starts to ``swa_lr`` in ``anneal_epochs`` epochs, then constant.

    lr(e) = base + (swa_lr − base)·f(min(e/K, 1)) with f(t) = (1 − cos πt)/2 for "cos", t for "linear"

    ``swa_lr``: a number, or a list with one for each group.

    Raises: ConfigError for another strategy, a list of another length, or epochs below 0.
    Source: Izmailov et al. (2018), "Averaging weights leads to wider optima and better generalization", section 3.2.
    Note: ``base`` is the rate at the scheduler's first ``step()``, so that another may have lowered it before.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        rates = each_group(self, "swa_lr", optimizer, swa_lr)
        if anneal_strategy not in _CURVES:
            raise ConfigError("SWALR: anneal_strategy", got=anneal_strategy, needed="'cos' or 'linear'")
        if anneal_epochs != int(anneal_epochs) or anneal_epochs < 0:
            raise ConfigError("SWALR: anneal_epochs", got=anneal_epochs, needed="a whole number of at least 0")
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        before, now = self._share(self.last_epoch - 1), self._share(self.last_epoch)
        rates = []
        for group in self.optimizer.param_groups:
            rate, end = float(group["lr"]), group["swa_lr"]
            base = end if before == 1 else (rate - before * end) / (1 - before)
            rates.append(base + (end - base) * now)
        return rates

    def _share(self, epoch: int) -> float:
        """How much of the way is done."""
        done = 1.0 if self.anneal_epochs == 0 else min(max(epoch, 0) / self.anneal_epochs, 1.0)
        return _CURVES[self.anneal_strategy](done)

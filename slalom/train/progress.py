"""Live progress on standard error: a bar in a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from slalom.train.callbacks import Callback

if TYPE_CHECKING:
    from slalom.train.loop import Fit

__all__ = ["Progress"]

MOST_LINES = 100
"""Of a long fit, about so many epochs get a line."""


class Progress(Callback):
    """Shows how a fit is going. ``stream``: where, standard error by default.

    In a terminal, where rich is installed, it is a bar that moves; else a line is printed at the end of an epoch (of
    a fit of more than 100 epochs, of every second, third, … one).
    """

    _only_reads_rows = True

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._bar: Any = None
        self._task: Any = None
        self._began = 0.0
        self._last: int | None = None

    @property
    def stream(self) -> TextIO:
        """Where to write; what ``sys.stderr`` is now, if no other stream was given."""
        return sys.stderr if self._stream is None else self._stream

    def on_fit_begin(self, fit: Fit) -> None:
        self._began, self._last = time.perf_counter(), None
        self._bar = _bar(self.stream)
        if self._bar is not None:
            self._task = self._bar.add_task("", total=None)
            self._bar.start()

    def on_steps_end(self, fit: Fit, steps: range) -> None:
        if self._bar is None:
            return
        epochs = fit.epochs - fit.began.epoch
        done = float(fit.epoch - 1 - fit.began.epoch) + (fit.batch / fit.batches if fit.batches else 0.0)
        text = f"epoch {fit.epoch}/{fit.epochs}  {_numbers({**_validation(fit.row), **fit.running})}"
        self._bar.update(self._task, total=epochs, completed=done, description=text)

    def on_epoch_end(self, fit: Fit) -> None:
        every = -(-(fit.epochs - fit.began.epoch) // MOST_LINES)
        if self._bar is None and ((fit.epoch - fit.began.epoch - 1) % every == 0 or fit.epoch == fit.epochs):
            self._line(fit)

    def on_fit_end(self, fit: Fit) -> None:
        """Close the bar; print the last epoch, and why the fit ended before its time."""
        self.close()
        if fit.row and fit.row["epoch"] != self._last:
            self._line(fit)
        if fit.history.stopped:
            self._print(f"stopped: {fit.history.stopped}")
        if fit.restores and fit.best is not None and fit.best.epoch is not None:
            self._print(f"weights of epoch {fit.best.epoch}, the best: {fit.best.monitor} {fit.best.value:.6g}")

    def _line(self, fit: Fit) -> None:
        self._last = int(fit.row["epoch"])
        seconds = f"{fit.row['seconds']:.2f} s"
        self._print(f"epoch {self._last}/{fit.epochs}  {_numbers(fit.row)}  {seconds}")

    def _print(self, text: str) -> None:
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def close(self) -> None:
        """Leave the terminal as it was, however the fit ended."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _validation(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith("val_")}


def _numbers(row: dict[str, float]) -> str:
    hidden = ("epoch", "step", "seconds", "lr")
    ordered = sorted((name for name in row if name not in hidden), key=lambda name: name.startswith("val_"))
    return "  ".join(f"{name} {row[name]:.4g}" for name in ordered)


def _bar(stream: TextIO) -> Any:
    """rich's progress bar, or None where the stream is no terminal or rich is not installed."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
    except ImportError:
        return None
    # In a narrow terminal it is the numbers that are cut short, not the bar.
    numbers = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
    columns = (BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), numbers)
    return RichProgress(*columns, console=Console(file=stream), transient=True, expand=True)

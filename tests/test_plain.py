"""Classes of the user's that become machine code by themselves, since they only compute, and those that do not."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from warming import CALLS, close, gradients, rows, runs, warmed

import slalom
from slalom import Tensor, nn
from slalom.compiler.native import native
from slalom.nn import functional as F
from slalom.nn.plain import is_plain

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

SCALE = 0.5
NOTES: list[Any] = []


def scaled(x: Tensor) -> Tensor:
    return x * SCALE


def noted(x: Tensor) -> Tensor:
    NOTES.append(x.shape)
    return x


@dataclass
class Settings:
    scale: float = 0.5

    @property
    def noted(self) -> float:
        NOTES.append(self.scale)
        return self.scale


class Cell(nn.Linear):
    """A layer with methods of its own, of which some have effects."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.rate, self.log = 0.5, []  # type: ignore[var-annotated]

    def forward(self, input: Tensor) -> Tensor:
        return slalom.tanh(super().forward(input))

    def scaled(self, x: Tensor) -> Tensor:
        return self(x) * self.rate

    def counted(self, x: Tensor) -> Tensor:
        self.rate = self.rate + 0
        return x

    @property
    def wide(self) -> int:
        return self.out_features * 2

    @property
    def noted(self) -> int:
        NOTES.append(1)
        return 1


class Net(nn.Module):
    """What the bodies of ``forward`` below find."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())])
        self.gain = nn.Parameter([1.5])
        self.cells = nn.ModuleList([Cell(), Cell()])
        self.settings, self.act, self.leak = Settings(), F.relu, functools.partial(F.leaky_relu, negative_slope=0.3)
        self.repeats, self.names, self.log, self.f = 2, ("a", "b"), [], lambda x: NOTES.append(1) or x  # type: ignore[var-annotated]

    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.first(x))

    def counted(self, x: Tensor) -> Tensor:
        self.repeats = self.repeats + 0
        return x

    @staticmethod
    def doubled(x: Tensor) -> Tensor:
        return x * 2


PLAIN: list[Callable[[Any, Tensor], Tensor]] = [
    lambda self, x: self.second(F.relu(self.first(x))),
    lambda self, x: self.second(self.hidden(x).view(-1, 8)),
    lambda self, x: self.second(torch_like(self.hidden(x))) * self.gain,
    lambda self, x: scaled(self.second(self.doubled(self.hidden(x)))),
    lambda self, x: self.second(self.hidden(x) * math.sqrt(2.0) / len(self.names)),
    lambda self, x: self.second(slalom.cat([self.hidden(x)[:, :4], self.first.weight.sum() + x[:, 1:]], 1)),
    lambda self, x: self.second(F.dropout(self.hidden(x), 0.1, self.training)),
    lambda self, x: self.second(sum([block(self.hidden(x)) for block in self.blocks[:0]]) + self.hidden(x)),
    lambda self, x: self.second(sum(cell(self.hidden(x)) for cell in self.cells)),
    lambda self, x: self.second(sum(cell.scaled(self.hidden(x)) * cell.wide * 0.01 for cell in self.cells)),
    lambda self, x: self.second(self.cells[0].scaled(self.hidden(x)) * self.settings.scale),
    lambda self, x: self.second(self.act(self.first(x)) + slalom.randn_like(self.hidden(x))),
    lambda self, x: self.second(self.hidden(x) if self.training else wired(self, x)),
    lambda self, x: self.second(self.leak(self.first(x)) / np.sqrt(8) * np.pi),
    lambda self, x: self.second(frozen(self.first, x) * x.sum() + self.hidden(x)),
    lambda self, x: (lambda h: self.second(h) if h.ndim == 2 else h)(self.hidden(x)),
]
OTHER: list[Callable[[Any, Tensor], Any]] = [
    lambda self, x: self.second(noted(self.hidden(x))),
    lambda self, x: self.second(self.counted(self.hidden(x))),
    lambda self, x: self.second(self.f(self.hidden(x))),
    lambda self, x: print("", end="") or self.second(self.hidden(x)),
    lambda self, x: self.log.append(1) or self.second(self.hidden(x)),
    lambda self, x: self.second(self.hidden(x)) * float(np.random.random() > -1),
    lambda self, x: self.second(self.hidden(x)) * (time.time() > 0),
    lambda self, x: self.second(self.hidden(x)) * len(vars(self)),
    lambda self, x: (slalom.manual_seed(0), self.second(self.hidden(x)))[1],
    lambda self, x: self.second(self.hidden(x.requires_grad_())),
    lambda self, x: self.second(self.hidden(x)) if x.sum().item() > -1e9 else x,
    lambda self, x: setattr(self, "repeats", 3) or self.second(self.hidden(x)),
    lambda self, x: self.second(self.hidden(x)) if x is not None else nowhere(x),  # noqa: F821
    lambda self, x: self.second(self.hidden(x)) if x is not None else self.nowhere(x),
    lambda self, x: self.second(sum(cell.counted(self.hidden(x)) for cell in self.cells)),
    lambda self, x: self.second(self.hidden(x) * self.cells[0].noted),
    lambda self, x: self.second(self.hidden(x) * self.settings.noted),
    lambda self, x: self.second([cell.log.append(1) or self.hidden(x) for cell in self.cells][-1]),
    lambda self, x: self.second([cell.eval() and self.hidden(x) for cell in self.cells][-1]),
    lambda self, x: self.second((self.cells[0] if self.training else self.cells[1]).counted(self.hidden(x))),
    lambda self, x: self.second(kept(self.hidden(x))),
    lambda self, x: self.second(caught(self.hidden(x))),
    lambda self, x: self.second(ended(self.hidden(x))),
    lambda self, x: self.second(disguised(self.hidden(x))),
    lambda self, x: self.cells[0].__dict__.update(rate=1.0) or self.second(self.hidden(x)),
    lambda self, x: self.second(self.hidden(x)) * sum(p.numel() for p in self.parameters()),
    lambda self, x: self.second(self.hidden(x) * other),
    lambda self, x: self.second(self.hidden(x)) * len(str(x)),
    lambda self, x: self.second(self.hidden(x)) * len(f"{x}"),
]


def wired(model: Any, x: Tensor) -> Tensor:
    return model.first(x)  # type: ignore[no-any-return]


def kept(x: Tensor, before: list[Any] = []) -> Tensor:  # noqa: B006
    before.append(x.shape)
    return x


def caught(x: Tensor) -> Tensor:
    try:
        return x * float(x.sum() > -1e9)
    except Exception:
        return x * 2


def ended(x: Tensor) -> Tensor:
    scale = 2.0
    try:
        scale = float(x.sum())
    finally:
        return x * scale  # noqa: B012


def frozen(layer: Any, x: Tensor) -> Tensor:
    with slalom.no_grad():
        h = layer(x)
        for _ in range(2):
            h = h.tanh()
    return h  # type: ignore[no-any-return]


@functools.wraps(F.relu)
def disguised(x: Tensor) -> Tensor:
    NOTES.append(x.shape)
    return x


class Noted(Tensor):
    """A tensor of the user's."""

    def __rmul__(self, x: Any) -> Any:
        NOTES.append(1)
        return x * 2


other = Noted([1.0])


def torch_like(x: Tensor) -> Tensor:
    for _ in range(2):
        x = slalom.tanh(x) + x.mean(dim=1, keepdim=True)
    return x


def netted(forward: Any) -> nn.Module:
    slalom.manual_seed(1)
    made: nn.Module = type("Made", (Net,), {"forward": forward, "__module__": __name__})()
    return made


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_a_class_that_computes_is_native_in_the_end(number: int) -> None:
    model = netted(PLAIN[number])
    slalom.manual_seed(2)
    with slalom.no_compile():
        expected = [gradients(model, rows()) for _ in range(CALLS + 2)][-1]
    assert "_native" not in vars(model) or not runs(model)
    slalom.manual_seed(2)
    found = [gradients(model, rows()) for _ in range(CALLS + 2)][-1]
    close(found, expected)
    assert is_plain(model) and "module call" in repr(model(rows()).grad_fn)


def effects(model: Any) -> list[int]:
    """How much is noted in some calls, which are all made as they are written."""
    NOTES.clear()
    for _ in range(CALLS + 3):
        out = model(rows())
    assert "module call" not in repr(out.grad_fn)
    return [len(NOTES), len(model.log), *(len(cell.log) for cell in model.cells)]


@pytest.mark.parametrize("number", range(len(OTHER)))
def test_a_class_with_effects_runs_at_each_call(number: int) -> None:
    with slalom.no_compile():
        expected = effects(netted(OTHER[number]))
    assert effects(netted(OTHER[number])) == expected


def test_a_debugger_sees_each_call() -> None:
    model = warmed(netted(PLAIN[0]))
    before = sys.gettrace()
    try:
        sys.settrace(lambda *given: None)
        out = model(rows())
    finally:
        sys.settrace(before)
    assert "module call" not in repr(out.grad_fn) and not runs(model)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="debuggers use sys.settrace alone")
def test_a_debugger_without_a_trace_function_does_too() -> None:
    model = warmed(netted(PLAIN[0]))
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "a debugger")
    try:
        out = model(rows())
    finally:
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)
    assert "module call" not in repr(out.grad_fn) and not runs(model)


def test_what_a_class_reads_by_name_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = warmed(netted(PLAIN[3]))
    before = model(rows()).detach().numpy()
    assert runs(model) == 1
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 1.0)
    close([model(rows()).detach().numpy()], [2 * before])
    assert runs(model) == 2


def test_settings_that_are_read_are_seen() -> None:
    """Of an object, of a part by name, of a part in a loop."""
    model: Any = netted(
        lambda self, x: self.second(sum(c(self.first(x)) * c.rate * self.settings.scale for c in self.cells))
    )
    before = warmed(model)(rows()).detach().numpy() - model.second.bias.detach().numpy()
    assert runs(model) == 1
    for change in (
        lambda: setattr(model.settings, "scale", 1.0),
        lambda: setattr(model.cells[0], "rate", 1.0) or setattr(model.cells[1], "rate", 1.0),
        lambda: setattr(model, "settings", Settings(2.0)),
    ):
        change()
        now = model(rows()).detach().numpy() - model.second.bias.detach().numpy()
        close([now], [2 * before])
        before = now
    assert runs(model) == 4


def test_a_part_is_not_converted_while_a_call_is_recorded() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        for cell in self.cells:
            cell.double()
        return self.second(self.hidden(x))  # type: ignore[no-any-return]

    model: Any = warmed(netted(forward))
    model.cells.float()
    out = model(rows())
    assert "module call" not in repr(out.grad_fn)
    assert model.cells[0].weight.dtype == slalom.float64 and model.cells[0].weight.isfinite().all().item()


def test_a_module_may_hold_one_that_holds_it() -> None:
    model: Any = netted(PLAIN[0])
    model.first.parent = model
    assert is_plain(model)
    warmed(model)(rows())
    assert runs(model) == 1

"""The native loop: the same bits on any number of threads and for any way of running, stops that write nothing."""

from __future__ import annotations

import gc
import hashlib
import itertools
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn, optim
from slalom.compiler import llvm, runtime
from slalom.compiler.loop import Loop
from slalom.compiler.native import native
from slalom.compiler.order import row_order
from slalom.core import kernels
from slalom.errors import DivergenceError, IndexRangeError
from slalom.train import Callback, Trainer

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


def table() -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in ((54, 64), (64, 64)):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(64, 7))


def images() -> nn.Module:
    first = nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(6, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(nn.Unflatten(1, (1, 12, 12)), *first, *second, nn.Flatten(), nn.Linear(64, 10))


class Words(nn.Module):
    """Numbers as words: an embedding, an LSTM, causal attention and a norm over 9 time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
        self.norm, self.out = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, x: slalom.Tensor) -> slalom.Tensor:
        h, _ = self.lstm(self.embedding((x.abs() * 10).clamp(max=19).to(slalom.int64)))
        mask = nn.Transformer.generate_square_subsequent_mask(9)
        seen, _ = self.attention(h, h, h, attn_mask=mask, need_weights=False)
        return self.out(self.norm(h + seen).mean(1))


Case = tuple[Callable[[], nn.Module], int, int, int, int]
CASES: dict[str, Case] = {
    # model, inputs, classes (0: regression), rows, batch
    "tiny": (lambda: mlp(20, 32, 2), 20, 2, 660, 32),
    "small": (lambda: mlp(30, 64, 64, 10), 30, 10, 2700, 128),
    "wider": (lambda: mlp(100, 256, 256, 10), 100, 10, 5300, 256),
    "norm, dropout": (table, 54, 7, 2600, 128),
    "images": (images, 144, 10, 900, 32),
    "words": (Words, 9, 5, 700, 32),
    "tanh, whole": (lambda: mlp(4, 32, 16, 4, activation=nn.Tanh), 4, 0, 1000, 1000),
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = list(runtime._chosen)
    yield
    runtime._chosen[:] = before


def fitted(case: str, epochs: int | None = None, **options: Any) -> tuple[str, Trainer, Any]:
    """A digest of weights, buffers and optimizer state after 200 steps or more."""
    make, inputs, classes, rows, batch = CASES[case]
    epochs = epochs or -(-200 // -(-rows // batch))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    y = x @ rng.standard_normal((inputs, classes or 4)).astype(np.float32)
    slalom.manual_seed(0)
    model = make()
    optimizer = optim.AdamW(model.parameters()) if "norm" in case else optim.Adam(model.parameters())
    loss = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    trainer = Trainer(model, loss=loss, optimizer=optimizer, schedule=options.pop("schedule", None))
    seen: list[Any] = []
    callbacks = [*options.pop("callbacks", []), Watch(seen)]
    target = y.argmax(1) if classes else y
    trainer.fit((x, target), epochs=epochs, batch_size=batch, progress=False, callbacks=callbacks, **options)
    digest = hashlib.blake2b()
    for t in [*model.state_dict().values(), *(v for held in optimizer.state.values() for v in held.values())]:
        digest.update(np.ascontiguousarray(t.detach().numpy()))
    digest.update(repr([row["loss"] for row in trainer.history.rows]).encode())
    return digest.hexdigest(), trainer, seen[0]


class Watch(Callback):
    """Keeps the native steps of a fit."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def on_epoch_end(self, fit: Any) -> None:
        self.seen.append(fit.native)


class EachStep(Callback):
    """Forces the loop to come back after every step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, fit: Any) -> None:
        self.steps += 1


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_on_any_number_of_threads(case: str, threads: None) -> None:
    digests = {}
    for n in (1, 2, 3, 4, 8):
        slalom.set_num_threads(n)
        digests[n], _, steps = fitted(case)
        assert steps.threads == {n}
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_step_by_step(case: str) -> None:
    """Tier A and tier C: nothing depends on when the loop returns to Python."""
    hook = EachStep()
    inside, _, _ = fitted(case)
    outside, trainer, steps = fitted(case, callbacks=[hook])
    assert steps is None and hook.steps == trainer.step > 0
    assert inside == outside


def test_schedules_reach_every_step() -> None:
    schedule = slalom.optim.schedules.cosine(steps=150)
    inside, trainer, steps = fitted("tiny", schedule=schedule)
    outside, _, _ = fitted("tiny", schedule=schedule, callbacks=[EachStep()])
    assert steps is not None and inside == outside
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * schedule(trainer.step - 1))


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_on_narrower_registers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = llvm.Target.host()
    expected, _, _ = fitted(case)
    for bits in (256, 128):
        monkeypatch.setattr(llvm, "_host", lambda bits=bits: host.limited(bits))
        found, _, steps = fitted(case)
        assert steps is not None and found == expected, bits


@pytest.mark.parametrize("case", CASES)
def test_a_row_alone_is_predicted_as_in_a_batch(case: str) -> None:
    make, inputs, *_ = CASES[case]
    x = np.random.default_rng(1).standard_normal((70, inputs)).astype(np.float32)
    trainer = Trainer(model := make(), loss=nn.MSELoss(), optimizer=optim.Adam(model.parameters()))
    together = trainer.predict(x)
    for rows in (slice(3, 4), slice(69, 70), slice(10, 27), slice(0, 16)):
        np.testing.assert_array_equal(np.asarray(trainer.predict(x[rows])), np.asarray(together)[rows])


def grown(fits: int = 50) -> int:
    """Bytes of resident memory that so many fits leave behind, after as many as it takes to come to rest.

    The first forty or so move memory by steps of one to five megabytes, once each: threads, caches, the allocator's
    own pages. A leak grows on.
    """

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    for _ in range(40):
        fitted("small", epochs=1)
    gc.collect()
    before = resident()
    for _ in range(fits):
        fitted("small", epochs=1)
    gc.collect()
    return resident() - before


def grown_apart(fits: int) -> int:
    """The same in a process of its own: what other tests have left makes the allocator's steps larger."""
    code = f"import test_native_loop; print(test_native_loop.grown({fits}))"
    where = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_fits_leave_no_memory_behind() -> None:
    assert grown_apart(50) < 5 * 2**20


@pytest.mark.exhaustive
def test_a_thousand_fits_leave_no_memory_behind(keep_result: Callable[[str], None]) -> None:
    bytes = grown_apart(1000)
    keep_result(f"1,000 fits: resident memory grew by {bytes / 2**20:.2f} MB")
    assert bytes < 5 * 2**20


def test_twice_is_the_same() -> None:
    assert fitted("small")[0] == fitted("small")[0]


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 1000, 20_000])
def test_the_order_of_rows(n: int) -> None:
    for epoch in (0, 1, 7):
        np.testing.assert_array_equal(row_order(3, epoch, n), kernels.permutation(3, epoch, n))


def test_a_divergence_writes_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    x[40] = np.inf
    slalom.manual_seed(0)
    model = mlp(3, 4, 1)
    trainer = Trainer(model, loss=nn.MSELoss(), optimizer=optim.Adam(model.parameters()))
    with pytest.raises(DivergenceError, match="not finite in row 40 of the data"):
        trainer.fit((x, x[:, :1].copy()), epochs=5, batch_size=16, progress=False)
    assert all(np.isfinite(p.detach().numpy()).all() for p in model.parameters())
    assert trainer.step < 4


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_class_out_of_range_is_named_and_writes_nothing(accumulate: int) -> None:
    x = np.zeros((64, 3), np.float32)
    y = np.zeros(64, np.int64)
    y[:] = 7
    model = mlp(3, 4, 2)
    before = {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}
    optimizer = optim.Adam(model.parameters())
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, accumulate=accumulate)
    with pytest.raises(IndexRangeError, match="CrossEntropyLoss: cross_entropy: class 7 in the target: needed 0 to 1"):
        trainer.fit((x, y), epochs=1, batch_size=16, progress=False)
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.detach().numpy(), before[name])


def test_the_arena_stays_where_it_is() -> None:
    _, _, steps = fitted("small")
    loop: Loop = steps._loops[None]
    loop.take_from(steps.arrays, 0)
    before = [turn.program._arena.ctypes.data for turn in loop.turns]
    for _ in range(3):
        assert loop.run(1, 1).steps == 1
    assert len(before) == 2 and [turn.program._arena.ctypes.data for turn in loop.turns] == before


def test_several_fits_at_once() -> None:
    """In Python threads of their own, each with a team: every one gets the bits that it gets alone."""
    # The default generator is shared by all threads: without dropout nothing is drawn while training.
    found: dict[str, str] = {}

    def run(case: str) -> None:
        found[case] = fitted_apart(case)

    workers = [threading.Thread(target=run, args=(case,)) for case in ("tiny", "small", "wider")]
    expected = [fitted_apart(case) for case in ("tiny", "small", "wider")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[case] for case in ("tiny", "small", "wider")] == expected


def fitted_apart(case: str) -> str:
    """As ``fitted``, with weights that do not come from the generator that all threads share."""
    make, inputs, classes, rows, batch = CASES[case]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    y = (x @ rng.standard_normal((inputs, classes))).argmax(1)
    model = make()
    for p in model.parameters():
        with slalom.no_grad():
            p.assign(slalom.Tensor(rng.standard_normal(p.shape).astype(np.float32) * 0.1))
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters()))
    trainer.fit((x, y), epochs=5, batch_size=batch, progress=False)
    digest = hashlib.blake2b()
    for t in model.state_dict().values():
        digest.update(np.ascontiguousarray(t.detach().numpy()))
    return digest.hexdigest()


def test_ctrl_c_ends_a_native_run_soon() -> None:
    code = """
import numpy as np, slalom, time
from slalom import nn, optim
from slalom.train import Trainer, Callback
class Ready(Callback):
    def on_epoch_end(self, fit):
        print("epoch", flush=True)
x = np.random.default_rng(0).standard_normal((4096, 64)).astype("f4")
y = (x[:, 0] > 0).astype("i8")
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2))
trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters()))
history = trainer.fit((x, y), epochs=10**6, batch_size=64, progress=False, callbacks=[Ready()])
assert history.interrupted and all(np.isfinite(p.detach().numpy()).all() for p in model.parameters())
print("usable", flush=True)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for _ in range(3):
        assert run.stdout.readline() == "epoch\n"
    started = time.perf_counter()
    run.send_signal(signal.SIGINT)
    rest, _ = run.communicate(timeout=60)
    assert rest.endswith("usable\n") and run.returncode == 0
    assert time.perf_counter() - started < 30  # it ends; how soon is measured by the benchmarks

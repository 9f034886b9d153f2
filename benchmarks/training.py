"""Training speed: Slalom's ``Trainer.fit`` beside PyTorch, JAX and scikit-learn, at equal trained losses.

Usage: python benchmarks/training.py [--only CASE …] [--rounds N] [--peers LIBRARY …] [--torch-compile] [--markdown]

Every library trains the same network from the same weights on the same rows, in a process of its own, so that thread
pools do not fight; the processes take turns, one round each. A round is a fit from the start: after ``Case.epochs``
epochs the loss over all rows is taken by one common NumPy forward pass in evaluation mode, then whole epochs, shuffling
included, are timed. A figure in µs is the wall time of a chunk of epochs for each full batch of rows, the best of a
round's chunks; then the best and the median of the rounds. FLOPs are those of the products alone, without the input
gradient of the first layer. The peak is that of an FMA loop in registers, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import images
import numpy as np
import sequences
from images import Layer

HERE = Path(__file__).resolve().parent
PEERS = ("torch", "jax", "scikit-learn")
MORE_PEERS = ("torch.compile", "jax.random")
PINNED = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "BLIS_")
"""Environment variables that may hold a library to fewer threads, or to slower kernels, than the CPU has."""
Weights = dict[str, np.ndarray]
Row = dict[str, Any]


# --- cases --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """A network, its data and what is hoped for.

    ``regular``: batch norm before and dropout 0.2 after each activation, and AdamW. ``matrix``: to learn the
    exponential of 2 × 2 matrices (SimpleChains.jl's example), by MSE. ``cores``: of the peak that the share is taken
    of. ``epochs``: after how many the losses are compared. ``unit``: how many epochs a library may run in one call.
    ``goal``: µs a step; ``goals``: how many times as fast as each peer. ``network``: of images of the shape ``image``,
    with AdamW; ``sizes`` then are those of an example and of the classes. ``tokens``: one of ``sequences.NETWORKS``.
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    epochs: int
    goal: float
    goals: dict[str, float]
    rows: int = 20_000
    cores: int = 2
    unit: int = 1
    activation: str = "ReLU"
    regular: bool = False
    matrix: bool = False
    image: tuple[int, int, int] | None = None
    network: Sequence[Layer] = ()
    tokens: bool = False

    @property
    def adamw(self) -> bool:
        return self.regular or self.tokens or bool(self.network)

    @property
    def full_batch(self) -> bool:
        return self.batch == self.rows

    @property
    def flops(self) -> float:
        """Of one step: three products a layer, two for the first."""
        if self.tokens:
            return sequences.flops(self.name, self.batch)
        if self.image is not None:
            products = [self.batch * each for each in images.products(layers(self), self.image)]
        else:
            products = [2 * self.batch * a * b for a, b in itertools.pairwise(self.sizes)]
        return 3 * sum(products) - products[0]

    def __str__(self) -> str:
        if self.tokens:
            return f"{self.sizes[0]} tokens, batch {self.batch}"
        if self.image is not None:
            convolutions = sum(kind == "Conv2d" for _, kind, _ in images.leaves(layers(self)))
            return f"{'×'.join(map(str, self.image))}, {convolutions} convolutions, batch {self.batch}"
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}"


def _goals(torch: float, jax: float | None = None, sklearn: float | None = None) -> dict[str, float]:
    goals = {"torch": torch, "jax": jax, "scikit-learn": sklearn}
    return {peer: goal for peer, goal in goals.items() if goal is not None}


CASES = {
    case.name: case
    for case in (
        Case("tiny", (20, 32, 2), 32, 3, 1.2, _goals(120, 14, 95), cores=1),
        Case("small", (30, 64, 64, 10), 128, 5, 14, _goals(17, 6.9, 20)),
        Case("mid", (100, 256, 256, 10), 256, 3, 290, _goals(3.3, 2.2, 5.3)),
        Case("mnist", (784, 256, 128, 10), 128, 2, 290, _goals(3.3, 1.75, 5)),
        Case("wide", (784, 1024, 1024, 10), 256, 2, 5500, _goals(2.6, 1.3, 3.2), rows=8_000),
        Case("tab", (54, 256, 256, 7), 256, 3, 320, _goals(6.9, 2.5), regular=True),
        Case(
            "simplechains", (4, 32, 16, 4), 10_000, 100, 120, _goals(18, 4.8),
            rows=10_000, unit=20, activation="Tanh", matrix=True,
        ),
        Case("lenet", (784, 10), 64, 3, 550, _goals(5.2, 30), rows=4_096, image=(1, 28, 28), network=images.LENET),
        Case("resnet", (3072, 10), 32, 3, 15_000, _goals(2, 2), rows=512, image=(3, 32, 32), network=images.RESNET),
        Case("lstm", (64, 65), 32, 3, 2700, _goals(2.3, 3.5), rows=512, tokens=True),
        Case("gpt", (64, 65), 16, 3, 14_000, _goals(2.6, 3), rows=128, tokens=True),
        Case("gru", (40, 10), 32, 3, 5000, _goals(2), rows=512, tokens=True),
        Case("translator", (64, 65), 16, 3, 5000, _goals(2), rows=256, tokens=True),
    )
}  # fmt: skip
SEQUENCES = tuple(name for name, case in CASES.items() if case.tokens)
IMAGES = tuple(name for name, case in CASES.items() if case.image is not None)

COLD_BUDGET, WARM_BUDGET = 0.5, 0.02
COLD_BUDGETS = {"small": 0.15} | dict.fromkeys((*IMAGES, *SEQUENCES), 3.0)
"""Seconds to the first step: where no code is cached, and where it is."""

LOOPS = (
    ("lecture's loop", "small", "slalom eager"),
    ("the same under slalom.no_compile()", "small", "slalom operations"),
    ("model = slalom.compile(model)", "small", "slalom compiled model"),
    ("compiled step", "small", "slalom compiled step"),
    ("compiled step", "tiny", "slalom compiled step"),
)
"""Rows of loops that call Slalom from Python, each beside PyTorch's eager loop."""


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The rows, float32, and their targets: int64 classes of a noisy linear teacher, or matrix exponentials."""
    if case.tokens:
        return sequences.data(case.name, case.rows)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.rows, case.sizes[0]), dtype=np.float32)
    if case.matrix:
        matrices = x.reshape(-1, 2, 2).astype(np.float64)
        power = total = np.broadcast_to(np.eye(2), matrices.shape)
        for k in range(1, 30):
            power = power @ matrices / k
            total = total + power
        return x, total.reshape(-1, 4).astype(np.float32)
    teacher = rng.standard_normal((case.sizes[0], case.sizes[-1])) / np.sqrt(case.sizes[0])
    return x.reshape(-1, *(case.image or x.shape[1:])), (
        x @ teacher + 0.3 * rng.standard_normal((case.rows, case.sizes[-1]))
    ).argmax(1)


def layers(case: Case) -> list[Layer]:
    """The layers of a Sequential, by the names that PyTorch and Slalom share, and their arguments."""
    if case.network:
        return [*case.network]
    found: list[Layer] = []
    for a, b in itertools.pairwise(case.sizes[:-1]):
        found.append(("Linear", (a, b)))
        found += [("BatchNorm1d", (b,))] if case.regular else []
        found.append((case.activation, ()))
        found += [("Dropout", (0.2,))] if case.regular else []
    return [*found, ("Linear", case.sizes[-2:])]


def initial(case: Case) -> Weights:
    """The first weights, U(−1/√in, 1/√in), by the names of a state dict; batch norm begins as it always does."""
    if case.tokens:
        import slalom  # here, so that peers do not load it for the other cases

        slalom.manual_seed(1)
        return {name: t.numpy().copy() for name, t in sequences.model(case.name, slalom).state_dict().items()}
    rng = np.random.default_rng(1)
    found: Weights = {}
    for name, kind, sizes in images.leaves(layers(case)):
        shape = images.weight_shape(kind, sizes)
        if shape is not None:
            bound = 1 / np.sqrt(math.prod(shape[1:]))
            found[f"{name}.weight"] = rng.uniform(-bound, bound, shape).astype(np.float32)
            found[f"{name}.bias"] = rng.uniform(-bound, bound, shape[0]).astype(np.float32)
        elif kind.startswith("BatchNorm"):
            found |= {f"{name}.{part}": np.ones(sizes, np.float32) for part in ("weight", "running_var")}
            found |= {f"{name}.{part}": np.zeros(sizes, np.float32) for part in ("bias", "running_mean")}
    return found


def loss(case: Case, weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """The mean loss over all rows, in evaluation mode."""
    if case.tokens:
        import slalom

        model = sequences.model(case.name, slalom)
        model.load_state_dict({name: slalom.tensor(value) for name, value in weights.items()})
        with slalom.no_grad():
            return float(sequences.scores_loss(slalom)(model.eval()(slalom.tensor(x)), slalom.tensor(y)))
    parts = [x[i : i + 512] for i in range(0, len(x), 512)]  # convolutions take a lot of memory
    x = np.concatenate(
        [images.run(layers(case), part, lambda *layer: images.numpy_layer(*layer, weights)) for part in parts]
    )
    x = x.astype(np.float64)
    if case.matrix:
        return float(((x - y) ** 2).mean())
    x -= x.max(1, keepdims=True)
    return float((np.log(np.exp(x).sum(1)) - x[np.arange(len(y)), y]).mean())


# --- processes ----------------------------------------------------------------------------------------------------
def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(PINNED)}


class Worker:
    """A library in a process of its own, which runs a round when it is told to.

    ``facts``: versions, once it is ready. ``missing``: why it cannot take part, or None. ``rounds``: its replies.
    """

    def __init__(self, library: str, case: str, threads: int, cache: str) -> None:
        self.library = library
        self.facts: dict[str, str] = {}
        self.missing: str | None = None
        self.rounds: list[dict[str, float]] = []
        self.megabytes = 0.0
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "peers.py"), library, case, str(threads)],
            env=clean_environment() | {"SLALOM_CACHE_DIR": cache},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it has made its model."""
        self.facts = self._reply() or {}

    def run(self, seed: int, seconds: float) -> None:
        """One round, unless it has failed before."""
        if self.missing is None and self._process.stdin is not None:
            self._process.stdin.write(json.dumps({"seed": seed, "seconds": seconds}) + "\n")
            self._process.stdin.flush()
            reply = self._reply()
            if reply is not None:
                self.rounds.append(reply)

    def end(self) -> None:
        """Close its input, at which it says how much memory it took and ends."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self.missing is None:
            self.megabytes = (self._reply() or {}).get("megabytes", 0.0)
        self._process.wait(30)

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()

    def _reply(self) -> dict[str, Any] | None:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        reply: dict[str, Any] = json.loads(line) if line else {"missing": "it ended by itself"}
        self.missing = reply.get("missing")
        return None if self.missing is not None else reply

    def summary(self) -> Row:
        """Best and median over the rounds."""
        if self.missing is not None or not self.rounds:
            return {"missing": self.missing or "no rounds"}
        times, losses = [r["us"] for r in self.rounds], [r["loss"] for r in self.rounds]
        return {
            "us": min(times), "us_median": statistics.median(times), "loss": statistics.median(losses),
            "loss_spread": max(losses) - min(losses), "first_epoch_seconds": self.rounds[0]["first"],
            "megabytes": self.megabytes, "rounds": times,
        }  # fmt: skip


@contextmanager
def workers(libraries: Sequence[str], case: str, threads: int, cache: str) -> Iterator[dict[str, Worker]]:
    """A process for each library, all gone at the end."""
    found: dict[str, Worker] = {}
    try:
        for library in libraries:
            found[library] = Worker(library, case, threads, cache)
        for worker in found.values():
            worker.ready()
        yield found
        for worker in found.values():
            worker.end()
    finally:
        for worker in found.values():
            worker.kill()


def compile_seconds(case: str, threads: int) -> Row:
    """From the call of ``fit`` to the end of the first step, in fresh processes; with and without cached code."""

    def first_step(cache: str) -> dict[str, float]:
        command = [sys.executable, str(HERE / "peers.py"), "first step", case, str(threads)]
        environment = clean_environment() | {"SLALOM_CACHE_DIR": cache}
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        found: dict[str, float] = json.loads(run.stdout) if run.returncode == 0 else {"all": math.nan}
        return found

    cold, warm = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_step(cache))
            warm.append(first_step(cache))
    best = {start: min(runs, key=lambda run: run["all"]) for start, runs in (("cold", cold), ("warm", warm))}
    return {"first_step": best, **{f"{start}_seconds": run["all"] for start, run in best.items()}}


# --- measurement --------------------------------------------------------------------------------------------------
@dataclass
class Options:
    """``seconds``: about how long the timed part of a round is, unless epochs are longer."""

    only: Sequence[str] = (*CASES, "loops")
    peers: Sequence[str] = PEERS
    rounds: int = 5
    seconds: float = 0.3
    threads: int = 2
    facts: dict[str, str] = field(default_factory=dict)
    """Of the libraries that took part; filled while measuring."""
    peak: dict[str, float] = field(default_factory=dict)
    """GFLOP/s of the FMA loop on "one" core and on "all", the most that any round has seen; filled while measuring."""


def measure(options: Options) -> list[Row]:
    """The rows of the table."""
    found: list[Row] = []
    for row in _rows(options):
        found.append(row)
        print(f"{row['case']}: {_number(row.get('us'))} µs", file=sys.stderr, flush=True)
    for row in found:
        row["peak_gflops"], row["libraries"] = options.peak, options.facts
        if "us" in row and options.peak:
            row["share"] = row["gflops"] / options.peak[row["cores"]]
    return found


def _rows(options: Options) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as cache:
        for name in (name for name in CASES if name in options.only):
            found = _interleaved(["slalom", *options.peers, "peak"], name, options, cache)
            row = _row(CASES[name], found)
            yield row | compile_seconds(name, options.threads) if "us" in row else row
        if "loops" in options.only:
            for name in dict.fromkeys(case for _, case, _ in LOOPS):
                mine = [(title, library) for title, case, library in LOOPS if case == name]
                peers = [peer for peer in options.peers if peer == "torch"]
                found = _interleaved([*(library for _, library in mine), *peers, "peak"], name, options, cache)
                for title, library in mine:
                    seen = {"slalom": found[library]} | {other: found[other] for other in (*peers, "peak")}
                    yield {**_row(CASES[name], seen), "case": f"{title}, {name}", "goal_us": None, "goals": {}}


def _interleaved(libraries: Sequence[str], case: str, options: Options, cache: str) -> dict[str, Worker]:
    with workers(libraries, case, options.threads, cache) as found:
        for seed in range(options.rounds):
            for worker in found.values():
                worker.run(seed, options.seconds)
    for worker in found.values():
        options.facts |= worker.facts
        if worker.library == "peak":
            for reply in worker.rounds:
                options.peak |= {cores: max(options.peak.get(cores, 0.0), gflops) for cores, gflops in reply.items()}
        if worker.missing is not None:
            print(f"{case}: {worker.library} not measured: {worker.missing}", file=sys.stderr)
    return found


def _row(case: Case, found: dict[str, Worker]) -> Row:
    sides = {name: worker.summary() for name, worker in found.items() if name != "peak"}
    own = sides.pop("slalom")
    row: Row = {"case": case.name, "network": str(case), "goal_us": case.goal, "goals": case.goals, **own}
    row["cores"], row["peers"] = "one" if case.cores == 1 else "all", sides
    if "us" not in own:
        return row
    row["gflops"] = case.flops / own["us"] / 1e3
    for side in (side for side in sides.values() if "us" in side):
        side["times"] = side["us"] / own["us"]
        side["times_median"] = statistics.median(
            a / b for a, b in zip(side["rounds"], own["rounds"], strict=True)
        )  # of neighbours in time
        # The order of rows and the dropout differ from round to round, which shows how far luck alone goes.
        side["agrees"] = abs(side["loss"] - own["loss"]) <= max(
            0.02 * side["loss"], side["loss_spread"], own["loss_spread"]
        )
    return row


# --- tables -------------------------------------------------------------------------------------------------------
def tables(rows: Sequence[Row]) -> list[list[list[str]]]:
    """Speed, what it costs and reaches, and where the time to the first step goes: lists of lines of cells, the heading
    first."""
    peers = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    speed = [["case", "network", "µs: best", "median", "goal", "GFLOP/s", "of peak"]]
    speed[0] += [text for peer in peers for text in (f"{peer}: µs", "× best", "× median", "goal")]
    cost = [["case", "cold s", "warm s", "MB", "loss"]]
    cost[0] += [text for peer in peers for text in (f"{peer}: 1st epoch s", "MB", "loss")]
    for row in rows:
        own = [_number(row.get(key)) for key in ("us", "us_median", "goal_us", "gflops")]
        line = [row["case"], row["network"], *own, _number(row.get("share"), percent=True)]
        second = [row["case"]] + [_number(row.get(k)) for k in ("cold_seconds", "warm_seconds", "megabytes", "loss")]
        for peer in peers:
            side = row["peers"].get(peer, {})
            line += [_number(side.get(key)) for key in ("us", "times", "times_median")]
            line.append(_number(row["goals"].get(peer)))
            second += [_number(side.get(key)) for key in ("first_epoch_seconds", "megabytes", "loss")]
            second[-1] += "" if side.get("agrees", True) else " !"
        speed.append(line)
        cost.append(second)
    return [speed, cost, *first_steps(rows)]


def first_steps(rows: Sequence[Row]) -> list[list[list[str]]]:
    """The milliseconds by stage to the first step, without cached code and with it, beside what was promised."""
    timed = [(row["case"], start, run) for row in rows for start, run in row.get("first_step", {}).items()]
    stages = list(dict.fromkeys(stage for *_, run in timed for stage in run if stage != "all"))
    table = [["first step: ms", "start", "all", "budget", "most of it", *stages]]
    for case, start, run in timed:
        budget = WARM_BUDGET if start == "warm" else COLD_BUDGETS.get(case, COLD_BUDGET)
        parts = {stage: run.get(stage, 0.0) for stage in stages}
        missed = " missed" if run["all"] > budget else ""
        cells = [
            _number(1e3 * run["all"]),
            _number(1e3 * budget) + missed,
            max(parts, key=parts.__getitem__, default="–"),
        ]
        table.append([case, start, *cells, *(f"{1e3 * seconds:.1f}" for seconds in parts.values())])
    return [table] if timed else []


def _number(value: float | None, percent: bool = False) -> str:
    if value is None:
        return "–"
    if percent:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def plain(table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in table
    )


def markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def show(rows: Sequence[Row], form: Any = plain) -> None:
    """Print what was measured, and both tables."""
    if rows:
        print("; ".join(f"{name} {version}" for name, version in rows[0]["libraries"].items()))
        peak = rows[0]["peak_gflops"].items()
        print("FMA peak: " + ", ".join(f"{gflops:.0f} GFLOP/s on {cores}" for cores, gflops in peak) + "\n")
    print(*(form(table) for table in tables(rows)), sep="\n\n")
    if any(not side.get("agrees", True) for row in rows for side in row["peers"].values()):
        print("! this loss differs from Slalom's by more than 2 % and more than the rounds differ among themselves")


# --- command ------------------------------------------------------------------------------------------------------
def cpu() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def rows() -> list[Row]:
    """Every case of rows with the settings of the command."""
    return measure(Options([name for name in Options.only if name not in (*IMAGES, *SEQUENCES)]))


def image_rows() -> list[Row]:
    """Every case of images, beside the peers that train them."""
    return measure(Options(IMAGES, [peer for peer in PEERS if peer != "scikit-learn"]))


def sequence_rows() -> list[Row]:
    """Every case of sequences, beside the peers that train them."""
    return measure(Options(SEQUENCES, [peer for peer in PEERS if peer != "scikit-learn"]))


def network(case: Case, library: Any) -> tuple[Any, Any]:
    """The model of a case in PyTorch or Slalom, with its first weights, and its loss."""
    nn = library.nn
    model = sequences.model(case.name, library) if case.tokens else images.sequential(nn, layers(case))
    model.load_state_dict(model.state_dict() | {name: library.tensor(value) for name, value in initial(case).items()})
    if case.tokens:
        return model, sequences.scores_loss(library)
    return model, nn.MSELoss() if case.matrix else nn.CrossEntropyLoss()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*CASES, "loops"), default=Options.only, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="timed in each round, about")
    parser.add_argument("--threads", type=int, default=Options.threads, help="processors given to each library")
    parser.add_argument("--peers", nargs="*", choices=(*PEERS, *MORE_PEERS), default=PEERS, metavar="LIBRARY")
    parser.add_argument("--torch-compile", action="store_true", help="torch.compile as a further peer")
    parser.add_argument("--markdown", action="store_true")
    chosen = parser.parse_args()
    peers = [*chosen.peers, *(["torch.compile"] if chosen.torch_compile else [])]
    options = Options(chosen.only, peers, chosen.rounds, chosen.seconds, chosen.threads)
    dropped = sorted(os.environ.keys() - clean_environment().keys())
    print(f"{cpu()}, {chosen.threads} threads, Python {platform.python_version()}")
    print(f"unset: {', '.join(f'{name}={os.environ[name]}' for name in dropped) or 'nothing'}")
    found = measure(options)
    show(found, markdown if chosen.markdown else plain)
    facts = {"cpu": cpu(), "threads": chosen.threads, "python": sys.version, "unset": dropped}
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "train.json").write_text(json.dumps({"facts": facts, "train": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

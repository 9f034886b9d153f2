"""The training loops that `training.py` compares, each run by itself: a process for one library and one case.

Usage: python benchmarks/peers.py LIBRARY CASE THREADS, with a line of JSON on stdin for each round; the replies are
lines of JSON on stdout. ``"first step"`` for the library prints the seconds of Slalom's first step, and ends.
Each loop is written as its library's own users would for speed, and takes rows in an order that is new each epoch.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import images
import numpy as np
import sequences
from training import CASES, Case, Weights, data, initial, layers, loss, network

CHUNKS = 2
RATE = 1e-3


class Peer(ABC):
    """A library with one case. ``facts``: names and versions to print with the results · ``megabytes``: the most memory
    that the process has had when the first fit had come to its loss, which takes memory of its own."""

    facts: dict[str, str]
    megabytes: float = 0.0

    def __init__(self, case: Case) -> None:
        self.case = case
        self.x, self.y = data(case)
        self.rng = np.random.default_rng(0)

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Begin anew: the initial weights, an optimizer that has seen nothing, another order of rows."""

    @abstractmethod
    def run(self, epochs: int) -> None:
        """Train, and return when all of it is done."""

    @abstractmethod
    def weights(self) -> Weights:
        """The weights now, by the names of a state dict."""

    def order(self) -> np.ndarray | None:
        """The rows' numbers in a new order; None where all of them make one batch."""
        return None if self.case.full_batch else self.rng.permutation(self.case.rows)

    def round(self, seed: int, seconds: float) -> dict[str, float]:
        """A fit: its loss after ``case.epochs``, then timed chunks of whole epochs."""
        self.reset(seed)
        self.rng = np.random.default_rng(seed)
        unit = self.case.unit
        first = _seconds(self.run, unit)
        epoch = _seconds(self.run, self.case.epochs - unit) / (self.case.epochs - unit)
        self.megabytes = self.megabytes or megabytes()
        reached = loss(self.case, self.weights(), self.x, self.y)
        epochs = math.ceil(seconds / CHUNKS / epoch / unit) * unit
        best = min(epoch, *(_seconds(self.run, epochs) / epochs for _ in range(CHUNKS)))
        return {"us": best * self.case.batch / self.case.rows * 1e6, "loss": reached, "first": first}


def _seconds(function: Callable[[int], None], argument: int) -> float:
    started = time.perf_counter()
    function(argument)
    return time.perf_counter() - started


def _blas() -> str:
    """The library that NumPy multiplies with, and the kernels that it has chosen."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return f"{np.__version__}"
    found = [i for i in threadpool_info() if i["user_api"] == "blas" and "numpy" in i["filepath"]]
    return f"{np.__version__} (" + ", ".join("{internal_api} {version} {architecture}".format(**i) for i in found) + ")"


# --- Slalom -------------------------------------------------------------------------------------------------------
def slalom_trainer(slalom: Any, case: Case) -> Any:
    """A Trainer with the initial weights."""
    model, criterion = network(case, slalom)
    rule = slalom.optim.AdamW if case.adamw else slalom.optim.Adam
    return slalom.Trainer(model, loss=criterion, optimizer=rule(model.parameters(), lr=RATE))


class Slalom(Peer):
    """``Trainer.fit``: all epochs of a chunk in one call."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        import slalom

        self.slalom = slalom
        self.facts = {"slalom": slalom.__version__, "numpy": _blas()}

    def reset(self, seed: int) -> None:
        self.trainer, self.seed = slalom_trainer(self.slalom, self.case), seed

    def run(self, epochs: int) -> None:
        case = self.case
        self.trainer.fit((self.x, self.y), batch_size=case.batch, epochs=epochs, seed=self.seed, progress=False)

    def weights(self) -> Weights:
        return {name: t.numpy() for name, t in self.trainer.model.state_dict().items()}


def slalom_first_step(case: Case) -> dict[str, float]:
    """Seconds from the call of ``fit`` to the end of its first step, by stage of the compiler; "else" is what none of
    them takes."""
    import slalom
    from slalom.compiler.times import spent

    x, y = data(case)
    rows = slice(case.batch)
    trainer, before = slalom_trainer(slalom, case), spent()
    started = time.perf_counter()
    trainer.fit((x[rows], y[rows]), batch_size=case.batch, epochs=1, progress=False)
    seconds, stages = time.perf_counter() - started, spent().since(before)
    return {"all": seconds, **stages, "else": seconds - stages.total}


# --- loops as in a lecture ----------------------------------------------------------------------------------------
class Lecture(Peer):
    """The loop of every PyTorch tutorial. The rows of an epoch are gathered at once; a batch is a slice of them."""

    def __init__(self, case: Case, library: Any) -> None:
        super().__init__(case)
        self.library = library
        self.inputs, self.targets = library.tensor(self.x), library.tensor(self.y)

    def reset(self, seed: int) -> None:
        self.model, criterion = network(self.case, self.library)
        rule = self.library.optim.AdamW if self.case.adamw else self.library.optim.Adam
        self.optimizer = rule(self.model.parameters(), lr=RATE, **self.rule_options())
        self.step = self.make_step(self.model, criterion, self.optimizer)

    def rule_options(self) -> dict[str, Any]:
        return {}

    def make_step(self, model: Any, loss_fn: Any, optimizer: Any) -> Callable[[Any, Any], None]:
        def step(x: Any, y: Any) -> None:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()

        return step

    def shuffled(self, order: np.ndarray) -> tuple[Any, Any]:
        return self.inputs[order], self.targets[order]

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            order = self.order()
            x, y = (self.inputs, self.targets) if order is None else self.shuffled(order)
            for i in range(0, self.case.rows, self.case.batch):
                self.step(x[i : i + self.case.batch], y[i : i + self.case.batch])

    def weights(self) -> Weights:
        return {name: t.detach().numpy() for name, t in self.model.state_dict().items()}


class Torch(Lecture):
    """PyTorch, eager, with the fused optimizer."""

    def __init__(self, case: Case) -> None:
        import torch

        super().__init__(case, torch)
        blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
        self.facts = {"torch": f"{torch.__version__} ({blas}, {torch.backends.cpu.get_cpu_capability()})"}
        self.buffers = torch.empty_like(self.inputs), torch.empty_like(self.targets)

    def rule_options(self) -> dict[str, Any]:
        return {"fused": True}

    def shuffled(self, order: np.ndarray) -> tuple[Any, Any]:
        index = self.library.from_numpy(order)
        for source, buffer in zip((self.inputs, self.targets), self.buffers, strict=True):
            self.library.index_select(source, 0, index, out=buffer)
        return self.buffers


class TorchCompile(Torch):
    """PyTorch with forward, loss and backward through ``torch.compile``."""

    def make_step(self, model: Any, loss_fn: Any, optimizer: Any) -> Callable[[Any, Any], None]:
        forward = self.library.compile(lambda x, y: loss_fn(model(x), y))
        return super().make_step(lambda x: x, forward, optimizer)


class SlalomEager(Lecture):
    """The same loop, Slalom run operation by operation."""

    def __init__(self, case: Case) -> None:
        import slalom

        super().__init__(case, slalom)
        self.facts = {"slalom": slalom.__version__, "numpy": _blas()}


class SlalomOperations(SlalomEager):
    """The same loop, operation by operation."""

    def run(self, epochs: int) -> None:
        with self.library.no_compile():
            super().run(epochs)


class SlalomCompiledModel(SlalomEager):
    """The same loop with ``model = slalom.compile(model)``."""

    def make_step(self, model: Any, loss_fn: Any, optimizer: Any) -> Callable[[Any, Any], None]:
        return super().make_step(self.library.compile(model), loss_fn, optimizer)


class SlalomCompiledStep(SlalomEager):
    """The same loop with its four lines as one compiled function."""

    def make_step(self, model: Any, loss_fn: Any, optimizer: Any) -> Callable[[Any, Any], None]:
        return self.library.compile(super().make_step(model, loss_fn, optimizer))


# --- JAX ----------------------------------------------------------------------------------------------------------
class Jax(Peer):
    """A whole epoch, or for a full batch ``case.unit`` of them, in one ``lax.scan`` under ``jit``."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        import jax
        import optax

        if case.tokens and case.name not in sequences.IN_JAX:
            raise Unsupported("not written for JAX")
        self.jax, self.optax = jax, optax
        self.facts = {"jax": jax.__version__, "optax": optax.__version__}
        self.device_data = jax.device_put((self.x, self.y.astype(np.float32 if case.matrix else np.int32)))
        self.rule = optax.adamw(RATE, weight_decay=0.01) if case.adamw else optax.adam(RATE)
        self.epoch = jax.jit(self._epoch, donate_argnums=0)

    def reset(self, seed: int) -> None:
        values = self.jax.device_put(initial(self.case))
        running = {name: values.pop(name) for name in list(values) if "running" in name}
        self.state = values, running, self.rule.init(values)
        self.key = self.jax.random.key(seed)

    def run(self, epochs: int) -> None:
        unit = self.case.unit
        for _ in range(epochs // unit):
            order = self.order()
            self.key, key = self.jax.random.split(self.key)
            order = None if order is None else order.astype(np.int32)
            self.state, losses = self.epoch(self.state, order, key, *self.device_data)
            losses.block_until_ready()

    def weights(self) -> Weights:
        return {name: np.asarray(value) for name, value in (self.state[0] | self.state[1]).items()}

    def _loss(self, values: Any, running: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any]:
        jax, jnp, kept = self.jax, self.jax.numpy, dict(running)

        def layer(kind: str, args: tuple[Any, ...], name: str, x: Any) -> Any:
            if kind == "Linear":
                return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]
            if kind == "Conv2d":
                stride, padding = (*args[3:], 1, 0)[:2] if len(args) > 3 else (1, 0)
                out = jax.lax.conv_general_dilated(
                    x, values[f"{name}.weight"], (stride, stride), [(padding, padding)] * 2
                )
                return out + values[f"{name}.bias"][:, None, None]
            if kind.startswith("BatchNorm"):
                axes = (0, *range(2, x.ndim))
                mean, var, n = x.mean(axes, keepdims=True), x.var(axes, keepdims=True), x.size // x.shape[1]
                for part, new in (("running_mean", mean), ("running_var", var * n / (n - 1))):
                    kept[f"{name}.{part}"] = 0.9 * running[f"{name}.{part}"] + 0.1 * new.reshape(-1)
                scale, shift = (values[f"{name}.{part}"].reshape(mean.shape[1:]) for part in ("weight", "bias"))
                return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + shift
            if kind == "MaxPool2d":
                window = (1, 1, *args * 2)
                return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            if kind == "AdaptiveAvgPool2d":
                return x.mean((2, 3), keepdims=True)
            if kind == "Flatten":
                return x.reshape(len(x), -1)
            if kind == "Dropout":
                keep = 1 - args[0]
                drawn = jax.random.bernoulli(jax.random.fold_in(key, int(name)), keep, x.shape)
                return jnp.where(drawn, x / keep, 0.0)
            return jax.nn.relu(x) if kind == "ReLU" else jnp.tanh(x)

        if self.case.tokens:
            x, y = sequences.IN_JAX[self.case.name](jax, values, x), y.reshape(-1)
        else:
            x = images.run(layers(self.case), x, layer)
        if self.case.matrix:
            return ((x - y) ** 2).mean(), kept
        return self.optax.softmax_cross_entropy_with_integer_labels(x, y).mean(), kept

    def _step(self, state: Any, x: Any, y: Any, key: Any) -> tuple[Any, Any]:
        values, running, slots = state
        (value, running), grads = self.jax.value_and_grad(self._loss, has_aux=True)(values, running, x, y, key)
        updates, slots = self.rule.update(grads, slots, values)
        return (self.optax.apply_updates(values, updates), running, slots), value

    def _epoch(self, state: Any, order: Any, key: Any, x: Any, y: Any) -> tuple[Any, Any]:
        jax, case = self.jax, self.case
        if case.full_batch:
            return jax.lax.scan(lambda s, _: self._step(s, x, y, key), state, length=case.unit)
        full = case.rows // case.batch
        cut = full * case.batch
        keys = jax.random.split(key, full + 1)
        batches = order[:cut].reshape(full, case.batch)
        if case.sizes[0] <= 32:  # narrow rows are cheaper to gather all at once, wide ones batch by batch
            parts = x[batches], y[batches], keys[:full]
            state, losses = jax.lax.scan(lambda s, part: self._step(s, *part), state, parts)
        else:
            state, losses = jax.lax.scan(
                lambda s, part: self._step(s, x[part[0]], y[part[0]], part[1]), state, (batches, keys[:full])
            )
        if cut < case.rows:
            state, _ = self._step(state, x[order[cut:]], y[order[cut:]], keys[full])
        return state, losses


class JaxRandom(Jax):
    """The same, with an order of rows that ``jax.random`` draws inside the compiled epoch."""

    def order(self) -> np.ndarray | None:
        return None

    def _epoch(self, state: Any, order: Any, key: Any, x: Any, y: Any) -> tuple[Any, Any]:
        return super()._epoch(state, self.jax.random.permutation(key, len(x)), key, x, y)


# --- scikit-learn -------------------------------------------------------------------------------------------------
class Sklearn(Peer):
    """``partial_fit`` of all rows, which is one epoch. Of two classes it trains one logit, the difference of two."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        import sklearn

        if case.regular:
            raise Unsupported("scikit-learn has neither batch norm nor dropout")
        if case.network or case.tokens:
            raise Unsupported("scikit-learn has neither convolutions nor sequences")
        self.facts = {"scikit-learn": sklearn.__version__, "numpy": _blas()}

    def reset(self, seed: int) -> None:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        case = self.case
        self.model = (MLPRegressor if case.matrix else MLPClassifier)(
            hidden_layer_sizes=case.sizes[1:-1], activation=case.activation.lower(), solver="adam", alpha=0.0,
            learning_rate_init=RATE, batch_size=case.batch, shuffle=not case.full_batch,
            random_state=np.random.RandomState(seed),  # a number would give every epoch the same order
        )  # fmt: skip
        self.classes = {} if case.matrix else {"classes": np.arange(case.sizes[-1])}
        self.model.partial_fit(self.x[: case.batch], self.y[: case.batch], **self.classes)
        del self.model._optimizer  # it makes another one, for the weights that it finds
        values = initial(case)
        linear = [i for i, (kind, _) in enumerate(layers(case)) if kind == "Linear"]
        self.model.coefs_ = [values[f"{i}.weight"].T.copy() for i in linear]
        self.model.intercepts_ = [values[f"{i}.bias"] for i in linear]
        if self._one_logit:
            for found in (self.model.coefs_, self.model.intercepts_):
                found[-1] = np.ascontiguousarray(found[-1][..., 1:] - found[-1][..., :1])

    @property
    def _one_logit(self) -> bool:
        return not self.case.matrix and self.case.sizes[-1] == 2

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            self.model.partial_fit(self.x, self.y)

    def weights(self) -> Weights:
        linear = [i for i, (kind, _) in enumerate(layers(self.case)) if kind == "Linear"]
        found: Weights = {}
        for i, w, b in zip(linear, self.model.coefs_, self.model.intercepts_, strict=True):
            found |= {f"{i}.weight": w.T, f"{i}.bias": b}
        if self._one_logit:
            for name in (f"{linear[-1]}.weight", f"{linear[-1]}.bias"):
                found[name] = np.concatenate([0 * found[name], found[name]])
        return found


# --- the machine --------------------------------------------------------------------------------------------------
class Peak:
    """GFLOP/s of float32 multiply-adds in registers, on one core and on all."""

    ACCUMULATORS = 12
    """More than the latency of two units asks for, and few enough for 16 registers."""
    TURNS = 4_000_000
    megabytes = 0.0

    def __init__(self, case: Case) -> None:
        import ctypes

        import llvmlite
        from llvmlite import binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        self.lanes = 16 if features.get("avx512f") else 8 if features.get("fma") else 4
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten())
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(self._text()), machine)
        self.engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        self.loop, self.threads = kind(self.engine.get_function_address("loop")), len(os.sched_getaffinity(0))
        self.facts = {"llvmlite": f"{llvmlite.__version__} ({llvm.get_host_cpu_name()}, {self.lanes} lanes)"}

    def _text(self) -> str:
        """sumᵢ ← sumᵢ · x + x, over and over; x is read from memory, so that nothing can be folded."""
        vector, names = f"<{self.lanes} x float>", range(self.ACCUMULATORS)
        intrinsic = f"{vector} @llvm.fma.v{self.lanes}f32"
        phis = "\n".join(f"%s{i} = phi {vector} [ %x, %entry ], [ %t{i}, %body ]" for i in names)
        fmas = "\n".join(f"%t{i} = call {intrinsic}({vector} %s{i}, {vector} %x, {vector} %x)" for i in names)
        stores = "\n".join(
            f"%p{i} = getelementptr {vector}, ptr %memory, i64 {i + 1}\nstore {vector} %t{i}, ptr %p{i}" for i in names
        )
        return f"""
            declare {intrinsic}({vector}, {vector}, {vector})
            define void @loop(ptr %memory, i64 %turns) {{
            entry:
              %x = load {vector}, ptr %memory
              br label %body
            body:
              %k = phi i64 [ 0, %entry ], [ %next, %body ]
              {phis}
              {fmas}
              %next = add i64 %k, 1
              %more = icmp ult i64 %next, %turns
              br i1 %more, label %body, label %end
            end:
              {stores}
              ret void
            }}
        """

    def round(self, seed: int, seconds: float) -> dict[str, float]:
        """The best of a few tries."""
        return {name: max(self._measure(n) for _ in range(4)) for name, n in (("one", 1), ("all", self.threads))}

    def _measure(self, threads: int) -> float:
        from threading import Barrier, Thread

        barrier = Barrier(threads)
        spans: list[tuple[float, float]] = []

        def work() -> None:
            memory = np.full((self.ACCUMULATORS + 2) * 16, 0.5, np.float32)
            address = (memory.ctypes.data + 63) // 64 * 64
            barrier.wait()
            started = time.perf_counter()
            self.loop(address, self.TURNS)
            spans.append((started, time.perf_counter()))

        workers = [Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        wall = max(end for _, end in spans) - min(start for start, _ in spans)
        return 2 * self.lanes * self.ACCUMULATORS * self.TURNS * threads / wall / 1e9


# --- command ------------------------------------------------------------------------------------------------------
class Unsupported(Exception):
    """A library that cannot train a case."""


LIBRARIES: dict[str, Callable[[Case], Peer | Peak]] = {
    "slalom": Slalom,
    "slalom eager": SlalomEager,
    "slalom operations": SlalomOperations,
    "slalom compiled model": SlalomCompiledModel,
    "slalom compiled step": SlalomCompiledStep,
    "torch": Torch,
    "torch.compile": TorchCompile,
    "jax": Jax,
    "jax.random": JaxRandom,
    "scikit-learn": Sklearn,
    "peak": Peak,
}


def use_processors(threads: int) -> None:
    """Leave this process so many processors, which every library takes for the machine's."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)


def main() -> None:
    library, name, threads = sys.argv[1:]
    use_processors(int(threads))
    if library == "first step":
        print(json.dumps(slalom_first_step(CASES[name])))
        return
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply

    def reply(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        peer = LIBRARIES[library](CASES[name])
        reply(peer.facts)
        for line in sys.stdin:
            reply(peer.round(**json.loads(line)))
    except ImportError as error:
        reply({"missing": f"cannot be imported ({error})"})
    except Unsupported as error:
        reply({"missing": str(error)})
    except Exception as error:
        reply({"missing": f"not supported ({type(error).__name__}: {error})"})
    else:
        reply({"megabytes": peer.megabytes})


if __name__ == "__main__":
    main()

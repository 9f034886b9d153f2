"""Compiled modules in ordinary loops: what eager mode gives, by both executors."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_cases import cotangent, sample_input, state_values
from table_layers import LAYERS, Row, Sample

import slalom
from slalom import Tensor, nn, tensor
from slalom.compiler import llvm
from slalom.compiler.stage import Compiled
from slalom.errors import GradError, ShapeError, StagingError
from tests.test_lecture import BATCH, lecture

EXECUTORS = ("numpy", "native")


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native" and not llvm.available():
        pytest.skip("needs llvmlite")
    monkeypatch.setenv("SLALOM_EXECUTOR", "" if request.param == "native" else "numpy")
    return str(request.param)


def leaf(*values: float) -> Tensor:
    return tensor(list(values), requires_grad=True)


def pair(build: Callable[[], nn.Module]) -> tuple[Any, Any]:
    """A module and its compiled twin, with equal weights."""
    slalom.manual_seed(0)
    eager = build()
    return eager, slalom.compile(copy.deepcopy(eager))


def agree(found: Any, expected: Any, name: str = "") -> None:
    assert (found is None) == (expected is None), name
    if expected is not None:
        assert found.shape == expected.shape and found.dtype == expected.dtype, name
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-6, atol=1e-6, err_msg=name)


def same_state(found: nn.Module, expected: nn.Module) -> None:
    """Parameters, their gradients and buffers are equal."""
    theirs = dict(expected.named_parameters())
    for name, p in found.named_parameters():
        agree(p.grad, theirs[name].grad, f"gradient of {name}")
    for name, value in found.state_dict().items():
        agree(value, expected.state_dict()[name], name)


def calls_of(module: nn.Module) -> Compiled:
    call = module._compiled_call
    assert isinstance(call, Compiled)
    return call


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def noisy() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 2))


X = tensor(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32))


# --- layers -------------------------------------------------------------------------------------------------------
def _cases() -> list[Any]:
    """Layers with parameters or draws, in each mode in which they do something else.

    All of them run in NumPy; in machine code the first variant of each, and what draws or keeps statistics. (The same
    operations of the other variants are machine code in test_layers.py.)
    """
    cases, seen = [], set()
    for row in (row for row in LAYERS if row.state or row.random):
        sample = next(s for s in row.samples if "train" in s.modes and len(s.shape) and 0 not in s.shape)
        differ = row.random or any(name.endswith("running_mean") for name in row.state)
        for executor in EXECUTORS if differ or row.name not in seen else EXECUTORS[:1]:
            for mode in ("train", "eval") if differ or row.id == "Linear" else ("train",):
                cases.append(pytest.param(executor, row, sample, mode, id=f"{executor}-{row.id}-{mode}"))
        seen.add(row.name)
    return cases


@pytest.mark.parametrize(("executor", "row", "sample", "mode"), _cases(), indirect=["executor"])
def test_three_steps_of_a_layer_are_those_of_eager_mode(row: Row, sample: Sample, mode: str, executor: str) -> None:
    eager, compiled = pair(lambda: row.build(nn))
    weights = tensor(cotangent(row.out(sample.shape)).astype(np.float32))
    given = sample_input(row.id, sample)
    given = given.astype(np.float32) if given.dtype.kind == "f" else given
    found = []
    for module in (eager, compiled):
        module.load_state_dict(state_values(row)) if row.state else None
        module.train(mode == "train")
        slalom.manual_seed(5)
        losses, x_grads = [], []
        for _ in range(3):
            x = tensor(given)
            if x.dtype.kind == "f":
                x.requires_grad = True
            loss = (module(x) * weights).sum()
            loss.backward()
            losses.append(loss.detach())
            x_grads.append(x.grad)
            with slalom.no_grad():
                for p in module.parameters():
                    p.sub_(p.grad * 0.1)
        found.append((losses, x_grads))
    for theirs, ours in zip(*found, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            agree(a, b)
    same_state(compiled, eager)
    assert calls_of(compiled).traces == 1


# --- what a call returns and takes --------------------------------------------------------------------------------
class Several(nn.Module):
    """Outputs of all kinds, of which each parameter reaches some only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
        left, right = self.a(x) * scale, self.b(x).exp()
        return {"left": left, "both": (left * right, [right]), "best": right.argmax(-1), "scale": scale, "x": x}


@pytest.mark.parametrize("used", ["left", "both", "x", "all"])
def test_several_outputs(used: str, executor: str) -> None:
    eager, compiled = pair(Several)
    grads = []
    for module in (eager, compiled):
        x = X.detach().requires_grad_()
        out = module(x, scale=2.0)
        assert out["scale"] == 2.0 and out["best"].dtype == np.int64 and not out["best"].requires_grad
        assert isinstance(out["both"], tuple) and isinstance(out["both"][1], list)
        parts = {"left": out["left"], "both": out["both"][0], "x": out["x"]}
        chosen = parts.values() if used == "all" else [parts[used]]
        sum((part * part).sum() for part in chosen).backward()
        grads.append(x.grad)
    agree(grads[1], grads[0])
    same_state(compiled, eager)  # None where an output does not depend on a parameter


def test_frozen_and_shared_parameters(executor: str) -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 2))
        model[2].weight = model[0].weight
        model[3].requires_grad_(False)
        return model

    eager, compiled = pair(build)
    for module in (eager, compiled):
        module(X).sum().backward()
    assert compiled[3].weight.grad is None
    same_state(compiled, eager)
    for module in (eager, compiled):  # a change of what is frozen is seen
        module.zero_grad()
        module[3].requires_grad_(True)
        module[0].bias.requires_grad_(False)
        module(X).sum().backward()
    assert compiled[3].weight.grad is not None and compiled[0].bias.grad is None
    same_state(compiled, eager)


def test_an_input_with_a_history_and_a_compiled_part_of_a_model(executor: str) -> None:
    eager, compiled = pair(lambda: nn.Sequential(nn.Linear(3, 3), net(), nn.Linear(2, 1)))
    compiled = copy.deepcopy(eager)
    slalom.compile(compiled[1])
    slalom.compile(compiled[2])
    for module in (eager, compiled):
        module(X).exp().sum().backward()
    assert calls_of(compiled[1]).traces == 1
    same_state(compiled, eager)


def test_a_tensor_that_no_module_knows_learns_too(executor: str) -> None:
    outside = leaf(2.0, 3.0)

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * outside

    model = slalom.compile(Scaled())
    model(tensor([4.0, 5.0])).sum().backward()
    assert outside.grad is not None and outside.grad.tolist() == [4.0, 5.0]


def test_without_gradients_nothing_is_on_the_tape(executor: str) -> None:
    eager, compiled = pair(net)
    with slalom.no_grad():
        agree(compiled(X), eager(X))
        assert not compiled(X).requires_grad
    out = compiled(X)
    assert out.requires_grad and not out.is_leaf
    agree(out.detach(), eager(X).detach())
    compiled.requires_grad_(False)
    assert not compiled(X).requires_grad


def test_calls_without_tensors_and_without_outputs(executor: str) -> None:
    class Count(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", tensor(0))

        def forward(self) -> None:
            self.seen.add_(1)

    count = slalom.compile(Count())
    assert count() is None and count() is None
    assert count.seen.item() == 2


def test_outputs_are_values_of_their_own(executor: str) -> None:
    model = slalom.compile(nn.Identity())
    x = leaf(1.0, 2.0)
    out = model(x)
    with slalom.no_grad():
        x.zero_()
    assert out.tolist() == [1.0, 2.0]
    first = model(x)
    model(leaf(5.0, 6.0))
    assert first.tolist() == [0.0, 0.0]


# --- state --------------------------------------------------------------------------------------------------------
def test_train_and_eval_mode(executor: str) -> None:
    eager, compiled = pair(noisy)
    for mode in (True, False, True, False):
        found = []
        for module in (eager, compiled):
            module.train(mode)
            slalom.manual_seed(3)
            out = module(X)
            out.sum().backward()
            found.append(out.detach())
        agree(found[1], found[0])
    same_state(compiled, eager)
    assert calls_of(compiled).traces == 2 and compiled[1].num_batches_tracked.item() == 2


def test_dropout_draws_anew_and_backward_uses_what_was_drawn(executor: str) -> None:
    model = slalom.compile(nn.Dropout(0.5))
    x = slalom.ones(64, requires_grad=True)
    draws = []
    for _ in range(4):
        out = model(x)
        out.sum().backward()
        assert x.grad is not None and x.grad.tolist() == out.tolist()
        x.grad = None
        draws.append(tuple(out.tolist()))
    assert len(set(draws)) == 4 and calls_of(model).traces <= 2


def test_statistics_follow_at_the_call_not_at_backward(executor: str) -> None:
    eager, compiled = pair(lambda: nn.BatchNorm1d(3))
    for module in (eager, compiled):
        a, b = module(X), module(X * 2)
        assert module.num_batches_tracked.item() == 2
        (a * b).sum().backward()
        assert module.num_batches_tracked.item() == 2
    same_state(compiled, eager)


def test_a_state_that_would_carry_gradients_to_the_next_call_is_refused() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter([2.0])
            self.register_buffer("h", slalom.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.h.assign(self.h * self.w + x)

    with pytest.raises(StagingError, match=r"Recurrent: h: what a compiled module writes.*detach\(\)"):
        slalom.compile(Recurrent())(tensor([1.0]))

    class Remembers(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            h = self.h * self.w + x
            self.h.detach().copy_(h)
            return h

    model = slalom.compile(Remembers())
    model(tensor([1.0]))
    model(tensor([1.0])).sum().backward()
    assert model.h.tolist() == [3.0] and model.w.grad is not None and model.w.grad.tolist() == [1.0]

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter([2.0])

        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(self.w)

    with pytest.raises(StagingError, match="argument 0: what a compiled module writes"):
        slalom.compile(Writes())(tensor([1.0]))


# --- the tape -----------------------------------------------------------------------------------------------------
def test_gradients_accumulate_and_graphs_are_retained(executor: str) -> None:
    eager, compiled = pair(net)
    for module in (eager, compiled):
        loss = module(X).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        module(X[:4]).exp().sum().backward()
        with pytest.raises(GradError, match="backward a second time"):
            loss.backward()
    same_state(compiled, eager)


def test_one_gradient_at_a_time(executor: str) -> None:
    eager, compiled = pair(net)
    found = []
    for module in (eager, compiled):
        x = X.detach().requires_grad_()
        out, weights = module(x), slalom.ones(6, 2)
        grads = []
        for p in (x, x, module[0].weight, module[2].bias, x):
            grads += slalom.autograd.grad(out, p, weights, retain_graph=True)
            if len(grads) > 1:
                with slalom.no_grad():
                    weights.mul_(2.0)
        found.append(grads)
    for ours, theirs in zip(found[1], found[0], strict=True):
        agree(ours, theirs)


@pytest.mark.parametrize("what", ["parameter", "input", "buffer", "output"])
def test_a_value_overwritten_before_backward_is_an_error(what: str, executor: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.register_buffer("scale", slalom.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return ((self.fc(x) * self.scale) @ self.fc.weight).exp()

    model = slalom.compile(Model())
    x = X.clone()
    out = model(x)
    with slalom.no_grad():
        {"parameter": model.fc.weight, "input": x, "buffer": model.scale, "output": out}[what].mul_(2.0)
    with pytest.raises(GradError, match=r"derivative of module call.*overwritten in place at .*test_compiled_modules"):
        out.sum().backward()


def test_backward_reads_what_forward_has_overwritten_itself(executor: str) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter([1.0, 2.0])
            self.register_buffer("count", slalom.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            out = self.w * self.count * x
            self.count.add_(1.0)
            x.mul_(10.0)
            return out

    model = slalom.compile(Counts())
    x = tensor([3.0, 4.0])
    (model(x) * model(x)).sum().backward()  # w·x times w·2·10·x
    assert x.tolist() == [300.0, 400.0] and model.w.grad.tolist() == [40.0 * 9, 40.0 * 2 * 16]


def test_a_value_that_backward_does_not_need_may_be_overwritten(executor: str) -> None:
    eager, compiled = pair(net)
    for module in (eager, compiled):
        x = X.clone()
        out = module(x)
        with slalom.no_grad():
            module[2].bias.zero_()
            out.zero_()
        out.sum().backward()
    same_state(compiled, eager)


def test_outputs_and_inputs_may_be_written_while_recording(executor: str) -> None:
    eager, compiled = pair(lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)))
    found = []
    for module in (eager, compiled):
        x = X.detach().requires_grad_()
        h = x * 1
        h += module(h)
        out = module(h)
        out *= 3.0
        data = X.clone()
        data += module(data)
        (out.sum() + data.sum()).backward()
        found.append(x.grad)
    agree(found[1], found[0])
    same_state(compiled, eager)


def test_other_derivatives_say_what_to_do() -> None:
    model = slalom.compile(net())
    x = X.detach().requires_grad_()
    hint = "through the call of a compiled module.*compile the function that takes the derivatives"
    with pytest.raises(GradError, match=f"derivatives of gradients {hint}"):
        model(x).sum().backward(create_graph=True)
    with pytest.raises(GradError, match=f"forward-mode derivatives {hint}"):
        slalom.jvp(model, (X,), (X,))


def test_inside_staging_a_call_is_part_of_the_outer_graph() -> None:
    eager, compiled = pair(net)

    def norm(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def function(x: Tensor) -> Tensor:
            (g,) = slalom.autograd.grad(model(x).exp().sum(), x, create_graph=True)
            loss = (g * g).sum()
            loss.backward()
            return loss

        return function

    step = slalom.compile(norm(compiled))
    agree(step(X.detach().requires_grad_()), norm(eager)(X.detach().requires_grad_()).detach())
    same_state(compiled, eager)
    assert calls_of(compiled).traces == 0
    assert "module call" not in {eq.prim.name for eq in step.graph.equations}


# --- records ------------------------------------------------------------------------------------------------------
def test_what_a_call_depends_on_is_guarded(executor: str) -> None:
    eager, compiled = pair(net)
    calls = calls_of(compiled)

    def step(x: Tensor = X) -> int:
        found = []
        for module in (eager, compiled):
            module.zero_grad()
            out = module(x)
            out.sum().backward()
            found.append(out.detach())
        agree(found[1], found[0])
        same_state(compiled, eager)
        return calls.traces

    assert [step(), step()] == [1, 1]
    assert [step(X[:2]), step()] == [2, 2]
    for module in (eager, compiled):
        module[0].weight = nn.Parameter(slalom.ones(8, 3))
    assert step() == 3
    handles = [module[1].register_forward_hook(lambda m, args, out: out * 2) for module in (eager, compiled)]
    assert step() == 4
    for handle in handles:
        handle.remove()
    assert [step(), step()] == [4, 4]  # the third record holds again
    eager.double()
    compiled.double()
    assert step(X.double()) == 5


def test_a_branch_on_a_value_names_the_line() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(StagingError, match=r"Branches: .*while staging, at .*test_compiled_modules.py:\d+"):
        slalom.compile(Branches())(tensor([1.0]))


def test_errors_name_the_place_as_in_eager_mode() -> None:
    eager, compiled = pair(lambda: nn.Sequential(nn.Identity(), net()))
    messages = []
    for module in (eager, compiled):
        with pytest.raises(ShapeError) as caught:
            module(slalom.ones(2, 5))
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and messages[0].startswith("model.1.0 (Linear 3→8): input has 5 features")
    outer = nn.Sequential(slalom.compile(nn.Embedding(4, 2)))
    outer(tensor([1]))
    with pytest.raises(slalom.errors.IndexRangeError, match=r"model\.0 \(Embedding 4→2\): gather: index"):
        outer(tensor([7]))


def test_an_error_when_it_runs_changes_nothing(executor: str) -> None:
    model = slalom.compile(nn.Sequential(nn.Embedding(4, 3), nn.BatchNorm1d(3)))
    model(tensor([1, 2]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(slalom.errors.IndexRangeError, match="got 7"):
        model(tensor([1, 7]))
    for name, value in model.state_dict().items():
        assert value.tolist() == before[name].tolist()
    model(tensor([1, 3])).sum().backward()


# --- the module itself --------------------------------------------------------------------------------------------
def test_a_compiled_module_is_the_module() -> None:
    model = net()
    names, parts = set(model.state_dict()), str(model)
    assert slalom.compile(model) is model and slalom.compile(model) is model
    call = calls_of(model)
    assert slalom.compile(model)._compiled_call is call
    assert set(model.state_dict()) == names and str(model) == parts and isinstance(model, nn.Sequential)
    with pytest.raises(StagingError, match="compile: got the class Linear; needed a function or an instance"):
        slalom.compile(nn.Linear)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "deepcopy", "pickle"]
)
def test_a_copy_is_not_compiled_and_can_be(copied: Any) -> None:
    model = slalom.compile(net())
    model(X).sum().backward()
    twin = copied(model)
    assert twin._compiled_call is None and model._compiled_call is not None
    agree(twin(X).detach(), model(X).detach())
    twin = slalom.compile(twin)
    agree(twin(X).detach(), model(X).detach())
    assert calls_of(twin) is not calls_of(model)


def test_weights_can_be_loaded_and_saved(tmp_path: Any, executor: str) -> None:
    eager, compiled = pair(noisy)
    compiled(X)
    eager.load_state_dict({name: value * 2 for name, value in eager.state_dict().items()})
    compiled.load_state_dict(eager.state_dict())
    eager.eval()
    compiled.eval()
    agree(compiled(X).detach(), eager(X).detach())
    slalom.save(compiled, tmp_path / "model.slalom")
    agree(slalom.load(tmp_path / "model.slalom")(X).detach(), eager(X).detach())


def test_calls_from_several_threads(executor: str) -> None:
    eager, compiled = pair(net)
    inputs = [tensor(np.random.default_rng(n).normal(size=(4 + n % 2, 3)).astype(np.float32)) for n in range(4)]
    found: dict[int, list[Any]] = {n: [] for n in range(4)}

    def work(n: int) -> None:
        for _ in range(20):
            x = inputs[n].detach().requires_grad_()
            found[n].append(slalom.autograd.grad(compiled(x).exp().sum(), x)[0])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, x in enumerate(inputs):
        x = x.detach().requires_grad_()
        (expected,) = slalom.autograd.grad(eager(x).exp().sum(), x)
        assert len(found[n]) == 20
        for grad in found[n]:
            agree(grad, expected)
    assert calls_of(compiled).traces == 2


def test_the_lectures_loop(executor: str) -> None:
    found = []
    for compiled in (False, True):
        names = lecture("slalom")
        slalom.manual_seed(0)
        model, dataset = names["LogisticRegression"](5), names["Points"]()
        if compiled:
            model = names["torch"].compile(model)
        loader = names["DataLoader"](dataset, batch_size=BATCH, shuffle=True)
        losses = names["train"](model, loader, 3)
        found.append((losses, names["accuracy"](model, dataset), model))
    (losses, accuracy, eager), (ours, our_accuracy, compiled_model) = found
    np.testing.assert_allclose(ours, losses, rtol=1e-6)
    assert our_accuracy == accuracy and calls_of(compiled_model).traces == 4  # whole and last batches, twice
    for name, value in eager.state_dict().items():
        agree(compiled_model.state_dict()[name], value, name)

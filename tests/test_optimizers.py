"""Every optimizer of the table: parity with PyTorch, staged = eager, resume, errors; and the base that they share."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import optim
from slalom.errors import ConfigError, ModelFileError
from slalom.optim import SGD, Adam, AdamW, Optimizer
from tests.table_optimizers import (
    CASE_IDS,
    CASES,
    IDS,
    PROBLEMS,
    SAMPLES,
    TABLE,
    TORCH_CASES,
    TORCH_IDS,
    Row,
    step,
    walk,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text(encoding="utf-8"))
each_sample = pytest.mark.parametrize(("row", "options"), SAMPLES, ids=IDS)
TORCH_SAMPLE_IDS = [name for name, (row, _) in zip(IDS, SAMPLES, strict=True) if row.reference is None]
each_case = pytest.mark.parametrize(("row", "options", "problem"), CASES, ids=CASE_IDS)
each_torch_case = pytest.mark.parametrize(("row", "options", "problem"), TORCH_CASES, ids=TORCH_IDS)


OWN_TESTS = {"Optimizer", "LBFGS", "Lookahead"}
"""Public classes that are no rules: their tests are in test_lbfgs.py and test_lookahead.py."""


def leaf(*values: float, dtype: Any = None) -> slalom.Tensor:
    return slalom.tensor(list(values), dtype=dtype, requires_grad=True)


def moved(optimizer: Optimizer, *grads: float) -> list[float]:
    """Give the first parameter of each group these gradients, step by step; its first value after each."""
    found = []
    for grad in grads:
        for group in optimizer.param_groups:
            p = group["params"][0]
            p.grad = p.detach() * 0 + grad
        optimizer.step()
        found.append(float(optimizer.param_groups[0]["params"][0].detach().reshape(-1)[0]))
    return found


# --- the table ----------------------------------------------------------------------------------------------------
def test_every_optimizer_has_a_row_and_every_row_a_name() -> None:
    public = {name for name in optim.__all__ if isinstance(getattr(optim, name), type) and name not in OWN_TESTS}
    assert public == {row.name for row in TABLE}
    assert all(len(row.samples) >= 6 and row.wrong for row in TABLE)


@each_case
def test_goes_on_from_a_saved_state_to_the_same_bits(row: Row, options: dict[str, Any], problem: str) -> None:
    task = PROBLEMS[problem]
    for t, params, optimizer in walk(slalom, row.name, options, task, steps=30):
        if t == 24:
            # In the same layout: NumPy, whose results the tests take, adds up in the order of memory.
            kept, saved = [p.copy("K") for p in params], copy.deepcopy(optimizer.state_dict())
    again = [slalom.tensor(p, requires_grad=True) for p in kept]
    groups = [{"params": [again[i] for i in members]} for members, _ in task.groups]
    resumed = getattr(optim, row.name)(groups, lr=7.0)
    resumed.load_state_dict(saved)
    for t in range(24, 30):
        step(slalom, resumed, again, task, t)
    for ours, theirs in zip(again, params, strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs)


@pytest.mark.parametrize(("row", "options"), [s for s in SAMPLES if s[0].reference is None], ids=TORCH_SAMPLE_IDS)
def test_takes_over_from_pytorch(row: Row, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    task = PROBLEMS["network"]
    for t, params, optimizer in walk(torch, row.name, options, task, steps=60):
        if t == 45:  # when the rate has changed
            ours = [slalom.tensor(p, requires_grad=True) for p in params]
            groups = [{"params": [ours[i] for i in members]} for members, _ in task.groups]
            mine = getattr(optim, row.name)(groups)
            mine.load_state_dict(optimizer.state_dict())
    for t in range(45, 60):
        step(slalom, mine, ours, task, t)
    for p, theirs in zip(ours, params, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), theirs, rtol=2e-4, atol=2e-5)


@each_sample
def test_staged_is_eager_bit_for_bit_recorded_once_and_steered(row: Row, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x, y = (slalom.tensor(rng.normal(size=(16, n)).astype(np.float32)) for n in (6, 3))
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (1, 4) if row.problems else (4,), (4, 3))]

    def build() -> tuple[list[slalom.Tensor], Optimizer, Any]:
        w, b, v = params = [slalom.tensor(p, requires_grad=True) for p in start]
        optimizer = getattr(optim, row.name)([{"params": [w, v]}, {"params": [b], "lr": 0.03}], **options)

        def one(x: slalom.Tensor, y: slalom.Tensor) -> slalom.Tensor:
            error = (x @ w + b).tanh() @ v - y
            loss = (error * error).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return params, optimizer, one

    eager, staged = build(), build()
    compiled = slalom.compile(staged[2])
    for t in range(30):
        if t == 24:
            for _, optimizer, _ in (eager, staged):
                optimizer.param_groups[0]["lr"] *= 0.1
        rows = slice(t % 8, t % 8 + 8)
        assert eager[2](x[rows], y[rows]).item() == compiled(x[rows], y[rows]).item(), f"loss at step {t}"
    for p, q in zip(eager[0], staged[0], strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
        held, other = eager[1].state[p], staged[1].state[q]
        assert held.keys() == other.keys()
        for name, value in held.items():
            np.testing.assert_array_equal(value.numpy(), other[name].numpy(), err_msg=name)
    assert compiled.traces == 1


@each_sample
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_nothing_that_is_kept_is_denormal(row: Row, options: dict[str, Any], compiled: bool) -> None:
    """A processor needs a hundred cycles for each such number, and 0.9 times the least of them is itself."""
    p = slalom.tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), requires_grad=True)
    optimizer = getattr(optim, row.name)([p], **options)
    for _ in range(2):
        p.grad = slalom.full((3, 4), 0.5)
        optimizer.step()
    kept = [value for name, value in optimizer.state[p].items() if name != "step" and value.dtype.kind == "f"]
    for value in kept:
        value.assign(slalom.full(value.shape, 7e-45))
    p.grad = slalom.zeros(3, 4)
    (slalom.compile(optimizer.step) if compiled else optimizer.step)()
    tiny = np.finfo(np.float32).tiny
    for value in kept:
        found = np.abs(value.numpy())
        assert ((found == 0) | (found >= tiny)).all(), found


def test_a_mean_of_zeros_comes_to_rest_at_zero() -> None:
    p = leaf(1.0, 2.0)
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    p.grad = slalom.tensor([1.0, 1.0])
    optimizer.step()
    for _ in range(1000):
        p.grad = slalom.zeros(2)
        optimizer.step()
    assert optimizer.state[p]["momentum_buffer"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_wrong_options_are_named(row: Row) -> None:
    for options, words in row.wrong:
        with pytest.raises(ConfigError) as caught:
            getattr(optim, row.name)([leaf(1.0)], **options)
        assert f"{row.name}: " in str(caught.value) and words in str(caught.value)


# --- groups and state ---------------------------------------------------------------------------------------------
def test_a_group_has_options_of_its_own() -> None:
    a, b = leaf(1.0), leaf(1.0)
    optimizer = SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.1)
    moved(optimizer, 1.0)
    assert (a.item(), b.item()) == (0.5, pytest.approx(0.9))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    c = leaf(1.0)
    optimizer.add_param_group({"params": [c], "momentum": 0.9})
    moved(optimizer, 1.0, 1.0)
    assert c.item() == pytest.approx(1 - 0.1 - 0.19)


def test_parameters_may_come_with_names() -> None:
    optimizer = Adam(iter([("weight", leaf(1.0)), ("bias", leaf(0.0))]))
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert "group 0: 2 parameters, amsgrad=False, betas=(0.9, 0.999)" in repr(optimizer)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([], "params: got none"),
        (leaf(1.0), "params: got a Tensor"),
        ({"params": [leaf(1.0)]}, "params: got a dict"),
        ({leaf(1.0)}, "params: got a set"),
        (3, "params: got a int"),
        ([{"lr": 0.1}], "got keys ['lr']; needed the key 'params'"),
        ([{"params": {leaf(1.0)}}], "params: got a set"),
        ([leaf(1.0), 2.0], "a parameter: got float"),
        ([leaf(1.0) * 2], "a parameter of shape (1,): got the result of an operation; needed a leaf"),
        ([{"params": [leaf(1.0)], "lr": -1}], "lr: got -1"),
    ],
)
def test_wrong_parameters_are_named(params: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SGD(params, lr=0.1)
    assert words in str(caught.value)


def test_no_parameter_may_be_given_twice() -> None:
    p = leaf(1.0)
    with pytest.raises(ConfigError, match="given twice"):
        SGD([p, p], lr=0.1)
    optimizer = SGD([p], lr=0.1)
    with pytest.raises(ConfigError, match="given twice"):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ConfigError, match="nesterov"):
        optimizer.add_param_group({"params": [leaf(1.0)], "nesterov": True})
    assert len(optimizer.param_groups) == 1


def test_a_parameter_without_gradient_stands_still_and_so_does_its_count() -> None:
    a, b = leaf(1.0), leaf(1.0)
    optimizer = Adam([a, b], lr=0.1)
    both, first = (True, True), (True, False)
    for have in (both, first, first, both):
        for p, has in zip((a, b), have, strict=True):
            p.grad = slalom.tensor([1.0]) if has else None
        before = b.item()
        optimizer.step()
        assert (b.item() == before) is (have is first)
    assert (optimizer.state[a]["step"].item(), optimizer.state[b]["step"].item()) == (4, 2)
    assert a.item() == pytest.approx(1 - 0.4, abs=1e-6)
    assert b.item() == pytest.approx(1 - 0.2, abs=1e-6)


def test_parameters_of_equal_count_share_it() -> None:
    params = [leaf(1.0) for _ in range(3)]
    optimizer = Adam(params)
    for p in params[:2]:
        p.grad = slalom.tensor([1.0])
    optimizer.step()
    assert optimizer.state[params[0]]["step"] is optimizer.state[params[1]]["step"]
    assert params[2] not in optimizer.state
    again = Adam([leaf(1.0) for _ in range(3)])
    again.load_state_dict(optimizer.state_dict())
    kept = [again.state[p]["step"] for p in again.param_groups[0]["params"][:2]]
    assert kept[0] is kept[1]
    assert kept[0] is not optimizer.state[params[0]]["step"]


def test_counts_are_not_shared_between_groups() -> None:
    a, b = leaf(1.0), leaf(1.0)
    optimizer = Adam([{"params": [a]}, {"params": [b]}])
    moved(optimizer, 1.0)
    optimizer.load_state_dict(optimizer.state_dict())
    moved(optimizer, 1.0)
    assert [optimizer.state[p]["step"].item() for p in (a, b)] == [2, 2]


def test_zero_grad_forgets_or_fills() -> None:
    a, b = leaf(1.0), leaf(2.0)
    optimizer = SGD([a, b], lr=0.1)
    a.grad = slalom.tensor([3.0])
    optimizer.zero_grad(set_to_none=False)
    assert (a.grad.item(), b.grad) == (0.0, None)
    optimizer.zero_grad()
    assert a.grad is None


def test_step_returns_what_the_closure_returns_and_lets_it_differentiate() -> None:
    w = leaf(3.0)
    optimizer = SGD([w], lr=0.1)

    def closure() -> slalom.Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with slalom.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert w.item() == pytest.approx(3 - 0.6)


def test_hyper_parameters_may_be_tensors() -> None:
    rate = slalom.tensor(0.5)
    w = leaf(1.0)
    optimizer = SGD([w], lr=rate)
    moved(optimizer, 1.0)
    rate.fill_(0.25)
    assert moved(optimizer, 1.0) == [0.25]


def test_nothing_is_widened_and_nothing_is_recorded() -> None:
    w = slalom.tensor([1.0], dtype=slalom.float32, requires_grad=True)
    optimizer = AdamW([w])
    moved(optimizer, 1.0)
    assert w.dtype == slalom.float32 and w.is_leaf and w.requires_grad
    held = optimizer.state[w]
    assert {name: (t.dtype.name, t.requires_grad) for name, t in held.items()} == {
        "step": ("float64", False),
        "exp_avg": ("float32", False),
        "exp_avg_sq": ("float32", False),
    }


def test_bias_corrections_are_those_of_float64() -> None:
    # In float32, 1 - 0.999 is wrong by 1.3e-5 already; so would be the second step's rate.
    w = slalom.tensor([0.0], dtype=slalom.float32, requires_grad=True)
    found = moved(Adam([w], lr=1.0, eps=0.0), 1.0, 0.5)
    mean, square = 0.9 * 0.1 + 0.1 * 0.5, 0.999 * 0.001 + 0.001 * 0.25
    second = mean / (1 - 0.9**2) / np.sqrt(square / (1 - 0.999**2))
    assert found == pytest.approx([-1.0, -1 - second], rel=3e-7)


# --- saving -------------------------------------------------------------------------------------------------------
def test_state_dict_has_the_layout_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    task = PROBLEMS["network"]
    options = {"lr": 0.1, "weight_decay": 0.1}
    mine, other = (list(walk(lib, "Adam", options, task, steps=4))[-1][2].state_dict() for lib in (slalom, torch))
    assert {i: set(held) for i, held in mine["state"].items()} == {i: set(held) for i, held in other["state"].items()}
    assert [group["params"] for group in mine["param_groups"]] == [group["params"] for group in other["param_groups"]]
    for i, held in mine["state"].items():
        assert held["step"].item() == other["state"][i]["step"].item()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([leaf(1.0)], "SGD: saved groups: got sizes [2]; needed sizes [1]"),
        ([leaf(1.0), leaf(1.0, 2.0)], "SGD: saved momentum_buffer: got shape (1,); needed shape (2,)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_as_a_whole(params: list[slalom.Tensor], words: str) -> None:
    a, b = leaf(1.0), leaf(1.0)
    saved = SGD([a, b], lr=0.1, momentum=0.9)
    a.grad = b.grad = slalom.tensor([1.0])
    saved.step()
    optimizer = SGD(params, lr=0.5)
    with pytest.raises(ModelFileError) as caught:
        optimizer.load_state_dict(saved.state_dict())
    assert words in str(caught.value)
    assert not optimizer.state and optimizer.param_groups[0]["lr"] == 0.5


def test_options_that_make_no_sense_are_refused_when_loaded_too() -> None:
    saved = SGD([leaf(1.0)], lr=0.1).state_dict()
    saved["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ConfigError, match=r"SGD: lr: got -1\.0"):
        SGD([leaf(1.0)], lr=0.1).load_state_dict(saved)


def test_a_loaded_state_is_a_copy_and_betas_may_be_a_list() -> None:
    w = leaf(1.0)
    optimizer = Adam([w])
    moved(optimizer, 1.0)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["betas"] = [0.5, 0.6]
    other = Adam([leaf(1.0)])
    other.load_state_dict(saved)
    moved(other, 1.0)
    assert optimizer.state[w]["exp_avg"].item() == pytest.approx(0.1)
    assert other.param_groups[0]["betas"] == (0.5, 0.6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_an_optimizer_is_copied_with_its_parameters(copied: Any) -> None:
    w = leaf(1.0)
    optimizer = Adam([w], lr=0.1)
    moved(optimizer, 1.0, 2.0)
    twin, twin_w = copied((optimizer, w))
    assert twin.param_groups[0]["params"][0] is twin_w
    assert moved(twin, 0.5) == moved(optimizer, 0.5)


# --- rules of one's own -------------------------------------------------------------------------------------------
class Lion(Optimizer):
    """A rule in Slalom's style."""

    slots = ("exp_avg",)

    @staticmethod
    def update(param: Any, grad: Any, slots: Any, hyper: Any) -> Any:
        beta1, beta2 = hyper["betas"]
        mean = slots["exp_avg"]
        direction = (beta1 * mean + (1 - beta1) * grad).sign()
        return param - hyper["lr"] * direction, {"exp_avg": beta2 * mean + (1 - beta2) * grad}


class PlainAdamW(Optimizer):
    """A rule in PyTorch's style, as the course's exercise asks for."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01})

    @slalom.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(t=0, m=slalom.zeros_like(p), v=slalom.zeros_like(p))
                state["t"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                root = (state["v"] / (1 - beta2 ** state["t"])).sqrt() + group["eps"]
                p.addcdiv_(state["m"], root, value=-group["lr"] / (1 - beta1 ** state["t"]))


def test_a_rule_of_ones_own() -> None:
    w = leaf(1.0)
    assert moved(Lion([w], {"lr": 0.25, "betas": (0.9, 0.99)}), 2.0, -0.1, -1.0) == [0.75, 0.5, 0.75]


def test_a_step_of_ones_own() -> None:
    gradients = (1.0, 0.5, -2.0, 0.1)
    optimizer = PlainAdamW([leaf(1.0)], lr=0.1)
    assert moved(optimizer, *gradients) == pytest.approx(moved(AdamW([leaf(1.0)], lr=0.1), *gradients), rel=1e-6)
    other = PlainAdamW([slalom.tensor(optimizer.param_groups[0]["params"][0].detach(), requires_grad=True)], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[other.param_groups[0]["params"][0]]["t"] == 4
    assert moved(other, 0.5) == moved(optimizer, 0.5)


def test_an_optimizer_without_a_rule_says_so() -> None:
    with pytest.raises(NotImplementedError, match="update"):
        moved(Optimizer([leaf(1.0)], {"lr": 0.1}), 1.0)


# --- staging ------------------------------------------------------------------------------------------------------
def compiled_step(optimizer: Optimizer) -> Any:
    """One compiled step on Σw², without gradients before and after."""

    @slalom.compile
    def run() -> None:
        losses = [(p * p).sum() for group in optimizer.param_groups for p in group["params"]]
        sum(losses[1:], losses[0]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def test_every_number_steers_a_compiled_step() -> None:
    for options in ({"betas": (0.9, 0.999)}, {"betas": (0.5, 0.5), "eps": 1.0, "weight_decay": 0.5, "lr": 0.1}):
        w, v = leaf(1.0, -2.0), leaf(1.0, -2.0)
        staged, eager = (Adam([p], lr=0.2, weight_decay=0.1) for p in (w, v))
        run = compiled_step(staged)
        for t in range(6):
            if t == 3:
                for optimizer in (staged, eager):
                    optimizer.param_groups[0].update(options)
            run()
            eager.zero_grad()
            (v * v).sum().backward()
            eager.step()
        np.testing.assert_array_equal(w.detach().numpy(), v.detach().numpy())
        assert run.traces == 1


def test_switching_an_option_on_records_anew() -> None:
    w = leaf(1.0)
    optimizer = SGD([w], lr=0.25)
    run = compiled_step(optimizer)
    run(), run()
    assert (w.item(), run.traces) == (0.25, 1)
    optimizer.param_groups[0]["weight_decay"] = 2.0
    run()
    assert (w.item(), run.traces) == (0.0, 2)


def test_a_number_in_place_of_none_records_anew() -> None:
    w = slalom.tensor(np.eye(3), requires_grad=True)
    optimizer = optim.Adafactor([w], lr=0.1)
    run = compiled_step(optimizer)
    for eps, traces in (((None, 0.001), 1), ((None, 0.1), 1), ((1e-5, 0.1), 2), ((1e-4, 0.1), 2)):
        optimizer.param_groups[0]["eps"] = eps
        run()
        assert run.traces == traces


def test_a_count_records_anew() -> None:
    w = slalom.tensor(np.eye(3), requires_grad=True)
    optimizer = optim.Muon([w], lr=0.1)
    run = compiled_step(optimizer)
    for name, value, traces in (("eps", 1e-3, 1), ("ns_steps", 2, 2)):
        run()
        optimizer.param_groups[0][name] = value
        run()
        assert run.traces == traces


def test_a_new_group_records_anew() -> None:
    w, v = leaf(1.0), leaf(1.0)
    optimizer = SGD([w], lr=0.25)
    run = compiled_step(optimizer)
    run()
    optimizer.add_param_group({"params": [v]})
    run()
    assert (w.item(), v.item(), run.traces) == (0.25, 0.5, 2)


def test_a_parameter_frozen_and_freed_is_seen() -> None:
    w, v = leaf(1.0), leaf(1.0)
    optimizer = Adam([w, v], lr=0.1)
    run = compiled_step(optimizer)
    run()
    v.requires_grad = False
    run()
    assert v.item() == pytest.approx(0.9)
    v.requires_grad = True
    run()
    assert [optimizer.state[p]["step"].item() for p in (w, v)] == [3, 2]
    assert run.traces == 3


def test_a_loaded_state_is_seen() -> None:
    w = leaf(1.0)
    optimizer = Adam([w], lr=0.1)
    run = compiled_step(optimizer)
    run()
    saved = copy.deepcopy(optimizer.state_dict())
    run()
    optimizer.load_state_dict(saved)
    run()
    assert optimizer.state[w]["step"].item() == 2


def test_state_made_while_staging_is_concrete_and_named() -> None:
    w = leaf(1.0)
    optimizer = Adam([("weight", w)], lr=0.1)
    run = compiled_step(optimizer)
    run()
    held = optimizer.state[w]
    assert {name: t.numpy().shape for name, t in held.items()} == {"step": (), "exp_avg": (1,), "exp_avg_sq": (1,)}
    assert w.grad is None
    text = str(run.graph)
    assert all(words in text for words in ("number lr", "number betas[1]", "write exp_avg_sq of weight", "write step"))


def test_the_scalar_arithmetic_is_done_once_for_all_parameters() -> None:
    counts = []
    for n in (1, 5):
        run = compiled_step(Adam([leaf(1.0) for _ in range(n)], weight_decay=0.1))
        run()
        graph = run.graph
        in_float64 = sum(graph.types[eq.out].dtype == np.float64 for eq in graph.equations)
        counts.append((in_float64, sum(eq.prim.name == "cast" for eq in graph.equations)))
    assert counts[0] == counts[1]
    assert counts[0][1] <= 8


def test_steps_leave_nothing_to_collect() -> None:
    params = [leaf(1.0) for _ in range(3)]
    optimizer = AdamW(params, amsgrad=True)
    moved(optimizer, 1.0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            optimizer.zero_grad()
            sum((p * p).sum() for p in params).backward()
            optimizer.step()
        assert gc.collect() == 0
    finally:
        gc.enable()

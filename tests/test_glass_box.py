"""The glass box: every stage of a compiled training step can be printed, and says what is true of what runs."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn, optim
from slalom.compiler import program as programs
from slalom.compiler.native import native
from slalom.compiler.program import STAGES, Program, address
from slalom.compiler.simplify import simplify
from slalom.compiler.stage import Compiled
from slalom.compiler.times import spent, timed
from slalom.core.ops import TABLE
from slalom.core.primitive import Constant
from slalom.core.tensor import apply

pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

BATCH, WIDTHS = 64, (20, 32, 3)
LAYERS = list(pairwise(WIDTHS))


def trained(calls: int = 1) -> Compiled:
    """A training step of an MLP, and its calls."""
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Linear(*LAYERS[0]), nn.ReLU(), nn.Linear(*LAYERS[1]))
    criterion, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters())

    @slalom.compile
    def step(x: Any, y: Any) -> Any:
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    x = np.random.default_rng(0).standard_normal((BATCH, WIDTHS[0])).astype(np.float32)
    for _ in range(calls):
        step(x, (x[:, 0] > 0).astype(np.int64))
    return step


@pytest.fixture(scope="module")
def step() -> Compiled:
    return trained(2)  # the second finds the optimizer's state


@pytest.fixture(scope="module")
def program(step: Compiled) -> Program:
    return step.program


# --- the stages ---------------------------------------------------------------------------------------------------
def test_graph_names_states_and_lines(step):
    text = str(step.graph)
    for name in ("argument", "state", "number", "test_glass_box.py:"):
        assert name in text


def test_simplified_graph_is_checked(program, monkeypatch):
    assert len(program.graph.equations) < len(program.source.equations)
    assert simplify(program.source).check()

    def broken(graph: Any) -> Any:
        graph = simplify(graph)
        return replace(graph, equations=graph.equations[1:])

    monkeypatch.setattr(programs, "simplify", broken)
    monkeypatch.setenv("SLALOM_CACHE_DIR", "")
    with pytest.raises(AssertionError, match="used before it is defined"):
        Program(program.source)


def kernels_of(program: Program, kind: str) -> list[str]:
    """The kernels of a kind as they are printed."""
    return [text for text in map(str, program.kernels.kernels) if f": {kind} [" in text]


def test_products_carry_what_is_done_to_their_result(program):
    hidden, *_ = kernels_of(program, "product")
    assert re.fullmatch(
        r"kernel \d+: product \[64, 32\]\n"
        r"  %(\d+) = matmul\(%\d+\[i0, i2\], %\d+\[i1, i2\]\)\n"
        r"  %(\d+) = add\(%\1, %\d+\[i1\]\)\n"
        r"  %\d+ = relu\(%\2\)  → memory",
        hidden,
    )
    assert len(kernels_of(program, "product")) == 5  # two forward, two of the weights, one of the hidden layer


def test_the_loss_and_its_gradient_are_one_pass_over_the_rows(program):
    (loss,) = [text for text in kernels_of(program, "row") if "amax(" in text]
    for operation in ("sum(", "exp(", "log("):
        assert loss.count(operation) == 1, operation


def test_biases_get_sums_over_rows(program):
    assert len(kernels_of(program, "column")) == len(LAYERS)


def test_loops_name_extents_lanes_and_tasks(program):
    text = program.loops
    assert "for i0 in 0 … 64 by 16 lanes, in tasks:" in text and "rows × 32 columns, in tasks:" in text


def test_parameters_are_updated_in_place(program):
    graph, plan = program.kernels.graph, program.memory
    updated = {graph.types[graph.inputs[i].value].shape for i in plan.in_place.values()}
    assert {(WIDTHS[1], WIDTHS[0]), (WIDTHS[2], WIDTHS[1]), (WIDTHS[1],), (WIDTHS[2],)} <= updated
    assert str(plan).count("in place of input") == len(plan.in_place)
    assert f"arena of {plan.arena} bytes" in str(plan)


def test_llvm_is_what_code_generation_meets(program):
    text = program.llvm
    assert "@llvm.fma.v16f32" in text and "<16 x float>" in text
    assert "fast" not in text and "reassoc" not in text
    assert len(re.findall(r"^define void @k", text, re.MULTILINE)) == len(program._distinct())


def test_a_new_operation_needs_no_more_than_its_record():
    def impl(x: Any) -> Any:
        return np.maximum(x, 1) * x - 0.5

    prim = replace(TABLE["neg"], name="bent", impl=impl, expr="maximum(x, 1) * x - 0.5", kind=Constant())
    bent = slalom.compile(lambda x: apply(prim, x) + 1)
    x = np.linspace(-3, 3, 37, dtype=np.float32)
    np.testing.assert_array_equal(bent(x).numpy(), impl(x) + np.float32(1))
    assert "bent(%0[i0])" in str(bent.kernels)


# --- the cost -----------------------------------------------------------------------------------------------------
def test_cost_counts_the_products_of_the_step(program):
    weights = sum(a * b for a, b in LAYERS)
    first = LAYERS[0][0] * LAYERS[0][1]  # nobody asks for the gradient of the input
    found = sum(cost.flops for cost in program.cost if cost.call.startswith("product"))
    assert found == 2 * BATCH * weights * 3 - 2 * BATCH * first
    assert program.flops == sum(cost.flops for cost in program.cost) > found


def test_cost_counts_bytes(program):
    hidden = next(cost for cost in program.cost if cost.call.startswith("product [64, 32]"))
    x, h = BATCH * WIDTHS[0], BATCH * WIDTHS[1]
    assert hidden.bytes >= 4 * (x + WIDTHS[0] * WIDTHS[1] + WIDTHS[1] + h)
    assert f"{hidden.flops:,} operations" in str(hidden) and str(hidden).endswith(hidden.call)


# --- memory -------------------------------------------------------------------------------------------------------
def test_nothing_is_allocated_from_step_to_step():
    step = trained(2)
    program = step.program
    start, end = address(program._arena), address(program._arena) + program._arena.nbytes
    inside = {i: word for i, word in enumerate(program.words) if start <= word < end}
    assert len(inside) >= 10
    x = np.ones((BATCH, WIDTHS[0]), np.float32)
    for _ in range(3):
        step(x, np.zeros(BATCH, np.int64))
    assert step.program is program and address(program._arena) == start
    assert {i: word for i, word in enumerate(program.words) if start <= word < end} == inside


ALLOWED = re.compile(r"slalom\.|mem(move|set|cpy)\b|fmodf?\b")


def test_generated_code_calls_no_allocator(program):
    text = program.asm
    called = re.findall(r"^\s+call\w*\s+(\S+)", text, re.MULTILINE)
    called += re.findall(r"^\s+jmp\w*\s+([^.\s]\S*)", text, re.MULTILINE)  # a call in the last place
    assert any(name.startswith("slalom.exp") for name in called)
    assert [name for name in called if not ALLOWED.match(name)] == []


# --- SLALOM_DEBUG -------------------------------------------------------------------------------------------------
SAYS = {
    "graph": "%0: f32[64,20]",
    "kernels": "kernel 0: product [64, 32]",
    "loops": "for i2 in 0 … 20:",
    "llvm": "define void @k",
    "asm": ".text",
    "memory": "arena of",
    "times": "key ",
}


def test_debug_has_a_test_for_each_stage():
    assert SAYS.keys() == set(STAGES)


@pytest.mark.parametrize("stage", SAYS)
def test_debug_prints_a_stage_to_stderr(stage, program, monkeypatch, capsys):
    monkeypatch.setenv("SLALOM_DEBUG", stage)
    Program(program.source)
    out, err = capsys.readouterr()
    assert err.startswith(f"--- {stage}\n") and SAYS[stage] in err and out == ""
    assert err.count("--- ") == 1


def test_debug_takes_several_and_is_silent_without(program, monkeypatch, capsys):
    monkeypatch.setenv("SLALOM_DEBUG", "memory,kernels")
    Program(program.source)
    assert re.findall(r"^--- (\w+)$", capsys.readouterr().err, re.MULTILINE) == ["memory", "kernels"]
    monkeypatch.delenv("SLALOM_DEBUG")
    Program(program.source)
    assert capsys.readouterr() == ("", "")


def test_stages_are_attributes_of_a_compiled_function():
    step = trained()
    for name in ("kernels", "loops", "llvm", "asm", "memory"):
        assert str(getattr(step, name)) == str(getattr(step.program, name)) != ""
    assert step.cost == step.program.cost


# --- times ----------------------------------------------------------------------------------------------------------
def test_every_stage_says_how_long_it_took(monkeypatch):
    monkeypatch.setenv("SLALOM_CACHE_DIR", "")

    @slalom.compile
    def step(x):
        return (x @ x).relu()

    before, start = spent(), time.perf_counter()
    step(np.ones((30, 30), np.float32))
    elapsed = time.perf_counter() - start
    stages = {"trace", "check", "key", "simplify", "schedule", "lower", "memory", "text", "lay out"}
    assert stages <= step.times.keys() and all(seconds > 0 for seconds in step.times.values())
    assert sum(step.times.values()) == step.times.total <= elapsed
    assert spent().since(before) == pytest.approx(step.times)
    assert "trace" not in step.program.times and "trace" in str(step.times)


def test_a_stage_counts_what_is_its_own():
    before, start = spent(), time.perf_counter()
    with timed("outer"), timed("inner"), pytest.raises(ZeroDivisionError), timed("failed"):
        1 / (time.sleep(0.02) or 0)
    found = spent().since(before)
    assert found["failed"] >= 0.02 and found["outer"] > 0 and found["inner"] > 0
    assert found.total <= time.perf_counter() - start
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(spent).result() == {}  # each thread has its own


# --- the profile ----------------------------------------------------------------------------------------------------
def test_a_profile_times_each_kernel_of_real_steps():
    weight = slalom.Tensor(np.ones((40, 30), np.float32))

    @slalom.compile
    def step(x):
        weight.assign(weight + 1)
        return (x @ weight).relu()

    x = np.ones((20, 40), np.float32)
    profile = step.profile(x)
    assert [(t.call, t.flops, t.bytes) for t in profile.timings] == [tuple(cost) for cost in step.cost]
    assert all(0 < timing.seconds < 1 for timing in profile.timings) and profile.peak > 1e9
    assert profile.seconds == sum(timing.seconds for timing in profile.timings)
    lines = str(profile).splitlines()
    assert len(lines) == len(profile.timings) + 2 and lines[0].endswith("kernel") and lines[-1].endswith("all")
    assert weight[0, 0].item() == 22  # one call to record, and 20
    assert step(x)[0, 0].item() == 40 * 23


def test_a_profile_needs_machine_code(monkeypatch):
    monkeypatch.setenv("SLALOM_EXECUTOR", "numpy")
    with pytest.raises(slalom.errors.StagingError, match="NumPy executor"):
        slalom.compile(lambda x: x + 1).profile(np.ones(3))

"""Programs: tables of calls walked natively, by one thread and by several, to the end or until something stops them."""

from __future__ import annotations

import os  # noqa: F401 — for the scripts below
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from slalom.compiler import llvm, threads
from slalom.compiler.ir import I64, Builder, literal
from slalom.compiler.threads import Call, Outcome, Reason, Section, Table
from slalom.compiler.walker import ticks

pytestmark = [
    pytest.mark.skipif(not llvm.available(), reason="needs llvmlite"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="a machine the walker knows"),
]
ROOT = Path(__file__).resolve().parents[1]
TEAMS = [1, 2, 3, 4, 8]


def adding() -> Builder:
    """x[i] += amount for the tasks i."""
    b = Builder()
    x, amount = b.pointer("x", "x"), b.word("amount", "amount")
    with b.loop(b.begin, b.end) as i:
        at = b.offset(x, i, I64)
        b.store(b.add(b.load(I64, at), amount), at)
    return b


def summing() -> Builder:
    """x[i] += Σⱼ y[j] over all count elements: wrong unless everyone's y is there, and no later one."""
    b = Builder()
    x, y, count = b.pointer("x", "x"), b.pointer("y", "y"), b.word("count", "count")
    with b.loop(b.begin, b.end) as i:
        total = b.variable(b.load(I64, b.offset(x, i, I64)))
        with b.loop(0, count) as j:
            total.set(b.add(total.get(), b.load(I64, b.offset(y, j, I64))))
        b.store(total.get(), b.offset(x, i, I64))
    return b


def naming() -> Builder:
    """x[i] = number of the operating system's thread that has task i; begins of ranges are marked in y."""
    b = Builder()
    x, y, number = b.pointer("x", "x"), b.pointer("y", "y"), b.word("number", "system call")
    b.declared["syscall"] = "declare i64 @syscall(i64, ...)"
    who = b.op(f"call i64 (i64, ...) @syscall({number})", I64)
    b.store(literal(1, I64), b.offset(y, b.begin, I64))
    with b.loop(b.begin, b.end) as i:
        b.store(who, b.offset(x, i, I64))
    return b


def failing() -> Builder:
    """Puts a value in the place under ``place`` once the counter has come to a number."""
    b = Builder()
    place, counter, number = b.pointer("place", "status"), b.pointer("counter", "counter"), b.word("n", "number")
    value = b.word("value", "value")
    with b.when(b.compare("eq", b.load(I64, counter), number)):
        b.store(value, place)
    return b


def busy() -> Builder:
    """Counts up to the number of turns in memory."""
    b = Builder()
    x, turns = b.pointer("x", "x"), b.word("turns", "turns")
    with b.loop(0, turns):
        b.do(f"store atomic i64 {b.op(f'load atomic i64, {x} monotonic, align 8', I64).text}, {x} monotonic, align 8")
    return b


GETTID = {"x86_64": 186, "aarch64": 178}


def kernel(make: object) -> int:
    return llvm.load([make()])[0]  # type: ignore[operator]


def words(*values: object) -> np.ndarray:
    return np.array([v.ctypes.data if isinstance(v, np.ndarray) else v for v in values], np.int64)


@pytest.mark.parametrize("n", TEAMS)
def test_so_many_threads_really_run_and_share_the_tasks_evenly(n: int):
    tasks = 8 * 5 + 3
    x, y = np.zeros(tasks, np.int64), np.zeros(tasks, np.int64)
    args = words(x, y, GETTID[platform.machine()])
    outcome = Table([Call(kernel(naming), args.ctypes.data, tasks)]).run(3, n)
    assert outcome.threads == n and len(outcome.waits) == n and all(0 <= wait <= 1 for wait in outcome.waits)
    assert len(set(x)) == n
    assert x[0] == threading.get_native_id()  # the caller's thread has the first share
    begins = np.flatnonzero(y)
    np.testing.assert_array_equal(begins, [tasks * t // n for t in range(n)])
    assert all(len(set(part)) == 1 for part in np.split(x, begins[1:]))


@pytest.mark.parametrize("n", TEAMS)
@pytest.mark.parametrize("ways", [1, 2, 3])
def test_ways_limit_how_many_take_part(n: int, ways: int):
    x, y = np.zeros(30, np.int64), np.zeros(30, np.int64)
    args = words(x, y, GETTID[platform.machine()])
    assert Table([Call(kernel(naming), args.ctypes.data, 30, ways=ways)]).run(2, n).threads == n
    assert np.count_nonzero(y) == min(n, ways)


@pytest.mark.parametrize("n", TEAMS)
@pytest.mark.parametrize("tasks", [1, 2, 7, 40])
def test_barriers_keep_the_order_of_calls_and_steps(n: int, tasks: int):
    """x, y feed each other, with a call for a single thread in between; compared with NumPy."""
    steps = 50
    x, y = np.arange(tasks, dtype=np.int64), np.zeros(tasks, np.int64)
    a, b, c = words(y, x, tasks), words(y, 3), words(x, y, tasks)
    add, sum_up = kernel(adding), kernel(summing)
    calls = [
        Call(sum_up, a.ctypes.data, tasks),
        Call(add, b.ctypes.data, tasks, ways=1),
        Call(add, b.ctypes.data, tasks, ways=1),
        Call(sum_up, c.ctypes.data, tasks),
    ]
    outcome = Table(calls).run(steps, n)
    assert outcome[:4] == (steps, Reason.FINISHED, 4, n)
    p, q = np.arange(tasks, dtype=np.int64), np.zeros(tasks, np.int64)
    for _ in range(steps):
        q += p.sum() + 0 * q
        q += 6
        p += q.sum()
    np.testing.assert_array_equal(x, p)
    np.testing.assert_array_equal(y, q)


@pytest.mark.parametrize("n", TEAMS)
def test_without_a_barrier_calls_still_meet_at_the_end_of_a_step(n: int):
    x, y, z = (np.zeros(20, np.int64) for _ in range(3))
    args = [words(x, 1), words(y, 1), words(z, y, 20)]
    add = kernel(adding)
    calls = [
        Call(add, args[0].ctypes.data, 20, barrier=False),
        Call(add, args[1].ctypes.data, 20, ways=1, barrier=False),
        Call(add, args[0].ctypes.data, 20, barrier=False),
    ]
    assert Table(calls).run(100, n).steps == 100
    np.testing.assert_array_equal(x, 200)
    np.testing.assert_array_equal(y, 100)


@pytest.mark.parametrize("n", TEAMS)
def test_counters_and_pointers_move_on_after_each_step(n: int):
    rows, counter = np.zeros((6, 10), np.int64), np.zeros(1, np.int64)
    args = words(rows, 5)
    advances = [(args.ctypes.data, rows.strides[0]), (counter.ctypes.data, -3)]
    table = Table([Call(kernel(adding), args.ctypes.data, 10)], advances)
    assert table.run(2, n).steps == 2
    np.testing.assert_array_equal(rows[:, 0], [5, 5, 0, 0, 0, 0])
    assert table.run(3, n).steps == 3
    np.testing.assert_array_equal(rows, np.array([[5]] * 5 + [[0]]) * np.ones(10, np.int64))
    assert counter[0] == -15 and args[0] == rows.ctypes.data + 5 * rows.strides[0]


class Sections:
    """Begin, three steps, another kind of step, end: each notes its number in the log, the end moves a pointer back."""

    def __init__(self) -> None:
        self.log, self.x = np.zeros(100, np.int64), np.zeros(20, np.int64)
        self.flag = np.ones(8, np.int8)
        self.args = [words(self.log, k) for k in (1, 2, 3, 4)]
        self.moving = words(self.x[8:], 1)  # a run that begins late moves it back before it has moved it on
        add = kernel(adding)
        along = [(args.ctypes.data, 8) for args in self.args]
        begin, first, second, end = (Call(add, args.ctypes.data, 1) for args in self.args)
        step = Call(add, self.moving.ctypes.data, 1)
        address = self.moving.ctypes.data
        self.table = Table.in_sections(
            [
                Section([begin._replace(commit=True, guard=self.flag.ctypes.data)], along),
                Section([first, step], [*along, (address, 8)], 3),
                Section([second], along, 0),
                Section([second, step], [*along, (address, 8)]),
                Section([], along, 5),
                Section([end], [*along, (address, -4 * 8)]),
            ]
        )


@pytest.mark.parametrize("n", TEAMS)
def test_sections_follow_each_other_again_and_again(n: int):
    made = Sections()
    cycle = [1, 2, 2, 2, 3, 4]
    assert made.table.cycle == 6 and len(made.table.calls) == 6
    assert made.table.run(15, n)[:3] == (15, Reason.FINISHED, 6)
    assert made.log[:16].tolist() == [*cycle, *cycle, *cycle[:3], 0]
    assert made.x.tolist() == [*[0] * 8, 3, 3, 2, 2, *[0] * 8]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_run_begins_at_any_step_of_the_cycle(n: int):
    cycle = [1, 2, 2, 2, 3, 4]
    for start in range(6):
        made = Sections()
        assert made.table.run(9, n, start=start).steps == 9
        assert made.log[:10].tolist() == [*(3 * cycle)[start : start + 9], 0]
    with pytest.raises(IndexError):
        made.table.run(1, n, start=6)
    assert made.table.run(1, n).steps == 1  # it is not left busy


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_commit_may_come_first_in_a_section(n: int):
    made = Sections()
    made.flag[:] = 0
    assert made.table.run(9, n, start=4)[:3] == (2, Reason.GUARD, 0)
    assert made.log[:3].tolist() == [3, 4, 0]


def clocked() -> Builder:
    """x[0] = the time."""
    b = Builder()
    b.store(ticks(b), b.pointer("x", "x"))
    return b


@pytest.mark.parametrize("n", [1, 2])
def test_the_clock_tells_when_within_a_run(n: int):
    times, place = np.zeros(2, np.int64), np.zeros(1, np.int64)
    args = [words(times[:1]), words(place, 10_000), words(times[1:])]
    codes = [kernel(clocked), kernel(busy), kernel(clocked)]
    table = Table([Call(code, a.ctypes.data, 1) for code, a in zip(codes, args, strict=True)])
    assert table.run(1, n).steps == 1
    first, second = map(table.clock, times.tolist())
    assert 0 <= first < second <= 1


@pytest.mark.parametrize("n", TEAMS)
@pytest.mark.parametrize("how", ["status", "guard"])
def test_an_error_stops_the_run_before_the_commit(n: int, how: str):
    weights, counter, flag = np.zeros(16, np.int64), np.zeros(1, np.int64), np.ones(8, np.int8)
    fail = np.zeros(4, np.int64)
    commit, after = words(weights, 1), words(weights, 1000)
    add = kernel(adding)
    calls = [
        Call(kernel(failing), fail.ctypes.data, 1, barrier=False),  # a commit makes all meet before it
        Call(add, commit.ctypes.data, 16, commit=True, guard=flag.ctypes.data),
        Call(add, after.ctypes.data, 16),
    ]
    table = Table(calls, [(counter.ctypes.data, 1)])
    place, value = (table.status_address, 77) if how == "status" else (flag.ctypes.data, 0)
    fail[:] = words(place, counter, 7, value)
    outcome = table.run(100, n)
    assert outcome[:4] == (7, Reason.STATUS if how == "status" else Reason.GUARD, 1, n)
    assert counter[0] == 7 and table.status == (77 if how == "status" else 0)
    np.testing.assert_array_equal(weights, 7 * 1001)
    assert table.run(100, n)[:3] == (0, outcome.reason, 1)  # nothing was set right
    table.status, flag[:], counter[0] = 0, 1, 8
    assert table.run(2, n)[:3] == (2, Reason.FINISHED, 3)
    np.testing.assert_array_equal(weights, 9 * 1001)


@pytest.mark.parametrize("n", [1, 2])
def test_an_error_after_the_last_commit_ends_the_run_with_the_step(n: int):
    counter, fail = np.zeros(1, np.int64), np.zeros(4, np.int64)
    table = Table([Call(kernel(failing), fail.ctypes.data, 1)], [(counter.ctypes.data, 1)])
    fail[:] = words(table.status_address, counter, 4, 1)
    assert table.run(10, n)[:3] == (5, Reason.STATUS, 1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_commit_may_come_first_and_be_for_one_thread(n: int):
    x = np.zeros(4, np.int64)
    args = words(x, 1)
    table = Table([Call(kernel(adding), args.ctypes.data, 4, ways=1, commit=True)])
    table.status = 5
    assert table.run(3, n)[:3] == (0, Reason.STATUS, 0)
    assert not x.any()
    table.status = 0
    assert table.run(3, n)[:3] == (3, Reason.FINISHED, 1)


@pytest.mark.parametrize("n", TEAMS)
def test_a_stop_ends_a_long_run_after_a_whole_step(n: int):
    x, y, place = np.zeros(16, np.int64), np.zeros(16, np.int64), np.zeros(1, np.int64)
    args = [words(x, 1), words(place, 1000), words(y, 1)]
    add = kernel(adding)
    calls = [Call(add, args[0].ctypes.data, 16), Call(kernel(busy), args[1].ctypes.data, 1)]
    table = Table([*calls, Call(add, args[2].ctypes.data, 16)])
    stopped: list[float] = []

    def stop() -> None:
        stopped.append(time.perf_counter())
        table.stop()

    timer = threading.Timer(0.1, stop)
    timer.start()
    outcome = table.run(10**12, n)
    late = time.perf_counter() - stopped[0]
    assert outcome.reason is Reason.STOPPED and outcome.steps > 0 and outcome.threads == n
    assert (x == outcome.steps).all() and (y == outcome.steps).all()
    assert late < 2.0  # milliseconds on an idle machine
    assert table.run(5, n)[:2] == (5, Reason.FINISHED)


def test_a_stop_before_the_run_ends_the_next_run_at_once():
    x = np.zeros(1, np.int64)
    args = words(x, 1)
    table = Table([Call(kernel(adding), args.ctypes.data, 1)])
    table.stop()
    assert table.run(5) == Outcome(0, Reason.STOPPED, 1, 0, ())
    assert table.run(5).steps == 5 and x[0] == 5


def test_nothing_to_do():
    assert Table([]).run(5, 2).steps == 0
    x = np.zeros(1, np.int64)
    args = words(x, 1)
    table = Table([Call(kernel(adding), args.ctypes.data, 1)])
    assert table.run(0, 2) == Outcome(0, Reason.FINISHED, 1, 0, ())
    assert Table([Call(kernel(adding), args.ctypes.data, 0)]).run(3, 2).steps == 3 and x[0] == 0


def test_a_table_is_run_by_one_caller_at_a_time():
    place = np.zeros(1, np.int64)
    args = words(place, 1000)
    table = Table([Call(kernel(busy), args.ctypes.data, 1)])
    runner = threading.Thread(target=table.run, args=(10**12,))
    runner.start()
    while not threads._running:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="another thread"):
        table.run(1)
    table.stop()
    runner.join()


def test_tables_of_several_python_threads_run_at_once_and_teams_are_used_again():
    before = threading.active_count()
    add, sum_up = kernel(adding), kernel(summing)
    wrong: list[object] = []

    def work(n: int) -> None:
        for repeat in range(20):
            x, y = np.zeros(9, np.int64), np.zeros(9, np.int64)
            a, b = words(x, 1), words(y, x, 9)
            table = Table([Call(add, a.ctypes.data, 9), Call(sum_up, b.ctypes.data, 9)])
            outcome = table.run(30, n)
            if outcome[:4] != (30, Reason.FINISHED, 2, n) or (y != 9 * 30 * 31 // 2).any():
                wrong.append((n, repeat, outcome, y))

    workers = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert threading.active_count() <= before + 1 + 1 + 2


def test_workers_that_sleep_are_woken():
    x = np.zeros(8, np.int64)
    args = words(x, 1)
    table = Table([Call(kernel(adding), args.ctypes.data, 8)] * 2)
    for _ in range(5):
        assert table.run(1, 3).threads == 3
        time.sleep(0.02)  # long enough to go to sleep
    np.testing.assert_array_equal(x, 10)


def test_long_waits_sleep_and_are_counted():
    """One thread works for long while the other waits: its share is the larger, and it takes little of a processor."""
    place, x = np.zeros(1, np.int64), np.zeros(2, np.int64)
    args, shared = words(place, 50_000_000), words(x, 1)
    long = Call(kernel(busy), args.ctypes.data, 1, barrier=False)  # thread 0 alone
    table = Table([long, Call(kernel(adding), shared.ctypes.data, 2)])
    table.run(1, 2)
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = table.run(4, 2)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert outcome.waits[1] > outcome.waits[0]
    assert cpu < 1.5 * wall


def run_script(script: str) -> str:
    command = [
        sys.executable,
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        "from tests.test_threads import *\n" + script,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


PREPARE = """
x = np.zeros(8, np.int64)
args = words(x, 1)
table = Table([Call(kernel(adding), args.ctypes.data, 8)] * 3)
"""


def test_a_child_of_fork_makes_its_own_team_and_the_parent_keeps_its_own():
    script = """
assert table.run(10, 3).threads == 3
child = os.fork()
assert table.run(10, 3).threads == 3
assert (x == 60).all()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert table.run(10, 3).threads == 3
else:
    os._exit(0)
"""
    run_script(PREPARE + script)


def test_a_fork_while_another_thread_runs():
    script = """
other = Table(table.calls)
runner = threading.Thread(target=other.run, args=(10**12, 2))
runner.start()
while not threads._running:
    time.sleep(0.001)
child = os.fork()
mine = Table(table.calls)
assert mine.run(10, 2).threads == 2
if not child:
    assert not threads._running
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
other.stop()
runner.join()
"""
    run_script(PREPARE + script)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_interpreter_ends_while_a_run_is_under_way(n: int):
    script = f"""
x = np.zeros(2**20, np.int64)  # so large that its pages are given back when it is freed: writing there would crash
args[0] = x.ctypes.data
table = Table([Call(kernel(adding), args.ctypes.data, len(x))])
threading.Thread(target=table.run, args=(10**12, {n}), daemon=True).start()
while not threads._running:
    time.sleep(0.001)
time.sleep(0.05)
print(len(threads._running))
"""
    assert run_script(PREPARE + script).strip() == "1"


def test_an_interrupt_is_handled_after_the_run_that_a_thread_stops():
    """Ctrl-C reaches Python when the native call returns; chunks of steps, or stop(), make that soon."""
    script = """
import signal
threading.Timer(0.2, lambda: (os.kill(os.getpid(), signal.SIGINT), table.stop())).start()
try:
    table.run(10**12, 2)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted", (x % 3 == 0).all())
"""
    assert run_script(PREPARE + script).split() == ["interrupted", "True"]

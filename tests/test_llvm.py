"""Machine code from builders and texts: addresses, targets, images, what is compiled once and what from disk."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slalom.compiler import crew, image, llvm
from slalom.compiler.ir import F32, I64, Builder, Type, Value, literal
from slalom.errors import MissingExtraError

pytestmark = pytest.mark.skipif(not llvm.available(), reason="needs llvmlite")
ROOT = Path(__file__).resolve().parents[1]
VECTOR = Type("float", 16)
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLALOM_CACHE_DIR", str(tmp_path / "code"))


def polynomial(constant: float) -> Builder:
    """y = sqrt(|x·x + constant|), over a masked range."""
    b = Builder()
    x, y = b.pointer("x", "x"), b.pointer("y", "y")
    with b.loop(b.begin, b.end, 16) as i:
        mask = b.lanes_below(b.sub(b.end, i))
        value = b.load_masked(VECTOR, b.offset(x, i, F32), mask)
        value = b.intrinsic("sqrt", b.intrinsic("fabs", b.fma(value, value, literal(constant, VECTOR))))
        b.store_masked(value, b.offset(y, i, F32), mask)
    return b


def run(address: int, count: int = 37) -> np.ndarray:
    x, y = np.linspace(-3, 3, count, dtype=np.float32), np.full(count + 3, 7, np.float32)
    args = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    KERNEL(address)(args.ctypes.data, 0, count)
    assert (y[count:] == 7).all()
    return y[:count]


def expected(constant: float, count: int = 37) -> np.ndarray:
    x = np.linspace(-3, 3, count, dtype=np.float32).astype(np.float64)
    return np.sqrt(np.abs((x * x + constant).astype(np.float32)))


def test_builders_give_addresses_in_order_and_are_compiled_once():
    constants = [0.25, 1.5, -2.0]
    addresses = llvm.load([polynomial(c) for c in constants])
    for constant, address in zip(constants, addresses, strict=True):
        np.testing.assert_array_equal(run(address), expected(constant))
    again = llvm.load([polynomial(c) for c in [-2.0, 3.5, 0.25, 3.5]])
    assert again[0] == addresses[2] and again[2] == addresses[0] and again[1] == again[3]
    loaded = llvm.kernel_stats()
    assert loaded.asked == 4 and loaded.compiled == 1
    assert loaded.times["codegen"] > 0 and "1 of 4 kernels compiled" in str(loaded)


def test_what_is_unrolled_is_written_once_and_copied():
    written, b = [], Builder()
    x, y = b.pointer("x", None), b.pointer("y", None)

    def write(place: Value, number: Value) -> None:
        written.append(place)
        here = b.mul(place, literal(1, I64))
        b.store(b.add(b.load(F32, b.offset(x, here, F32)), number), b.offset(y, here, F32))

    again = b.copied(write)
    for i in range(3):
        with b.when(b.compare("slt", b.begin, b.end)):
            again(b.add(b.begin, literal(i, I64)), b.convert("sitofp", b.number(10 * i), "float"))
    (address,) = llvm.load([b])
    values, results = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    args = np.array([values.ctypes.data, results.ctypes.data], np.int64)
    KERNEL(address)(args.ctypes.data, 1, 2)
    assert len(written) == 1 and results.tolist() == [0, 1, 12, 23, 0]


def test_what_has_branches_is_written_anew():
    written, b = [], Builder()

    def write(number: Value) -> None:
        written.append(number)
        with b.when(b.compare("slt", number, b.end)):
            b.store(number, b.pointer("y", None))

    again = b.copied(write)
    for i in range(3):
        again(b.add(b.begin, literal(i, I64)))
    assert len(written) == 3
    (address,) = llvm.load([b])
    result = np.zeros(1, np.int64)
    KERNEL(address)(np.array([result.ctypes.data], np.int64).ctypes.data, 4, 6)
    assert result[0] == 5


def test_what_cannot_be_found_again_is_written_anew():
    written, b = [], Builder()

    def write(place: Value, number: Value) -> None:
        written.append(place)
        b.store(b.add(place, number), b.offset(b.pointer("y", None), place, I64))

    again = b.copied(write)
    again(b.begin, b.end)  # %begin may stand in what is around, too
    again(twice := b.add(b.begin, literal(1, I64)), twice)
    again(b.add(b.begin, literal(2, I64)), b.add(b.end, literal(0, I64)))
    again(b.add(b.begin, literal(3, I64)), literal(20, I64))
    assert len(written) == 3
    (address,) = llvm.load([b])
    results = np.zeros(4, np.int64)
    KERNEL(address)(np.array([results.ctypes.data], np.int64).ctypes.data, 0, 9)
    assert results.tolist() == [9, 2, 11, 23]


def test_what_always_stands_is_written_once(monkeypatch: pytest.MonkeyPatch):
    written = []

    def write() -> list[Builder]:
        written.append(True)
        return [polynomial(301.0), polynomial(302.0)]

    first = llvm.Standing("polynomials", write)
    assert len(first.missing) == 2 and first.missing is first.missing
    for constant, address in zip([301.0, 302.0], first.addresses, strict=True):
        np.testing.assert_array_equal(run(address), expected(constant))
    assert not first.missing and len(written) == 1
    assert llvm.Standing("polynomials", write).addresses == first.addresses and len(written) == 1
    monkeypatch.setattr(llvm._crew, "made", {})  # as in another process, where they are on disk
    again = llvm.Standing("polynomials", write)
    assert bool(again.missing) != image.supported()
    np.testing.assert_array_equal(run(again.addresses[1]), expected(302.0))
    assert len(written) == (1 if image.supported() else 2)
    monkeypatch.setattr(llvm.cache, "sources", lambda: "of another version")
    assert llvm.Standing("polynomials", write).addresses and len(written) == (2 if image.supported() else 3)


TEXT = """define void @{name}(ptr noalias %args, i64 %begin, i64 %end) #0 {{
  %x = load ptr, ptr %args
  %value = load float, ptr %x, align 4
  %three = call float @test.triple(float %value)
  %root = call float @llvm.sqrt.f32(float %three)
  %rest = frem float %root, {modulus}
  store float %rest, ptr %x, align 4
  ret void
}}"""
SUPPORT = """declare float @llvm.sqrt.f32(float)
declare float @llvm.fma.f32(float, float, float)
define internal float @test.triple(float %x) #0 {
  %y = call float @llvm.fma.f32(float %x, float 2.0, float %x)
  ret float %y
}"""


@pytest.mark.parametrize("images", [True, False], ids=["images", "LLVM links"])
def test_texts_with_support_and_functions_of_the_c_library(images: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(llvm, "_images", lambda: images)
    modulus = {True: 4.0, False: 8.0}[images]  # other texts: what is loaded stays loaded
    texts = {name: TEXT.format(name=name, modulus=modulus) for name in ("one", "two")}
    addresses = llvm.load(texts, SUPPORT)
    assert llvm.kernel_stats().compiled == 2
    assert list(addresses) == ["one", "two"] and addresses["one"] != addresses["two"]
    for address in addresses.values():
        x = np.array([27], np.float32)
        KERNEL(address)(np.array([x.ctypes.data], np.int64).ctypes.data, 0, 1)
        assert x[0] == np.fmod(np.float32(9), np.float32(modulus))


@pytest.mark.parametrize("processors", [1, 2, 5])
def test_many_are_compiled_by_several_threads(processors: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew, "available_cpus", lambda: processors)
    monkeypatch.setattr(crew, "LEAST", 20)
    constants = [100 * processors + i / 16 for i in range(9)]
    shares, real = [], llvm._module

    def module(units: Any, machine: Any) -> Any:
        shares.append((threading.current_thread(), len(units)))
        return real(units, machine)

    monkeypatch.setattr(llvm, "_module", module)
    addresses = llvm.load([polynomial(c) for c in constants])
    for constant, address in zip(constants, addresses, strict=True):
        np.testing.assert_array_equal(run(address), expected(constant))
    threads = {thread for thread, _ in shares}  # a late one may find nothing left
    assert min(2, processors) <= len(threads) <= processors and sum(n for _, n in shares) == len(constants)


@pytest.mark.parametrize("place", [0, 5])
def test_what_is_not_valid_is_an_error_in_any_thread(place: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew, "available_cpus", lambda: 6)
    monkeypatch.setattr(crew, "LEAST", 1)
    texts = {f"f{i}": TEXT.format(name=f"f{i}", modulus=f"{i + 3}.0") for i in range(6)}
    texts[f"f{place}"] = texts[f"f{place}"].replace("store float %rest", "store float %nothing")
    with pytest.raises(RuntimeError, match="nothing"):
        llvm.load(texts, SUPPORT)


def test_the_same_text_with_other_support_is_another_function():
    text = {"scaled": TEXT.format(name="scaled", modulus="1.0e9")}
    one = llvm.load(text, SUPPORT)["scaled"]
    two = llvm.load(text, SUPPORT.replace("2.0", "11.0"))["scaled"]
    results = []
    for address in (one, two):
        x = np.array([3], np.float32)
        KERNEL(address)(np.array([x.ctypes.data], np.int64).ctypes.data, 0, 1)
        results.append(float(x[0]))
    assert results == [3.0, 6.0]


def test_bits_are_the_same_at_every_vector_width():
    host = llvm.Target.host()
    results = []
    for bits, registers in ((512, "zmm"), (256, "ymm"), (128, "xmm")):
        target = host.limited(bits)
        results.append(run(llvm.load([polynomial(0.75)], target=target)[0]).tobytes())
        if "+avx512f" in host.features and image.supported():
            text = llvm.assembly(polynomial(0.75), target)
            assert registers in text and ("zmm" in text) == (bits == 512)
    assert len(set(results)) == 1


@pytest.mark.parametrize("bits", [512, 256, 128])
@pytest.mark.parametrize("most", [(1 << 31) - 1, 1 << 40])
def test_division_of_lanes_is_exact(bits: int, most: int) -> None:
    rng, lanes = np.random.default_rng(0), Type("i64", 16)
    for by in [1, 2, 3, 5, 6, 7, 10, 12, 13, 49, 64, 1000, 46_341, 65_537, 3**19, (1 << 30) + 1, (1 << 31) - 1]:
        near = rng.integers(0, most // by + 1, 4000) * by  # and beside, where it is decided
        x = np.concatenate([near, near - 1, near + 1, near + by // 2, rng.integers(0, most, 2000), [0, most]])
        x = np.resize(x[(x >= 0) & (x <= most)], 16_000).astype(np.int64)
        b = Builder()
        source, quotients, remainders = (b.pointer(name, name) for name in ("x", "q", "r"))
        with b.loop(b.begin, b.end, 16) as i:
            value = b.load(lanes, b.offset(source, i, lanes.element))
            b.store(b.quotient(value, by, most), b.offset(quotients, i, lanes.element))
            b.store(b.remainder(value, by, most), b.offset(remainders, i, lanes.element))
        q, r = np.empty_like(x), np.empty_like(x)
        (address,) = llvm.load([b], target=llvm.Target.host().limited(bits))
        KERNEL(address)(np.array([a.ctypes.data for a in (x, q, r)], np.int64).ctypes.data, 0, x.size)
        np.testing.assert_array_equal(q, x // by)
        np.testing.assert_array_equal(r, x % by)


def test_optimized_text_keeps_variables_in_registers_and_assembly_fuses():
    assert "alloca" in polynomial(1.0).text("kernel")
    text = llvm.optimized(polynomial(1.0))
    assert "phi i64" in text and "alloca" not in text
    if image.supported():
        assert "vfmadd" in llvm.assembly(polynomial(1.0))


@pytest.mark.parametrize(
    "body",
    ["  %x = add i64 %nothing, 1\n  ret void", "  ret i64 0", "  %x = add i64 %y, 1\n  %y = add i64 %x, 1\n  ret void"],
)
def test_what_is_not_valid_is_refused_and_the_process_lives(body: str):
    with pytest.raises(RuntimeError):
        llvm.load({"wrong": f"define void @wrong(ptr %args, i64 %begin, i64 %end) #0 {{\n{body}\n}}"})
    np.testing.assert_array_equal(run(llvm.load([polynomial(0.25)])[0]), expected(0.25))


def test_threads_that_ask_at_once_get_one_copy():
    found: list[tuple[list[int], int]] = []
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        found.append(tuple(llvm.load([polynomial(41.0), polynomial(42.0)])))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


@pytest.mark.skipif(not image.supported(), reason="images are for x86-64")
def test_code_is_executable_and_not_writable():
    (address,) = llvm.load([polynomial(5.0)])
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = ((line.split()[0].split("-"), line.split()[1]) for line in lines)
    (rights,) = (right for (low, high), right in ranges if int(low, 16) <= address < int(high, 16))
    assert rights.startswith("r-x")


@pytest.mark.skipif(not image.supported(), reason="images are for x86-64")
def test_an_image_refuses_writable_data_and_survives_packing():
    machine, binding = llvm._machine(llvm.Target.host()), llvm._binding()
    with pytest.raises(ValueError, match="writable data"):
        image.from_object(machine.emit_object(binding.parse_assembly("@x = global i64 5")))
    with llvm._module([llvm._unit(polynomial(6.0))], machine) as module:
        made = image.from_object(machine.emit_object(module))
    assert image.Image.unpack(made.pack()) == made and len(made.symbols) == 1


def test_without_llvmlite(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    monkeypatch.setattr(llvm, "_binding", llvm._binding.__wrapped__)
    with pytest.raises(MissingExtraError, match="llvmlite"):
        llvm.load([polynomial(7.0)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not llvm.available()


PROGRAM = """
import sys
import tests.test_llvm as own
from slalom.compiler import llvm

addresses = llvm.load([own.polynomial(float(c)) for c in sys.argv[1:]])
for address, constant in zip(addresses, sys.argv[1:], strict=True):
    assert (own.run(address) == own.expected(float(constant))).all()
loaded = llvm.kernel_stats()
print(loaded.compiled, loaded.found, "llvmlite" in sys.modules)
"""


def program(folder: Path | str, *constants: float) -> str:
    """A new process that runs kernels: how many it compiled and found, and whether it imported llvmlite."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, constants)]
    environment = os.environ | {"SLALOM_CACHE_DIR": str(folder)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not image.supported(), reason="images are for x86-64")
def test_another_process_finds_kernels_one_by_one_and_imports_no_llvmlite(tmp_path: Path):
    assert program(tmp_path, 1, 2, 3) == "3 0 True"
    assert program(tmp_path, 1, 2, 3) == "0 3 False"
    assert program(tmp_path, 3, 4, 1) == "1 2 True"
    assert program(tmp_path, 4, 2) == "0 2 False"
    assert program("", 1) == "1 0 True"


@pytest.mark.skipif(not image.supported(), reason="images are for x86-64")
def test_a_broken_entry_is_compiled_anew_and_not_run(tmp_path: Path):
    assert program(tmp_path, 1, 2) == "2 0 True"
    path = next(path for path in tmp_path.iterdir() if path.stat().st_nlink == 2)
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)  # under both names
    assert program(tmp_path, 1, 2) == "2 0 True"
    assert program(tmp_path, 1, 2) == "0 2 False"


def test_importing_slalom_imports_no_llvmlite():
    code = (
        "import slalom, sys; from slalom.compiler import llvm; llvm.available(); assert 'llvmlite' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)

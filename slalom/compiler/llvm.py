"""From LLVM IR as text to machine code in memory, through llvmlite: the one module that imports it.

``load`` takes finished functions and gives their addresses. What neither this process nor the cache on disk holds is
compiled by a ``Crew``, in LLVM modules of some functions each; ``begin`` lets it do so while others are being written.
The text comes tiled and vectorised, so that one pass runs (sroa: variables into registers) and then code generation.
Code lives as long as the process. llvmlite is imported when something is to be compiled, not before: its import takes
longer than a start from the cache.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import itertools
import platform
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, overload

from slalom.compiler import cache, image, mathlib
from slalom.compiler.crew import Crew, Job
from slalom.compiler.ir import Builder
from slalom.compiler.runtime import uncollected
from slalom.compiler.times import Times, spent, timed
from slalom.errors import MissingExtraError

__all__ = [
    "Loaded", "Standing", "Target", "assembly", "available", "begin", "find", "kernel_stats", "keys", "load",
    "optimized",
]  # fmt: skip


class Target(NamedTuple):
    """A processor, by LLVM's name for it and the features that are on (``+``) or off (``-``)."""

    cpu: str
    features: str

    @classmethod
    def host(cls) -> Target:
        """This machine's."""
        return _host()

    def limited(self, bits: int) -> Target:
        """The same with vectors of 256 bits at most, or of 128 (for integers: FMA comes with 256 for floats)."""
        off = {512: "", 256: ",-avx512f", 128: ",-avx512f,-avx2"}[bits]
        return Target(self.cpu, self.features + off)


class Loaded(NamedTuple):
    """What a call of ``load`` did: functions asked for, found on disk, compiled, and the seconds it took."""

    asked: int
    found: int
    compiled: int
    times: Times

    def __str__(self) -> str:
        return f"{self.compiled} of {self.asked} kernels compiled, {self.found} from disk; {self.times}"


class _Unit(NamedTuple):
    """A function, under its name, and what its module must hold beside it."""

    key: str
    name: str
    text: str
    support: str
    functions: frozenset[tuple[str, str]] = frozenset()


_BLOCK: Final = 7
"""As long as so many lines a basic block takes beside its own."""
_latest: list[Loaded] = []
_begun: Final[dict[tuple[Target, str], bool]] = {}
"""What was begun since it was last loaded, and whether it was found on disk."""
_units: Final[weakref.WeakKeyDictionary[Builder, _Unit]] = weakref.WeakKeyDictionary()
"""Of finished functions."""
_starting: Final = threading.RLock()
"""LLVM is set up by one thread at a time."""
_ATTRIBUTES: Final = "attributes #0 = { nounwind }"


def available() -> bool:
    """Whether native code can be made: llvmlite is installed, and the processor multiplies and adds in one rounding.

    Cheap: nothing is imported.
    """
    return importlib.util.find_spec("llvmlite") is not None and (not image.supported() or " fma " in _processor())


@overload
def load(kernels: Sequence[Builder], *, target: Target | None = None) -> list[int]: ...
@overload
def load(kernels: Mapping[str, str], support: str = "", target: Target | None = None) -> dict[str, int]: ...
def load(
    kernels: Sequence[Builder] | Mapping[str, str], support: str = "", target: Target | None = None
) -> list[int] | dict[str, int]:
    """The addresses of finished functions: of builders in order, or of texts by the names that they define.

    ``support``: declarations and internal functions that the texts call (a builder knows its own). What was loaded
    before is not compiled again.
    Raises: MissingExtraError without llvmlite; RuntimeError with LLVM's message for a text that is not valid.
    """
    if isinstance(kernels, Mapping):
        units = [_Unit(_digest(text, support), name, text, support) for name, text in kernels.items()]
        return dict(zip(kernels, _load(units, target or _host()), strict=True))
    with timed("text"):
        units = [_unit(builder) for builder in kernels]
    return _load(units, target or _host())


def begin(kernels: Sequence[Builder], target: Target | None = None) -> None:
    """Let finished functions that ``load`` will be asked for be compiled meanwhile, if there are processors for it."""
    with timed("text"):
        units = [_unit(builder) for builder in kernels]
    _begin(units, target or _host())


def keys(kernels: Sequence[Builder]) -> list[str]:
    """Under which key each kernel's code is kept."""
    return [_unit(builder).key for builder in kernels]


def find(keys: Sequence[str], target: Target | None = None) -> list[int] | None:
    """The addresses of kernels that were compiled before, here or on this disk; None unless all are there."""
    target = target or _host()
    before = spent()
    with _crew.lock, timed("disk"):
        fresh = {key for key in keys if (target, key) not in _crew.made}
        if fresh and not (_images() and all(_from_disk(key, target) for key in fresh)):
            return None
    _latest[:] = [Loaded(len(keys), len(fresh), 0, spent().since(before))]
    return [_crew.made[target, key] for key in keys]


class Standing:
    """Functions that depend on nothing but the text of this package: what was compiled before is not even written."""

    def __init__(self, name: str, write: Callable[[], Sequence[Builder]]) -> None:
        self._name, self._write = name, write

    @functools.cached_property
    def addresses(self) -> list[int]:
        """Where the functions are."""
        found = self._kept
        if found is None:
            found = load(self._written)
            cache.put([self._entry], " ".join(keys(self._written)).encode())
        return found

    @property
    def missing(self) -> Sequence[Builder]:
        """What is not compiled yet; whoever has something to compile may do it in the same go."""
        return [] if "addresses" in self.__dict__ or self._kept is not None else self._written

    @functools.cached_property
    def _entry(self) -> str:
        return cache.key(self._name, cache.sources(), *_host(), _versions())

    @functools.cached_property
    def _kept(self) -> list[int] | None:
        kept = cache.get(self._entry)
        return None if kept is None else find(kept.decode().split())

    @functools.cached_property
    def _written(self) -> Sequence[Builder]:
        return self._write()


def kernel_stats() -> Loaded:
    """What the latest call of ``load`` did, and how long it took."""
    return _latest[-1] if _latest else Loaded(0, 0, 0, Times())


def optimized(builder: Builder, target: Target | None = None) -> str:
    """A kernel's IR as code generation meets it."""
    with _crew.lock, _module([_unit(builder)], _machine(target or _host())) as module:
        return str(module)


def assembly(builder: Builder, target: Target | None = None) -> str:
    """A kernel's machine code as text."""
    machine = _machine(target or _host())
    with _crew.lock, _module([_unit(builder)], machine) as module:
        return str(machine.emit_assembly(module))


# --- units ------------------------------------------------------------------------------------------------------------
def _unit(builder: Builder) -> _Unit:
    """The key says all that the code follows from: text, declarations, and the functions of mathlib."""
    known = _units.get(builder)
    if known is None:
        known = _units[builder] = _made(builder)
    return known


def _made(builder: Builder) -> _Unit:
    support, functions = "\n".join(sorted(builder.declared.values())), frozenset(builder.functions)
    key = _digest(builder.text("kernel"), support, _mathematics(functions))
    return _Unit(key, f"k{key}", builder.text(f"k{key}"), support, functions)


@functools.cache
def _mathematics(needed: frozenset[tuple[str, str]]) -> str:
    return mathlib.functions(set(needed)) if needed else ""


def _digest(*texts: str) -> str:
    return blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


# --- LLVM -------------------------------------------------------------------------------------------------------------
@functools.cache
def _binding() -> Any:
    """llvmlite's binding to LLVM, ready for this machine."""
    try:
        with _starting, timed("import llvmlite"), uncollected():
            import llvmlite.binding as binding

            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
    except ImportError as error:
        raise MissingExtraError(
            "native code", needed="llvmlite", hint="install it with `pip install llvmlite`"
        ) from error
    return binding


@functools.cache
def _host() -> Target:
    """LLVM's view of this machine, which is kept on disk under the system's description of it."""
    entry = cache.key(_processor(), _versions())
    kept = cache.get(entry)
    if kept is not None:
        return Target(*kept.decode().split("\n"))
    binding = _binding()
    host = Target(binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    cache.put([entry], "\n".join(host).encode())
    return host


def _processor() -> str:
    """The first processor's entry in /proc/cpuinfo, without what changes from moment to moment."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        lines = itertools.takewhile(str.strip, file)
        return "".join(line for line in lines if "MHz" not in line and "bogomips" not in line)
    return platform.processor()


def _machine(target: Target) -> Any:
    """Position-independent code in the small model: constants are read relative to the instruction, not by movabs."""
    of = _binding().Target.from_default_triple()
    return of.create_target_machine(cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small")


@functools.cache
def _linker() -> Any:
    return _binding().create_lljit_compiler(_machine(_host()), use_jit_link=True)


def _joined(units: Iterable[_Unit]) -> str:
    """The text of a module: each declaration and each supporting function once."""
    units = list(units)
    support = [*dict.fromkeys(unit.support for unit in units)]
    support.append(_mathematics(frozenset().union(*(unit.functions for unit in units))))
    lines = "\n".join(support).splitlines()
    declared = dict.fromkeys(line for line in lines if line.startswith("declare "))
    others = (line for line in lines if not line.startswith("declare "))
    return "\n".join([*declared, *others, *(unit.text for unit in units), _ATTRIBUTES])


@contextmanager
def _module(units: Iterable[_Unit], machine: Any) -> Iterator[Any]:
    """The module of these functions after the passes, in a context of its own, which no other thread uses. Both end
    here, in this order; left to the garbage collector, the context may be the first."""
    binding = _binding()
    with binding.create_context() as context:
        with timed("parse"):
            module = binding.parse_assembly(_joined(units), context)
        with module:
            with timed("parse"):
                module.verify()  # what is not valid would end the process in code generation; 2 % of the time
            with timed("passes"):
                _run_passes(module, machine)
            yield module


def _run_passes(module: Any, machine: Any) -> None:
    binding = _binding()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(0))
    manager = binding.create_new_module_pass_manager()
    manager.add_sroa_pass()
    manager.run(module, builder)


def _load(units: Sequence[_Unit], target: Target) -> list[int]:
    before = spent()
    _begin(units, target)
    places = [(target, unit.key) for unit in units]
    with timed("codegen"):
        addresses = _crew.finish(places)
    found = [on_disk for place in places if (on_disk := _begun.pop(place, None)) is not None]
    _latest[:] = [Loaded(len(units), sum(found), len(found) - sum(found), spent().since(before))]
    return addresses


def _begin(units: Sequence[_Unit], target: Target) -> None:
    """Place what is on disk, and let the crew begin with the rest."""
    with _crew.lock:
        jobs = []
        for unit in [unit for unit in units if (target, unit.key) not in _crew.made]:
            place = target, unit.key
            if place not in _begun:
                with timed("disk"):
                    _begun[place] = _images() and _from_disk(unit.key, target)
            if not _begun[place]:
                jobs.append(Job(place, target, _weight(unit.text) + _weight(_mathematics(unit.functions)), unit))
        _crew.begin(jobs)


def _weight(text: str) -> int:
    """How long code generation takes, in lines of its text: a block takes longer, and so does a wide vector, which is
    cut into those that the machine has."""
    return text.count("\n") + _BLOCK * text.count(":\n") + text.count("<32 x") + 3 * text.count("<64 x")


def _compile(units: Sequence[_Unit], target: Target) -> list[int]:
    """Compile functions in one module; place and keep them."""
    machine = _machine(target)
    with _module(units, machine) as module, timed("codegen"):
        code = _object(machine, module)
    with timed("link"):
        addresses = _keep(code, units, target)
    return [addresses[unit.key] for unit in units]


_crew: Final = Crew(_compile)


def _object(machine: Any, module: Any) -> bytes:
    """The object file of a module, without the lock under which llvmlite lets one thread at a time into LLVM: they may
    all be there as long as each has its own context, module and machine."""
    library, error = _unlocked(), ctypes.c_char_p()
    buffer = library.LLVMPY_TargetMachineEmitToMemory(machine, module, 1, ctypes.byref(error))
    if not buffer:
        raise RuntimeError(f"LLVM generates no code: {(error.value or b'').decode(errors='replace')}")
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)


@functools.cache
def _unlocked() -> Any:
    """The functions of llvmlite's library that are called without its lock."""
    library, pointer = ctypes.CDLL(_binding().ffi.lib._name), ctypes.c_void_p
    emit = library.LLVMPY_TargetMachineEmitToMemory
    emit.argtypes, emit.restype = [pointer, pointer, ctypes.c_int, pointer], pointer
    for name, result in {
        "GetBufferStart": pointer,
        "GetBufferSize": ctypes.c_size_t,
        "DisposeMemoryBuffer": None,
    }.items():
        function = getattr(library, f"LLVMPY_{name}")
        function.argtypes, function.restype = [pointer], result
    return library


def _keep(code: bytes, units: Sequence[_Unit], target: Target) -> dict[str, int]:
    """Place functions, and keep them on disk; their addresses by key."""
    if not _images():
        return _link(code, units)
    made = image.from_object(code)
    made = made._replace(symbols={unit.key: made.symbols[unit.name] for unit in units})
    cache.put([_entry(unit.key, target) for unit in units], made.pack())
    return image.place(made)


def _from_disk(key: str, target: Target) -> bool:
    """Place the image that holds a function, unless an earlier one held it, too."""
    if (target, key) not in _crew.made:
        data = cache.get(_entry(key, target))
        if data is None:
            return False
        for other, address in image.place(image.Image.unpack(data)).items():
            _crew.made.setdefault((target, other), address)
    return True


def _entry(key: str, target: Target) -> str:
    return cache.key(key, *target, _versions())


@functools.cache
def _versions() -> str:
    """What else the code follows from: LLVM, as llvmlite brings it, and the modules that drive it."""
    spec = importlib.util.find_spec("llvmlite")
    if spec is None or spec.origin is None:
        return ""
    library = sorted(Path(spec.origin).parent.glob("binding/libllvmlite*"))
    return cache.stamp(*library, Path(__file__), Path(image.__file__))


@functools.cache
def _images() -> bool:
    """Whether code is kept as images; otherwise LLVM links it, and it is compiled in each process anew."""
    return image.supported()


def _link(code: bytes, units: Sequence[_Unit]) -> dict[str, int]:
    library = _binding().JITLibraryBuilder().add_object_img(code).add_current_process()
    for unit in units:
        library.export_symbol(unit.name)
    with _starting:
        linked = library.link(_linker(), f"kernels {units[0].key}")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(linked))  # the code stays, even when the interpreter ends
    return {unit.key: linked[unit.name] for unit in units}

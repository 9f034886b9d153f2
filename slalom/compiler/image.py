"""Image: machine code that runs wherever it lies in memory, made of LLVM's object files.

The code generator's object refers to itself by distances alone (position-independent code, small model), so that its
loadable part with those distances filled in is an image which can be kept on disk and placed without LLVM: a warm
start need not import llvmlite at all. Functions of the C library go through a jump whose address is filled in when
the image is placed.

Source: System V Application Binary Interface, AMD64 supplement, 4.4 (relocation); ELF-64 object file format.
"""

from __future__ import annotations

import ctypes
import functools
import json
import mmap
import platform
import struct
from typing import Any, Final, NamedTuple

from slalom.errors import SlalomError

_HEADER: Final = struct.Struct("<4sB11x HHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QIIq")
_TABLE_OF_SYMBOLS, _RELOCATIONS, _NO_BITS = 2, 4, 8  # kinds of sections
_WRITABLE, _LOADED = 1, 2  # flags of sections
_RELATIVE: Final = (2, 4)  # R_X86_64_PC32, R_X86_64_PLT32
_GLOBAL: Final = 1
_JUMP: Final = b"\xff\x25\x00\x00\x00\x00"  # jmp *0(%rip): to the address that follows


class Image(NamedTuple):
    """Code, the offsets of its functions, and those of the 8 bytes that want the address of a C function."""

    code: bytes
    symbols: dict[str, int]
    imports: dict[str, int]

    def pack(self) -> bytes:
        """As bytes, for a file."""
        head = json.dumps([self.symbols, self.imports]).encode()
        return len(head).to_bytes(8, "little") + head + self.code

    @classmethod
    def unpack(cls, data: bytes) -> Image:
        """What ``pack`` wrote."""
        end = 8 + int.from_bytes(data[:8], "little")
        symbols, imports = json.loads(data[8:end])
        return cls(data[end:], symbols, imports)


def supported() -> bool:
    """Whether images are made for this kind of machine: x86-64."""
    return platform.machine().lower() in ("x86_64", "amd64")


def from_object(data: bytes) -> Image:
    """The image of an ELF object for x86-64. Sections stay where they stand in the file.

    Raises: ValueError for what code of kernels never holds: writable data, other kinds of relocation.
    """
    *_, start, _flags, _size, _, _, _, count, _ = _HEADER.unpack_from(data)
    sections = [_SECTION.unpack_from(data, start + i * _SECTION.size) for i in range(count)]
    loaded = [s for s in sections if s[2] & _LOADED]
    if any(s[2] & _WRITABLE or s[1] == _NO_BITS for s in loaded):
        raise ValueError("the object holds writable data")
    code = bytearray(data[: max(s[4] + s[5] for s in loaded)])
    code += bytes(-len(code) % 16)

    table = next(s for s in sections if s[1] == _TABLE_OF_SYMBOLS)
    names = sections[table[6]][4]
    places: list[int] = []
    symbols: dict[str, int] = {}
    imports: dict[str, int] = {}
    for at in range(table[4], table[4] + table[5], _SYMBOL.size):
        name, info, _, section, value, _ = _SYMBOL.unpack_from(data, at)
        text = data[names + name : data.index(b"\0", names + name)].decode()
        place = sections[section][4] + value if 0 < section < count else 0
        if info >> 4 == _GLOBAL and section:
            symbols[text] = place
        elif info >> 4 == _GLOBAL:
            place = len(code)
            imports[text] = place + len(_JUMP)
            code += _JUMP + bytes(16 - len(_JUMP))
        places.append(place)

    for relocations in sections:
        if relocations[1] != _RELOCATIONS:
            continue
        into = sections[relocations[7]]
        for at in range(relocations[4], relocations[4] + relocations[5], _RELOCATION.size):
            offset, kind, symbol, addend = _RELOCATION.unpack_from(data, at)
            if kind not in _RELATIVE:
                raise ValueError(f"the object holds a relocation of kind {kind}")
            place = into[4] + offset
            struct.pack_into("<i", code, place, places[symbol] + addend - place)
    return Image(bytes(code), symbols, imports)


def place(image: Image) -> dict[str, int]:
    """Put an image into memory for good, executable and no longer writable; the addresses of its functions.

    Raises: SlalomError where the system does not let memory be executable.
    """
    memory = mmap.mmap(-1, len(image.code), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # a thread may still be in it when the interpreter ends
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    code = bytearray(image.code)
    for name, offset in image.imports.items():
        address = ctypes.cast(getattr(_process(), name), ctypes.c_void_p).value
        struct.pack_into("<Q", code, offset, address)
    memory[:] = bytes(code)
    size = -(-len(code) // mmap.PAGESIZE) * mmap.PAGESIZE
    if _process().mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC):
        raise SlalomError("native code", needed="a system that allows executable memory")
    return {name: start + offset for name, offset in image.symbols.items()}


@functools.cache
def _process() -> Any:
    """The functions of the C library, as this process sees them."""
    return ctypes.CDLL(None)

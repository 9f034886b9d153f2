"""The atomic writer: whatever call fails, and whenever the process dies, a good file is there."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from itertools import count

import numpy as np
import pytest

from slalom.errors import ConfigError, ModelFileError
from slalom.train import files
from slalom.train.files import load_file, save_file, write_atomic

TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}


class Killed(BaseException):
    """Stands for SIGKILL: whoever catches it finds the system dead."""


class FaultyOS:
    """The os module, whose n-th call fails: once with an error number, or, as after a kill, with all that follow."""

    CALLS = ("listdir", "open", "write", "fsync", "close", "link", "replace", "unlink")

    def __init__(self, fail_at, error=None, hard_links=True):
        self.fail_at, self.error, self.hard_links = fail_at, error, hard_links
        self.calls = []

    def __getattr__(self, name):
        real = getattr(os, name)
        return real if name not in self.CALLS else lambda *args: self.call(name, real, *args)

    def call(self, name, real, *args):
        self.calls.append(name)
        n = len(self.calls) - 1
        if self.error is None and n >= self.fail_at:
            if n == self.fail_at and name == "write":
                real(args[0], args[1][: len(args[1]) // 2])  # a torn write
            raise Killed
        if n == self.fail_at:
            if name == "close":
                real(*args)
            raise OSError(self.error, os.strerror(self.error))
        if name == "link" and not self.hard_links:
            raise OSError(errno.EPERM, "no hard links here")
        return real(*args)

    @property
    def failed(self):
        return len(self.calls) > self.fail_at


def prepare(folder, files_there):
    """A folder with so many good files, the newest of epoch ``files_there``, and what a killed run left."""
    folder.mkdir()
    for epoch in range(1, files_there + 1):
        save_file(folder / "now", TENSORS, {"epoch": epoch}, "model", keep_previous="before")
    (folder / ".now.0123abcd.new.tmp").write_bytes(b"half")
    (folder / ".now.user.tmp").write_bytes(b"not ours")


def epochs(folder):
    """What the current file and its predecessor hold; None where a file is missing. Damage is an error."""
    there = [folder / name for name in ("now", "before")]
    return [load_file(path, "model")[1]["epoch"] if path.exists() else None for path in there]


SITUATIONS = [(n, keep, hard_links) for n in (0, 1, 2) for keep in ("before", None) for hard_links in (True, False)]


@pytest.mark.parametrize(("files_there", "keep", "hard_links"), SITUATIONS)
def test_killed_at_every_call(tmp_path, monkeypatch, files_there, keep, hard_links):
    for n in count():
        folder = tmp_path / str(n)
        prepare(folder, files_there)
        faulty = FaultyOS(n, hard_links=hard_links)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", faulty)
            with contextlib.suppress(Killed):
                save_file(folder / "now", TENSORS, {"epoch": 9}, "model", keep_previous=keep)
        now, before = epochs(folder)  # neither is ever half a file
        newest = now if now is not None else before
        assert newest in ((9, files_there) if files_there else (9, None))
        if keep is None or hard_links:
            assert now in (
                (9, files_there) if files_there else (9, None)
            )  # there is no moment without the current file
        save_file(folder / "now", TENSORS, {"epoch": 10}, "model", keep_previous="before")
        assert epochs(folder)[0] == 10
        expected = {"now", "before", ".now.user.tmp"} if newest else {"now", ".now.user.tmp"}
        assert set(os.listdir(folder)) == expected | ({"before"} if before else set())
        if not faulty.failed:
            assert n == len(faulty.calls) > 8
            break


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(("files_there", "keep", "hard_links"), SITUATIONS)
def test_an_error_at_every_call(tmp_path, monkeypatch, files_there, keep, hard_links, error):
    for n in count():
        folder = tmp_path / str(n)
        prepare(folder, files_there)
        faulty = FaultyOS(n, error, hard_links)
        message = None
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", faulty)
            try:
                save_file(folder / "now", TENSORS, {"epoch": 9}, "model", keep_previous=keep)
            except ModelFileError as caught:
                message = str(caught)
        now, before = epochs(folder)
        newest = now if now is not None else before
        if not faulty.failed:
            assert message is None and now == 9
            break
        if message is None:  # only the tidying up may fail unseen
            assert faulty.calls[n] == "unlink" and now == 9
        else:
            assert message.startswith(f"{folder / 'now'} cannot be written: got {os.strerror(error)}")
            assert ("Hint: " in message) == (error != errno.EIO) and "\n" not in message
            assert newest in ((9, files_there) if files_there else (9, None))
        left = [name for name in os.listdir(folder) if name.endswith(".tmp") and name != ".now.user.tmp"]
        assert left == ([".now.0123abcd.new.tmp"] if faulty.calls[n] in ("listdir", "unlink") else [])


WRITE = ["listdir", "open", "write", "fsync", "close"]
SYNC = ["open", "fsync", "close"]


@pytest.mark.parametrize(
    ("keep", "hard_links", "calls"),
    [
        (None, True, [*WRITE, "replace", *SYNC]),
        ("before", True, [*WRITE, "link", "replace", "replace", *SYNC]),
        ("before", False, [*WRITE, "link", "replace", "replace", *SYNC]),
    ],
)
def test_bytes_reach_the_disk_before_their_name(tmp_path, monkeypatch, keep, hard_links, calls):
    write_atomic(tmp_path / "now", b"old")
    faulty = FaultyOS(math.inf, hard_links=hard_links)
    monkeypatch.setattr(files, "os", faulty)
    write_atomic(tmp_path / "now", b"new", keep)
    assert faulty.calls == calls


def test_predecessors(tmp_path):
    path = tmp_path / "now"
    for epoch in range(1, 4):
        write_atomic(path, str(epoch).encode(), keep_previous="before")
        kept = (tmp_path / "before").read_text() if epoch > 1 else ""
        assert (path.read_text(), kept) == (str(epoch), str(epoch - 1) if epoch > 1 else "")
    write_atomic(path, b"4")
    assert (path.read_text(), (tmp_path / "before").read_text()) == ("4", "2")


def test_chunks_and_short_writes(tmp_path, monkeypatch):
    class Slow(FaultyOS):
        def call(self, name, real, *args):
            return real(args[0], args[1][:3]) if name == "write" else real(*args)

    monkeypatch.setattr(files, "os", Slow(0))
    write_atomic(tmp_path / "a", (chunk for chunk in (b"hello ", b"", memoryview(b"wide "), b"world")))
    assert (tmp_path / "a").read_bytes() == b"hello wide world"
    write_atomic(str(tmp_path / "a"), b"")
    assert (tmp_path / "a").read_bytes() == b""


def test_data_that_fails_midway_leaves_the_old_file(tmp_path):
    def chunks():
        yield b"new"
        raise KeyboardInterrupt

    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", chunks())
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_new_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomic(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for keep in (None, "before"):
        with pytest.raises(ModelFileError, match="folder cannot be written: got Is a directory"):
            write_atomic(tmp_path / "folder", b"", keep)
        with pytest.raises(ModelFileError, match=r"got No such file or directory\. Hint: create the folder first"):
            write_atomic(tmp_path / "none" / "a", b"", keep)
        with pytest.raises(ModelFileError, match=r"got Not a directory\. Hint: create the folder first"):
            write_atomic(tmp_path / "file" / "a", b"", keep)
        with pytest.raises(ModelFileError, match="got File name too long"):
            write_atomic(tmp_path / ("a" * 250), b"", keep)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("keep", ["", "now", "..", "sub/before", "/before"])
def test_predecessors_lie_in_the_same_folder(tmp_path, keep):
    with pytest.raises(ConfigError, match=r"keep_previous: got .* needed a file name other than 'now'"):
        write_atomic(tmp_path / "now", b"", keep_previous=keep)


def test_folders_that_cannot_be_flushed(tmp_path, monkeypatch):
    fsync = len([*WRITE, "replace", "open"])  # the calls before the folder's
    for error, tolerated in ((errno.EINVAL, True), (errno.EIO, False)):
        faulty = FaultyOS(fsync, error)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", faulty)
            if tolerated:
                write_atomic(tmp_path / "a", b"x")
            else:
                with pytest.raises(ModelFileError, match="cannot be written: got Input/output error"):
                    write_atomic(tmp_path / "a", b"x")
        assert faulty.calls[fsync] == "fsync" and faulty.calls[-1] == "close"

"""The cache on disk: what comes back, what is refused, what is forgotten, and that a bad disk harms nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slalom.compiler import cache

ROOT = Path(__file__).resolve().parents[1]
KEYS = [cache.key("kernel", str(i)) for i in range(3)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SLALOM_CACHE_DIR", str(tmp_path / "code"))
    cache._checked.cache_clear()
    yield tmp_path / "code"
    cache._checked.cache_clear()


def test_bytes_come_back_under_every_key_from_one_private_file(place: Path):
    assert cache.get(KEYS[0]) is None
    cache.put(KEYS, b"code")
    assert [cache.get(key) for key in KEYS] == [b"code"] * 3
    assert place.stat().st_mode & 0o777 == 0o700
    facts = [path.stat() for path in place.iterdir()]
    assert len(facts) == 3 and len({fact.st_ino for fact in facts}) == 1
    assert facts[0].st_mode & 0o777 == 0o600


def test_an_entry_that_is_there_stays(place: Path):
    cache.put(KEYS[:1], b"first")
    cache.put(KEYS, b"second")
    assert [cache.get(key) for key in KEYS] == [b"first", b"second", b"second"]


@pytest.mark.parametrize("at", [0, 12, 14, 45, 46, -1])
def test_a_changed_byte_is_noticed_and_the_entry_deleted(place: Path, at: int):
    cache.put(KEYS[:1], b"some code")
    path = place / KEYS[0]
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    assert cache.get(KEYS[0]) is None
    assert not path.exists()


@pytest.mark.parametrize("keep", [0, 1, 20, 46, 50])
def test_a_cut_entry_is_noticed(place: Path, keep: int):
    cache.put(KEYS[:1], b"some code")
    path = place / KEYS[0]
    path.write_bytes(path.read_bytes()[:keep])
    assert cache.get(KEYS[0]) is None
    assert not path.exists()


def test_keys_differ_by_every_part_and_by_where_parts_end():
    keys = [cache.key(*parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["c", "ab"])]
    assert len(set(keys)) == len(keys)


def test_a_stamp_changes_with_the_file(tmp_path: Path):
    file = tmp_path / "library"
    file.write_bytes(b"1")
    os.utime(file, ns=(1, 1))
    first = cache.stamp(file)
    os.utime(file, ns=(1, 2))
    second = cache.stamp(file)
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 2))
    assert len({first, second, cache.stamp(file)}) == 3


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(place: Path, mode: int):
    place.mkdir()
    place.chmod(mode)
    with pytest.warns(RuntimeWarning, match="may be written to by other users"):
        assert cache.folder() is None
    cache.put(KEYS, b"code")
    assert list(place.iterdir()) == [] and cache.get(KEYS[0]) is None


def test_a_folder_of_another_user_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch):
    place.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert cache.folder() is None


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path):
    assert cache.folder() == place
    monkeypatch.setenv("SLALOM_CACHE_DIR", "")
    assert cache.folder() is None
    monkeypatch.delenv("SLALOM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "slalom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "slalom"


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SLALOM_CACHE_DIR", str(tmp_path / "file" / "code"))
    assert cache.folder() is None
    cache.put(KEYS, b"code")
    assert cache.get(KEYS[0]) is None
    cache.trim()


def refuse(code: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_system_without_hard_links_gets_copies(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    cache.put(KEYS, b"code")
    assert [cache.get(key) for key in KEYS] == [b"code"] * 3
    assert sorted(path.name for path in place.iterdir()) == sorted(KEYS)


def test_a_full_disk_is_no_error_and_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    monkeypatch.setattr(Path, "write_bytes", refuse(errno.ENOSPC))
    cache.put(KEYS, b"code")
    assert list(place.iterdir()) == [] and cache.get(KEYS[0]) is None


def test_what_was_not_used_for_longest_goes_first_with_all_its_names(place: Path):
    groups = [[cache.key(str(i), str(j)) for j in range(2)] for i in range(6)]
    for age, keys in enumerate(groups):
        cache.put(keys, bytes(1000))
        os.utime(place / keys[0], (age, age))
    assert cache.get(groups[0][1]) is not None  # used now, by its other name
    cache.trim(6 * 1046)
    assert len(list(place.iterdir())) == 12
    cache.trim(6 * 1046 - 1)  # exceeded by one: down to three quarters, four entries
    assert [cache.get(keys[0]) is not None for keys in groups] == [True, False, False, True, True, True]
    assert len(list(place.iterdir())) == 8


def test_putting_trims_now_and_then(place: Path, monkeypatch: pytest.MonkeyPatch):
    trimmed = []
    monkeypatch.setattr(cache, "trim", lambda: trimmed.append(True))
    for i in range(200):
        cache.put([cache.key(str(i))], b"")
    assert 4 <= len(trimmed) <= 30


WORKER = """
import sys
from slalom.compiler import cache

seen = 0
for i in range(300):
    key = cache.key(str(i % 7))
    payload = str(i % 7).encode() * 20_000
    found = cache.get(key)
    assert found is None or found == payload, len(found)
    seen += found is not None
    if i % 5 == int(sys.argv[1]):
        (cache.folder() / key).unlink(missing_ok=True)
    cache.put([key], payload)
    if i % 50 == 0:
        cache.trim(60_000)
print(seen)
"""


def test_processes_that_write_read_and_delete_at_once_never_see_half_an_entry(place: Path):
    command = [sys.executable, "-W", "error", "-c", WORKER]
    workers = [subprocess.Popen([*command, str(i)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for i in range(3)]
    seen = [int(worker.communicate()[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert min(seen) > 50
    assert not [path for path in place.iterdir() if path.name.startswith("aside")]


def test_files_of_others_stay_and_do_not_count(place: Path):
    place.mkdir(mode=0o700)
    (place / "thesis.txt").write_bytes(b"x" * 5000)
    cache.put(KEYS[:1], b"code")
    cache.trim(limit=4000)
    assert cache.get(KEYS[0]) == b"code"
    (place / "aside-12-345").write_bytes(b"left by a process that was killed")
    cache.trim(limit=10)
    assert [path.name for path in place.iterdir()] == ["thesis.txt"]


def test_a_disk_that_can_only_be_read_serves_what_it_holds(place: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    cache.put(KEYS[:1], b"code")
    monkeypatch.setattr(os, "utime", refused)
    assert cache.get(KEYS[0]) == b"code"

"""When a .forward counts, and what is said where it does not. ECOSYSTEM §5, RELIABILITY B8."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mailserver.delivery.job import Forward, Owner
from mailserver.delivery.user_files import LONGEST_FORWARD, read_forward, read_include
from tests.store.faults import become_nobody, in_child, make_open_directory


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def owner(home: Path) -> Owner:
    return Owner("alice", os.getuid(), os.getgid(), str(home))


def write(path: Path, text: str = "bob\n", mode: int = 0o644) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_own_file_with_the_right_mode(home: Path, owner: Owner) -> None:
    """0644, regular, the user's: used."""
    path = write(home / ".forward")
    assert read_forward(owner, (path,), 0o644) == (Forward(path, b"bob\n"), ())


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755, 0o444, 0o640])
def test_other_modes_are_ignored_with_the_cure(home: Path, owner: Owner, mode: int) -> None:
    """The project's rule is exactly 0644; Postfix's, where it is chosen, takes these."""
    path = write(home / ".forward", mode=mode)
    forward, warnings = read_forward(owner, (path,), 0o644)
    assert forward is None
    assert warnings == (f"file {path} has mode {mode:04o}, must be 0644: chmod 0644 {path}",)
    assert read_forward(owner, (path,), None) == (Forward(path, b"bob\n"), ())


def test_world_writable_is_ignored_by_either_rule(home: Path, owner: Owner) -> None:
    """Anybody could have written it."""
    path = write(home / ".forward", mode=0o646)
    assert read_forward(owner, (path,), 0o644)[0] is None
    assert read_forward(owner, (path,), None) == (None, (f"file {path} is world writable: chmod o-w {path}",))


def test_world_writable_directory(home: Path, owner: Owner) -> None:
    """There, anybody could have put it."""
    path = write(home / ".forward")
    home.chmod(0o777)
    forward, (warning,) = read_forward(owner, (path,), 0o644)
    assert forward is None
    assert warning.endswith(f"chmod o-w {home}")


@pytest.mark.needs("root")
def test_owner(home: Path, owner: Owner) -> None:
    """Another user's is ignored, root's is used."""
    path = write(home / ".forward")
    os.chown(path, 1001, 1001)
    user = Owner("alice", 1000, 1000, str(home))
    assert read_forward(user, (path,), 0o644) == (
        None,
        (f"file {path} has bad owner uid 1001: chown alice {path}",),
    )
    os.chown(path, 0, 0)
    assert read_forward(user, (path,), 0o644)[0] == Forward(path, b"bob\n")


def test_links_and_devices(home: Path, owner: Owner) -> None:
    """A link is not followed, a FIFO is not waited for, a directory is no file."""
    write(home / "elsewhere")
    (home / "link").symlink_to("elsewhere")
    os.mkfifo(home / "fifo", 0o644)
    (home / "directory").mkdir(0o755)
    paths = tuple(str(home / name) for name in ("link", "fifo", "directory"))
    forward, warnings = read_forward(owner, paths, 0o644)
    assert forward is None
    assert warnings == tuple(f"file {path} is not a regular file" for path in paths)


def test_the_first_that_counts(home: Path, owner: Owner) -> None:
    """Absent files and homes are no news; one that does not count is passed over."""
    bad = write(home / ".forward+ext", mode=0o600)
    good = write(home / ".forward", "carol\n")
    missing = (str(home / "none"), str(home / "no" / "home" / ".forward"), str(home / ".forward" / "x"))
    forward, warnings = read_forward(owner, (*missing, bad, good), 0o644)
    assert forward == Forward(good, b"carol\n")
    assert len(warnings) == 1


def test_size(home: Path, owner: Owner) -> None:
    """64 KB are enough; an empty file is empty, not absent."""
    path = write(home / ".forward", "x" * LONGEST_FORWARD)
    assert read_forward(owner, (path,), 0o644)[0] is not None
    write(home / ".forward", "x" * (LONGEST_FORWARD + 1))
    forward, (warning,) = read_forward(owner, (path,), 0o644)
    assert (forward, "is larger than" in warning) == (None, True)
    write(home / ".forward", "")
    assert read_forward(owner, (path,), 0o644)[0] == Forward(path, b"")


def test_unreadable() -> None:
    """What the user may not read himself is ignored; a home that cannot be searched defers the mail."""
    with make_open_directory() as home:

        def look() -> None:
            become_nobody()
            owner = Owner("nobody", os.getuid(), os.getgid(), str(home))
            inner = home / "mine"
            inner.mkdir()
            mine = write(inner / ".forward", mode=0o200)
            assert read_forward(owner, (mine,), None)[1] == (
                f"cannot open file {mine}: Permission denied: chmod u+r {mine}",
            )
            assert "must be 0644" in read_forward(owner, (mine,), 0o644)[1][0]
            inner.chmod(0o000)
            with pytest.raises(PermissionError):
                read_forward(owner, (mine,), 0o644)
            inner.chmod(0o700)

        assert in_child(look) == 0


def test_swapping_file_and_link_gains_nothing(home: Path, owner: Owner) -> None:
    """RELIABILITY B8: what is read is what was judged, never a secret that a link points at."""
    secret = home / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    path, other = home / ".forward", home / "other"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            other.unlink(missing_ok=True)
            other.symlink_to(secret)
            os.rename(other, path)
            write(other)
            os.rename(other, path)

    write(path)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {read_forward(owner, (str(path),), 0o644)[0] for _ in range(2000)}
    finally:
        stop.set()
        thread.join()
    assert {forward.text for forward in seen if forward} == {b"bob\n"}


def test_include(home: Path) -> None:
    """A regular file that not everybody can write; else OSError with the reason."""
    path = write(home / "list", "a@b\n")
    assert read_include(path) == b"a@b\n"
    Path(path).chmod(0o666)
    with pytest.raises(OSError, match="world writable"):
        read_include(path)
    os.mkfifo(home / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        read_include(str(home / "fifo"))
    with pytest.raises(FileNotFoundError):
        read_include(str(home / "none"))

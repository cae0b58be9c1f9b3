"""A disk whose power can be cut: ext4 on a loop device, and what that holds at a moment. RELIABILITY §2.6.

`commit=600` keeps ext4 from writing anything on its own for ten minutes, `noauto_da_alloc` from mending
programs that rename without fsync: the image has what was fsynced and no more. It is copied while the
file system stays mounted, as if the power had gone, and the copy is mounted elsewhere: its journal is
replayed, as at the next boot.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.server import wait_for

OCTETS = 24 << 20


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _try(*words: str) -> bool:
    return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


class Disk:
    """`path` is where it is mounted."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image = image
        self.path = path

    def cut(self, to: Path) -> Path:
        """An image of what a power cut at this moment would leave.

        A new file: of one that was mounted a moment ago a loop device may be left, and what it has cached.
        """
        to.unlink(missing_ok=True)
        _run("cp", "--sparse=always", str(self._image), str(to))
        return to


def make_image(image: Path) -> Path:
    """The file is an empty disk."""
    with image.open("wb") as file:
        file.truncate(OCTETS)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", str(image))
    return image


@contextmanager
def powered(image: Path, path: Path | None = None) -> Iterator[Disk]:
    """The disk, mounted; nothing is written to it unless somebody asks for it."""
    path = path or image.with_suffix(".disk")
    path.mkdir(exist_ok=True)
    with _mounted(image, path, "commit=600,noauto_da_alloc"):
        yield Disk(image, path)


@contextmanager
def after_the_cut(image: Path, path: Path | None = None) -> Iterator[Path]:
    """The disk of that image after the next boot. Afterwards it is found clean, and removed."""
    path = path or image.with_suffix(".after")
    path.mkdir(exist_ok=True)
    with _mounted(image, path, "noatime"):
        for lock in path.rglob("*.lock"):
            os.utime(lock, (1, 1))  # the boot, which did not take place, was later
        yield path
    _run("e2fsck", "-f", "-n", str(image))
    image.unlink()


@contextmanager
def _mounted(image: Path, path: Path, options: str) -> Iterator[None]:
    _run("mount", "-o", f"loop,{options}", str(image), str(path))
    try:
        yield
    finally:
        # Never lazily: the image is whole only when the file system is gone, not when its name is.
        wait_for(lambda: _try("umount", str(path)), f"{path} to be let go of", 60)


@contextmanager
def standing_still(group: int) -> Iterator[None]:
    """Within, no process of the group runs: what they had asked of the disk is done, and nothing else is."""
    os.killpg(group, signal.SIGSTOP)
    try:
        wait_for(lambda: all(state in "TZ" for state in _states(group)), "the processes to stand still")
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def _states(group: int) -> Iterator[str]:
    """The state of each thread of the group."""
    for thread in Path("/proc").glob("[0-9]*/task/*/stat"):
        try:
            words = thread.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if words[2] == str(group):
            yield words[0]

"""Who has an account's data bases open, so that they can be exchanged while nobody has.

Two files in the account's directory, held by flock(2), so that a crash leaves nothing behind:

    gate.lock      held by whoever wants the account alone; whoever opens it looks in passing
    use.lock       shared by all that have it open; whoever wants it alone waits for them here
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

from mailserver.store.contract import StoreFailure
from mailserver.store.shared_files import share_file

_PAUSE: Final = 0.2  # seconds


class AccountUse:
    """The account is open to the caller, until `close`. Raises StoreFailure where another has it alone."""

    def __init__(self, directory: str) -> None:
        self._descriptor = -1
        try:
            gate = _opened(directory, "gate.lock")
            try:
                is_open = _locked(gate, fcntl.LOCK_SH)
                self._descriptor = _opened(directory, "use.lock") if is_open else -1
            finally:
                os.close(gate)
        except OSError as error:
            raise StoreFailure("The state of the account cannot be opened") from error
        if not is_open or not _locked(self._descriptor, fcntl.LOCK_SH):
            self.close()
            raise StoreFailure("The account is being worked on; try again later")

    def close(self) -> None:
        """The account is not open to the caller any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def alone(directory: str, patience: float) -> Iterator[bool]:
    """Within, nobody can open the account; whether within `patience` seconds all others had closed it.

    *Blocking.* Raises StoreFailure where another has it alone already.
    """
    gate = _opened(directory, "gate.lock")
    try:
        deadline = time.monotonic() + patience
        while not _locked(gate, fcntl.LOCK_EX):  # somebody may just look in passing
            if time.monotonic() >= deadline:
                raise StoreFailure("The account is being worked on; try again later")
            time.sleep(_PAUSE)
        use = _opened(directory, "use.lock")
        try:
            while not (is_mine := _locked(use, fcntl.LOCK_EX)) and time.monotonic() < deadline:
                time.sleep(_PAUSE)
            if is_mine:
                fcntl.flock(use, fcntl.LOCK_UN)  # the gate is enough from here on: the caller opens it itself
            yield is_mine
        finally:
            os.close(use)
    finally:
        os.close(gate)


def _opened(directory: str, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(os.path.join(directory, name), flags, 0o600)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            share_file(descriptor, directory)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _locked(descriptor: int, how: int) -> bool:
    """Whether the lock is held now. Does not wait."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

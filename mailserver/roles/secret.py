"""A secret of this server's own, made when it is first needed and kept in a file."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading

from mailserver.tables.table import TableError

_OCTETS = 32


class Secret:
    """Gives the secret in the file, which is made where there is none. Safe in threads, *blocking* at first.

    `owner` is the uid and gid that a new file gets, where root makes it.
    """

    def __init__(self, path: str, owner: tuple[int, int] | None = None) -> None:
        self._path = path
        self._owner = owner
        self._secret = b""
        self._guard = threading.Lock()

    def __call__(self) -> bytes:
        """The secret. Raises TableError where the file can neither be read nor made."""
        with self._guard:
            if not self._secret:
                try:
                    self._secret = self._read()
                except OSError as error:
                    raise TableError(f"{self._path}: {error.strerror}") from error
            return self._secret

    def _read(self) -> bytes:
        with contextlib.suppress(FileExistsError):
            self._make()
        with open(self._path, "rb") as file:
            return file.read(_OCTETS)

    def _make(self) -> None:
        """A whole file appears under its name, or none does. Raises FileExistsError."""
        if os.path.exists(self._path):
            return
        draft = f"{self._path}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(_OCTETS))
            if self._owner is not None:
                os.fchown(descriptor, *self._owner)
            os.fsync(descriptor)
            os.link(draft, self._path)
        finally:
            os.close(descriptor)
            os.unlink(draft)

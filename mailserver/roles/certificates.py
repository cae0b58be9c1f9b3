"""Certificates of a process: by name (tls_server_sni_maps), and watched for their expiry.

The value of a name in `tls_server_sni_maps` is a PEM file with key and chain, or two files: the
key's, and the chain's. Unlike Postfix's it needs no `postmap -F`: files are read when they are used,
and again after they changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from mailserver.tables.table import Table, TableError
from mailserver.tls import CertificateError, KeyPairFiles, ServerTls, days_left

WARNED_AHEAD: Final = 14  # days
_DAY: Final = 86_400.0  # seconds


def files_in(value: str) -> KeyPairFiles:
    """The key pair that a value of tls_server_sni_maps names. Raises CertificateError."""
    words = re.split(r"[,\s]+", value.strip())
    if not words[0] or len(words) > 2:
        raise CertificateError(f"tls_server_sni_maps: write the key's file and the chain's, not {value!r}")
    return KeyPairFiles(certificate=words[-1], key=words[0])


class NamedCertificates:
    """Finds the TLS of a name that a client asks for; then of `.domain`, as Postfix does."""

    def __init__(
        self,
        tables: Sequence[Table],
        make: Callable[[KeyPairFiles], ServerTls],
        warn: Callable[[str], None],
    ) -> None:
        self._tables = tables
        self._make = make
        self._warn = warn
        self._made: dict[KeyPairFiles, ServerTls] = {}

    def find(self, name: str) -> ServerTls | None:
        """None where the name has no certificate of its own, or none that can be used (which is logged)."""
        try:
            files = self._files(name)
            if files is not None and files not in self._made:
                self._made[files] = self._make(files)
        except (CertificateError, TableError, OSError) as error:
            self._warn(f"TLS certificate for {name}: {error}")
            return None
        return None if files is None else self._made[files]

    def _files(self, name: str) -> KeyPairFiles | None:
        labels = name.rstrip(".").split(".")
        parents = ("." + ".".join(labels[n:]) for n in range(1, len(labels)))
        for key in (".".join(labels), *parents):
            for table in self._tables:
                entry = table.find(key)
                if entry is not None:
                    return files_in(entry.value)
        return None


def all_files(tables: Iterable[Table]) -> Iterator[KeyPairFiles]:
    """The key pairs that the tables name now; what cannot be read is left out."""
    for table in tables:
        try:
            for _, entry in table.entries():
                yield files_in(entry.value)
        except (TableError, CertificateError):
            continue


class SecretFiles:
    """Which files a front may ask the helper for: those named at the start, and the tables' of the moment.

    `others` are files that the queue asks for: passwords of relay hosts.
    """

    def __init__(
        self, pairs: Iterable[KeyPairFiles], tables: Sequence[Table], others: Iterable[str] = ()
    ) -> None:
        self._paths = frozenset([*(p for pair in pairs for p in (pair.key, pair.certificate)), *others])
        self._tables = tables

    def __contains__(self, path: object) -> bool:
        return path in self._paths or any(path in (p.key, p.certificate) for p in all_files(self._tables))


class ExpiryWatch:
    """Warns once a day of each certificate that expires within WARNED_AHEAD days.

    `chains` gives the path and the content of each that is in use.
    """

    def __init__(
        self,
        reactor: Any,
        chains: Callable[[], Iterable[tuple[str, bytes]]],
        warn: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._chains = chains
        self._warn = warn
        self._now = now
        self._next: Any = None

    def start(self) -> None:
        """The first look is taken now, the next in a day."""
        for path, chain in self._chains():
            self._judge(path, chain)
        self._next = self._reactor.callLater(_DAY, self.start)

    def stop(self) -> None:
        """No look is taken any more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _judge(self, path: str, chain: bytes) -> None:
        try:
            left = days_left(chain, self._now())
        except ValueError:
            return  # whoever uses it says what is wrong with it
        if left < 0:
            self._warn(f"TLS certificate {path} expired {-left:.0f} days ago: renew it")
        elif left < WARNED_AHEAD:
            self._warn(f"TLS certificate {path} expires in {left:.0f} days: renew it")

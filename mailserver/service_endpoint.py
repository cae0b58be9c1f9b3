"""Where a policy server or a milter listens: `inet:host:port`, `inet:port@host`, `unix:path`."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

P = TypeVar("P", bound=Protocol)


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """`text` as it is written in main.cf; a `path`, absolute, or `host` and `port`."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0

    def connect(self, reactor: Any, protocol: P, timeout: float) -> Awaitable[P]:
        """The protocol, connected. Raises ConnectError or OSError."""
        if self.path:
            endpoint: Any = UNIXClientEndpoint(reactor, self.path, timeout)
        else:
            endpoint = HostnameEndpoint(reactor, self.host, self.port, timeout)
        return cast("Awaitable[P]", connectProtocol(endpoint, protocol))


def parse_endpoint(text: str, directory: str) -> ServiceEndpoint:
    """The endpoint; a relative path is below `directory`. Raises ValueError, which says what to write."""
    kind, _, rest = text.partition(":")
    if kind in ("unix", "local") and rest:
        return ServiceEndpoint(text, os.path.join(directory, rest))
    if kind in ("inet", "inet6"):
        port, at, host = rest.partition("@")
        if not at:
            host, _, port = rest.rpartition(":")
        host = host.strip("[]")
        if host and port.isdigit() and 0 < int(port) < 65536:
            return ServiceEndpoint(text, host=host, port=int(port))
    raise ValueError(f"{text}: write inet:host:port or unix:path")

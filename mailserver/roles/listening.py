"""Ports bound, and what was bound given to factories; one clear line where a port is taken."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOFactory

from mailserver.config.config import Config
from mailserver.config.listeners import Listener, listeners
from mailserver.prompt import make_prompt
from mailserver.rights.listeners import CannotListen, listen_tcp
from mailserver.roles.certificates import ExpiryWatch
from mailserver.roles.parts import Parts
from mailserver.roles.retrieval import RetrievalListeners
from mailserver.roles.smtp import SmtpListeners

Bound = list[tuple[Listener, socket.socket]]


class StartFailed(Exception):
    """The server cannot start. The text says what, where, and what to do."""


def bind_all(config: Config) -> Bound:
    """Every listener of master.cf and `protocols` has its socket. Raises StartFailed, ConfigError."""
    bound: Bound = []
    try:
        for listener in listeners(config):
            bound.append((listener, _bind(listener)))
    except StartFailed:
        for _, taken in bound:
            taken.close()
        raise
    if not bound:
        raise StartFailed(
            f"{config.directory}/master.cf: no service listens: write rows, as `mailserver init` does"
        )
    return bound


def _bind(listener: Listener) -> socket.socket:
    try:
        return listen_tcp(listener.address, listener.port)
    except CannotListen as error:
        cause = error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else str(error)
        address = f"[{listener.address}]" if ":" in listener.address else listener.address
        hint = {
            "Address already in use": "stop what listens there (ss -ltnp shows it), or change the port",
            "Permission denied": "start as root, or choose a port above 1023",
        }.get(reason or "", "change the address")
        raise StartFailed(
            f"cannot listen on {address}:{listener.port}: {reason} ({listener.where}): {hint}"
        ) from error


class Ports:
    """The listening ports of a process, each with its factory."""

    def __init__(self, parts: Parts, reactor: Any) -> None:
        self._parts = parts
        self._reactor = reactor
        self._ports: list[Any] = []
        self._factories: list[Any] = []
        self._expiry: ExpiryWatch | None = None

    def open(self, bound: Bound, smtp: SmtpListeners, retrieval: RetrievalListeners) -> None:
        """Every bound socket is served. Raises ConfigError before the first one is."""
        made = [(self._factory(listener, smtp, retrieval), taken, listener) for listener, taken in bound]
        for (factory, served), taken, _ in made:
            self._factories.append(factory)
            port = self._reactor.adoptStreamPort(taken.fileno(), taken.family, served)
            make_prompt(port)
            taken.close()
            self._ports.append(port)
        chains = partial(self._parts.chains, [listener.config for listener, _ in bound])
        self._expiry = ExpiryWatch(self._reactor, chains, self._parts.warn("master"))
        self._expiry.start()

    def _factory(
        self, listener: Listener, smtp: SmtpListeners, retrieval: RetrievalListeners
    ) -> tuple[Any, Any]:
        """The factory of a listener, and the same as it is served: perhaps under TLS."""
        config = listener.config
        if listener.service == "smtpd":
            factory: Any = smtp.factory(config, listener.implicit_tls)
        elif listener.service == "pop3d":
            factory = retrieval.pop3(config)
        else:
            factory = retrieval.imap(config)
        if not listener.implicit_tls:
            return factory, factory
        service = {"smtpd": "smtp", "pop3d": "pop3", "imapd": "imap"}[listener.service]
        context: Any = self._parts.tls(service, config)
        if context is None:
            raise config.error(
                "smtpd_tls_cert_file",
                f"{listener.where} begins with TLS and there is no certificate: name one, or remove the row",
            )
        return factory, TLSMemoryBIOFactory(context, False, factory)

    async def close(self) -> None:
        """Nothing listens any more; sessions have been told, and what was being committed is."""
        if self._expiry is not None:
            self._expiry.stop()
        for port in self._ports:
            await port.stopListening()
        for factory in self._factories:
            await factory.shut_down()


def smtp_ports(bound: Sequence[tuple[Listener, object]]) -> frozenset[int]:
    """The ports on which we are an SMTP server ourselves."""
    return frozenset(listener.port for listener, _ in bound if listener.service == "smtpd")

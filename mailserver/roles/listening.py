"""Ports bound, and what was bound given to factories; one clear line where a port is taken."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mailserver.config.config import Config
from mailserver.config.listeners import Listener, listeners
from mailserver.descriptors import Sparing
from mailserver.prompt import hasten, make_prompt
from mailserver.prompt_tls import PromptTlsFactory
from mailserver.rights.listeners import CannotListen, listen_tcp
from mailserver.roles.certificates import ExpiryWatch
from mailserver.roles.parts import Parts
from mailserver.roles.retrieval import RetrievalListeners
from mailserver.roles.smtp import SmtpListeners

Bound = list[tuple[Listener, socket.socket]]
Address = tuple[str, int]


class StartFailed(Exception):
    """The server cannot start. The text says what, where, and what to do."""


def bind_all(config: Config, kept: Mapping[Address, socket.socket] | None = None) -> Bound:
    """Every listener of master.cf and `protocols` has its socket, one of `kept` where that is there.

    Raises StartFailed, ConfigError; then only `kept` is open still.
    """
    kept = kept or {}
    wanted = listeners(config)
    addresses = {(listener.address, listener.port) for listener in wanted}
    leaving = {address: taken for address, taken in kept.items() if address not in addresses}
    bound: Bound = []
    try:
        for listener in wanted:
            taken = kept.get((listener.address, listener.port))
            bound.append((listener, taken or _bind(listener, leaving, is_running=bool(kept))))
    except StartFailed:
        for address, taken in by_address(bound).items():
            if address not in kept:
                taken.close()
        raise
    if not bound:
        raise StartFailed(
            f"{config.directory}/master.cf: no service listens: write rows, as `mailserver init` does"
        )
    return bound


def by_address(bound: Bound) -> dict[Address, socket.socket]:
    """The sockets by address and port."""
    return {(listener.address, listener.port): taken for listener, taken in bound}


def _bind(listener: Listener, leaving: Mapping[Address, socket.socket], is_running: bool) -> socket.socket:
    """`leaving` are sockets that will be closed soon: an overlap with those is none.

    A server that is running has become the mail_owner, for good.
    """
    beside = [taken for (_, port), taken in leaving.items() if port == listener.port]
    try:
        return listen_tcp(listener.address, listener.port, beside)
    except CannotListen as error:
        cause = error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else str(error)
        address = f"[{listener.address}]" if ":" in listener.address else listener.address
        needs_start = "a reload opens ports above 1023 only: stop and start the mail system as root"
        hint = {
            "Address already in use": "stop what listens there (ss -ltnp shows it), or change the port",
            "Permission denied": needs_start if is_running else "start as root, or choose a port above 1023",
        }.get(reason or "", "change the address")
        raise StartFailed(
            f"cannot listen on {address}:{listener.port}: {reason} ({listener.where}): {hint}"
        ) from error


class Ports:
    """The listening ports of a process, each with its factory."""

    def __init__(self, parts: Parts, reactor: Any) -> None:
        self._parts = parts
        self._reactor = reactor
        hasten(reactor)
        self._found: Sequence[Listener] = ()
        self._served: list[Any] = []
        self._ports: list[Any] = []
        self._factories: list[Any] = []
        self._expiry: ExpiryWatch | None = None

    def make(self, found: Sequence[Listener], smtp: SmtpListeners, retrieval: RetrievalListeners) -> None:
        """Every listener has its factory, nobody is served yet. Raises ConfigError."""
        made = [self._factory(listener, smtp, retrieval) for listener in found]
        self._found = found
        self._factories = [factory for factory, _ in made]
        self._served = [served for _, served in made]

    def open(self, bound: Bound) -> None:
        """Every listener's socket is served. They stay the caller's, to be kept open until after `leave`."""
        sockets = by_address(bound)
        for listener, served in zip(self._found, self._served, strict=True):
            taken = sockets[listener.address, listener.port]
            sparing = Sparing(served, self._parts.warn("master"))
            port = self._reactor.adoptStreamPort(taken.fileno(), taken.family, sparing)
            make_prompt(port)
            self._ports.append(port)
        chains = partial(self._parts.tls.chains, [listener.config for listener in self._found])
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
        context: Any = self._parts.tls.server(service, config)
        if context is None:
            raise config.error(
                "smtpd_tls_cert_file",
                f"{listener.where} begins with TLS and there is no certificate: name one, or remove the row",
            )
        return factory, PromptTlsFactory(context, False, factory)

    async def leave(self) -> None:
        """Nobody new is served; sessions go on."""
        if self._expiry is not None:
            self._expiry.stop()
        ports, self._ports = self._ports, []
        for port in ports:
            await port.stopListening()

    async def ended(self) -> None:
        """Returns when every session has ended. After `leave`."""
        for factory in self._factories:
            await factory.when_empty()

    async def close(self) -> None:
        """Nothing listens any more; sessions have been told, and what was being committed is."""
        await self.leave()
        for factory in self._factories:
            await factory.shut_down()


def smtp_ports(found: Sequence[Listener]) -> frozenset[int]:
    """The ports on which we are an SMTP server ourselves."""
    return frozenset(listener.port for listener in found if listener.service == "smtpd")

"""DNS whose answers say whether DNSSEC vouches for them: MX, addresses and TLSA, for DANE.

The signatures are checked by a validating name server; its AD bit is what counts here, and only from a
server on the loopback interface, or where resolv.conf(5) has `options trust-ad`: on any other way somebody
could have set it. What is not vouched for, or comes from elsewhere, is still an answer, with `is_secure`
false. A bogus answer is SERVFAIL, and raises TemporaryLookupFailure like silence does.

An answer is taken from the address that was asked alone, and with the question that was asked; one that does
not fit into a datagram is asked for again over TCP. dnspython reads and writes the packets.
RFC 4035 §4.9, RFC 6840 §5.7-5.8, RFC 7672 §2.1-2.2.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from twisted.internet import defer
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.protocol import DatagramProtocol
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from mailserver.dns import MOST_RECORDS, MailExchanger, NoSuchDomain, TemporaryLookupFailure

_TIMEOUTS: Final = (2, 5, 10)  # seconds for each try of each name server
_PAYLOAD: Final = 1232  # octets of a datagram that no path cuts in pieces
_PORT: Final = 53
_NOT_READABLE: Final = 255  # a usage that nobody knows
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The records of a name, at most MOST_RECORDS, and the name, without final dot, that its aliases led to.

    `is_secure`: DNSSEC vouches for all of it, the aliases too. () where the name has no such record.
    """

    records: tuple[T, ...]
    name: str
    is_secure: bool


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A TLSA record; one that cannot be read has a usage that nobody knows. RFC 6698 §2.1."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NameServer:
    """Whom to ask, and whether its word on DNSSEC counts."""

    address: str
    port: int = _PORT
    is_trusted: bool = False


class SecureResolver:
    """Asks the name servers of `resolv_conf`, or those given. The file is read again when it changed."""

    def __init__(
        self, reactor: Any, servers: Sequence[NameServer] = (), resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        self._reactor = reactor
        self._resolv_conf = resolv_conf
        self._stamp: object = None
        self._are_given = bool(servers)
        self._servers = tuple(servers)

    async def mail_exchangers(self, domain: str) -> Answer[MailExchanger]:
        """The MX records, best first. Raises NoSuchDomain, TemporaryLookupFailure."""
        answer = await self._ask(domain, "MX")
        found = sorted(MailExchanger(each.preference, _text(each.exchange)) for each in answer.records)
        return Answer(tuple(found), answer.name, answer.is_secure)

    async def addresses(self, name: str, version: int) -> Answer[str]:
        """The IPv4 or IPv6 addresses of a name, `version` being 4 or 6. Raises TemporaryLookupFailure."""
        try:
            answer = await self._ask(name, "A" if version == 4 else "AAAA")
        except NoSuchDomain:
            return Answer((), name, False)
        found = tuple(str(ipaddress.ip_address(each.address)) for each in answer.records)
        return Answer(found, answer.name, answer.is_secure)

    async def is_alias_secure(self, name: str) -> bool:
        """Whether DNSSEC vouches for the CNAME record of that name. Raises TemporaryLookupFailure."""
        try:
            answer = await self._ask(name, "CNAME")
        except NoSuchDomain:
            return False
        return answer.is_secure and bool(answer.records)

    async def tlsa(self, name: str, port: int) -> Answer[Tlsa]:
        """The TLSA records for that port of TCP. Raises TemporaryLookupFailure. RFC 6698 §3."""
        owner = f"_{port}._tcp.{name}"
        try:
            answer = await self._ask(owner, "TLSA")
        except NoSuchDomain:
            return Answer((), owner, False)
        found = tuple(
            Tlsa(_NOT_READABLE, 0, 0, b"")
            if each is None
            else Tlsa(each.usage, each.selector, each.mtype, bytes(each.cert))
            for each in answer.records
        )
        return Answer(found, answer.name, answer.is_secure)

    def name_servers(self) -> Sequence[NameServer]:
        """Who is asked. resolv.conf(5)."""
        if not self._are_given:
            stamp = _stamp(self._resolv_conf)
            if stamp != self._stamp:
                self._servers, self._stamp = _read(self._resolv_conf), stamp
        return self._servers

    async def _ask(self, name: str, kind: str) -> Answer[Any]:
        """A record that cannot be read is None."""
        import dns.exception  # only here: most hosts never ask for DNSSEC
        import dns.flags
        import dns.message
        import dns.name

        try:
            owner = dns.name.from_text(name if name.isascii() else name.encode("idna").decode())
        except (UnicodeError, dns.exception.DNSException):
            raise NoSuchDomain(name) from None
        query = dns.message.make_query(owner, kind, want_dnssec=True, payload=_PAYLOAD)
        query.flags |= dns.flags.AD
        response, server = await self._response(query, name)
        try:
            chain = response.resolve_chaining()
        except dns.exception.DNSException as cause:
            raise TemporaryLookupFailure(f"{name}: {type(cause).__name__}") from cause
        records = (*(chain.answer or ()), *(None for _ in response.errors))[:MOST_RECORDS]
        if None in records and kind != "TLSA":
            raise TemporaryLookupFailure(f"{name}: the answer cannot be read")
        is_secure = server.is_trusted and bool(response.flags & dns.flags.AD)
        return Answer(records, _text(chain.canonical_name), is_secure)

    async def _response(self, query: Any, name: str) -> tuple[Any, NameServer]:
        """An answer, and whose. Raises NoSuchDomain, TemporaryLookupFailure."""
        import dns.exception
        import dns.rcode

        trouble = "no name servers"
        for limit in _TIMEOUTS:
            is_over = True
            for server in self.name_servers():
                try:
                    response = await self._exchange(query, server, limit)
                except (defer.TimeoutError, ConnectError, ConnectionDone, OSError) as error:
                    trouble, is_over = type(error).__name__, False
                    continue
                except dns.exception.DNSException as error:
                    trouble = type(error).__name__
                    continue
                code = response.rcode()
                if code == dns.rcode.NXDOMAIN:
                    raise NoSuchDomain(name)
                if code == dns.rcode.NOERROR:
                    return response, server
                trouble = str(dns.rcode.to_text(code))
            if is_over:
                break  # they have answered: asking again makes them say nothing else
        raise TemporaryLookupFailure(f"{name}: {trouble}")

    async def _exchange(self, query: Any, server: NameServer, limit: float) -> Any:
        """Raises TimeoutError, ConnectError, ConnectionDone, OSError, DNSException."""
        import dns.flags
        import dns.message

        datagram = _Datagram(query, server)
        interface = "::" if ":" in server.address else ""
        port = self._reactor.listenUDP(0, datagram, interface=interface)
        try:
            response = await datagram.answer.addTimeout(limit, self._reactor)
        finally:
            port.stopListening()
        if not response.flags & dns.flags.TC:
            return response
        kind = TCP6ClientEndpoint if ":" in server.address else TCP4ClientEndpoint
        stream = _Stream(query.to_wire())
        await connectProtocol(kind(self._reactor, server.address, server.port, limit), stream)
        try:
            wire = await stream.answer.addTimeout(limit, self._reactor)
        finally:
            stream.transport.abortConnection()
        response = dns.message.from_wire(wire, continue_on_error=True)
        if not query.is_response(response):
            raise OSError("an answer to another question")
        return response


class _Datagram(DatagramProtocol):
    """Sends a question; `answer` fires with what answers it. Only the server is heard."""

    def __init__(self, query: Any, server: NameServer) -> None:
        self._query = query
        self._server = server
        self.answer: defer.Deferred[Any] = defer.Deferred()

    def startProtocol(self) -> None:
        transport: Any = self.transport
        transport.connect(self._server.address, self._server.port)
        transport.write(self._query.to_wire())

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        import dns.exception
        import dns.message

        try:
            response = dns.message.from_wire(datagram, continue_on_error=True)
        except dns.exception.DNSException:
            return
        if self._query.is_response(response) and not self.answer.called:
            self.answer.callback(response)

    def connectionRefused(self) -> None:
        if not self.answer.called:
            self.answer.errback(ConnectionRefusedError())


class _Stream(Int16StringReceiver):
    """The same over TCP; `answer` fires with the packet. RFC 1035 §4.2.2."""

    transport: Any

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: defer.Deferred[bytes] = defer.Deferred()

    def connectionMade(self) -> None:
        self.sendString(self._query)

    def stringReceived(self, string: bytes) -> None:
        if not self.answer.called:
            self.answer.callback(string)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if not self.answer.called:
            self.answer.errback(ConnectionDone())


def _stamp(path: str) -> object:
    try:
        mark = os.stat(path)
    except OSError:
        return ()
    return mark.st_dev, mark.st_ino, mark.st_mtime_ns, mark.st_size


def _read(path: str) -> tuple[NameServer, ...]:
    """The servers of resolv.conf(5); the one at 127.0.0.1 where it has none, or is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        lines = []
    trusts_all = any(line[0] == "options" and "trust-ad" in line for line in lines if line)
    found = tuple(
        NameServer(line[1], _PORT, trusts_all or _is_loopback(line[1]))
        for line in lines
        if len(line) > 1 and line[0] == "nameserver" and _is_address(line[1])
    )
    return found or (NameServer("127.0.0.1", _PORT, True),)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _text(name: Any) -> str:
    """ "" is the root."""
    return str(name.to_text(omit_final_dot=True)).rstrip(".")

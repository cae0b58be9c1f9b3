"""What access decisions are made of: the facts asked about, the answer, and its side effects.

`Request` is what is known when a decision is due. A `Verdict` is final for the list that gave
it: it permits (code 250) or refuses, and says which parameter and line decided. What an access
table wants beside that (HOLD, REDIRECT, PREPEND, …) gathers in `Effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from mailserver.client_certificates import ClientCertificate
from mailserver.envelope import Address


class RestrictionError(Exception):
    """The restrictions cannot be used: unknown word, missing table, open relay. Fatal at start."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The reply codes that main.cf can change, under their names there."""

    access_map_reject_code: int = 554
    access_map_defer_code: int = 450
    relay_domains_reject_code: int = 554
    unknown_local_recipient_reject_code: int = 550
    unknown_relay_recipient_reject_code: int = 550
    unknown_virtual_alias_reject_code: int = 550
    unknown_virtual_mailbox_reject_code: int = 550
    unknown_address_reject_code: int = 450
    unknown_client_reject_code: int = 450
    unknown_hostname_reject_code: int = 450
    invalid_hostname_reject_code: int = 501
    non_fqdn_reject_code: int = 504
    maps_rbl_reject_code: int = 554
    plaintext_reject_code: int = 450
    multi_recipient_bounce_reject_code: int = 550
    unverified_sender_reject_code: int = 450
    unverified_sender_defer_code: int = 450
    unverified_recipient_reject_code: int = 450
    unverified_recipient_defer_code: int = 450
    reject_code: int = 554
    defer_code: int = 450


class Stage(Enum):
    """The command at which a decision is announced, in the words of the log."""

    CONNECT = "CONNECT"
    HELO = "HELO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    END_OF_MESSAGE = "END-OF-MESSAGE"
    VRFY = "VRFY"


class Subject(Enum):
    """What a restriction looks at, in the words of its reply."""

    CLIENT = "Client host"
    HELO = "Helo command"
    SENDER = "Sender address"
    RECIPIENT = "Recipient address"
    DATA = "Data command"
    END_OF_DATA = "End-of-data"


@dataclass(slots=True)
class Effects:
    """What accepted mail is to undergo, beyond delivery. Empty fields change nothing."""

    hold: str = ""
    discard: str = ""
    redirect: Address | None = None
    bcc: list[Address] = field(default_factory=list)
    prepend: list[str] = field(default_factory=list)
    content_filter: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what. `client_name` is confirmed by PTR and address, else "unknown".

    `has_pipelined` says that octets waited behind a command that ends a pipeline. `facts` gives what
    is told to servers that decide (`session_facts`), None where there is no session. `certificate` is what
    the client showed under TLS, of an authority that we know or not.
    """

    address: str
    client_name: str = "unknown"
    reverse_name: str = "unknown"
    name_is_temporary: bool = False
    helo: str = ""
    login: str = ""
    is_tls: bool = False
    sender: Address | None = None
    recipient: Address | None = None
    recipient_count: int = 0
    stage: Stage = Stage.CONNECT
    has_pipelined: bool = False
    facts: Callable[[], Mapping[str, str]] | None = None
    certificate: ClientCertificate | None = None
    certificate_is_trusted: bool = False

    def value_of(self, subject: Subject) -> str:
        """What stands in the angle brackets of a reply about the subject."""
        if subject is Subject.CLIENT:
            return f"{self.client_name}[{self.address}]"
        if subject is Subject.HELO:
            return self.helo
        if subject is Subject.SENDER:
            return str(self.sender) if self.sender is not None else ""
        if subject is Subject.RECIPIENT:
            return str(self.recipient) if self.recipient is not None else ""
        return self.stage.value


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision: reply code, enhanced status, text; and the parameter and `file:line` that decided.

    421 and 521 also end the connection. RFC 5321 §4.2, RFC 3463.
    """

    code: int
    dsn: str
    text: str
    reason: str = ""

    @property
    def permits(self) -> bool:
        """Whether this list of restrictions lets the request pass."""
        return self.code < 400

    @property
    def disconnects(self) -> bool:
        """Whether the connection ends with this answer. RFC 5321 §3.8, RFC 7504 §2."""
        return self.code in (421, 521)

    def __str__(self) -> str:
        """The reply as it is sent and logged."""
        return f"{self.code} {self.dsn} {self.text}"


@dataclass(slots=True)
class Evaluation:
    """One decision in the making: the request, and what its restrictions have left so far.

    `asked` names the restriction that is being asked, `trace` what each one answered.
    """

    request: Request
    effects: Effects
    codes: Codes = field(default_factory=Codes)
    parameter: str = ""
    asked: str = ""
    defer_if_permit: Verdict | None = None
    defer_if_reject: Verdict | None = None
    warnings: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trace: list[str] | None = None
    nesting: int = 0  # of table results that are restrictions

    def verdict(self, code: int, dsn: str, text: str, why: str = "") -> Verdict:
        """The refusal with that text alone; the first digit of `dsn` becomes the code's."""
        return Verdict(code, f"{code // 100}{dsn[1:]}", text, self.reason(why))

    def permit(self, why: str = "") -> Verdict:
        """This list lets the request pass."""
        return Verdict(250, "2.0.0", "Ok", self.reason(why))

    def refuse(self, code: int, dsn: str, subject: Subject, text: str, why: str = "") -> Verdict:
        """The refusal `<value>: Subject rejected: text`; the first digit of `dsn` becomes the code's."""
        value = self.request.value_of(subject)
        return self.verdict(code, dsn, f"<{value}>: {subject.value} rejected: {text}", why)

    def reason(self, why: str = "") -> str:
        """The parameter and the restriction being asked, and what that found."""
        return f"{self.parameter}: {self.asked}" + (f" ({why})" if why else "")

    def postpone(self, verdict: Verdict) -> None:
        """Should everything else permit, this temporary refusal is the answer."""
        if self.defer_if_permit is None:
            self.defer_if_permit = verdict

"""An SMTP session: who the client is, what it said so far, and the commands outside a mail transaction.

The session knows no sockets: it answers through a `Wire`. Each command is a method that
takes the argument and either has replied when it returns, or returns a coroutine that has when it ends.
MAIL, RCPT, DATA and BDAT are `MailTransactions`', AUTH is `Authentication`'s.

What must be forgotten is forgotten in one place: `forget_transaction` at RSET, HELO, EHLO, the end of
content and its failure, `forget_session` at STARTTLS and XCLIENT (RFC 5321 §4.1.4, RFC 3207
§4.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import Deferred

from mailserver.accounts.logged_in import Login
from mailserver.envelope import Address
from mailserver.maillog import printable
from mailserver.milter.rules import Refusal
from mailserver.smtpd.admission import Admission
from mailserver.smtpd.authentication import Authentication
from mailserver.smtpd.client_certificate import PeerCertificate
from mailserver.smtpd.connection import Command, Wire, Work
from mailserver.smtpd.lookups import Networks
from mailserver.smtpd.milters import SessionMilters
from mailserver.smtpd.policy import Decision
from mailserver.smtpd.rates import SendingRates
from mailserver.smtpd.services import Services
from mailserver.smtpd.session_facts import session_facts
from mailserver.smtpd.transaction import MailTransactions
from mailserver.smtpd.verdict import Effects, Request, Stage, Verdict
from mailserver.smtpd.xclient import ClientOverride
from mailserver.smtpd.xforward import Forwarded
from mailserver.wire.lines import BareNewline
from mailserver.wire.smtp import SmtpError, parse_helo, split_command

_COUNTED: Final = (
    "helo", "ehlo", "xclient", "xforward", "starttls", "auth", "mail", "rcpt", "data", "bdat", "burl",
    "rset", "noop", "vrfy", "etrn", "quit", "unknown",
)  # fmt: skip
_JUNK: Final = frozenset(("NOOP", "VRFY", "RSET", "ETRN", "HELP", "EXPN"))
_ACTIONS_OF_THE_QUEUE: Final = frozenset(("hold", "discard", "redirect", "filter", "bcc"))
_NOT_IMPLEMENTED: Final = frozenset(("ETRN", "EXPN", "TURN", "XFORWARD"))

_HEADER_FIELD: Final = re.compile(rb"[!-9;-~]++[ \t]*+:")


def _shown(octets: bytes) -> str:
    return printable(octets.decode("utf-8", "replace"), 256)


class Session:
    """What a connection has said so far. Methods without a result have replied."""

    def __init__(self, services: Services, wire: Wire) -> None:
        self.services = services
        self.settings = services.settings
        self.wire = wire
        self.request = Request("")
        self.peer_address = ""
        self.helo = ""
        self.is_esmtp = False
        self.login = ""
        self.sasl_method = ""
        milters = services.milters
        self.milters = SessionMilters(self, milters) if milters is not None else None
        self.rates = SendingRates(self)
        self.mail = MailTransactions(self)
        self.certificate = PeerCertificate(self)
        self.authentication = Authentication(self)
        self.admission = Admission(self)
        self._override = ClientOverride(self)
        self.forwarded = Forwarded(self)
        self._continuation: Command | None = None
        self._where = "CONNECT"
        self._farewell = "server is shutting down"
        self._errors = 0
        self._junk = 0
        self._has_erred = False
        self._is_denied = False
        self.is_over = False
        self._counts: dict[str, list[int]] = {}
        self._commands: dict[str, Command] = {
            "HELO": self._helo,
            "EHLO": self._ehlo,
            "STARTTLS": self._starttls,
            "AUTH": self.authentication.auth,
            "MAIL": self.mail.mail,
            "RCPT": self.mail.rcpt,
            "DATA": self.mail.data,
            "BDAT": self.mail.bdat,
            "RSET": self._rset,
            "NOOP": self._noop,
            "VRFY": self._vrfy,
            "HELP": self._help,
            "QUIT": self._quit,
            "XCLIENT": self._override.xclient,
            "XFORWARD": self.forwarded.xforward,
        }
        if services.urls is not None:
            self._commands["BURL"] = self.mail.burl

    # ------------------------------------------------------------ the client

    @property
    def client(self) -> str:
        """`name[address]`, as the log has it."""
        return f"{self.request.client_name}[{self.request.address}]"

    @property
    def origin(self) -> str:
        """The same, with what is known of who stands behind it: what the log has of a message."""
        sasl = f", sasl_method={self.sasl_method}, sasl_username={self.login}" if self.login else ""
        return f"{self.client}{self.forwarded.log_words}{sasl}"

    @property
    def is_local(self) -> bool:
        """Whether its mail is a local client's, or came from one through a filter."""
        is_local = self.forwarded.is_local
        return self.services.local_clients.have(self) if is_local is None else is_local

    @property
    def protocol(self) -> str:
        """SMTP, ESMTP, ESMTPS, ESMTPA or ESMTPSA. RFC 3848."""
        if not self.is_esmtp:
            return "SMTP"
        return "ESMTP" + ("S" if self.wire.is_tls else "") + ("A" if self.login else "")

    @property
    def is_trusted(self) -> bool:
        """Whether limits do not count this client. smtpd_client_event_limit_exceptions."""
        services = self.services
        return self.is_among(services.are_not_limited or services.policy.mynetworks)

    def is_among(self, networks: Networks | None) -> bool:
        """Whether the client is one of these; None is nobody."""
        request = self.request
        return networks is not None and networks.find(request.address, request.client_name) is not None

    @property
    def bare_newline(self) -> BareNewline:
        """What becomes of bare LF in this client's content. smtpd_forbid_bare_newline_exclusions."""
        if self.is_among(self.services.may_send_bare_newlines):
            return BareNewline.ACCEPT
        return self.settings.forbid_bare_newline

    def log(self, text: str) -> None:
        """The line is in the mail log, as this service's."""
        self.services.log.write(self.settings.syslog_service, text)

    def request_at(
        self,
        stage: Stage,
        sender: Address | None = None,
        recipient: Address | None = None,
        recipient_count: int = 0,
    ) -> Request:
        """What is known now, for a decision at that command."""
        known = self.request
        return Request(
            known.address,
            known.client_name,
            known.reverse_name,
            known.name_is_temporary,
            self.helo,
            self.login,
            self.wire.is_tls,
            sender,
            recipient,
            recipient_count,
            stage,
            self.wire.has_waiting_input,
            self._facts,
            self.certificate.described,
            self.certificate.is_trusted,
        )

    def _facts(self) -> Mapping[str, str]:
        return session_facts(self)

    def connected(self) -> Work:
        """The client is known, counted, and greeted or turned away."""
        return self.admission.connected()

    def deny(self) -> None:
        """Nothing but QUIT is obeyed any more."""
        self._is_denied = True

    # ------------------------------------------------------------ replies

    def reply(self, code: int, dsn: str, text: str) -> None:
        """The reply is on its way, and counts as an error from 400 on."""
        if code >= 400:
            self._has_erred = True
        self.wire.reply(*self._softened(code, dsn), text)

    def _softened(self, code: int, dsn: str) -> tuple[int, str]:
        """The codes that are said: with soft_bounce nothing is for good."""
        if not self.settings.soft_bounce or code < 500:
            return code, dsn
        return code - 100, f"4{dsn[1:]}" if dsn else ""

    def reply_error(self, error: SmtpError) -> None:
        """The refusal is on its way."""
        self.reply(error.code, error.dsn, error.text)
        if error.code in (421, 521):
            self.close()

    def refuses(self, decision: Decision, command: str) -> bool:
        """Whether the decision refuses; its log lines are written. The reply is the caller's."""
        for verdict in decision.warnings:
            self.log_reject("reject_warning", command, verdict)
        for note in decision.notes:
            kind, _, text = note.partition(": ")
            if self.services.proxy is not None and kind in _ACTIONS_OF_THE_QUEUE:
                action = kind.upper()
                self.log(
                    f"warning: with smtpd_proxy_filter specified, action {action} is unavailable: {text}"
                )
                continue
            self.log(f"NOQUEUE: {kind}: {command} from {self.client}: {text}; {self._about()}")
        if decision.error:
            self.log(decision.error)
        if decision.refusal is None:
            return False
        self.log_reject("reject", command, decision.refusal)
        return True

    def apply(self, decision: Decision, command: str) -> bool:
        """As `refuses`; and the reply is on its way."""
        if not self.refuses(decision, command):
            return False
        assert decision.refusal is not None
        self.reply(decision.refusal.code, decision.refusal.dsn, decision.refusal.text)
        if decision.refusal.disconnects:
            self.close()
        return True

    def refused_by_milter(self, refusal: Refusal | None) -> bool:
        """Whether a milter refuses; then the reply is on its way."""
        if refusal is None:
            return False
        self.reply(refusal.code, refusal.dsn, refusal.text)
        if refusal.disconnects:
            self.close()
        return True

    def answer_for_filter(self, verdict: Verdict) -> None:
        """The client hears what a proxy filter said to its message."""
        self.reply(verdict.code, verdict.dsn, verdict.text)
        if verdict.code == 421:
            self.close()
        elif verdict.code < 400:
            self.forgive()

    def log_reject(self, kind: str, command: str, verdict: Verdict) -> None:
        """The refusal is in the log, in the form that fail2ban and pflogsumm read."""
        code, dsn = self._softened(verdict.code, verdict.dsn)
        text = f"{code} {dsn} {verdict.text}"
        self.log(f"NOQUEUE: {kind}: {command} from {self.client}: {text}; {self._about()}")

    def _about(self) -> str:
        words = self.mail.log_words()
        words.append("proto=ESMTP" if self.is_esmtp else "proto=SMTP")
        if self.helo:
            words.append(f"helo=<{self.helo}>")
        return " ".join(words)

    # ------------------------------------------------------------ commands

    def line(self, line: bytes) -> Work:
        """The command line is dealt with."""
        if self._continuation is not None:
            continuation, self._continuation = self._continuation, None
            return self.finishing(continuation(line))
        if self.wire.last_line_was_bare and self.refuse_bare_newline():
            return None
        if self._refuses_certificate():
            return None
        verb, argument = split_command(line)
        self._has_erred = False
        self._where = verb if verb in self._commands else "UNKNOWN"
        if self._is_denied and verb != "QUIT":
            self.reply(503, "5.7.0", f"Error: access denied for {self.client}")
            return self._done(None)
        command = self._commands.get(verb)
        if command is None:
            return self._done(self._unknown(verb, line))
        try:
            return self._done(command(argument))
        except SmtpError as error:
            self.reply_error(error)
            return self._done(None)

    def overlong_line(self) -> Work:
        """A command line over the limit was thrown away."""
        self._has_erred = False
        self._where = "UNKNOWN"
        self._continuation = None
        self.reply(500, "5.5.2", "Error: line too long")
        return self._done(None)

    def endless_line(self) -> Work:
        """A client that sends a line without end is given up."""
        self.reply(421, "4.7.0", f"{self.settings.myhostname} Error: line too long")
        self.log(f"too long line after {self._where} from {self.client}")
        self.close()
        return None

    def refuse_bare_newline(self) -> bool:
        """Whether bare LFs are refused: then the client is told, and the connection ends."""
        if self.bare_newline is not BareNewline.REJECT:
            return False
        code = self.settings.forbid_bare_newline_reject_code
        dsn = f"{code // 100}.5.2"
        self.reply(code, dsn, f"{self.settings.myhostname} Error: bare <LF> received")
        self.log(f"disconnect: bare <LF> received after {self._where} from {self.client}")
        self.close()
        return True

    def _refuses_certificate(self) -> bool:
        """Whether the client shows no good certificate where it must: then it is told, and sent away."""
        complaint = self.certificate.complaint()
        if complaint:
            self.log(f"NOQUEUE: abort: TLS from {self.client}: {complaint}")
            self.reply(421, "4.7.1", f"{self.settings.myhostname} Error: {complaint}")
            self.close()
        return bool(complaint)

    def expect_line(self, continuation: Command) -> None:
        """The next line belongs to the command that is worked on."""
        self._continuation = continuation

    def _done(self, work: Work) -> Work:
        """The bookkeeping behind a command, at once or when its work is done."""
        return self.finishing(work) if work is not None else self._account()

    async def finishing(self, work: Work) -> None:
        """The work of a command is done, and the bookkeeping behind it."""
        try:
            if work is not None:
                await work
        except SmtpError as error:
            self.reply_error(error)
        pause = self._account()
        if pause is not None:
            await pause

    def _account(self) -> Work:
        """The command is counted; a client with too many errors waits, or is sent away."""
        if self._continuation is not None or self.mail.is_receiving:
            return None  # the command goes on
        name = self._where.lower()
        count = self._counts.setdefault(name if name in _COUNTED else "unknown", [0, 0])
        count[0] += not self._has_erred
        count[1] += 1
        if self._where in _JUNK and not self._has_erred:
            self._junk += 1
            self._has_erred = self._junk > self.services.patience.junk_command_limit
        if not self._has_erred or self.is_over:
            return None
        self._errors += 1
        if self._errors >= self.services.patience.hard_error_limit:
            self.too_many_errors()
        elif self._errors > self.settings.soft_error_limit:
            return self._pause(self.settings.error_sleep_time)
        return None

    def too_many_errors(self) -> None:
        """The client is sent away."""
        self.wire.reply(421, "4.7.0", f"{self.settings.myhostname} Error: too many errors")
        self.log(f"too many errors after {self._where} from {self.client}")
        self.close()

    def forgive(self) -> None:
        """A message was taken: the errors before it do not count any more."""
        self._errors = self._junk = 0

    async def _pause(self, seconds: float) -> None:
        waiting: Deferred[None] = Deferred()
        self.services.clock.callLater(seconds, waiting.callback, None)
        await waiting

    def _unknown(self, verb: str, line: bytes) -> Work:
        if self.milters is not None and not self._is_forbidden(line):
            return self._ask_about_unknown(verb, line)
        self._refuse_unknown(verb, line)
        return None

    async def _ask_about_unknown(self, verb: str, line: bytes) -> None:
        assert self.milters is not None
        if not self.refused_by_milter(await self.milters.unknown(line)):
            self._refuse_unknown(verb, line)

    def _is_forbidden(self, line: bytes) -> bool:
        """Whether this is another protocol, or a message's header, by which somebody uses us as a proxy."""
        words = line.split(None, 1)
        if not words:
            return False
        forbidden = self.settings.forbidden_commands
        return _HEADER_FIELD.match(line) is not None or forbidden.find(words[0].decode("latin-1")) is not None

    def _refuse_unknown(self, verb: str, line: bytes) -> None:
        if self._is_forbidden(line):
            self.log(f"warning: non-SMTP command from {self.client}: {_shown(line)}")
            self.reply(221, "2.7.0", "Error: I can break rules, too. Goodbye.")
            self.close()
        elif verb in _NOT_IMPLEMENTED:
            self.reply(502, "5.5.1", "Error: command not implemented")
        else:
            what = "command not recognized" if line.strip() else "bad syntax"
            self.reply(500, "5.5.2", f"Error: {what}")

    def _helo(self, argument: bytes) -> Work:
        return self._introduced(argument, is_esmtp=False)

    def _ehlo(self, argument: bytes) -> Work:
        return self._introduced(argument, is_esmtp=True)

    async def _introduced(self, argument: bytes, is_esmtp: bool) -> None:
        verb = "EHLO" if is_esmtp else "HELO"
        helo = parse_helo(argument, verb)
        if self.mail.is_open:
            self.forget_transaction()
        if self._breaks_synchronisation():
            return
        before, self.helo = self.helo, helo
        decision = await self.services.policy.helo(self.request_at(Stage.HELO), Effects())
        refused = self.apply(decision, verb)
        if self.milters is not None and not refused:
            refused = self.refused_by_milter(await self.milters.helo(helo, verb))
        if refused:
            self.helo = before
            return
        self.is_esmtp = is_esmtp
        if is_esmtp:
            self.wire.reply_lines(250, [self.settings.myhostname, *self._extensions()])
        else:
            self.wire.reply(250, "", self.settings.myhostname)

    def _breaks_synchronisation(self) -> bool:
        """Whether the client talked on where it has to wait: then it is sent away, if so configured."""
        if not (self.settings.forbid_unauth_pipelining and self.wire.has_waiting_input):
            return False
        self.refuse_pipelining()
        return True

    def refuse_pipelining(self) -> None:
        """The client is sent away for talking before it may."""
        self.log(f"improper command pipelining after {self._where} from {self.client}")
        self.reply(554, "5.5.0", "Error: SMTP protocol synchronization")
        self.close()

    def _extensions(self) -> list[str]:
        settings = self.settings
        lines = [
            "PIPELINING",
            f"SIZE {settings.message_size_limit}" if settings.message_size_limit else "SIZE",
        ]
        if not settings.disable_vrfy_command:
            lines.append("VRFY")
        if self.services.tls is not None and not self.wire.is_tls:
            lines.append("STARTTLS")
        mechanisms = " ".join(self.authentication.offered)
        lines += [f"AUTH {mechanisms}", f"AUTH={mechanisms}"] if mechanisms else []
        lines += ["ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"]
        if self.services.urls is not None and (mechanisms or self.login):
            lines.append(f"BURL imap imap://{self.services.urls.authority}" if self.login else "BURL")
        lines += self._override.extensions() + self.forwarded.extensions()
        return [
            line
            for line in lines
            if line.split()[0].partition("=")[0].lower() not in settings.discard_ehlo_keywords
        ]

    def _starttls(self, argument: bytes) -> Work:
        if argument:
            raise SmtpError(501, "5.5.4", "Syntax: STARTTLS")
        if self.wire.is_tls:
            raise SmtpError(554, "5.5.1", "Error: TLS already active")
        if self.services.tls is None:
            raise SmtpError(502, "5.5.1", "Error: command not implemented")
        if self.wire.has_waiting_input:  # RELIABILITY B2: what was said in clear is not obeyed under TLS
            self.log(f"improper command pipelining after STARTTLS from {self.client}")
            self.close()
            return None
        self.reply(220, "2.0.0", "Ready to start TLS")
        self.wire.start_tls()
        self.forget_session()
        return None

    def forget_transaction(self) -> None:
        """Sender, recipients and content so far are forgotten."""
        self.mail.forget()

    def forget_session(self) -> None:
        """Everything that the client said is forgotten."""
        self.forget_transaction()
        self.helo = self.login = self.sasl_method = ""
        self.services.logged_in.leave(self)
        self.is_esmtp = False

    def _rset(self, argument: bytes) -> Work:
        if argument:
            raise SmtpError(501, "5.5.4", "Syntax: RSET")
        self.forget_transaction()
        self.reply(250, "2.0.0", "Ok")
        return None

    def _noop(self, argument: bytes) -> Work:
        self.reply(250, "2.0.0", "Ok")
        return None

    def _help(self, argument: bytes) -> Work:
        self.reply(
            214, "2.0.0", "Commands: " + " ".join(sorted(set(self._commands) - {"XCLIENT", "XFORWARD"}))
        )
        return None

    def _vrfy(self, argument: bytes) -> Work:
        """Nobody learns here who exists. RFC 5321 §3.5.3."""
        if self.settings.disable_vrfy_command:
            raise SmtpError(502, "5.5.1", "VRFY command is disabled")
        if not argument:
            raise SmtpError(501, "5.5.4", "Syntax: VRFY address [SMTPUTF8]")
        self.reply(252, "2.0.0", _shown(argument))
        return None

    def _quit(self, argument: bytes) -> Work:
        self.reply(221, "2.0.0", "Bye")
        self.close()
        return None

    # ------------------------------------------------------------ ends

    def close(self) -> None:
        """The connection ends, by our will: nothing is lost about it."""
        self.is_over = True
        self.wire.close()

    def failed_unexpectedly(self) -> None:
        """A fault of ours: the transaction is over, the client may try again."""
        was_receiving = self.mail.is_receiving
        self.forget_transaction()
        self._continuation = None
        if was_receiving:  # where its content ends is unknown now
            self.reply(421, "4.3.0", f"{self.settings.myhostname} Error: internal error")
            self.close()
        else:
            self.reply(451, "4.3.0", "Error: internal error")

    def timed_out(self) -> None:
        """The client was silent for too long."""
        self.wire.reply(421, "4.4.2", f"{self.settings.myhostname} Error: timeout exceeded")
        self.log(f"timeout after {self.mail.where() or self._where} from {self.client}")
        self.close()

    def enter(self, login: Login) -> None:
        """The login is listed until the session is over, and may be kicked."""
        if not self.is_over:
            self.services.logged_in.enter(self, login, is_limited=False)

    def kick(self) -> None:
        """An administrator ends the session: the client hears 421 once nothing is being committed."""
        self._farewell = "kicked by an administrator"
        self.wire.shut_down()

    def shut_down(self) -> None:
        """The server stops, or the session was kicked: the client is told to come again."""
        self.wire.reply(421, "4.3.2", f"{self.settings.myhostname} Error: {self._farewell}")
        self.close()

    def client_left(self) -> None:
        """The client is gone, or says nothing any more, without QUIT."""
        if not self.is_over:
            self.is_over = True
            self.log(f"lost connection after {self.mail.where() or self._where} from {self.client}")
        self.forget_transaction()

    def lost(self) -> None:
        """The connection is gone, whoever ended it."""
        if self.milters is not None:
            self.milters.close()
        self.services.logged_in.leave(self)
        self.client_left()
        if self.peer_address:
            self.admission.gone()
            self.log(f"disconnect from {self.client}{self._summary()}")

    def _summary(self) -> str:
        words, good, total = [], 0, 0
        for name in _COUNTED:
            if name in self._counts:
                right, all_ = self._counts[name]
                words.append(f" {name}={right}" + ("" if right == all_ else f"/{all_}"))
                good, total = good + right, total + all_
        return "".join(words) + f" commands={good}" + ("" if good == total and total else f"/{total}")

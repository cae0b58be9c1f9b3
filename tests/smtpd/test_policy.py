"""Access decisions: postconf(5), access(5), RELIABILITY §9 and B10."""
# ruff: noqa: E501 -- replies are shown whole, as one line of the table

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailserver.smtpd.policy import Policy, RestrictionTexts
from mailserver.smtpd.verdict import Codes, Request, RestrictionError, Stage
from mailserver.tables.open import open_table
from mailserver.tables.table import Entry, TableError
from mailserver.wire.address import parse_lenient
from tests.smtpd.harness import NEIGHBOUR, STRANGER, House, networks

STRICT = {"relay": "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination"}


def ask(
    house: House, recipient: str, *, sender: str = "s@example.com", address: str = STRANGER, **facts: str
) -> str:
    """The replies to HELO, MAIL and RCPT of one client, the last one only."""
    client = house.connect(address)
    client.say(f"EHLO {facts.get('helo', 'client.example')}")
    client.say(f"MAIL FROM:<{sender}>")
    return client.say(f"RCPT TO:{recipient}").rstrip("\n")


PROBES = [
    "<nobody@other.test>",
    '<"nobody@other.test">',
    '<"nobody%other.test">',
    "<nobody%other.test>",
    "<nobody%other.test@mx.example.org>",
    '<"nobody%other.test"@mx.example.org>',
    '<"nobody@other.test"@mx.example.org>',
    "<@mx.example.org:nobody@other.test>",
    "<@[127.0.0.1]:nobody@other.test>",
    "<other.test!nobody>",
    "<other.test!nobody@mx.example.org>",
    "<other.test!nobody@[127.0.0.1]>",
    "<nobody%other.test@[127.0.0.1]>",
    "<nobody%other.test@localhost>",
    "<alice%other.test@relayed.example>",
    "<other.test!alice@relayed.example>",
    "<alice@[192.0.2.1]>",
    "nobody@other.test",
]


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    "sender",
    [
        "s@example.com",
        "",
        "spam",
        "spam@mx.example.org",
        "alice@example.org",
        "spam@localhost",
        "spam@[127.0.0.1]",
    ],
)
def test_no_open_relay(tmp_path: Path, probe: str, sender: str) -> None:
    """Strangers relay nothing, however the address is written, and whoever they say they are."""
    reply = ask(House(tmp_path, texts=STRICT), probe, sender=sender)
    assert reply.startswith("554 5.7.1 <")
    assert reply.endswith(">: Relay access denied")


@pytest.mark.parametrize(
    "probe", ["<nobody@other.test@mx.example.org>", "<alice@>", "<alice@example.org", "<alice@example..org>"]
)
def test_syntax_is_refused(tmp_path: Path, probe: str) -> None:
    """501 for what is no address."""
    assert ask(House(tmp_path, texts=STRICT), probe) == "501 5.1.3 Bad recipient address syntax"


@pytest.mark.parametrize(
    "recipient",
    [
        "<postmaster>",
        "<Postmaster>",
        "<ALICE@EXAMPLE.ORG>",
        "<alice@example.org.>",
        '<"alice"@example.org>',
        "<alice+x@example.org>",
        "<@a.test,@b.test:alice@example.org>",
        "<alice@[127.0.0.1]>",
        "<anybody@relayed.example>",
    ],
)
def test_our_own_are_accepted(tmp_path: Path, recipient: str) -> None:
    """What is ours is taken from strangers."""
    assert ask(House(tmp_path, texts=STRICT), recipient) == "250 2.1.5 Ok"


@pytest.mark.parametrize(
    ("relay", "recipient"),
    [
        ("", ""),
        ("permit_mynetworks", "permit_sasl_authenticated"),
        ("permit, reject_unauth_destination", ""),
        ("warn_if_reject reject_unauth_destination", ""),
        ("check_recipient_access inline:{x=REJECT}", ""),
    ],
)
def test_an_open_relay_does_not_start(tmp_path: Path, relay: str, recipient: str) -> None:
    """Neither list stops strangers: fatal, naming what to add."""
    with pytest.raises(RestrictionError, match="reject_unauth_destination"):
        House(tmp_path, texts={"relay": relay, "recipient": recipient})


@pytest.mark.parametrize(
    "text",
    [
        "reject_what",
        "check_client_access",
        "check_client_access nosuchtype:x",
        "check_client_access { static:x, { search_order = subject_cn } }",
        "check_ccert_access { static:x, { search_order = name } }",
        "check_ccert_access { static:x, { order = name } }",
        "a, b",
    ],
)
def test_unknown_words_stop_the_start(tmp_path: Path, text: str) -> None:
    """Passing over a word would open what it closes."""
    with pytest.raises(RestrictionError, match="smtpd_client_restrictions"):
        House(tmp_path, texts={"client": text})


CASES: list[tuple[dict[str, str], dict[str, Any], str]] = [
    # lists, who asks, the reply for alice@example.org
    ({"client": "reject"}, {}, "554 5.7.1 <unknown[192.0.2.7]>: Client host rejected: Access denied"),
    ({"helo": "reject"}, {}, "554 5.7.1 <client.example>: Helo command rejected: Access denied"),
    ({"sender": "reject"}, {}, "554 5.7.1 <s@example.com>: Sender address rejected: Access denied"),
    ({"recipient": "reject"}, {}, "554 5.7.1 <alice@example.org>: Recipient address rejected: Access denied"),
    ({"recipient": "defer"}, {}, "450 4.3.2 <alice@example.org>: Recipient address rejected: Try again later"),
    ({"client": "permit_mynetworks, reject"}, {"address": NEIGHBOUR}, "250 2.1.5 Ok"),
    ({"client": "permit", "sender": "reject"}, {}, "554 5.7.1 <s@example.com>: Sender address rejected: Access denied"),
    ({"helo": "reject_invalid_helo_hostname"}, {"helo": "a..b"}, "501 5.5.2 <a..b>: Helo command rejected: Invalid name"),
    ({"helo": "reject_non_fqdn_helo_hostname"}, {"helo": "MYPC"},
     "504 5.5.2 <MYPC>: Helo command rejected: need fully-qualified hostname"),
    ({"helo": "reject_non_fqdn_helo_hostname"}, {"helo": "[192.0.2.7]"}, "250 2.1.5 Ok"),
    ({"helo": "reject_unknown_helo_hostname"}, {}, "450 4.7.1 <client.example>: Helo command rejected: Host not found"),
    ({"helo": "reject_unknown_helo_hostname"}, {"helo": "known.example"}, "250 2.1.5 Ok"),
    ({"client": "reject_unknown_client_hostname"}, {}, "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.7]"),
    ({"client": "reject_unknown_client_hostname"}, {"address": "192.0.2.8"}, "250 2.1.5 Ok"),
    ({"client": "reject_unknown_client_hostname"}, {"address": "192.0.2.9"},
     "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.9]"),
    ({"client": "reject_unknown_reverse_client_hostname"}, {"address": "192.0.2.9"}, "250 2.1.5 Ok"),
    ({"client": "reject_unknown_client_hostname"}, {"address": "192.0.2.66"},
     "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.66]"),
    ({"sender": "reject_non_fqdn_sender"}, {"sender": "joe"}, "504 5.5.2 <joe>: Sender address rejected: need fully-qualified address"),
    ({"sender": "reject_non_fqdn_sender"}, {"sender": ""}, "250 2.1.5 Ok"),
    ({"sender": "reject_unknown_sender_domain"}, {}, "450 4.1.8 <s@example.com>: Sender address rejected: Domain not found"),
    ({"sender": "reject_unknown_sender_domain"}, {"sender": "s@known.example"}, "250 2.1.5 Ok"),
    ({"sender": "reject_unknown_sender_domain"}, {"sender": "s@example.org"}, "250 2.1.5 Ok"),
    ({"recipient": "reject_unknown_recipient_domain"}, {}, "250 2.1.5 Ok"),
    ({"sender": "reject_unknown_sender_domain"}, {"sender": "s@nomail.example"},
     "550 5.7.27 <s@nomail.example>: Sender address rejected: Domain nomail.example does not accept mail (nullMX)"),
    ({"sender": "reject_unknown_sender_domain"}, {"sender": "s@broken.example"},
     "450 4.1.8 <s@broken.example>: Sender address rejected: Domain not found"),
    ({"recipient": "reject_rbl_client bl.example"}, {},
     "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using bl.example"),
    ({"recipient": "reject_rbl_client bl.example=127.0.0.9"}, {}, "250 2.1.5 Ok"),
    ({"recipient": "reject_rbl_client errors.example"}, {}, "250 2.1.5 Ok"),
    ({"recipient": "reject_rhsbl_sender rhs.example"}, {"sender": "s@bad.example"},
     "554 5.7.1 Service unavailable; Sender address [s@bad.example] blocked using rhs.example"),
    ({"recipient": "warn_if_reject reject"}, {}, "250 2.1.5 Ok"),
    ({"recipient": "defer_if_permit"}, {}, "450 4.7.0 <alice@example.org>: Recipient address rejected: defer_if_permit requested"),
    ({"recipient": "defer_if_reject, reject"}, {}, "450 4.7.0 <alice@example.org>: Recipient address rejected: defer_if_reject requested"),
    ({"recipient": "reject_plaintext_session"}, {}, "450 4.7.1 Session encryption is required"),
    ({"recipient": "{ permit_mynetworks, reject }"}, {"address": NEIGHBOUR}, "250 2.1.5 Ok"),
    ({"sender": "reject_sender_login_mismatch"}, {"sender": "alice@example.org"},
     "553 5.7.1 <alice@example.org>: Sender address rejected: not logged in"),
    ({"sender": "reject_sender_login_mismatch"}, {}, "250 2.1.5 Ok"),
    ({"sender": "reject_unlisted_sender"}, {"sender": "nobody@example.org"},
     "550 5.1.0 <nobody@example.org>: Sender address rejected: User unknown in local recipient table"),
]  # fmt: skip


def dns(house: House) -> House:
    """The names that the cases know."""
    house.names.names = {"192.0.2.8": ("good.example",), "192.0.2.9": ("liar.example",)}
    house.names.hosts = {
        "good.example": ("192.0.2.8",),
        "liar.example": ("198.51.100.1",),
        "known.example": ("198.51.100.2",),
        "7.2.0.192.bl.example": ("127.0.0.2",),
        "7.2.0.192.errors.example": ("127.255.255.254",),
        "bad.example.rhs.example": ("127.0.0.2",),
    }
    house.names.exchangers = {"nomail.example": ("",)}
    house.names.broken = {"broken.example", "192.0.2.66"}
    return house


@pytest.mark.parametrize(("texts", "facts", "reply"), CASES)
def test_restrictions(tmp_path: Path, texts: dict[str, str], facts: dict[str, Any], reply: str) -> None:
    """Each restriction, with delayed answers (the default): everything is said at RCPT."""
    owners = (open_table("inline:{alice@example.org=alice}"),)
    house = dns(House(tmp_path, texts=texts, tools={"sender_login_maps": owners}))
    assert ask(house, "<alice@example.org>", **facts) == reply


ACTIONS = [
    ("OK", "250 2.1.5 Ok"),
    ("12345", "250 2.1.5 Ok"),
    ("DUNNO", "250 2.1.5 Ok"),
    ("REJECT", "554 5.7.1 <s@example.com>: Sender address rejected: Access denied"),
    ("REJECT go away", "554 5.7.1 <s@example.com>: Sender address rejected: go away"),
    ("reject 5.1.0 go away", "554 5.1.0 <s@example.com>: Sender address rejected: go away"),
    ("550 no", "550 5.7.1 <s@example.com>: Sender address rejected: no"),
    ("450 4.2.1 later", "450 4.2.1 <s@example.com>: Sender address rejected: later"),
    ("521", "521 5.7.1 <s@example.com>: Sender address rejected: Access denied"),
    ("DEFER later", "450 4.7.1 <s@example.com>: Sender address rejected: later"),
    ("DEFER_IF_PERMIT later", "450 4.7.1 <s@example.com>: Sender address rejected: later"),
    ("DEFER_IF_REJECT later", "250 2.1.5 Ok"),
    ("HOLD", "250 2.1.5 Ok"),
    ("INFO x", "250 2.1.5 Ok"),
    ("reject_unknown_sender_domain", "450 4.1.8 <s@example.com>: Sender address rejected: Domain not found"),
    ("permit", "250 2.1.5 Ok"),
    ("strict", "554 5.7.1 <s@example.com>: Sender address rejected: Access denied"),
    ("FILTER scan:x", "250 2.1.5 Ok"),
    ("FILTER nowhere", "451 4.3.5 Server configuration error"),
    ("nonsense", "451 4.3.5 Server configuration error"),
    ("REDIRECT a@b@c", "451 4.3.5 Server configuration error"),
]


@pytest.mark.parametrize(("action", "reply"), ACTIONS)
def test_access_results(tmp_path: Path, action: str, reply: str) -> None:
    """access(5), by sender; a result may be a restriction or a class."""
    text = f"check_sender_access inline:{{{{example.com = {action}}}}}"
    house = House(
        tmp_path, texts={"sender": text}, tools={"classes": {"strict": "permit_mynetworks, reject"}}
    )
    assert ask(house, "<alice@example.org>") == reply


def test_421_and_521_end_the_connection(tmp_path: Path) -> None:
    """access(5)."""
    house = House(tmp_path, texts={"client": "check_client_access inline:{192.0.2=421}"})
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>")
    assert client.say("RCPT TO:<alice@example.org>").startswith("421 4.7.1 ")
    assert client.is_closed


def test_effects(tmp_path: Path) -> None:
    """HOLD, REDIRECT, BCC, PREPEND change the message; the log says so."""
    table = "inline:{{s@example.com=HOLD wait}, {t@example.com=REDIRECT bob@example.org}, {example.com=PREPEND X-A: b}}"
    text = f"check_sender_access {table}, check_client_access inline:{{{{192.0.2.7 = BCC spy@example.org}}}}"
    house = House(tmp_path, texts={"sender": text})
    client = house.connect()
    for sender in ("s", "t", "u"):
        client.say("EHLO x", f"MAIL FROM:<{sender}@example.com>", "RCPT TO:<alice@example.org>", "DATA")
        assert "queued as" in client.say("x", ".")
    held, redirected, prepended = house.accepted
    assert Path(held.path).parent.name == "hold"
    assert [str(each.address) for each in redirected.accepted.envelope.recipients] == [
        "bob@example.org",
        "spy@example.org",
    ]
    assert prepended.read_content().startswith(b"X-A: b\nReceived: ")
    assert any(
        "NOQUEUE: hold: RCPT from unknown[192.0.2.7]: <s@example.com>: Sender address wait; from=<s@example.com>"
        in text
        for _, text in house.log.lines
    )


def test_discard(tmp_path: Path) -> None:
    """DISCARD answers 250 and keeps nothing."""
    house = House(tmp_path, texts={"sender": "check_sender_access inline:{example.com=DISCARD}"})
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<s@example.com>", "RCPT TO:<alice@example.org>", "DATA")
    assert "queued as" in client.say("x", ".")
    assert house.accepted == []
    assert list(Path(house.queue.path, "incoming").iterdir()) == []


class Broken:
    """A table that cannot be read."""

    name = "hash:/nosuch"

    def find(self, key: str) -> Entry | None:
        """See Table."""
        raise TableError("open database /nosuch: No such file")

    def entries(self) -> Any:
        """See Table."""
        raise TableError("open database /nosuch: No such file")


def test_a_broken_table_defers(tmp_path: Path) -> None:
    """RELIABILITY F57: 451 4.3.5 and one line in the log, never 5xx."""
    house = House(
        tmp_path,
        texts={"sender": "check_sender_access hash:/nosuch"},
        tools={"open_table": lambda name: Broken()},
    )
    assert ask(house, "<alice@example.org>") == "451 4.3.5 Server configuration error"
    assert ("smtpd", "warning: open database /nosuch: No such file") in house.log.lines


def test_tables_that_name_each_other_end(tmp_path: Path) -> None:
    """A table whose result asks the same table again is a configuration error, not a loop."""
    text = "check_sender_access static:{check_sender_access static:again}"
    house = House(tmp_path, texts={"sender": text}, tools={"classes": {"again": "loop", "loop": "again"}})
    assert ask(house, "<alice@example.org>") == "451 4.3.5 Server configuration error"


def test_client_access_by_name_counts_confirmed_names_only(tmp_path: Path) -> None:
    """`.domain` and `domain` both match a name, and only one that leads back to the address."""
    for key in (".example", "good.example"):
        house = dns(House(tmp_path, texts={"client": f"check_client_access inline:{{{key}=OK}}, reject"}))
        assert ask(house, "<alice@example.org>", address="192.0.2.8") == "250 2.1.5 Ok"
    house = dns(House(tmp_path, texts={"client": "check_client_access inline:{liar.example=OK}, reject"}))
    assert ask(house, "<alice@example.org>", address="192.0.2.9").startswith("554 5.7.1 ")


def test_without_delay_each_stage_answers(tmp_path: Path) -> None:
    """`smtpd_delay_reject = no`."""
    house = House(tmp_path, texts={"client": "reject"}, policy={"delay_reject": False})
    client = house.connect()
    assert client.greeting == "554 mx.example.org ESMTP not accepting connections\r\n"
    assert client.say("EHLO x") == "503 5.7.0 Error: access denied for unknown[192.0.2.7]\n"
    assert client.say("QUIT") == "221 2.0.0 Bye\n"
    house = House(tmp_path, texts={"helo": "reject", "sender": "reject"}, policy={"delay_reject": False})
    client = house.connect()
    assert client.say("EHLO x") == "554 5.7.1 <x>: Helo command rejected: Access denied\n"
    assert client.say("MAIL FROM:<a@b>") == "554 5.7.1 <a@b>: Sender address rejected: Access denied\n"


def test_data_and_end_of_data(tmp_path: Path) -> None:
    """These lists answer at their own commands; the transaction is over after the latter (RELIABILITY §6)."""
    house = House(tmp_path, texts={"data": "reject"})
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>")
    assert client.say("DATA") == "554 5.7.1 <DATA>: Data command rejected: Access denied\n"
    house = House(tmp_path, texts={"end_of_data": "reject"})
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA")
    assert client.say("x", ".") == "554 5.7.1 <END-OF-MESSAGE>: End-of-data rejected: Access denied\n"
    assert client.say("DATA") == "503 5.5.1 Error: need RCPT command\n"
    assert house.accepted == []


def test_pipelining_before_it_is_allowed(tmp_path: Path) -> None:
    """reject_unauth_pipelining at DATA; nothing behind it is content."""
    house = House(tmp_path, texts={"data": "reject_unauth_pipelining"})
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>")
    said = client.say("DATA", "NOOP")
    assert said.startswith(
        "503 5.5.0 <DATA>: Data command rejected: Improper use of SMTP command pipelining\n"
    )


def test_the_log_of_a_rejection(tmp_path: Path) -> None:
    """The form that fail2ban and pflogsumm read. ECOSYSTEM §9."""
    house = House(tmp_path, texts=STRICT)
    ask(house, "<nobody@other.test>")
    assert house.log.lines[-1] == (
        "smtpd",
        "NOQUEUE: reject: RCPT from unknown[192.0.2.7]: 554 5.7.1 <nobody@other.test>: Relay access denied; "
        "from=<s@example.com> to=<nobody@other.test> proto=ESMTP helo=<client.example>",
    )


def test_explain(tmp_path: Path) -> None:
    """The trace names each restriction asked, its answer, and the parameter's place."""
    house = House(tmp_path)
    policy = Policy(
        RestrictionTexts(
            recipient="warn_if_reject reject", relay="permit_mynetworks, reject_unauth_destination"
        ),
        house.tools(mynetworks=networks("10.0.0.0/8")),
        sources={"smtpd_relay_restrictions": "main.cf:12"},
    )
    request = Request(STRANGER, recipient=parse_lenient("x@other.test"), stage=Stage.RCPT)
    coroutine = policy.explain_recipient(request)
    with pytest.raises(StopIteration) as finished:
        coroutine.send(None)
    explanation = finished.value.value
    assert str(explanation.verdict) == "554 5.7.1 <x@other.test>: Relay access denied"
    assert explanation.verdict.reason == "smtpd_relay_restrictions (main.cf:12): reject_unauth_destination"
    assert explanation.trace == (
        "smtpd_relay_restrictions (main.cf:12): permit_mynetworks: no decision",
        "smtpd_relay_restrictions (main.cf:12): reject_unauth_destination: "
        "554 5.7.1 <x@other.test>: Relay access denied",
    )


@pytest.mark.parametrize(
    ("codes", "texts", "lines", "expected"),
    [
        ({"reject_code": 521}, {"sender": "reject"}, (), "521 5.7.1 <"),
        ({"defer_code": 421}, {"sender": "defer"}, (), "421 4.3.2 <"),
        ({"non_fqdn_reject_code": 554}, {"helo": "reject_non_fqdn_helo_hostname"}, (), "554 5.5.2 <x>"),
        (
            {"invalid_hostname_reject_code": 450},
            {"helo": "reject_invalid_helo_hostname"},
            ("EHLO a..b",),
            "450 4.5.2",
        ),
        (
            {"unknown_hostname_reject_code": 550},
            {"helo": "reject_unknown_helo_hostname"},
            (),
            "550 5.7.1 <x>",
        ),
        ({"unknown_address_reject_code": 550}, {"sender": "reject_unknown_sender_domain"}, (), "550 5.1.8 <"),
        (
            {"unknown_client_reject_code": 550},
            {"client": "reject_unknown_client_hostname"},
            (),
            "550 5.7.25 ",
        ),
        ({"plaintext_reject_code": 530}, {"client": "reject_plaintext_session"}, (), "530 5.7.1 Session enc"),
        ({"unknown_local_recipient_reject_code": 450}, {}, (), "450 4.1.1 <no@example.org>"),
    ],
)
def test_reply_codes_can_be_chosen(
    tmp_path: Path, codes: dict[str, int], texts: dict[str, str], lines: tuple[str, ...], expected: str
) -> None:
    """The *_reject_code parameters; the first digit of the enhanced status follows. RFC 3463 §2."""
    house = House(tmp_path, texts=texts, tools={"codes": Codes(**codes)})
    client = house.connect()
    client.say("EHLO x", *lines, "MAIL FROM:<a@unknown.test>")
    assert client.say("RCPT TO:<no@example.org>").startswith(expected)


def test_the_table_need_not_be_named(tmp_path: Path) -> None:
    """show_user_unknown_table_name = no."""
    client = House(tmp_path, tools={"shows_table_name": False}).connect()
    client.say("EHLO x", "MAIL FROM:<a@example.com>")
    said = client.say("RCPT TO:<no@example.org>")
    assert said == "550 5.1.1 <no@example.org>: Recipient address rejected: User unknown\n"

"""Milters of SMTP sessions and of dropped mail, against one on loopback that does what it is told."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from mailserver.config.syntax import ConfigError
from mailserver.envelope import Address, Envelope, Recipient
from mailserver.milter.connection import ReactorConnect, run_blocking
from mailserver.milter.content import MilterContent
from mailserver.milter.rules import Refusal
from mailserver.queue.milters import ask_about_local
from mailserver.roles.milters import milter_macros, milter_rules, milters_by_client
from mailserver.service_endpoint import parse_endpoint
from mailserver.smtpd.milters import Milters
from mailserver.smtpd.proxy import ProxyFilter
from mailserver.wire import milter
from mailserver.wire.milter import Steps, packet
from tests.config.hosts import written
from tests.milter.milter_server import Answer, TestMilters, drop, hang, texts
from tests.mx_server import ExchangerFactory
from tests.queue.world import DictTable
from tests.reactor_case import ReactorCase
from tests.smtpd.harness import STRANGER, Connection, House, read_content

RCPT = "RCPT TO:<alice@example.org>"
OPENING = ("EHLO client.example", "MAIL FROM:<s@far.example> BODY=8BITMIME", RCPT)
MESSAGE = "Subject: hello\r\nX-Two: one\r\nX-Two: two\r\n\tmore\r\n\r\nbody\r\n..dot\r\n."
CONTINUES = packet(milter.CONTINUE)


class MilterTests(ReactorCase):
    """A whole SMTP server over an in-memory transport; milters over real sockets."""

    def serve(self, answers: dict[bytes, Answer] | None = None, **facts: Any) -> tuple[TestMilters, str]:
        """A milter, and its address in main.cf."""
        server = TestMilters(answers, **facts)
        listening = reactor.listenTCP(0, server, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.ends_with_the_test(server, listening)
        return server, f"inet:127.0.0.1:{listening.getHost().port}"

    def proxy(self) -> tuple[ExchangerFactory, ProxyFilter]:
        """A before-queue filter, and what a listener says of it."""
        server = ExchangerFactory()
        listening = reactor.listenTCP(0, server, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.ends_with_the_test(server, listening)
        endpoint = parse_endpoint(f"inet:127.0.0.1:{listening.getHost().port}", "")
        return server, ProxyFilter(
            endpoint=endpoint, reactor=reactor, ehlo="here", timeout=60, directory="", warn=lambda text: None
        )

    def test_mail_for_a_proxy_filter_shows_milters_its_commands_alone(self) -> Any:
        """MILTER_README: its content is the filter's; what a milter refuses does not get there."""

        async def test() -> None:
            server, address = self.serve()
            far, proxy = self.proxy()
            client = await self.connect(self.house(address, proxy=proxy))
            replies = await self.say(client, *OPENING, "DATA", MESSAGE)
            self.assertEqual(replies[-1], "250 2.0.0 Ok: queued as TEST")
            self.assertEqual(len(far.messages), 1)
            heard = server.commands()
            self.assertTrue({"M", "R", "T"} <= set(heard) and {"L", "B", "E"}.isdisjoint(heard), heard)
            for command in (milter.MAIL, milter.RCPT, milter.DATA):
                server, address = self.serve({command: packet(milter.REJECT)})
                far, proxy = self.proxy()
                client = await self.connect(self.house(address, proxy=proxy))
                replies = await self.say(client, *OPENING, "DATA")
                self.assertIn("550 5.7.1 Command rejected", replies)
                self.assertEqual((b"DATA" in far.commands, far.messages), (False, []))

        return self.run_test(test)

    def house(self, milters: str, *settings: str, **changes: Any) -> House:
        """A server with these smtpd_milters."""
        self.warnings: list[str] = []
        text = "".join(f"{line}\n" for line in (f"smtpd_milters = {milters}", *settings))
        config = written(Path(tempfile.mkdtemp()), text)
        rules = milter_rules(config, "smtpd_milters")
        made = Milters(rules, ReactorConnect(reactor), self.warnings.append, milter_macros(config))
        return House(Path(tempfile.mkdtemp()), milters=made, **changes)

    async def hear(self, client: Connection, said: str = "") -> str:
        """What the server says, once it does; its last line."""
        while not said:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            said = client.take().replace("\r\n", "\n")
        return said.splitlines()[-1]

    async def connect(self, house: House) -> Connection:
        """A greeted client, or one that was turned away; see its `greeting`."""
        client = house.connect()
        client.greeting = await self.hear(client, client.greeting)
        self.addCleanup(client.server.connectionLost)
        return client

    async def say(self, client: Connection, *lines: str) -> list[str]:
        """The last line of the reply to each."""
        return [await self.hear(client, client.say(line)) for line in lines]

    async def send(self, house: House, *before: str) -> str:
        """The reply to a message's end."""
        client = await self.connect(house)
        replies = await self.say(client, *OPENING, *before, "DATA", MESSAGE)
        return replies[-1]

    def test_what_a_milter_hears(self) -> Any:
        """Each step in its order, with its macros; headers without our own, bodies with CRLF."""

        async def test() -> None:
            server, address = self.serve()
            house = self.house(address)
            client = await self.connect(house)
            await self.say(client, *OPENING, "RSET", "NONSENSE x", *OPENING[1:], "DATA", MESSAGE)
            await self.say(client, "QUIT")
            client.server.connectionLost()
            while not server.commands().endswith("Q"):
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            assert server.commands() == "OCHMRAUMRTLLLNBEQ"
            assert server.texts(milter.CONNECT) == [[b"unknown", b"4\x9c@" + STRANGER.encode()]]
            assert server.texts(milter.HELO) == [[b"client.example"]]
            assert server.texts(milter.MAIL)[0] == [b"<s@far.example>", b"BODY=8BITMIME"]
            assert server.texts(milter.RCPT)[0] == [b"<alice@example.org>"]
            assert server.texts(milter.UNKNOWN) == [[b"NONSENSE x"]]
            assert server.texts(milter.HEADER) == [
                [b"Subject", b"hello"], [b"X-Two", b"one"], [b"X-Two", b"two\n\tmore"],
            ]  # fmt: skip
            assert server.texts(milter.BODY) == [[b"body\r\n.dot\r\n"]]
            assert server.macros(milter.CONNECT)["_"] == f"unknown [{STRANGER}]"
            assert server.macros(milter.CONNECT)["j"] == "mx.example.org"
            assert server.macros(milter.MAIL)["{mail_addr}"] == "s@far.example"
            assert server.macros(milter.RCPT)["{rcpt_addr}"] == "alice@example.org"
            queue_id = house.accepted[0].queue_id
            assert server.macros(milter.DATA)["i"] == server.macros(milter.END_OF_BODY)["i"] == queue_id
            assert house.contents() == [b"Subject: hello\nX-Two: one\nX-Two: two\n\tmore\n\nbody\n.dot\n"]

        return self.run_test(test)

    def test_steps_that_are_left_out(self) -> Any:
        """SMFIP_NO…: not said; SMFIP_NR_…: not waited for; SMFIR_SKIP: no more of the body."""

        async def test() -> None:
            steps = Steps.NO_HELO | Steps.NO_RCPT | Steps.NO_BODY | Steps.SILENT_HEADER | Steps.SILENT_MAIL
            silent = {milter.HEADER: hang, milter.MAIL: hang}
            server, address = self.serve(silent, steps=int(steps | Steps.LEADING_SPACE))
            assert (await self.send(self.house(address))).startswith("250 2.0.0 Ok: queued")
            assert server.commands() == "OCMTLLLNE"
            assert server.texts(milter.HEADER)[0] == [b"Subject", b" hello"]
            skipping, address = self.serve({milter.BODY: packet(milter.SKIP)}, steps=int(Steps.SKIP))
            client = await self.connect(self.house(address))
            await self.say(client, *OPENING, "DATA", "X: y\r\n\r\n" + "line\r\n" * 40_000 + ".")
            assert skipping.commands().count("B") == 1

        return self.run_test(test)

    def test_refusals_at_each_step(self) -> Any:
        """REJECT, TEMPFAIL, a reply of its own; at RCPT for that recipient alone; nothing is queued."""

        async def test() -> None:
            own = texts(milter.REPLY_CODE, b"552 5.7.9 your words")
            steps = (milter.HELO, milter.MAIL, milter.RCPT, milter.DATA, milter.HEADER)
            for position, command in enumerate((*steps, milter.BODY, milter.END_OF_BODY)):
                for answer, expected in (
                    (packet(milter.REJECT), "550 5.7.1 Command rejected"),
                    (packet(milter.TEMPFAIL), "451 4.7.1 Service unavailable - try again later"),
                    (own, "552 5.7.9 your words"),
                ):
                    server, address = self.serve({command: answer})
                    house = self.house(address)
                    client = await self.connect(house)
                    lines = (*OPENING, "DATA", MESSAGE)[: position + 1]
                    assert (await self.say(client, *lines))[-1] == expected, command
                    assert house.accepted == [] and self.warnings == []
                    assert any("milter-reject: " in text for _, text in house.log.lines)
            server, address = self.serve({milter.RCPT: packet(milter.REJECT)})
            client = await self.connect(self.house(address))
            await self.say(client, *OPENING)
            server.answers = {}
            assert await self.say(client, RCPT, "DATA", ".") and server.commands()[-1] == "E"

        return self.run_test(test)

    def test_milters_by_client(self) -> Any:
        """smtpd_milter_maps: others, or none, for an address; a table that cannot be read is temporary."""

        async def test() -> None:
            usual, one = self.serve()
            special, other = self.serve()
            for value, commands in ((other, ("", "OCHMRTLLLNBE")), ("DISABLE", ("", "")), ("x", ("O", ""))):
                house = self.house(one)
                key = STRANGER if value != "x" else "192.0.2.99"
                table = DictTable({key: value})
                made = house.services.milters
                assert made is not None
                config = written(Path(tempfile.mkdtemp()))
                find = milters_by_client(config, [table], made.rules)
                house = House(Path(tempfile.mkdtemp()), milters=replace(made, by_client=find))
                assert (await self.send(house)).startswith("250")
                assert (usual.commands()[:1], special.commands()) == commands
                usual.said, special.said = [], []
            broken = milters_by_client(config, [DictTable(None)], made.rules)
            house = House(Path(tempfile.mkdtemp()), milters=replace(made, by_client=broken))
            assert (await self.connect(house)).greeting.startswith("421 4.7.1")

        return self.run_test(test)

    def test_a_client_that_is_turned_away(self) -> Any:
        """At the connection: 421 for now, or nothing but QUIT is obeyed."""

        async def test() -> None:
            _, address = self.serve({milter.CONNECT: packet(milter.REJECT)})
            client = await self.connect(self.house(address))
            assert client.greeting == "550 5.7.1 Command rejected"
            assert (await self.say(client, "EHLO x"))[0].startswith("503 5.7.0")
            _, address = self.serve({milter.CONNECT: packet(milter.TEMPFAIL)})
            client = await self.connect(self.house(address))
            assert client.greeting.startswith("421 4.7.1 mx.example.org Service unavailable")
            assert client.is_closed

        return self.run_test(test)

    def test_accept_and_discard(self) -> Any:
        """ACCEPT: no more questions about it; DISCARD: taken, and gone. The next milter is still asked."""

        async def test() -> None:
            first, one = self.serve({milter.MAIL: packet(milter.ACCEPT)})
            second, two = self.serve()
            house = self.house(f"{one}, {two}")
            assert (await self.send(house)).startswith("250")
            assert (first.commands(), second.commands()) == ("OCHM", "OCHMRTLLLNBE")
            for command in (milter.RCPT, milter.END_OF_HEADER, milter.END_OF_BODY):
                _, address = self.serve({command: packet(milter.DISCARD)})
                house = self.house(address)
                assert (await self.send(house)).startswith("250") and house.accepted == []

        return self.run_test(test)

    def test_changes_are_made_before_the_message_is_committed(self) -> Any:
        """Headers, body, sender, recipients, quarantine; what is small and what is on disk already."""

        async def test() -> None:
            edits = (
                texts(milter.ADD_HEADER, b"X-Added", b"at\n\tthe end")
                + texts(milter.INSERT_HEADER, b"X-Above", b"all", index=0)
                + texts(milter.INSERT_HEADER, b"X-Top", b"v", index=2)
                + texts(milter.CHANGE_HEADER, b"x-two", b"", index=2)
                + texts(milter.CHANGE_HEADER, b"Subject", b"changed", index=1)
                + texts(milter.CHANGE_HEADER, b"X-New", b"value", index=1)
                + packet(milter.PROGRESS)
                + texts(milter.CHANGE_FROM, b"<other@far.example>", b"")
                + texts(milter.ADD_RECIPIENT, b"<bob@example.org>")
                + texts(milter.DELETE_RECIPIENT, b"<ALICE@example.org>")
                + texts(milter.QUARANTINE, b"a virus")
            )
            body = packet(milter.REPLACE_BODY, b"new\r\n") + packet(milter.REPLACE_BODY, b"body\r\n")
            for size in (1, 200_000):
                for change in (edits, edits + body):
                    _, address = self.serve({milter.END_OF_BODY: change + CONTINUES})
                    second, other = self.serve()
                    house = self.house(f"{address} {other}")
                    client = await self.connect(house)
                    old = b"x" * 60 + b"\r\n"
                    message = MESSAGE.replace("body\r\n..dot\r\n", (old * (size // 60 + 1)).decode())
                    reply = (await self.say(client, *OPENING, "DATA", message))[-1]
                    assert reply.startswith("250"), reply
                    (taken,) = house.accepted
                    head, _, rest = read_content(taken).partition(b"\n\n")
                    lines = head.split(b"\n")
                    assert lines[0] == b"X-Above: all" and lines[1].startswith(b"Received: ")
                    shown = "X-Top: v|Subject: changed|X-Two: one|X-Added: at|\tthe end|X-New: value"
                    assert b"|".join(lines[-6:]).decode() == shown
                    unchanged = old.replace(b"\r\n", b"\n") * (size // 60 + 1)
                    assert rest == (unchanged if change is edits else b"new\nbody\n")
                    envelope = taken.accepted.envelope
                    assert str(envelope.sender) == "other@far.example"
                    assert [str(each.address) for each in envelope.recipients] == ["bob@example.org"]
                    assert "/hold/" in taken.path
                    assert [b"X-Above", b"all"] in second.texts(milter.HEADER)
                    assert any("milter-hold: END-OF-MESSAGE" in text for _, text in house.log.lines)

        return self.run_test(test)

    def test_a_milter_that_fails(self) -> Any:
        """milter_default_action at each step; never a message unfiltered, or half changed, by mistake."""

        async def test() -> None:
            mad = (drop, packet(b"?"), b"\xff" * 8)
            deeds = [(milter.MAIL, deed) for deed in mad] + [(milter.HEADER, drop)]
            deeds += [(milter.END_OF_BODY, deed) for deed in (*mad, hang)]
            for command, deed in deeds:
                _, address = self.serve({command: deed})
                own = f"{{ {address}, command_timeout=1, content_timeout=1, default_action=%s }}"
                house = self.house(own % "tempfail")
                client = await self.connect(house)
                replies = (await self.say(client, *OPENING))[1:2]
                if command != milter.MAIL:
                    replies = await self.say(client, "DATA", MESSAGE)
                assert replies[-1] == "451 4.7.1 Service unavailable - try again later", (command, deed)
                assert house.accepted == [] and len(self.warnings) == 1
                house = self.house(own % "accept")
                assert (await self.send(house)).startswith("250") and len(house.accepted) == 1
                house = self.house(own % "quarantine")
                assert (await self.send(house)).startswith("250")
                assert "/hold/" in house.accepted[0].path
            house = self.house("{ unix:/no/such, default_action=reject }")
            assert (await self.connect(house)).greeting == "550 5.5.0 Service unavailable"
            assert (await self.connect(self.house("unix:/no/such"))).greeting.startswith("421 4.7.1")
            for change in (
                texts(milter.ADD_HEADER, b"bad name", b"x"),
                texts(milter.ADD_RECIPIENT, b"a b c"),
                packet(milter.REPLACE_BODY, b"x" * 100_000) * 12,
            ):
                _, address = self.serve({milter.END_OF_BODY: change + CONTINUES})
                house = self.house(address, message_size_limit=1 << 20)
                assert (await self.send(house)).startswith("451 4.7.1") and house.accepted == []
            half = texts(milter.ADD_HEADER, b"A", b"b") + texts(milter.ADD_RECIPIENT, b"a b c") + CONTINUES
            _, address = self.serve({milter.END_OF_BODY: half})
            house = self.house(f"{{ {address}, default_action=accept }}")
            assert (await self.send(house)).startswith("250") and b"A: b" not in house.contents()[0]
            _, address = self.serve({milter.END_OF_BODY: texts(milter.ADD_HEADER, b"A", b"b")}, allowed=0)
            assert (await self.send(self.house(address))).startswith("451 4.7.1")

        return self.run_test(test)

    def test_versions_and_the_milters_own_macros(self) -> Any:
        """milter_protocol: what both know; SMFIR_SETSYMLIST's lists count instead of main.cf's."""

        async def test() -> None:
            _, address = self.serve(version=2, allowed=0x1F)
            house = self.house(address, "milter_protocol = 2")
            assert (await self.send(house)).startswith("250")
            _, address = self.serve(version=6)
            client = await self.connect(self.house(address, "milter_protocol = 2"))
            assert client.greeting.startswith("421") and "version 6" in self.warnings[0]
            lists = (2).to_bytes(4) + b"{mail_addr} v\0"
            server, address = self.serve(macro_lists=lists)
            assert (await self.send(self.house(address))).startswith("250")
            assert set(server.macros(milter.MAIL)) == {"{mail_addr}", "v"}

        return self.run_test(test)

    def test_mail_of_the_sendmail_command(self) -> Any:
        """non_smtpd_milters: a session from localhost, over a blocking socket."""

        async def test() -> None:
            server, address = self.serve(
                {milter.END_OF_BODY: texts(milter.ADD_HEADER, b"X-Seen", b"yes") + CONTINUES}
            )
            config = written(Path(tempfile.mkdtemp()), f"non_smtpd_milters = {address}\n")
            rules = milter_rules(config, "non_smtpd_milters")
            recipients = tuple(Recipient(Address(name, "example.org")) for name in ("a", "b"))
            own = b"Received: x\n"
            content = MilterContent(Envelope(None, recipients), own, [own, b"A: b\n"], lambda: [b"body\n"])

            def ask() -> Any:
                return run_blocking(ask_about_local(rules, content, {"j": "mx", "i": "4Q"}, print))

            assert await deferToThread(ask) is None
            assert b"".join(content.pieces()) == b"Received: x\nA: b\nX-Seen: yes\n\nbody\n"
            while not server.commands().endswith("Q"):
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            assert server.commands() == "OCHMRRTLNBEQ"
            assert server.texts(milter.RCPT) == [[b"<a@example.org>"], [b"<b@example.org>"]]
            server.answers = {milter.RCPT: texts(milter.REPLY_CODE, b"550 5.1.1 nobody")}
            refusal = await deferToThread(ask)
            assert refusal == Refusal(550, "5.1.1", "nobody")
            server.answers = {milter.BODY: drop}
            assert (await deferToThread(ask)).code == 451

        return self.run_test(test)


@pytest.mark.parametrize(
    "text",
    [
        "inet:host",
        "milter",
        "{ unix:x, default_action=explode }",
        "{ unix:x, colour=red }",
        "{ unix:x, protocol=7 }",
    ],
)
def test_milters_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    """The start is refused."""
    with pytest.raises(ConfigError, match="smtpd_milters: "):
        milter_rules(written(tmp_path, f"smtpd_milters = {text}\n"), "smtpd_milters")

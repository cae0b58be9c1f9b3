"""check_policy_service, against a server on loopback. SMTPD_POLICY_README."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from mailserver.roles.policy_services import PolicyServices
from mailserver.wire.policy_delegation import PolicyAnswerError, decode_answer, encode_request
from tests.config.hosts import written
from tests.reactor_case import ReactorCase
from tests.smtpd.harness import STRANGER, Connection, House
from tests.smtpd.policy_server import (
    Answer,
    PolicyServers,
    answer_and_close,
    babble,
    drop,
    endless,
    hang,
)

RCPT = "RCPT TO:<alice@example.org>"


class PolicyServiceTests(ReactorCase):
    """A whole SMTP server over an in-memory transport, and a policy server over a real one."""

    def serve(self, *answers: Answer, unix: bool = False) -> tuple[PolicyServers, str]:
        """A server, and its address in main.cf."""
        server = PolicyServers(*answers)
        if unix:
            path = f"{tempfile.mkdtemp()}/policy"
            listening = reactor.listenUNIX(path, server)  # type: ignore[attr-defined]
            address = f"unix:{path}"
        else:
            listening = reactor.listenTCP(0, server, interface="127.0.0.1")  # type: ignore[attr-defined]
            address = f"inet:127.0.0.1:{listening.getHost().port}"
        self.ends_with_the_test(server, listening)
        return server, address

    def house(self, lists: dict[str, str], **settings: str) -> House:
        """A server with these restriction lists, and smtpd_policy_service_* settings."""
        lines = "".join(f"smtpd_policy_service_{name} = {value}\n" for name, value in settings.items())
        self.warnings: list[str] = []
        services = PolicyServices(written(Path(tempfile.mkdtemp()), lines), reactor, self.warnings.append)
        self.addCleanup(lambda: [each.close() for each in services._opened.values()])
        tools = {"open_policy_service": services.open}
        return House(Path(tempfile.mkdtemp()), texts=lists, tools=tools)

    async def say(self, client: Connection, *lines: str) -> str:
        """The last line of what the server has said, once each line was answered."""
        said = ""
        for line in lines:
            said = client.say(line)
            while not said:
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
                said = client.take().replace("\r\n", "\n")
        return said.splitlines()[-1]

    async def rcpt(self, house: House) -> str:
        """What a stranger hears at RCPT."""
        client = house.connect()
        return await self.say(client, "EHLO client.example", "MAIL FROM:<s@far.example> SIZE=77", RCPT)

    def test_what_the_server_is_told(self) -> Any:
        """The attributes of Postfix 3.7, all of them, each time; over one connection."""

        async def test() -> None:
            server, address = self.serve()
            check = f"check_policy_service {address}"
            house = self.house({"client": check, "recipient": check, "data": check, "end_of_data": check})
            client = house.connect()
            await self.say(client, "EHLO client.example", "MAIL FROM:<s@far.example> SIZE=77", RCPT)
            await self.say(client, RCPT.replace("alice", "bob"), "DATA")
            await self.say(client, "Subject: x\r\n\r\nbody\r\n.")
            states = [each["protocol_state"] for each in server.requests]
            assert states == ["RCPT", "RCPT", "RCPT", "RCPT", "DATA", "END-OF-MESSAGE"]
            first, last = server.requests[0], server.requests[-1]
            assert first | {"instance": ""} == {
                "request": "smtpd_access_policy", "protocol_state": "RCPT", "protocol_name": "ESMTP",
                "client_address": STRANGER, "client_name": "unknown", "client_port": "40000",
                "reverse_client_name": "unknown", "server_address": "10.0.0.1", "server_port": "12345",
                "helo_name": "client.example", "sender": "s@far.example", "recipient": "alice@example.org",
                "recipient_count": "0", "queue_id": "", "instance": "", "size": "77", "etrn_domain": "",
                "stress": "", "sasl_method": "", "sasl_username": "", "sasl_sender": "",
                "ccert_subject": "", "ccert_issuer": "", "ccert_fingerprint": "",
                "ccert_pubkey_fingerprint": "", "encryption_protocol": "", "encryption_cipher": "",
                "encryption_keysize": "0", "policy_context": "",
            }  # fmt: skip
            assert last["recipient_count"] == "2" and last["queue_id"] and int(last["size"]) < 77
            assert len({each["instance"] for each in server.requests}) == 1
            await self.say(client, "MAIL FROM:<s@far.example>", RCPT)
            assert server.requests[-1]["instance"] != first["instance"]
            assert len(server.connections) == 1 and self.warnings == []

        return self.run_test(test)

    def test_the_answer_is_an_action_of_access(self) -> Any:
        """access(5), about what the list is about; a restriction may be the answer too."""

        async def test() -> None:
            for name, answer, expected in (
                ("recipient", "DUNNO", "250 2.1.5 Ok"),
                ("recipient", "REJECT no", "554 5.7.1 <alice@example.org>: Recipient address rejected: no"),
                ("recipient", "DEFER_IF_PERMIT Greylisted",
                 "450 4.7.1 <alice@example.org>: Recipient address rejected: Greylisted"),
                ("sender", "550 5.1.9 no", "550 5.1.9 <s@far.example>: Sender address rejected: no"),
                ("client", "reject", f"554 5.7.1 <unknown[{STRANGER}]>: Client host rejected: Access denied"),
                ("helo", "521 bye", "521 5.7.1 <client.example>: Helo command rejected: bye"),
                ("recipient", "nonsense", "451 4.3.5 Server configuration error"),
            ):  # fmt: skip
                server, address = self.serve(answer, unix=True)
                assert await self.rcpt(self.house({name: f"check_policy_service {address}"})) == expected
                assert len(server.requests) == 1
            _, address = self.serve("PREPEND X-Policy: seen")
            house = self.house({"recipient": f"check_policy_service {address}"})
            client = house.connect()
            await self.say(client, "EHLO c.example", "MAIL FROM:<s@far.example>", RCPT, "DATA", ".")
            message = house.accepted[0]
            assert message.read_head(1000).startswith(b"X-Policy: seen\nReceived:")

        return self.run_test(test)

    def test_a_server_that_is_down_or_mad_defers(self) -> Any:
        """P5: the default action, which is 451 4.3.5 where nobody changed it; tried try_limit times."""

        async def test() -> None:
            for deed, count in ((drop, 2), (babble, 2), (endless, 2), (hang, 2)):
                server, address = self.serve(deed)
                house = self.house(
                    {"recipient": f"check_policy_service {address}"}, retry_delay="0", timeout="1"
                )
                expected = "451 4.3.5 <alice@example.org>: Recipient address rejected: "
                assert await self.rcpt(house) == expected + "Server configuration problem", deed
                assert len(server.requests) == count
                assert len(self.warnings) == 2 and f"problem talking to server {address}" in self.warnings[0]
            one = f"{{ {address}, timeout=1, try_limit=1, default_action=DUNNO {{ policy_context = in }} }}"
            house = self.house({"recipient": f"check_policy_service {one}"})
            assert await self.rcpt(house) == "250 2.1.5 Ok"
            assert server.requests[-1]["policy_context"] == "in" and len(server.requests) == 3
            house = self.house({"recipient": "check_policy_service unix:/no/such"}, retry_delay="0")
            assert (await self.rcpt(house)).startswith("451 4.3.5")

        return self.run_test(test)

    def test_connections_are_replaced_without_a_word(self) -> Any:
        """One that the server has closed, or that answered smtpd_policy_service_request_limit questions."""

        async def test() -> None:
            server, address = self.serve(answer_and_close)
            house = self.house({"recipient": f"check_policy_service {address}"})
            for _ in range(3):
                assert await self.rcpt(house) == "250 2.1.5 Ok"
            assert len(server.requests) == 3 and self.warnings == []
            server, address = self.serve()
            house = self.house({"recipient": f"check_policy_service {address}"}, request_limit="2")
            for _ in range(4):
                assert await self.rcpt(house) == "250 2.1.5 Ok"
            assert len(server.connections) == 2

        return self.run_test(test)


@pytest.mark.parametrize(
    "text",
    [
        "inet:host",
        "inet:host:nonsense",
        "tcp:host:25",
        "{ inet:h:1, nonsense=3 }",
        "{ unix:x, timeout=soon }",
    ],
)
def test_servers_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    """The start is refused."""
    with pytest.raises(ValueError, match=r"write|time"):
        PolicyServices(written(tmp_path), Clock(), print).open(text)


@given(some.dictionaries(some.from_regex(r"[a-z_]{1,9}", fullmatch=True), some.text()))
def test_no_value_adds_an_attribute(attributes: dict[str, str]) -> None:
    """Whatever a client says stays on its line."""
    text = encode_request(attributes).decode("utf-8", "surrogateescape")
    assert [line.partition("=")[0] for line in text.split("\n") if line] == list(attributes)


def test_answers_in_pieces() -> None:
    """The first action counts; what is no answer is an error, and no answer is without an end."""
    whole = b"x=y\naction = REJECT a b \n\nmore"
    assert [decode_answer(whole[:end]) for end in range(len(whole) - 5)] == [None] * (len(whole) - 5)
    assert decode_answer(whole) == ("REJECT a b", len(whole) - 4)
    for wrong in (b"\n\n", b"action=\n\n", b"x" * 70_000):
        with pytest.raises(PolicyAnswerError):
            decode_answer(wrong)

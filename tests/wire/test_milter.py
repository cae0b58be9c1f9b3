"""The milter protocol's grammar: packets in pieces, negotiation, changes that may not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailserver.wire import milter
from mailserver.wire.milter import Allowed, Edit, MilterError, PacketReader, Steps


@given(
    some.lists(some.tuples(some.sampled_from([b"c", b"h", b"b"]), some.binary(max_size=50))),
    some.integers(1, 9),
)
def test_packets_in_pieces(packets: list[tuple[bytes, bytes]], size: int) -> None:
    """However they are cut."""
    whole = b"".join(milter.packet(command, data) for command, data in packets)
    reader, found = PacketReader(), []
    for start in range(0, len(whole), size):
        reader.feed(whole[start : start + size])
        while (each := reader.take()) is not None:
            found.append(each)
    assert found == packets


@pytest.mark.parametrize("start", [b"\0\0\0\0x", b"\xff\xff\xff\xffx", b"\0\x20\0\0x"])
def test_packets_without_bounds(start: bytes) -> None:
    """Empty ones and huge ones end the session."""
    reader = PacketReader()
    reader.feed(start)
    with pytest.raises(MilterError, match="octets"):
        reader.take()


def test_negotiation() -> None:
    """What both know; what a milter wants beyond that is an error, and so is silence about it."""
    words = (6).to_bytes(4) + (0x3F).to_bytes(4) + int(Steps.NO_HELO | Steps.SKIP).to_bytes(4)
    lists = (0).to_bytes(4) + b"j {daemon_name}\0" + (3).to_bytes(4) + b"i, x\0"
    agreed = milter.negotiated(milter.OPTNEG, words + lists)
    assert agreed.steps == Steps.NO_HELO | Steps.SKIP and Allowed.QUARANTINE in agreed.allowed
    assert agreed.macros == {"connect": ("j", "{daemon_name}"), "rcpt": ("i", "x")}
    for command, data, version in (
        (b"c", words, 6),
        (milter.OPTNEG, words[:11], 6),
        (milter.OPTNEG, words, 4),
        (milter.OPTNEG, (7).to_bytes(4) + words[4:], 6),
        (milter.OPTNEG, words[:8] + (1 << 30).to_bytes(4), 6),
    ):
        with pytest.raises(MilterError):
            milter.negotiated(command, data, version)


def test_clients_of_every_family() -> None:
    """IPv4, IPv6 with its prefix, and what is no address."""
    assert milter.connect("a.test", "192.0.2.1", 25)[5:] == b"a.test\x004\x00\x19192.0.2.1\x00"
    assert milter.connect("a.test", "2001:db8::1", 1)[5:] == b"a.test\x006\x00\x01IPv6:2001:db8::1\x00"
    assert milter.connect("a.test", "unknown", 1)[5:] == b"a.test\x00U"


def test_changes() -> None:
    """Each with its texts; what was not announced, or is cut off, is an error."""
    everything = Allowed(0x1FF)
    data = (2).to_bytes(4) + b"Name\0value\0"
    assert milter.edit(milter.INSERT_HEADER, data, everything) == Edit(
        milter.INSERT_HEADER, (b"Name", b"value"), 2
    )
    assert milter.edit(milter.CHANGE_FROM, b"<a@b>\0SIZE=1\0", everything).texts == (b"<a@b>", b"SIZE=1")
    for command, wrong, allowed in (
        (milter.INSERT_HEADER, data, Allowed.CHANGE_BODY),
        (milter.ADD_HEADER, b"Name\0", everything),
        (milter.ADD_RECIPIENT, b"<a@b>", everything),
        (b"?", b"", everything),
    ):
        with pytest.raises(MilterError):
            milter.edit(command, wrong, allowed)


def test_no_text_ends_another() -> None:
    """A NUL in what a client said begins no second argument."""
    assert milter.strings("a\0b", b"c") == b"a?b\0c\0"

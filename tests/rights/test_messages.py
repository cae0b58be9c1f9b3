"""Messages between roles: whole or not at all, and nothing left open."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailserver.rights import messages
from mailserver.rights.messages import BadMessage

Pair = tuple[socket.socket, socket.socket]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(20)
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(message=st.dictionaries(st.text(), VALUES))
def test_what_is_sent_arrives(pair: Pair, message: dict[str, object]) -> None:
    """Any JSON object."""
    messages.send(pair[0], message)
    assert messages.receive(pair[1]) == (message, [])


@given(octets=st.binary())
def test_octets_travel_as_text(octets: bytes) -> None:
    """And come back the same."""
    assert messages.to_octets(json.loads(json.dumps(messages.to_text(octets)))) == octets


@pytest.mark.parametrize("size", [0, 65_000, 70_000, 5_000_000])
def test_descriptors_and_large_messages(pair: Pair, size: int) -> None:
    """What does not fit in a packet goes through memory; descriptors stay in order."""
    first, second = os.pipe()
    messages.send(pair[0], {"text": "x" * size}, (first, second))
    received = messages.receive(pair[1], large=True)
    assert received is not None
    message, descriptors = received
    assert message == {"text": "x" * size} and len(descriptors) == 2
    os.write(descriptors[1], b"through")
    assert os.read(first, 10) == b"through"
    assert not os.get_inheritable(descriptors[0])
    messages.close_all((first, second, *descriptors))


def test_the_end_is_none(pair: Pair) -> None:
    """After what was sent before it."""
    messages.send(pair[0], {"last": 1})
    pair[0].close()
    assert messages.receive(pair[1]) == ({"last": 1}, [])
    assert messages.receive(pair[1]) is None


@pytest.mark.parametrize(
    "packet",
    [b"x", b"J", b"J{", b"J[]", b"J1", b"J" + b"[" * 60_000, b"M", b"J" + b" " * 70_000, b"\xff\xfe"],
)
@pytest.mark.parametrize("descriptors", [0, 1, 6])
@pytest.mark.parametrize("large", [False, True])
def test_hostile_packets_raise_and_leave_nothing_open(
    pair: Pair, packet: bytes, descriptors: int, large: bool
) -> None:
    """B13: a bad packet costs no descriptor."""
    before = open_descriptors()
    null = os.open(os.devnull, os.O_RDONLY)
    socket.send_fds(pair[0], [packet], [null] * descriptors)
    os.close(null)
    with pytest.raises(BadMessage):
        messages.receive(pair[1], large)
    assert open_descriptors() == before


def test_too_many_descriptors_are_refused(pair: Pair) -> None:
    """Even with a good message."""
    before = open_descriptors()
    socket.send_fds(pair[0], [b"J{}"], [pair[0].fileno()] * 6)
    with pytest.raises(BadMessage):
        messages.receive(pair[1])
    assert open_descriptors() == before


def test_the_peer_is_known_by_the_kernel(pair: Pair) -> None:
    """SO_PEERCRED."""
    assert messages.peer_uid(pair[0]) == os.geteuid()

"""COMPRESS=DEFLATE on a connection. RFC 4978."""

from __future__ import annotations

import zlib

import pytest

from mailserver.imapd.settings import ImapSettings
from tests.imapd.harness import Client, Server


class Compressing:
    """The client's side of a compressed stream."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        self._inflater = zlib.decompressobj(-15)

    def deflated(self, data: bytes) -> bytes:
        return self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def feed(self, data: bytes) -> None:
        self.client.feed(self.deflated(data))

    def read(self) -> bytes:
        return self._inflater.decompress(self.client.read())


@pytest.fixture
def server() -> Server:
    return Server()


def compressing(server: Server) -> Compressing:
    client = server.select()
    assert client.ask(b"c COMPRESS DEFLATE") == b"c OK Begin compression.\r\n"
    return Compressing(client)


def test_both_ways_are_compressed_after_ok(server: Server) -> None:
    """RFC 4978 §3: the OK is plain, what follows is not, and each answer can be read whole."""
    client = compressing(server)
    client.feed(b"d NOOP\r\n")
    assert client.read() == b"d OK NOOP completed.\r\n"
    client.feed(b"e SEARCH ALL\r\nf COMPRESS DEFLATE\r\n")
    assert client.read().endswith(b"f NO [COMPRESSIONACTIVE] Compression is active already.\r\n")


def test_compressed_input_may_come_octet_by_octet(server: Server) -> None:
    """A stream has no borders."""
    client = compressing(server)
    for octet in client.deflated(b"d APPEND INBOX {5+}\r\nhello\r\ne IDLE\r\nDONE\r\nf NOOP\r\n"):
        client.client.feed(bytes([octet]))
    said = client.read()
    assert b"d OK [APPENDUID " in said and said.endswith(b"f OK NOOP completed.\r\n")


def test_the_list_of_capabilities_follows(server: Server) -> None:
    """RFC 4978 §3, RFC 8437 §4.1: neither COMPRESS nor UNAUTHENTICATE out of a compressed stream."""
    client = server.log_in()
    assert b" COMPRESS=DEFLATE UNAUTHENTICATE" in client.ask(b"a CAPABILITY")
    assert b"COMPRESS" not in server.connect().ask(b"a CAPABILITY")
    assert client.ask(b"b COMPRESS DEFLATE64").startswith(b"b NO ")
    client.ask(b"c COMPRESS DEFLATE")
    compressed = Compressing(client)
    compressed.feed(b"d CAPABILITY\r\ne UNAUTHENTICATE\r\n")
    said = compressed.read()
    assert b"COMPRESS" not in said and b"\r\ne BAD " in said


def test_broken_data_ends_the_session(server: Server) -> None:
    """What cannot be inflated cannot be followed."""
    client = compressing(server)
    client.client.feed(b"\xff\xff\xff\xff")
    assert client.read() == b"* BYE Compressed data is broken.\r\n"
    assert not client.client.is_open


def test_an_ended_stream_ends_the_session(server: Server) -> None:
    """Nothing can follow the last block of a DEFLATE stream."""
    client = compressing(server)
    client.client.feed(client._deflater.flush(zlib.Z_FINISH) + b"d NOOP\r\n")
    assert b"* BYE " in client.read()


def test_a_stream_does_not_grow_without_end() -> None:
    """A few kilobytes cannot keep the server busy with gigabytes."""
    server = Server(ImapSettings(message_size_limit=100_000))
    client = compressing(server)
    client.feed(b"a" * 50_000_000)
    assert b"* BYE Compressed data grows too much.\r\n" in client.read()


def test_a_command_at_work_holds_the_rest_compressed(server: Server) -> None:
    """Input waits as it came, and is inflated in pieces when there is room."""
    client = compressing(server)
    client.client.transport.is_reading = False
    client.feed(b"d SEARCH ALL\r\n" * 20_000)
    assert client.client.protocol._input._reader.pending <= 2 * 65_536
    client.client.transport.read_on()
    assert client.read().endswith(b"d OK Search completed.\r\n")

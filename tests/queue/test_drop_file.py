"""The files of maildrop: what is written is read again, and nothing else is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.queue import drop_file
from mailserver.queue.drop_file import Malformed

VALUES = st.binary(max_size=40).filter(lambda value: b"\0" not in value)
FIELDS = st.lists(st.tuples(st.sampled_from(sorted(drop_file.FIELDS)), VALUES), max_size=6)


def decode(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    line = data[: data.find(b"\n") + 1]
    octets, length, _ = drop_file.decode_first_line(line)
    rest = data[len(line) :]
    assert len(rest) == octets + length
    return drop_file.decode_envelope(rest[:octets]), rest[octets:]


@given(FIELDS, st.binary(max_size=200))
def test_round_trip(fields: list[tuple[bytes, bytes]], content: bytes) -> None:
    """Fields keep their order, and may hold anything but NUL; content may hold anything."""
    assert decode(drop_file.encode(fields, content)) == (fields, content)


@given(st.binary(max_size=120))
def test_anything_may_stand_there(data: bytes) -> None:
    """B13: what is no file of ours is Malformed, never another exception."""
    for text in (data, b"maildrop 1 " + data):
        try:
            drop_file.decode_first_line(text[: text.find(b"\n") + 1])
        except Malformed:
            pass
        try:
            drop_file.decode_envelope(text)
        except Malformed:
            pass


def test_a_nul_cannot_be_smuggled_in() -> None:
    """B13: a value with the separator in it would be two fields."""
    with pytest.raises(ValueError, match="NUL"):
        drop_file.encode([(b"sender", b"a\0recipient=root")], b"")


@pytest.mark.parametrize(
    "line",
    [b"1 -1 2 0\n", b"1 1 2\n", b"1 1 2 xyz\n", b"2 1 2 00\n", b"", b"1 1 2 0"],
)
def test_bad_first_lines(line: bytes) -> None:
    """Sizes are plain numbers, and the line ends."""
    with pytest.raises(Malformed):
        drop_file.decode_first_line(b"maildrop " + line)


def test_an_envelope_that_would_fill_memory_is_refused() -> None:
    """The envelope's size is bounded before it is read."""
    with pytest.raises(Malformed, match="too large"):
        drop_file.decode_first_line(b"maildrop 1 99999999999 2 00000000\n")


def test_a_file_is_complete_when_its_execute_bit_is_set(tmp_path: Path) -> None:
    """Mode 740, so that the server's group reads it and nobody else does; the umask does not count."""
    old = os.umask(0o077)
    try:
        drop_file.write(str(tmp_path), drop_file.encode([], b"x"))
    finally:
        os.umask(old)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o740


def test_what_cannot_be_written_whole_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves nothing behind."""

    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drop_file.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        drop_file.write(str(tmp_path), drop_file.encode([], b"x"))
    assert list(tmp_path.iterdir()) == []

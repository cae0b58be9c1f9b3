"""A local submission on its way from the sendmail command to the server: one file under `maildrop`.

    maildrop 1 <octets of the envelope> <octets of the content> <CRC-32 of both>\\n
    sender=alice\\0
    recipient=bob@example.org\\0
    ...
    <content, LF line ends>

Names may repeat, and may be any of FIELDS. A file is complete when its owner's execute bit is set
and the numbers agree; it is durable before the command says so. Who sent it is the owner of
the file: nothing in it is believed about that, and everything in it may be hostile.

`maildrop` has mode 3733 where many users submit: anybody may put a file there, nobody but the
server may list them, and nobody but its owner and the server may remove one. Files take the group
of the directory, which is the server's own (mail_owner's), and have mode 740, so that the
server reads them and no other user does. Where one user runs everything it has mode 700.

The sendmail command must start in no time: this module imports nothing but `os` and `binascii`.
"""

import binascii
import os

FIELDS = frozenset(b"sender full_name recipient extract notify ret envid body smtputf8 trace".split())
LARGEST_ENVELOPE = 1 << 23  # octets
LONGEST_FIRST_LINE = 64
COMPLETE = 0o740
INCOMPLETE = 0o600
_START = b"maildrop 1 "


class Malformed(ValueError):
    """The file is not what `encode` writes. The text says what is wrong with it."""


def encode(fields: "list[tuple[bytes, bytes]]", content: bytes) -> bytes:
    """The whole file. Raises ValueError where a value has a NUL."""
    if any(b"\0" in value for _, value in fields):
        raise ValueError("a NUL in an address or name")
    envelope = b"".join([b"%s=%s\0" % field for field in fields])
    checksum = binascii.crc32(content, binascii.crc32(envelope))
    return b"%s%d %d %08x\n%s%s" % (_START, len(envelope), len(content), checksum, envelope, content)


def decode_first_line(line: bytes) -> "tuple[int, int, int]":
    """Octets of the envelope, octets of the content, and the checksum. Raises Malformed."""
    words = line[len(_START) : -1].split(b" ")
    if not line.startswith(_START) or not line.endswith(b"\n") or len(words) != 3:
        raise Malformed("its first line is not one of ours")
    if not (words[0].isdigit() and words[1].isdigit()):
        raise Malformed("its first line has no sizes")
    try:
        envelope, content, checksum = int(words[0]), int(words[1]), int(words[2], 16)
    except ValueError:
        raise Malformed("its first line has no checksum") from None
    if envelope > LARGEST_ENVELOPE:
        raise Malformed("its envelope is too large")
    return envelope, content, checksum


def decode_envelope(envelope: bytes) -> "list[tuple[bytes, bytes]]":
    """The fields in order. Raises Malformed."""
    if not envelope:
        return []
    if not envelope.endswith(b"\0"):
        raise Malformed("its envelope is cut off")
    fields = []
    for item in envelope[:-1].split(b"\0"):
        name, equals, value = item.partition(b"=")
        if not equals or name not in FIELDS:
            raise Malformed("its envelope has a field that is unknown")
        fields.append((name, value))
    return fields


def write(directory: str, data: bytes) -> None:
    """The file is durable in that directory, for the server to take. *Blocking.* Raises OSError.

    What could not be written whole is gone again.
    """
    path = f"{directory}/{os.urandom(8).hex().upper()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, INCOMPLETE)
    try:
        _write_all(descriptor, data)
        if os.geteuid() == 0:  # root's files have root's group where the directory does not say otherwise
            os.fchown(descriptor, -1, os.stat(directory).st_gid)
        os.fchmod(descriptor, COMPLETE)
        os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

"""`postcat`: show queue files in a form for people. postcat(1).

An argument that names no file is tried as a queue id, so -q may be left out. Files in maildrop are
shown too. The sections and labels are Postfix's; a queue file of ours has no records that point
elsewhere, so -r changes nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.commands.queue_access import open_queue
from mailserver.queue import drop_file
from mailserver.queue.directory import MESSAGE_STATES, QueueDirectory, State
from mailserver.queue.file import QueueFile, load
from mailserver.queue.identity import is_queue_id, is_word
from mailserver.queue.progress import Progress
from mailserver.queue.record import Damaged

_USAGE: Final = "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] [-e (envelope records)] [-h (header text)] [-q (access queue)] [-v] [file(s)...]"  # noqa: E501
_HELP: Final = """\
usage: postcat [-behdoqrv] [-s OFFSET] [-c DIR] [FILE or QUEUE-ID ...]

Shows queue files; standard input where none is named.
  -e  the envelope   -h  the header   -b  the body   (default: all three)
  -q  the arguments are queue ids (without it, those that name no file)
  -o  the offset of each line, -d  the type of each record, before it
  -s OFFSET  leave out what lies before
  -c DIR     the directory of main.cf

example:
  postcat -q A395322E2FF | less
"""
_COMMAND: Final = PostfixCommand("postcat", _USAGE, _HELP)
_SEARCHED: Final = (*MESSAGE_STATES, State.MAILDROP, State.CORRUPT)
_TYPES: Final = {
    "message_size": "C",
    "message_arrival_time": "T",
    "create_time": "A",
    "named_attribute": "A",
    "sender": "S",
    "original_recipient": "O",
    "recipient": "R",
    "done_recipient": "D",
    "sender_fullname": "F",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What of a file is to be shown, and how."""

    envelope: bool = True
    header: bool = True
    body: bool = True
    offsets: bool = False
    types: bool = False
    skip: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return _COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    options, names = _COMMAND.options(arguments, "bc:dehoqrs:v")
    given = {name for name, _ in options}
    values = dict(options)
    parts = given & {"-b", "-e", "-h"}
    skip = values.get("-s", "0")
    if not skip.isdecimal():
        raise CommandError(f"bad offset: {skip}")
    shown = Shown(
        not parts or "-e" in parts,
        not parts or "-h" in parts,
        not parts or "-b" in parts,
        "-o" in given,
        "-d" in given,
        int(skip),
    )
    for name in names or ([] if "-q" in given else ["-"]):
        path, label = _find(name, "-q" in given, values.get("-c"))
        _show(path, label, shown)
    return 0


def _find(name: str, is_id: bool, config_directory: str | None) -> tuple[str, str]:
    """The path of the file, "" for standard input, and what it is called. Raises CommandError."""
    if name == "-" and not is_id:
        return "", "stdin"
    if not is_id and os.path.lexists(name):
        return name, name
    if not is_queue_id(name):
        if not is_id:
            raise CommandError(f"open {name}: No such file or directory")
        if not is_word(name):
            raise CommandError(f"bad mail queue ID: {name}")
    queue = open_queue(config_directory).queue
    for state in _SEARCHED:
        if os.path.lexists(queue.path_of(name, state)):
            return queue.path_of(name, state), f"{state.value}/{name}"
    if not _may_look(queue):
        raise CommandError(f"open queue file {name}: Permission denied: become root, or the queue's owner")
    raise CommandError(f"open queue file {name}: No such file or directory")


def _may_look(queue: QueueDirectory) -> bool:
    return os.access(queue.path_of("", State.INCOMING), os.X_OK)


def _show(path: str, label: str, shown: Shown) -> None:
    out = sys.stdout.buffer
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if path else _standard_input()
        try:
            start = os.pread(descriptor, 10, 0)
            if not start.startswith((b"maildrop ", b"mailqueue ")):
                if start:
                    print(f"postcat: warning: {label}: input is not a valid queue file", file=sys.stderr)
                return
            writer = _drop_lines if start.startswith(b"maildrop ") else _queue_lines
            for line in writer(descriptor, label, shown):
                out.write(line)
        finally:
            os.close(descriptor)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"open {label}: {error.strerror}") from error
    except (Damaged, drop_file.Malformed) as error:
        raise CommandError(f"{label}: {error}") from error


def _standard_input() -> int:
    """A file with all of standard input, which may be a pipe."""
    descriptor = os.memfd_create("postcat")
    with open(descriptor, "wb", closefd=False) as file:
        file.writelines(iter(lambda: sys.stdin.buffer.read(1 << 16), b""))
    return descriptor


def _marker(text: str, label: str) -> bytes:
    return f"*** {text} {label} ***\n".encode()


def _record(name: str, value: str, shown: Shown) -> bytes:
    prefix = f"{0:9d} " if shown.offsets else ""
    prefix += f"{ord(_TYPES[name]):3d} " if shown.types else ""
    return f"{prefix}{name}: {value}\n".encode("utf-8", "surrogateescape")


def _queue_lines(descriptor: int, label: str, shown: Shown) -> Iterator[bytes]:
    message = load(os.path.basename(label), label, descriptor, may_repair=False)
    if shown.envelope:
        yield _marker("ENVELOPE RECORDS", label)
        for name, value in _envelope(message):
            yield _record(name, value, shown)
        yield _marker("MESSAGE CONTENTS", label)
    with open(os.dup(descriptor), "rb") as file:
        file.seek(message.content_offset)
        yield from _content(file, message.content_offset, message.content_length, shown)
    if shown.envelope:
        yield _marker("HEADER EXTRACTED", label)
        yield _marker("MESSAGE FILE END", label)


def _envelope(message: QueueFile) -> Iterator[tuple[str, str]]:
    accepted = message.accepted
    envelope, client = accepted.envelope, accepted.envelope.client
    progress = Progress(accepted, message.records)
    size = message.content_length
    yield (
        "message_size",
        f"{size:15d} {message.content_offset:15d} {len(envelope.recipients):15d} {0:15d} {size:15d}",
    )
    yield "message_arrival_time", time.ctime(accepted.arrival)
    yield "create_time", time.ctime(accepted.arrival)
    yield "sender", str(envelope.sender or "")
    attributes = {
        "encoding": {"8BITMIME": "8bit", "7BIT": "7bit"}.get(envelope.body, ""),
        "client_name": client.name,
        "client_address": client.address,
        "helo_name": client.helo,
        "protocol_name": client.protocol,
        "sasl_method": client.sasl_method,
        "sasl_username": client.login,
        "dsn_envid": envelope.envid,
        "dsn_ret": envelope.ret,
        "local_uid": str(client.uid) if client.uid >= 0 else "",
        "origin": accepted.origin,
        "attempts": str(progress.attempts) if progress.attempts else "",
        "forced_expire": "yes" if progress.is_forced_to_expire else "",
    }
    for name, value in attributes.items():
        if value:
            yield "named_attribute", f"{name}={value}"
    open_roots = {progress.leaves[leaf].root for leaf in progress.open_leaves()}
    for number, recipient in enumerate(envelope.recipients):
        if recipient.notify:
            yield "named_attribute", f"notify_flags={','.join(sorted(recipient.notify))}"
        if recipient.orcpt:
            yield "named_attribute", f"dsn_orig_rcpt={recipient.orcpt}"
        yield "original_recipient", recipient.original or str(recipient.address)
        yield ("recipient" if number in open_roots else "done_recipient"), str(recipient.address)


def _drop_lines(descriptor: int, label: str, shown: Shown) -> Iterator[bytes]:
    labels = {b"sender": "sender", b"recipient": "recipient", b"full_name": "sender_fullname"}
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        octets, length, _ = drop_file.decode_first_line(file.readline(drop_file.LONGEST_FIRST_LINE))
        fields = drop_file.decode_envelope(file.read(octets))
        if shown.envelope:
            yield _marker("ENVELOPE RECORDS", label)
            for name, octets_ in fields:
                value = octets_.decode("utf-8", "surrogateescape")
                text = value if name in labels else f"{name.decode()}={value}"
                yield _record(labels.get(name, "named_attribute"), text, shown)
            yield _marker("MESSAGE CONTENTS", label)
        yield from _content(file, file.tell(), length, shown)
        if shown.envelope:
            yield _marker("MESSAGE FILE END", label)


def _content(file: BinaryIO, offset: int, length: int, shown: Shown) -> Iterator[bytes]:
    """The lines of header and body that are wanted."""
    end, in_header = offset + length, True
    while offset < end:
        line = file.readline(end - offset)
        if not line:
            return
        in_header = in_header and line != b"\n"
        if (shown.header if in_header else shown.body) and offset >= shown.skip:
            prefix = f"{offset:9d} " if shown.offsets else ""
            prefix += f"{ord('N'):3d} " if shown.types else ""
            yield prefix.encode() + line
        offset += len(line)


if __name__ == "__main__":
    sys.exit(main())

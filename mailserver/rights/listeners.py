"""Listening sockets, bound by the supervisor and kept by it while roles come and go.

A TCP port is bound without SO_REUSEPORT: with it, a second server would silently take half of the
connections. Only for the moment in which a socket takes the place of one that overlaps with it
(127.0.0.1 that of 0.0.0.0) both have it. Channels of the roles are Unix sockets in the runtime
directory.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final

_BACKLOG: Final = 512
_CHANNEL_BACKLOG: Final = 128


class CannotListen(Exception):
    """The text names the address and what to do."""


def listen_tcp(host: str, port: int, beside: Sequence[socket.socket] = ()) -> socket.socket:
    """A listening, non-blocking socket. `beside` are ours on that port that will be closed soon.

    Raises CannotListen where somebody else has the port, or where it may not be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with _sharing([*beside, listener] if beside else []):
            listener.bind((host, port))
            listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {host or '*'} port {port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def _sharing(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """The sockets share their port while the block lasts."""
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def listen_channel(path: str, mode: int = 0o600, uid: int = 0, gid: int = 0) -> socket.socket:
    """A listening channel at that path, whose directory exists and is ours alone to write.

    A socket that is there already is replaced, with no moment in between in which there is none: whoever
    connects reaches the one or the other. Whoever accepts checks `peer_uid` too.
    """
    draft = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o177)
    try:
        listener.bind(draft)
        if os.geteuid() == 0:
            os.chown(draft, uid, gid)
        os.chmod(draft, mode)
        listener.listen(_CHANNEL_BACKLOG)
        os.rename(draft, path)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(umask)
    return listener


def held_channel(path: str) -> str:
    """A name under which this process can still connect to the channel after it has become another user.

    For a channel in a directory that only root may enter: then the uid alone opens nothing, and of
    two roles that run as one user only the one that took hold of the channel before can use it.
    The name is good in this process only, and as long as it lives.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    return f"/proc/self/fd/{descriptor}"


def connect_channel(path: str, timeout: float = 5.0) -> socket.socket:
    """A connection to a channel, blocking, with that time-out in seconds. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection

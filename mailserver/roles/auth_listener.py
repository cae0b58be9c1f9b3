"""The socket at which other programs have logins checked: `auth_listener`, Dovecot's `service auth`.

Made by root where root starts the server, since it lies in another program's directory (Postfix's
`private/auth`) and belongs to that program's user. Where it cannot be had the server starts nevertheless,
with a warning: whoever reads mail here must not wait for it.
"""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import re
import socket
import stat
from typing import Any, Final

from twisted.python.failure import Failure

from mailserver.accounts.login import EXTERNAL, Logins
from mailserver.authd.protocol import AuthServer, Services
from mailserver.config.config import Config
from mailserver.config.listeners import listeners
from mailserver.rights.acceptor import Acceptor
from mailserver.rights.handover import adopt
from mailserver.roles.logins import mechanisms
from mailserver.roles.parts import Parts

MOST_CONNECTIONS: Final = 1000  # a Postfix has one for each of its smtpd processes
_BACKLOG: Final = 128
_MODE: Final = re.compile(r"[0-7]{3,4}")


def bind_auth(parts: Parts) -> socket.socket | None:
    """The listening socket, None where none is wanted or it cannot be had: then the log has a warning."""
    path = _wanted(parts.config)
    if not path:
        return None
    try:
        return _bind(parts.config, path)
    except (OSError, ValueError) as error:
        parts.warn("auth")(f"auth_listener: {_told(error, path)}: no logins are checked for other programs")
        return None


def _wanted(config: Config) -> str:
    """The socket's path; "" where no mailboxes are served here: a Dovecot that does may want that path."""
    serves_mailboxes = any(listener.service in ("imapd", "pop3d") for listener in listeners(config))
    return config.string("auth_listener") if serves_mailboxes else ""


def why_not(config: Config) -> str:
    """Why there could be no such socket; "" where there could, or none is wanted. Nothing is changed."""
    path = _wanted(config)
    try:
        if path:
            _permissions(config, path)
    except (OSError, ValueError) as error:
        return f"{_told(error, path)}: correct it, or remove the line where no other program asks for logins"
    return ""


def _told(error: Exception, path: str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: {error.strerror}"
    return str(error)


def _permissions(config: Config, path: str) -> tuple[int, int, int]:
    """Mode, uid and gid of the socket. Raises OSError, ValueError."""
    if not os.path.isabs(path):
        raise ValueError(f"{path}: is no absolute path")
    text = config.string("auth_listener_mode")
    if not _MODE.fullmatch(text):
        raise ValueError(f"auth_listener_mode {text}: is no mode as 0660")
    directory = os.stat(os.path.dirname(path))
    user, group = config.string("auth_listener_user"), config.string("auth_listener_group")
    uid = _id(user, lambda name: pwd.getpwnam(name).pw_uid) if user else directory.st_uid
    gid = _id(group, lambda name: grp.getgrnam(name).gr_gid) if group else directory.st_gid
    return int(text, 8), uid, gid


def _bind(config: Config, path: str) -> socket.socket:
    mode, uid, gid = _permissions(config, path)
    _make_room(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(path)
        if os.geteuid() == 0:
            os.chown(path, uid, gid, follow_symlinks=False)
        os.chmod(path, mode)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _id(name: str, find: Any) -> int:
    if name.isdigit():
        return int(name)
    try:
        return int(find(name))
    except KeyError:
        raise ValueError(f"{name}: no such user or group") from None


def _make_room(path: str) -> None:
    """What a server that has ended left there is gone. Raises OSError where it is something else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(17, "something that is no socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            with contextlib.suppress(ConnectionRefusedError):
                probe.connect(path)
                raise FileExistsError(17, "another program listens there already")
        os.unlink(path)


class AuthListener:
    """Serves the socket until `stop`."""

    def __init__(self, parts: Parts, reactor: Any, listener: socket.socket, logins: Logins) -> None:
        self._reactor = reactor
        self._listener = listener
        without_tls = [name for name in mechanisms(parts.config) if name != EXTERNAL]
        self._services = Services(logins, without_tls, parts.log, reactor)
        self._numbers = itertools.count(1)
        self._warn = parts.warn("auth")
        self._open: set[AuthServer] = set()
        self._acceptor = Acceptor(reactor, listener, self._accepted)

    def leave(self) -> None:
        """Nobody new is answered here; who is connected still is."""
        self._acceptor.stop()
        self._listener.close()

    def stop(self) -> None:
        """Nobody is answered any more."""
        self.leave()
        for server in tuple(self._open):
            server.transport.abortConnection()

    def _accepted(self, connection: socket.socket) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            self._warn(f"more than {MOST_CONNECTIONS} connections to auth_listener: one was closed")
            connection.close()
            return
        server = AuthServer(self._services, next(self._numbers))
        ended = server.connectionLost

        def connection_lost(reason: Failure) -> None:
            self._open.discard(server)
            ended(reason)

        server.connectionLost = connection_lost  # type: ignore[method-assign,assignment]
        self._open.add(server)
        adopt(self._reactor, connection.detach(), server)

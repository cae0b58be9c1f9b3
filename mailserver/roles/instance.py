"""One server for one queue: the lock that a second instance finds taken."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from mailserver.config.config import Config
from mailserver.queue.file import is_locked, lock
from mailserver.roles.listening import StartFailed


def pid_file(config: Config) -> Path:
    """Where the running server's pid stands, as in Postfix: `queue_directory`/pid/master.pid."""
    return Path(config.string("queue_directory")) / "pid" / "master.pid"


def runtime_directory(config: Config) -> str:
    """Where the roles' channels lie: short, since a Unix socket's path has at most 107 octets."""
    mark = zlib.crc32(os.path.abspath(config.string("queue_directory")).encode())
    return f"/run/mailserver-{mark:08x}"


def app_password_channel(config: Config) -> str:
    """Where users of the system ask for app passwords of their own: beside the channels, root's."""
    return os.path.join(runtime_directory(config), "app-passwords")


def guest_channel(config: Config) -> str:
    """Where session hosts of users of the system ask for mailboxes that others share with them."""
    return os.path.join(runtime_directory(config), "guests")


def running_pid(config: Config) -> int:
    """The pid of the server that has the queue; 0 where none runs."""
    try:
        descriptor = os.open(pid_file(config), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        if not is_locked(descriptor):
            return 0
        text = os.read(descriptor, 32).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)


def lock_queue(config: Config, uid: int, gid: int) -> int:
    """The queue is this process's until the descriptor is closed or the process ends.

    Where root makes the directory, it belongs to `uid` and `gid`. Raises StartFailed where
    another server has the queue, ConfigError where the directory cannot be written.
    """
    path = pid_file(config)
    try:
        if not path.parent.parent.exists():
            path.parent.parent.mkdir(parents=True, mode=0o755)
            os.chown(path.parent.parent, uid, gid)
        path.parent.mkdir(exist_ok=True, mode=0o755)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise config.error(
            "queue_directory", f"{error.filename}: {error.strerror}: create it for the user of the server"
        ) from error
    if not lock(descriptor):
        pid = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StartFailed(
            f"the mail system is already running (pid {pid or '?'}, {path}): "
            "stop it first, or give this one a queue_directory of its own"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid():>15}\n".encode(), 0)
    return descriptor

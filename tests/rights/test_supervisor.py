"""The supervisor: restarts with patience, kills what hangs, ends everything."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.maillog import FileLog
from mailserver.rights.generation import Generation, Role
from mailserver.rights.heart import Heart
from mailserver.rights.listeners import CannotListen, listen_channel, listen_tcp
from mailserver.rights.service_manager import ServiceManager
from mailserver.rights.supervisor import Supervisor, fork_child
from tests.rights.test_tree import is_alive, wait_for


@contextlib.contextmanager
def running(directory: Path, *roles: Role, **listeners: socket.socket) -> Iterator[int]:
    """A supervisor in a process of its own; ended, and all its roles, at the end."""

    def main() -> None:
        log = FileLog(str(directory / "log"))
        Supervisor(Generation(roles, listeners, log), stop_seconds=0.5).run()

    pid = fork_child(main, lambda: None)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def noted(directory: Path, name: str) -> list[int]:
    """The pids that a role has had."""
    path = directory / name
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def role(directory: Path, name: str, then: Callable[[], None]) -> Role:
    """A role that notes its pid and then does something."""

    def main() -> None:
        with (directory / name).open("a") as file:
            file.write(f"{os.getpid()}\n")
        then()

    return Role(name, main)


def sleep() -> None:
    time.sleep(60)


def test_the_dead_are_restarted_and_a_quick_death_waits(tmp_path: Path) -> None:
    """P8; and no busy loop: 1 s before the second try, 2 s before the third."""
    steady, hasty = role(tmp_path, "steady", sleep), role(tmp_path, "hasty", lambda: None)
    with running(tmp_path, steady, hasty):
        wait_for(lambda: len(noted(tmp_path, "hasty")) == 2)
        assert len(noted(tmp_path, "steady")) == 1
        os.kill(noted(tmp_path, "steady")[0], signal.SIGKILL)
        wait_for(lambda: len(noted(tmp_path, "steady")) == 2)
        log = (tmp_path / "log").read_text()
    assert "process hasty pid" in log and "exit status 0; restart in 1 s" in log and "restart in 2 s" in log
    assert "process steady pid" in log and "ended: signal 9" in log


def test_roles_that_do_not_stop_are_killed(tmp_path: Path) -> None:
    """After stop_seconds; the supervisor ends with none left."""

    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "deaf").touch()
        sleep()

    with running(tmp_path, role(tmp_path, "stubborn", stubborn)) as pid:
        wait_for((tmp_path / "deaf").exists)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not is_alive(noted(tmp_path, "stubborn")[0])


def test_a_silent_heart_is_killed(tmp_path: Path) -> None:
    """DESIGN 8: a front that hangs keeps its share of connections until it is gone."""
    heart = Heart(longest_silence=0.3)

    def beat_then_hang() -> None:
        for _ in range(3):
            heart.beat()
            time.sleep(0.1)
        sleep()

    hanging = Role("hanging", role(tmp_path, "hanging", beat_then_hang).main, heart=heart)
    with running(tmp_path, hanging):
        wait_for(lambda: len(noted(tmp_path, "hanging")) == 2)
        assert "does not react" in (tmp_path / "log").read_text()


def writes(log: FileLog, directory: Path) -> Callable[[], None]:
    """A role's main: becomes somebody who may not open the log, then writes a line a little later again."""

    def main() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        while True:
            log.write("role", f"from {os.getpid()}")
            time.sleep(0.01)

    return main


def test_hup_hands_the_reopened_log_to_roles_that_may_not_open_it(tmp_path: Path) -> None:
    """F55: after a rotation every line goes into the new file, and no role ends."""
    path = tmp_path / "log"

    def main() -> None:
        log = FileLog(str(path))
        roles = [role(tmp_path, "one", writes(log, tmp_path))]
        Supervisor(Generation(roles, {}, log), stop_seconds=0.5).run()

    pid = fork_child(main, lambda: None)
    try:
        wait_for(lambda: path.exists() and "from" in path.read_text())
        for turn in range(3):
            path.rename(tmp_path / f"log.{turn}")
            os.kill(pid, signal.SIGHUP)
            wait_for(lambda: path.exists() and "from" in path.read_text())
            rotated = (tmp_path / f"log.{turn}").read_text()
            lines = path.read_text().count("\n")
            wait_for(lambda lines=lines: path.read_text().count("\n") > lines + 3)
            assert (tmp_path / f"log.{turn}").read_text() == rotated
        assert len(noted(tmp_path, "one")) == 1
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_a_log_that_cannot_be_reopened_is_written_on(tmp_path: Path) -> None:
    """F55: mail flows, and the old file says why."""
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "log"

    def main() -> None:
        roles = [role(tmp_path, "one", sleep)]
        Supervisor(Generation(roles, {}, FileLog(str(path))), stop_seconds=0.5).run()

    pid = fork_child(main, lambda: None)
    try:
        wait_for(lambda: noted(tmp_path, "one"))
        (tmp_path / "logs").rename(tmp_path / "moved")
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: "warning: reload" in (tmp_path / "moved" / "log").read_text())
        assert is_alive(noted(tmp_path, "one")[0])
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_the_service_manager_hears_of_reload_stop_and_life(tmp_path: Path) -> None:
    """sd_notify(3), and the watchdog at half its time."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(20)
    manager.bind(str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}

    def main() -> None:
        log = FileLog(str(tmp_path / "log"))
        roles = [role(tmp_path, "one", sleep)]
        manager = ServiceManager(environment)
        Supervisor(Generation(roles, {}, log), stop_seconds=0.5, manager=manager).run()

    def hear(text: bytes) -> None:
        while not manager.recv(1000).startswith(text):
            pass

    pid = fork_child(main, lambda: None)
    for _ in range(3):
        hear(b"WATCHDOG=1")
    os.kill(pid, signal.SIGHUP)
    hear(b"RELOADING=1\nMONOTONIC_USEC=")
    hear(b"READY=1")
    os.kill(pid, signal.SIGTERM)
    hear(b"STOPPING=1")
    os.waitpid(pid, 0)
    manager.close()


def test_a_role_has_its_own_listeners_only(tmp_path: Path) -> None:
    """And they stay open in the supervisor while the role is dead."""
    with listen_tcp("127.0.0.1", 0) as mine, listen_tcp("127.0.0.1", 0) as other:

        def main() -> None:
            (tmp_path / "found").write_text(f"{mine.fileno() >= 0} {other.fileno() >= 0}")
            sleep()

        with running(tmp_path, Role("one", main, frozenset({"mine"})), mine=mine, other=other):
            wait_for(lambda: (tmp_path / "found").exists() and (tmp_path / "found").read_text())
        assert (tmp_path / "found").read_text() == "True False"


def test_a_failing_role_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    """A traceback on standard error, and exit status 1."""

    def fails() -> None:
        raise ZeroDivisionError("oops")

    assert os.waitpid(fork_child(fails, lambda: None), 0)[1] >> 8 == 1
    assert "ZeroDivisionError: oops" in capfd.readouterr().err


def test_a_taken_port_is_said() -> None:
    """TWISTED.md: SO_REUSEPORT hides a taken port; we bind without it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1 port {port}: Address already in use"):
            listen_tcp("127.0.0.1", port)


@pytest.mark.parametrize(("old", "new"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_a_socket_takes_the_place_of_one_that_overlaps(old: str, new: str) -> None:
    """A changed inet_interfaces: at no moment is the port refused, and nobody else may have it after."""
    with listen_tcp(old, 0) as leaving:
        port = leaving.getsockname()[1]
        with pytest.raises(CannotListen):
            listen_tcp(new, port)
        with listen_tcp(new, port, beside=[leaving]) as coming:
            leaving.close()
            with socket.create_connection(("127.0.0.1", port), 20):
                coming.settimeout(20)
                coming.accept()[0].close()
            with pytest.raises(CannotListen):
                listen_tcp(old, port)


def test_a_channel_replaces_what_a_crash_left(tmp_path: Path) -> None:
    """P8: no hand clean-up; its mode is as asked for."""
    path = str(tmp_path / "channel")
    listen_channel(path).close()
    with listen_channel(path, 0o600):
        assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(CannotListen, match="missing"):
        listen_channel(str(tmp_path / "missing" / "channel"))

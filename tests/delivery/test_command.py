"""`|command`: what it gets, and what its end means. ECOSYSTEM §5, RELIABILITY B5, B6."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.delivery import command
from mailserver.delivery.job import Action, Job, Owner
from mailserver.envelope import Outcome, Status


def job(home: Path, text: str, time_limit: int = 30, **environment: str) -> Job:
    owner = Owner("alice", os.getuid(), os.getgid(), str(home), "/bin/bash")
    return Job(
        Action.COMMAND,
        owner,
        text,
        "s@x",
        "alice@y",
        b"",
        0,
        0,
        environment=environment,
        time_limit=time_limit,
    )


def deliver(home: Path, text: str, content: bytes = b"A: b\n\nx\n", **options: str) -> Outcome:
    return command.deliver(job(home, text, **options), [content])


@pytest.mark.parametrize(
    ("text", "status", "dsn", "reason"),
    [
        ("exit 0", Status.DELIVERED, "2.0.0", "delivered to command: exit 0"),
        ("exit 67", Status.FAILED, "5.1.1", "user unknown"),
        ("exit 75", Status.DEFERRED, "4.3.0", "temporary failure"),
        ("exit 71", Status.DEFERRED, "4.3.0", "system resource problem"),
        ("exit 65", Status.FAILED, "5.6.0", "data format error"),
        ("exit 78", Status.FAILED, "5.3.5", "local configuration error"),
        ("exit 9", Status.FAILED, "5.3.0", 'Command died with status 9: "exit 9"'),
        ("echo 4.2.9 wait; exit 1", Status.DEFERRED, "4.2.9", "wait"),
        ("echo 5.7.1 no, never; exit 75", Status.FAILED, "5.7.1", "no, never"),
        ("echo a; echo b >&2; exit 77", Status.FAILED, "5.7.0", "permission denied. Command output: a b"),
        ("kill -9 $$", Status.DEFERRED, "4.3.0", 'Command died with signal 9: "kill -9 $$"'),
        ("/no/such/program", Status.FAILED, "5.3.0", None),
    ],
)
def test_what_the_end_means(tmp_path: Path, text: str, status: Status, dsn: str, reason: str | None) -> None:
    """sysexits(3), an enhanced status code at the start of the output, signals."""
    outcome = deliver(tmp_path, text)
    assert (outcome.status, outcome.dsn) == (status, dsn)
    assert reason is None or outcome.text == reason


def test_every_sysexits_status_is_known() -> None:
    """64 to 78, with Postfix's words."""
    assert sorted(command.EXIT_STATUSES) == list(range(64, 79))


def test_environment_is_all_and_harmless(tmp_path: Path) -> None:
    """RELIABILITY B5: nothing of ours leaks, hostile characters become `_`, the home keeps its name."""
    home = tmp_path / "a home"
    home.mkdir()
    os.environ["LEAK"] = "x"
    try:
        outcome = deliver(
            home, "env > out; pwd >> out; umask >> out", SENDER="$(touch x);`y`\n'|&\"@z+1-2", LOCAL="a.b"
        )
    finally:
        del os.environ["LEAK"]
    assert outcome.status is Status.DELIVERED
    lines = (home / "out").read_text().splitlines()
    assert "SENDER=__touch_x___y______@z+1-2" in lines
    assert {"LOCAL=a.b", f"HOME={home}", "SHELL=/bin/bash", "USER=alice", "LOGNAME=alice"} <= set(lines)
    assert "PATH=/usr/bin:/bin" in lines
    assert lines[-2:] == [str(home), "0077"]
    assert not [line for line in lines if line.startswith("LEAK")]
    assert (home / "out").stat().st_mode & 0o777 == 0o600


def test_addresses_never_reach_a_shell(tmp_path: Path) -> None:
    """RELIABILITY B5: whatever stands in the environment, no file appears."""
    hostile = [
        "$(touch {p})",
        "`touch {p}`",
        ";touch {p};",
        "\ntouch {p}\n",
        "'\"; touch {p} #",
        "${{run{{touch {p}}}}}",
    ]
    for text in hostile:
        deliver(
            tmp_path, 'eval echo $SENDER; sh -c "$RECIPIENT"; exit 0', SENDER=text.format(p=tmp_path / "p")
        )
    assert not (tmp_path / "p").exists()


def test_simple_commands_need_no_shell() -> None:
    """Harmless characters and a program of that name: run as it is; all else is the shell's."""
    assert command.arguments("/bin/cat -u") == ["/bin/cat", "-u"]
    assert command.arguments("cat -u") == ["cat", "-u"]
    for text in ("exit 3", "cat | cat", "A=b cat", "cat 'x'", "/no/such", "cd /tmp"):
        assert command.arguments(text) == ["/bin/sh", "-c", text]


def test_descriptors_and_session(tmp_path: Path) -> None:
    """Only input and output are open; the command leads its own session, and SIGPIPE kills it as usual."""
    with open(tmp_path / "held", "w") as held:
        os.set_inheritable(held.fileno(), True)
        deliver(
            tmp_path,
            "exec > out; ls /proc/$$/fd; cut -d' ' -f6 /proc/$$/stat; echo $$; grep SigIgn /proc/$$/status",
        )
    *descriptors, session, pid, ignored = (tmp_path / "out").read_text().split("\n")[:-1]
    assert set(descriptors) - {"10"} == {"0", "1", "2"}  # 10: the shell's own
    assert session.strip() == pid
    assert int(ignored.split()[1], 16) & (1 << 12) == 0


def test_large_messages_pass_both_ways(tmp_path: Path) -> None:
    """No deadlock with a command that talks while it reads; its output is cut."""
    content = [b"line\n" * 20000] * 30
    outcome = command.deliver(job(tmp_path, "tee copy; exit 1"), content)
    assert outcome.dsn == "5.3.0"
    assert len(outcome.text) < 5000
    assert (tmp_path / "copy").read_bytes() == b"".join(content)


def test_command_that_does_not_read(tmp_path: Path) -> None:
    """Its exit status counts, not the broken pipe."""
    assert deliver(tmp_path, "exit 0", b"x" * 1_000_000).status is Status.DELIVERED
    assert deliver(tmp_path, "exit 75", b"x" * 1_000_000).dsn == "4.3.0"


def test_time_limit_kills_the_group(tmp_path: Path) -> None:
    """RELIABILITY B6, B30: the command and its children are gone, and mail is deferred."""
    outcome = deliver(tmp_path, "sleep 1000 & echo $! > pid; echo busy; wait", time_limit=1)  # type: ignore[arg-type]
    assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.3.0")
    assert outcome.text.startswith('Command time limit exceeded: "sleep 1000')
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_background_children_do_not_hold_us_up(tmp_path: Path) -> None:
    """A command that leaves a child with its output open has ended when it has ended."""
    began = time.monotonic()
    outcome = deliver(tmp_path, "sleep 20 & echo $! > pid; exit 0")
    assert outcome.status is Status.DELIVERED
    assert time.monotonic() - began < 15
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_content_that_fails_kills_the_command(tmp_path: Path) -> None:
    """Nobody gets half a message and believes it."""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ValueError

    with pytest.raises(ValueError):
        command.deliver(job(tmp_path, "cat > part && touch done"), broken())
    assert not (tmp_path / "done").exists()


def test_missing_home(tmp_path: Path) -> None:
    """The command runs in the root directory then."""
    outcome = deliver(tmp_path / "none", "pwd; exit 1")
    assert outcome.text.endswith("Command output: /")

"""Running `|command` and pipe(8): what they get, how long they may take, what their exit means.

A command made of harmless characters is run without a shell; any other text, which is the
user's or the administrator's own, goes to `/bin/sh -c`; every text to local_command_shell, where that is
set. Nothing that came with the message is ever
part of it: addresses travel in the environment, with every character outside
command_expansion_filter replaced by `_` (RELIABILITY B5). The command gets its own session and
process group, no descriptor but its input and output, umask 077 and the home directory; after
the time limit the whole group is killed. Background processes that it leaves do not hold us up.

The exit status is read as Postfix reads it: sysexits(3), or the enhanced status code with which
the output begins. Death by a signal and a time limit exceeded are temporary.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailserver.delivery.job import Job
from mailserver.envelope import Outcome
from mailserver.maillog import printable

PATH: Final = "/usr/bin:/bin"
LONGEST_OUTPUT: Final = 4096  # octets that are quoted in a bounce
_BLOCK: Final = 65536
_HARMLESS: Final = re.compile(r"[A-Za-z0-9!@%_=+:,./ \t-]+")
_FILTERED: Final = re.compile(r"[^1234567890!@%_=+:,./a-zA-Z-]")
_OURS: Final = frozenset({"HOME", "SHELL", "PATH", "USER", "LOGNAME", "TZ", "LANG", "MAIL_CONFIG"})
_STATUS_WORD: Final = re.compile(r"([45]\.\d{1,3}\.\d{1,3})(?:\s+(.*))?")

EXIT_STATUSES: Final[Mapping[int, tuple[str, str]]] = {
    64: ("5.3.0", "command line usage error"),
    65: ("5.6.0", "data format error"),
    66: ("5.3.0", "cannot open input"),
    67: ("5.1.1", "user unknown"),
    68: ("5.1.2", "host name unknown"),
    69: ("5.3.0", "service unavailable"),
    70: ("5.3.0", "internal software error"),
    71: ("4.3.0", "system resource problem"),
    72: ("5.3.0", "critical OS file missing"),
    73: ("5.2.0", "can't create user output file"),
    74: ("5.3.0", "input/output error"),
    75: ("4.3.0", "temporary failure"),
    76: ("5.5.0", "remote error in protocol"),
    77: ("5.7.0", "permission denied"),
    78: ("5.3.5", "local configuration error"),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit status, negative for a signal; None where it had to be killed."""

    status: int | None
    output: str


def environment(job: Job) -> dict[str, str]:
    """The command's whole environment: ours first, then the job's, harmless."""
    owner = job.owner
    ours = {"PATH": PATH, "HOME": owner.home, "SHELL": owner.shell or "/bin/sh"}
    ours |= {"USER": owner.name, "LOGNAME": owner.name}
    given = {
        name: value if name in _OURS else _FILTERED.sub("_", value) for name, value in job.environment.items()
    }
    return {name: value.replace("\0", "_") for name, value in (ours | given).items()}


def arguments(command: str, shell: Sequence[str] = ()) -> list[str]:
    """The command as it is executed: itself where no shell is needed and there is such a program.

    `shell` is the program that runs every command instead, with its arguments.
    """
    if shell:
        return [*shell, command]
    words = command.split()
    if words and _HARMLESS.fullmatch(command) and shutil.which(words[0], path=PATH):
        return words
    return ["/bin/sh", "-c", command]


def deliver(job: Job, pieces: Iterable[bytes], shell: Sequence[str] = ()) -> Outcome:
    """The command has run on the message; what its end means for the recipient. Raises OSError."""
    return judge(job.target, run(job, arguments(job.target, shell), pieces))


def deliver_to_pipe(job: Job, pieces: Iterable[bytes]) -> Outcome:
    """The same for a row of master.cf, in pipe(8)'s words. Raises OSError."""
    ended = run(job, job.arguments, pieces)
    if ended.status == 0:
        said = f" ({ended.output})" if ended.output else ""
        return Outcome.delivered(f"delivered via {job.target} service{said}")
    return judge(job.arguments[0], ended)


def judge(command: str, ended: Ended) -> Outcome:
    """What the end of a command means for the recipient. ECOSYSTEM §5."""
    quoted = f". Command output: {ended.output}" if ended.output else ""
    if ended.status == 0:
        return Outcome.delivered(f"delivered to command: {command}")
    if ended.status is None:
        return Outcome.deferred(f'Command time limit exceeded: "{command}"{quoted}', "4.3.0")
    if ended.status < 0:
        return Outcome.deferred(f'Command died with signal {-ended.status}: "{command}"{quoted}', "4.3.0")
    stated = _STATUS_WORD.fullmatch(ended.output)
    if stated:
        return _by_class(stated[1], stated[2] or "")
    if ended.status in EXIT_STATUSES:
        dsn, text = EXIT_STATUSES[ended.status]
        return _by_class(dsn, text + quoted)
    return Outcome.failed(f'Command died with status {ended.status}: "{command}"{quoted}', "5.3.0")


def _by_class(dsn: str, text: str) -> Outcome:
    return Outcome.deferred(text, dsn) if dsn.startswith("4") else Outcome.failed(text, dsn)


def run(job: Job, command: Sequence[str], pieces: Iterable[bytes]) -> Ended:
    """The command has ended, by itself or killed with its process group at the time limit. Raises OSError."""
    directory = job.directory or job.owner.home
    process = subprocess.Popen(
        [argument.encode("utf-8", "surrogateescape") for argument in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        cwd=directory if job.directory or os.path.isdir(directory) else "/",
        env=environment(job),
        umask=0o077,
        start_new_session=True,
        close_fds=True,
    )
    with process, _Dialogue(process, time.monotonic() + job.time_limit) as dialogue:
        try:
            is_in_time = dialogue.feed(pieces) and dialogue.finish()
        except BaseException:
            _kill(process)
            raise
        if not is_in_time:
            _kill(process)
        status = process.wait()
        return Ended(status if is_in_time else None, dialogue.text())


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Dialogue:
    """Writes to a command and listens to it at the same time, until a deadline."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._deadline = deadline
        self._output = bytearray()
        self._exit = os.pidfd_open(process.pid)
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Dialogue:
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._selector.register(self._exit, selectors.EVENT_READ)
        return self

    def __exit__(self, *error: object) -> None:
        self._selector.close()
        os.close(self._exit)

    def feed(self, pieces: Iterable[bytes]) -> bool:
        """The command has the message, or does not want all of it. False: out of time."""
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    ready = self._wait()
                    if not ready:
                        return False
                    if self._exit in ready:
                        return True
                    if self._stdin in ready:
                        view = view[os.write(self._stdin.fileno(), view[:_BLOCK]) :]
        except BrokenPipeError:
            pass  # it has read what it needs; its exit status counts
        finally:
            self._selector.unregister(self._stdin)
            self._stdin.close()
        return True

    def finish(self) -> bool:
        """The command has ended and its output was read. False: out of time."""
        while ready := self._wait():
            if self._exit in ready:
                self._listen()
                return True
        return False

    def _wait(self) -> list[object]:
        """What is ready, its output taken in; empty at the deadline."""
        left = self._deadline - time.monotonic()
        ready: list[object] = [key.fileobj for key, _ in self._selector.select(left)] if left > 0 else []
        if self._stdout in ready and self._listen():
            self._selector.unregister(self._stdout)
        return ready

    def _listen(self) -> bool:
        """What the command has said is kept, up to a limit; true at its end."""
        while True:
            try:
                block = os.read(self._stdout.fileno(), _BLOCK)
            except BlockingIOError:
                return False
            if not block:
                return True
            self._output += block[: LONGEST_OUTPUT - len(self._output)]

    def text(self) -> str:
        """The output on one line, harmless."""
        return printable(" ".join(self._output.decode("utf-8", "replace").split()), LONGEST_OUTPUT)


def message_for_command(from_line: bytes, prefix: bytes, content: Iterable[bytes]) -> Iterator[bytes]:
    """What a command reads: `From ` line, header lines, content as it is, no empty line at the end."""
    yield from_line + prefix
    yield from content

"""`postfix`: start, stop, reload, flush and check the mail system. postfix(1).

`start` checks the configuration, starts the server in the background, and returns when it listens
on all ports, or says why it does not. `reload` checks first, and shows what the running server says
changed; a configuration that cannot be served is refused, and the old one runs on. Lookup tables and
certificates are followed without it.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO, Final

from mailserver.commands import postqueue
from mailserver.commands.checks import Checks
from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.commands.reload import ask
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, config_directory, read_unchecked
from mailserver.maillog import ListLog, MailLog
from mailserver.roles.instance import running_pid
from mailserver.roles.parts import Parts, mail_log
from mailserver.roles.ready import DETACH

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
_PAUSE: Final = 0.05
_USAGE: Final = "usage: postfix [-c config_dir] [-Dv] command"
_COMMANDS: Final = (
    "start (or stop, reload, abort, flush, check, status, set-permissions, upgrade-configuration, logrotate)"
)
_HELP: Final = """\
usage: postfix [-c DIR] check | start | start-fg | stop | abort | reload | flush | status | logrotate | tls

  check     say what is wrong with the configuration and its files; silent where nothing is
  start     check, then start the mail system in the background
  start-fg  the same in the foreground
  stop      end it in order: sessions are told, deliveries under way are finished
  abort     end it at once
  reload    take a changed main.cf and master.cf, or say why not; open the log anew
  flush     deliver everything that waits
  status    say whether it runs; exit status 1 where it does not
  logrotate  move maillog_file away and compress it
  set-permissions  give the queue to mail_owner
  tls       keys and certificates: see postfix tls --help

example:
  postfix -c /etc/mailserver start
"""
_COMMAND: Final = PostfixCommand("postfix", _USAGE, _HELP)


class _ScriptError(Exception):
    """What Postfix says in the name of its script."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return _COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    options, words = _COMMAND.options(arguments, "c:Dv")
    directory = config_directory(dict(options).get("-c"), os.environ)
    if words[:1] == ["tls"] and len(words) > 1:
        return _tls(directory, words[1:])
    if len(words) != 1 or words == ["tls"]:
        raise _COMMAND.misused()
    action = _ACTIONS.get(words[0])
    try:
        if action is None:
            raise _ScriptError(f"unknown command: '{words[0]}'. Usage: postfix {_COMMANDS}")
        return action(Script(directory))
    except _ScriptError as error:
        print(f"postfix/postfix-script: fatal: {error}", file=sys.stderr)
        return 1


def _tls(directory: str, words: Sequence[str]) -> int:
    from mailserver.commands import postfix_tls

    if words[0] == "--help":
        print(postfix_tls.HELP, end="")
        return 0
    try:
        return postfix_tls.TlsScript(read_unchecked(directory, os.environ), words).run()
    except (ConfigError, CommandError) as error:
        text = str(error)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}"
    print(f"postfix/postfix-tls-script: fatal: {text}", file=sys.stderr)
    return 1


class Script:
    """What the words of the command line do. Raises ConfigError, CommandError."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.config: Config = read_unchecked(directory, os.environ)

    @property
    def pid(self) -> int:
        """The server's pid, 0 where none runs."""
        return running_pid(self.config)

    def say(self, text: str, to_log: bool = True) -> None:
        """The text is on standard error, and in the log where there is one of our own to write."""
        print(f"postfix/postfix-script: {text}", file=sys.stderr, flush=True)
        if to_log:
            self._log().write("postfix-script", text)

    def _log(self) -> MailLog:
        if self.config.string("maillog_file").startswith("/dev/"):
            return ListLog()
        try:
            return mail_log(self.config)
        except ConfigError:
            return ListLog()

    def require_running(self) -> int:
        """The server's pid. Raises _ScriptError."""
        if not self.pid:
            raise _ScriptError("the Postfix mail system is not running")
        return self.pid

    def check(self) -> int:
        """Problems are printed, nothing else."""
        checks = Checks(self.directory)
        for problem in checks.problems:
            self.say(f"{'fatal' if problem.is_fatal else 'warning'}: {problem.text}", to_log=False)
        return int(checks.is_fatal)

    def start(self) -> int:
        """The server runs in the background and listens."""
        self._prepare()
        if self.config.string("maillog_file") == "/dev/stdout":
            raise _ScriptError(
                "maillog_file = /dev/stdout needs a terminal: use postfix start-fg, or name a file"
            )
        self.say("starting the Postfix mail system")
        with tempfile.TemporaryFile("w+") as output, _ready_socket() as ready:
            process = self._spawn(output, ready)
            if self._wait_until_ready(process, ready):
                return 0
            output.seek(0)
            sys.stderr.write(output.read())
        if process.poll() is None:
            process.terminate()
            process.wait()
        raise _ScriptError("mail system startup failed")

    def _prepare(self) -> None:
        if self.pid:
            raise _ScriptError("the Postfix mail system is already running")
        if self.check():
            raise _ScriptError("the Postfix mail system cannot be started: mend what is fatal above")

    def _spawn(self, output: IO[str], ready: socket.socket) -> subprocess.Popen[bytes]:
        address = os.fsdecode(ready.getsockname()).replace("\0", "@", 1)
        environment = {**os.environ, "NOTIFY_SOCKET": address, DETACH: "yes"}
        return subprocess.Popen(
            _command(self.directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes], ready: socket.socket) -> bool:
        """Whether the server said so before it ended, and in time."""
        ready.settimeout(_PAUSE)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                if b"READY=1" in ready.recv(4096):
                    return True
            except TimeoutError:
                if process.poll() is not None:
                    return False
        return False

    def start_foreground(self) -> int:
        """The server runs in this process."""
        self._prepare()
        self.say("starting the Postfix mail system")
        command = _command(self.directory)
        os.execv(command[0], command)

    def stop(self) -> int:
        """No server runs any more; what was under way has ended."""
        return self._end("stopping the Postfix mail system", signal.SIGTERM)

    def abort(self) -> int:
        """No server runs any more."""
        return self._end("aborting the Postfix mail system", signal.SIGKILL)

    def _end(self, text: str, how: signal.Signals) -> int:
        pid = self.require_running()
        try:
            os.kill(pid, 0)
            self.say(text)
            os.kill(pid, how)
        except ProcessLookupError:
            return 0
        except PermissionError as error:
            raise _ScriptError(f"no permission to end process {pid}: become root, or its user") from error
        self._wait_until(lambda: not self.pid)
        return 0

    def _wait_until(self, claim: Callable[[], bool]) -> None:
        end = time.monotonic() + STOP_SECONDS
        while not claim():
            if time.monotonic() > end:
                raise _ScriptError(f"process {self.pid} does not end: postfix abort ends it at once")
            time.sleep(_PAUSE)

    def reload(self) -> int:
        """The running server has taken the configuration, and what changed is said; or why it was refused."""
        pid = self.require_running()
        if self.check():
            raise _ScriptError("the configuration is not loaded, the old one stays: mend what is fatal above")
        self.say("refreshing the Postfix mail system")
        outcome = ask(self.config, pid)
        for line in outcome.lines():
            self.say(line, to_log=False)  # the server has logged it
        return int(bool(outcome.error))

    def flush(self) -> int:
        """Delivery of everything that waits has begun."""
        return postqueue.main(["-c", self.directory, "-f"])

    def rotate_log(self) -> int:
        """The log has another name, and is compressed; the server writes a new one."""
        path = self.config.string("maillog_file")
        if not path:
            raise _ScriptError("empty 'maillog_file' parameter value - logfile rotation failed")
        if path.startswith("/dev/"):
            raise _ScriptError(f"not rotating '{path}'")
        rotated = f"{path}.{time.strftime(self.config.string('maillog_file_rotate_suffix'))}"
        try:
            os.rename(path, rotated)
            _create_like(path, os.stat(rotated))
            if self.pid:
                os.kill(self.pid, signal.SIGHUP)
                time.sleep(1)  # whoever wrote into the old one has the new one
            subprocess.run([*self.config.words("maillog_file_compressor"), rotated], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise _ScriptError(f"logfile '{path}' rotation failed: {error}") from error
        return 0

    def set_permissions(self) -> int:
        """Queue and state belong to mail_owner. Raises _ScriptError."""
        if os.geteuid() != 0:
            raise _ScriptError("set-permissions needs root")
        owner = Parts(self.config, ListLog()).mail_owner
        own(self.config.string("queue_directory"), owner.uid, owner.gid)
        return 0

    def upgrade_configuration(self) -> int:
        """Nothing is to be done: main.cf and master.cf of every release are read."""
        self.say("nothing to upgrade: postfix check says what is wrong", to_log=False)
        return 0

    def status(self) -> int:
        """Whether the server runs is said."""
        pid = self.pid
        if pid:
            self.say(f"the Postfix mail system is running: PID: {pid}", to_log=False)
            return 0
        self.say("the Postfix mail system is not running", to_log=False)
        return 1


def _ready_socket() -> socket.socket:
    """A socket with a name of its own in the abstract name space, for READY=1."""
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind("")
    return ready


def _command(directory: str) -> list[str]:
    """The server in the foreground, with warnings and worse of Twisted's own on standard error."""
    quiet = "--logger=mailserver.roles.quiet_log.observer"
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    return [*twistd, "--nodaemon", "--pidfile=", quiet, "mailserver", "-c", directory]


def _create_like(path: str, status: os.stat_result) -> None:
    """An empty file with that mode and owner: the server may not be able to make one. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    finally:
        os.close(descriptor)


def own(queue: str, uid: int, gid: int) -> None:
    """What lies in the queue belongs to that user, but for what others dropped. Raises OSError.

    Links are not followed, whoever put them there.
    """
    for directory in sorted(os.listdir(queue)):
        path = os.path.join(queue, directory)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(descriptor, uid, gid)
            for name in os.listdir(descriptor) if directory != "maildrop" else ():
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
        finally:
            os.close(descriptor)


_ACTIONS: Final[dict[str, Callable[[Script], int]]] = {
    "check": Script.check,
    "start": Script.start,
    "start-fg": Script.start_foreground,
    "stop": Script.stop,
    "drain": Script.stop,
    "quick-stop": Script.stop,
    "abort": Script.abort,
    "reload": Script.reload,
    "flush": Script.flush,
    "status": Script.status,
    "logrotate": Script.rotate_log,
    "set-permissions": Script.set_permissions,
    "upgrade-configuration": Script.upgrade_configuration,
}


if __name__ == "__main__":
    sys.exit(main())

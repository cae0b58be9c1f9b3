"""`postsuper`: delete, hold, release, requeue and expire messages. postsuper(1).

For root and for the user whom the queue belongs to; root becomes that user first. The server may
run or not; where it runs, what is released or requeued is tried at once. A queue name limits an
act to that queue; `active` means messages whose delivery is under way, which lie in incoming and
deferred here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.commands.queue_access import QueueAccess, open_queue
from mailserver.config.syntax import ConfigError
from mailserver.maillog import ListLog, MailLog
from mailserver.queue.control import QueueControl
from mailserver.queue.directory import MESSAGE_STATES, Busy, State
from mailserver.queue.identity import is_queue_id, is_word
from mailserver.queue.taking import complete_files
from mailserver.roles.parts import mail_log

_USAGE: Final = (
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)]"
    " [-f queue_id (expire and release)] [-h queue_id (hold)] [-H queue_id (un-hold)]"
    " [-p (purge temporary files)] [-r queue_id (requeue)] [-s (structure fix)] [-v] [queue...]"
)
_HELP: Final = """\
usage: postsuper [-c DIR] [-d|-h|-H|-r|-e|-f ID|ALL|-] ... [-p] [-s] [QUEUE ...]

  -d  delete            -h  put on hold       -H  release from hold
  -r  requeue: as if it came now              -e  return to the sender     -f  also from hold
  ID is a queue id, ALL every message, - the ids on standard input.
  -s  repair the queue's structure            -p  remove what killed commands left behind
  QUEUE: hold incoming active deferred maildrop corrupt (default: the first four)

examples:
  postsuper -d ALL deferred
  mailq | awk 'BEGIN { RS = "" } $7 == "MAILER-DAEMON" { print $1 }' | tr -d '*!' | postsuper -d -
"""
_COMMAND: Final = PostfixCommand("postsuper", _USAGE, _HELP)
_QUEUES: Final = {
    "hold": (State.HOLD,),
    "incoming": (State.INCOMING,),
    "active": (State.INCOMING, State.DEFERRED),
    "deferred": (State.DEFERRED,),
    "maildrop": (State.MAILDROP,),
    "corrupt": (State.CORRUPT,),
}
# For each option: what happened to one message, what to all.
_TEXTS: Final = {
    "-d": ("removed", "Deleted"),
    "-e": ("expired", "Force-expired"),
    "-f": ("expired", "Force-expired"),
    "-h": ("placed on hold", "Placed on hold"),
    "-H": ("released from hold", "Released from hold"),
    "-r": ("requeued", "Requeued"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return _COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    options, names = _COMMAND.options(arguments, "c:d:e:f:h:H:pr:sSv", anywhere=True)
    for name in names:
        if name not in _QUEUES:
            raise CommandError(f"invalid directory name: {name}: name some of {', '.join(_QUEUES)}")
    states = tuple(dict.fromkeys(state for name in names for state in _QUEUES[name]))
    access = open_queue(dict(options).get("-c"))
    log = _log(access)
    become_owner(access.queue.path)
    given = [name for name, _ in options if name not in ("-c", "-v")]
    if not given or {"-s", "-S", "-p"} & set(given):
        repair(access)
    acts = [(name, value) for name, value in options if name in _TEXTS]
    for name in dict.fromkeys(name for name, _ in acts):
        _Act(access, log, name, states).perform([value for each, value in acts if each == name])
    return 0


def _log(access: QueueAccess) -> MailLog:
    if access.config.string("maillog_file").startswith("/dev/"):
        return ListLog()
    try:
        return mail_log(access.config)
    except ConfigError:
        return ListLog()


def become_owner(queue_directory: str) -> None:
    """This process is the user whom the queue belongs to, for good. Raises CommandError."""
    try:
        status = os.stat(os.path.join(queue_directory, State.INCOMING.value))
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}: start the mail system once") from error
    if os.geteuid() == 0 and status.st_uid != 0:
        os.setgroups([])
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)
    elif os.geteuid() != status.st_uid:
        raise CommandError("use of this command is reserved for the superuser")
    os.umask(0o077)


def repair(access: QueueAccess) -> None:
    """All directories are there, damaged files set aside, left-overs removed. Raises OSError."""
    access.queue.prepare()
    access.queue.scan()
    complete_files(access.queue.path_of("", State.MAILDROP).rstrip("/"))


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


class _Act:
    """One option, done to all messages that it names."""

    def __init__(self, access: QueueAccess, log: MailLog, option: str, states: tuple[State, ...]) -> None:
        self._access = access
        self._log = log
        self._option = option
        self._states = states or MESSAGE_STATES
        self._control = QueueControl(access.queue)

    def perform(self, values: Sequence[str]) -> None:
        """It is done and said."""
        done, all_done = _TEXTS[self._option]
        count = released = 0
        for queue_id in self._ids(values):
            is_held = self._option == "-f" and self._is_held(queue_id)
            try:
                if not self._act()(queue_id):
                    continue
            except Busy:
                print(f"postsuper: warning: {queue_id}: is being delivered: try again", file=sys.stderr)
                continue
            count += 1
            self._say(f"{queue_id}: {done}")
            if is_held:
                released += 1
                self._say(f"{queue_id}: released from hold")
        self._say(f"{all_done}: {_messages(count)}")
        if self._option == "-f":
            self._say(f"Released from hold: {_messages(released)}")

    def _is_held(self, queue_id: str) -> bool:
        return os.path.lexists(self._access.queue.path_of(queue_id, State.HOLD))

    def _say(self, text: str) -> None:
        print(f"postsuper: {text}", file=sys.stderr)
        self._log.write("postsuper", text)

    def _ids(self, values: Sequence[str]) -> Iterator[str]:
        for value in values:
            if value == "ALL":
                yield from self._all()
                continue
            for queue_id in (line.strip() for line in sys.stdin) if value == "-" else [value]:
                if is_queue_id(queue_id):
                    yield queue_id
                elif queue_id and not is_word(queue_id):
                    print(f"postsuper: warning: invalid mail queue id: {queue_id}", file=sys.stderr)

    def _all(self) -> Iterator[str]:
        for state in self._states:
            yield from sorted(os.listdir(self._access.queue.path_of("", state)))

    def _act(self) -> Callable[[str], object]:
        control, states = self._control, self._states
        return {
            "-d": lambda queue_id: control.delete(queue_id, states),
            "-h": lambda queue_id: control.hold(queue_id, states),
            "-H": lambda queue_id: control.release(queue_id) and self._due(queue_id),
            "-r": lambda queue_id: self._due(control.requeue(queue_id, states)),
            "-e": lambda queue_id: control.expire(queue_id, states) and self._due(queue_id),
            "-f": lambda queue_id: control.expire(queue_id, states, release=True) and self._due(queue_id),
        }[self._option]

    def _due(self, queue_id: str) -> bool:
        if queue_id:
            self._access.released(queue_id)
        return bool(queue_id)


if __name__ == "__main__":
    sys.exit(main())

"""`postqueue`: list the queue, deliver it now. postqueue(1)."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.commands.queue_access import UNAVAILABLE, QueueAccess, open_queue
from mailserver.maillog import ListLog
from mailserver.queue.identity import is_queue_id, is_word
from mailserver.roles.parts import ConfigError, Parts

USAGE: Final = 69  # as Postfix's: EX_UNAVAILABLE, not EX_USAGE
_USAGE: Final = "usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site"
_HELP: Final = """\
usage: postqueue [-c DIR] -p | -j | -f | -i QUEUE-ID | -s SITE

  -p           list the queue: * active, ! on hold, # to be expired
  -j           the same, a line of JSON for each message
  -f           deliver everything that waits now
  -i QUEUE-ID  deliver that message now
  -s SITE      deliver what waits for that domain of relay_domains now
  -c DIR       the directory of main.cf

example:
  postqueue -j | jq -r 'select(.sender == "MAILER-DAEMON").queue_id' | postsuper -d -
"""
_COMMAND: Final = PostfixCommand("postqueue", _USAGE, _HELP, misuse=USAGE)
_SITE: Final = re.compile(r"\[[0-9A-Za-z:.]+\]|[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?")
_MARKS: Final = {"active": "*", "hold": "!"}
_ORDER: Final = ("maildrop", "active", "incoming", "deferred", "hold")
_REASON_WIDTH: Final = 76


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return _COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    directory, chosen, value = _parse(arguments)
    access = open_queue(directory)
    if chosen in ("-p", "-j"):
        _list(access, chosen == "-j")
    elif chosen == "-f":
        access.flush()
    elif chosen == "-i":
        if not is_word(value):
            raise CommandError(f'Cannot flush queue ID - invalid name: "{value}"', USAGE)
        if is_queue_id(value):
            access.flush_id(value)
    else:
        _require_site(access, value)
        access.flush_site(value)
    return 0


def _parse(arguments: list[str]) -> tuple[str | None, str, str]:
    """The directory, the one option chosen, and its value. Raises CommandError."""
    options, rest = _COMMAND.options(arguments, "c:fi:jps:v")
    chosen = [(name, value) for name, value in options if name not in ("-c", "-v")]
    if len(chosen) != 1 or rest:
        raise _COMMAND.misused()
    directory = next((value for name, value in options if name == "-c"), None)
    return directory, *chosen[0]


def _require_site(access: QueueAccess, site: str) -> None:
    """Raises CommandError where the site is not one that -s is for: a domain of relay_domains."""
    if not _SITE.fullmatch(site):
        raise CommandError(f'Cannot flush mail queue - invalid destination: "{site}"', UNAVAILABLE)
    try:
        if Parts(access.config, ListLog()).domains("relay_domains").has(site):
            return
    except ConfigError as error:
        raise CommandError(str(error)) from error
    raise CommandError(
        f'Flush service is not configured for destination "{site}": '
        "name it in relay_domains, or use postqueue -f",
        UNAVAILABLE,
    )


def _list(access: QueueAccess, as_json: bool) -> None:
    found, was_asked = access.entries()
    if not was_asked:
        print("postqueue: warning: Mail system is down -- accessing queue directly", file=sys.stderr)
    if as_json:
        sys.stdout.writelines(json.dumps(entry) + "\n" for entry in found)
        return
    sys.stdout.writelines(render(found, access.config.boolean("enable_long_queue_ids")))


def render(entries: Sequence[Mapping[str, Any]], long_ids: bool = False) -> Iterator[str]:
    """The listing as `mailq` prints it. showq(8)."""
    if not entries:
        yield "Mail queue is empty\n"
        return
    layout = "%-17s %8s %-19s %s\n" if long_ids else "%-11s %7s %-20s %s\n"
    yield layout % ("-Queue ID-", "--Size--", "----Arrival Time----", "-Sender/Recipient-------")
    octets = 0
    for entry in sorted(entries, key=lambda entry: _ORDER.index(entry["queue_name"])):
        octets += entry["message_size"]
        yield from _entry(entry, layout, 19 if long_ids else 20)
        yield "\n"
    requests = "Request" if len(entries) == 1 else "Requests"
    yield f"-- {octets // 1024} Kbytes in {len(entries)} {requests}.\n"


def _entry(entry: Mapping[str, Any], layout: str, date_width: int) -> Iterator[str]:
    mark = "#" if entry["forced_expire"] else _MARKS.get(entry["queue_name"], "")
    arrival = time.asctime(time.localtime(entry["arrival_time"]))[:date_width]
    yield layout % (entry["queue_id"] + mark, entry["message_size"], arrival, entry["sender"])
    yield from _recipients(entry["recipients"], layout)


def _recipients(recipients: Iterable[Mapping[str, str]], layout: str) -> Iterator[str]:
    """Each recipient; a reason stands before the first of a run that has it."""
    last = ""
    for recipient in recipients:
        reason = recipient.get("delay_reason", "")
        if reason != last:
            yield f"({reason or 'reason unavailable'})".rjust(_REASON_WIDTH + 2) + "\n"
            last = reason
        yield layout % ("", "", "", recipient["address"])


if __name__ == "__main__":
    sys.exit(main())

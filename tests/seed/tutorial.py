"""docs/TUTORIAL.md as a program: its console blocks are run one after the other, and must show the same.

    root@www:~# COMMAND                a command of that user; its further lines begin with `> `
    output
    & 1⏎                               a line that is typed, after its prompt; ⏎ is the key

What differs from run to run (queue ids, dates, process numbers, sizes) may differ. With
`python -m tests.seed.tutorial --write`, as root, the output of a run is written into the file.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.machine import ROOT, Machine, wait_until_quiet

PATH = ROOT / "docs" / "TUTORIAL.md"
HOSTNAME = "www.hxz.ass"
USERS = ("user01", "user02", "user1", "hxz")
PREPARE = f"""
cp -a /etc/postfix /etc/postfix.debian
rm -rf /etc/postfix /etc/dovecot /etc/mailserver /var/mail/*
make --no-print-directory -C /source install MTA=1
for name in {" ".join(USERS)}; do
    useradd -m -s /bin/bash $name
    echo $name:secret-of-$name | chpasswd
done
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
echo '127.0.0.1 localhost' > /etc/hosts
echo 'postmaster: root' > /etc/aliases
"""
ADDRESSES = ("192.0.2.25", "10.1.1.7", "10.2.2.2", "192.168.1.7")  # the host's own, and its clients'
_PROMPT = re.compile(r"(\w+)@www:~[#$] (.*)")
_TYPED = re.compile(r"(Subject: |To: |Cc: |& )?(.*)⏎")
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_VOLATILE = (
    (re.compile(r"\b[0-9A-F]{11}\b"), "ID"),
    (re.compile(r"\b\d{14}\.ID"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "DATE"),
    (re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? "), ""),
    (
        re.compile(rf"\b(?:\d\d? )?{_MONTH} +(?:\d\d? +)?(?:\d{{4}} )?\d\d:\d\d(?::\d\d)?(?: \d{{4}})?"),
        "DATE",
    ),
    (re.compile(r"delays?=[\d./]+"), "DELAY"),
    (re.compile(r"\d+/(?:python|mail-\S*|master)"), "PROCESS"),
    (re.compile(r"\b\d+/\d+\b"), "SIZE"),
    (re.compile(r"(?<=message_size:)[ \d]+"), " SIZE"),
    (re.compile(r"(?<=ID) +\d+ "), " SIZE "),
    (re.compile(r"-- \d+ Kbytes"), "-- SIZE"),
    (re.compile(r"\[\d+\]:|pid \d+"), "PID"),
    (re.compile(r"^accounts +\d+$", re.MULTILINE), "accounts NUMBER"),
    (re.compile(r" +"), " "),
)


def stable(text: str) -> list[str]:
    """The lines, sorted, without what differs from run to run: deliveries end in any order."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    return sorted(line.strip() for line in text.strip().splitlines())


@dataclass
class Exchange:
    """One command and what it shows; `line` is the index of its first line in the file."""

    user: str
    line: int
    command: list[str]
    shown: list[str] = field(default_factory=list)

    @property
    def typed(self) -> list[tuple[str, str]]:
        """Prompt and text of each line that is typed."""
        found = [_TYPED.fullmatch(line) for line in self.shown]
        return [(match[1] or "", match[2]) for match in found if match]

    @property
    def text(self) -> str:
        """What stands on the terminal."""
        return "\n".join(line.removesuffix("⏎") for line in self.shown)

    @property
    def end(self) -> int:
        """The index of the line behind it."""
        return self.line + len(self.command) + len(self.shown)


def exchanges(lines: list[str]) -> Iterator[Exchange]:
    """The commands of the console blocks, in order."""
    current: Exchange | None = None
    inside = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if current is not None:
                yield current
            inside, current = line == "```console", None
            continue
        prompt = _PROMPT.fullmatch(line) if inside else None
        if prompt:
            if current is not None:
                yield current
            current = Exchange(prompt[1], number, [prompt[2]])
        elif current is not None and line.startswith("> ") and not current.shown:
            current.command.append(line[2:])
        elif current is not None:
            current.shown.append(line)


def perform(machine: Machine, exchange: Exchange) -> str:
    """What the command shows in this run."""
    wait_until_quiet(machine)
    program = "\n".join(exchange.command)
    if not exchange.typed:
        return machine.run(program, exchange.user, status=None)
    terminal = machine.terminal(program, exchange.user)
    place = 0
    for prompt, text in exchange.typed:
        place = terminal.expect(re.escape(prompt), place)
        terminal.type(f"{text}\n")
    terminal.end()
    return terminal.text


def new_machine(here: Path) -> Machine:
    """The machine of the tutorial: the server is installed, nothing is configured, DNS answers."""
    machine = Machine(here, PREPARE, network=False)
    machine.run(f"hostname {HOSTNAME}")
    for address in ADDRESSES:
        machine.run(f"ip address add {address}/24 dev lo")
    # DNS alone: its messages are of no interest here.
    machine.start("PYTHONPATH=/source exec /opt/mailserver/bin/python /source/tests/seed/name_server.py")
    return machine


def _with_keys(exchange: Exchange, text: str) -> list[str]:
    """The lines of a run, those that were typed marked."""
    lines = text.strip("\n").splitlines()
    place = 0
    for prompt, typed in exchange.typed:
        while place < len(lines) and lines[place].rstrip() != f"{prompt}{typed}".rstrip():
            place += 1
        if place < len(lines):
            lines[place] += "⏎"
            place += 1
    return [line.rstrip() for line in lines]


def write() -> None:
    """The file shows what a run shows."""
    lines = PATH.read_text("utf-8").splitlines()
    with tempfile.TemporaryDirectory() as here:
        machine = new_machine(Path(here))
        found = [(exchange, perform(machine, exchange)) for exchange in exchanges(lines)]
        machine.stop()
    for exchange, text in reversed(found):
        lines[exchange.end - len(exchange.shown) : exchange.end] = _with_keys(exchange, text)
    PATH.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__" and "--write" in sys.argv:
    write()

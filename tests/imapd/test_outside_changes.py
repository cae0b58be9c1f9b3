r"""Several sessions and another program on one maildir, or one mbox, at random.

The other program works on the files as mutt or a delivery agent does: it delivers, sets flags,
removes and moves away. Each session is a model client (`test_sessions.Model`) that believes what it
is told; in the end all of them know exactly what lies on the disk. RFC 3501 §2.3.1.1, §7.4.1, RFC 2180.
"""

from __future__ import annotations

import mailbox
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import Server, message
from tests.imapd.test_sessions import Model

_LETTERS = {"S": b"\\Seen", "T": b"\\Deleted", "F": b"\\Flagged", "R": b"\\Answered", "D": b"\\Draft"}
SESSION_STEPS = st.one_of(
    st.tuples(st.sampled_from(["expunge", "noop", "append", "idle", "search", "fetch", "move", "flags"])),
    st.tuples(st.just("store"), st.integers(1, 6), st.sampled_from([b"+", b"-", b""]),
              st.sampled_from([b"\\Deleted", b"\\Seen", b"\\Flagged"])),
)  # fmt: skip
OUTSIDE_STEPS = st.tuples(
    st.sampled_from(["deliver", "flag", "remove", "mark read"]), st.integers(0, 5), st.sampled_from("STF")
)
STEPS = st.lists(st.tuples(st.integers(0, 2), SESSION_STEPS | OUTSIDE_STEPS), max_size=25)


class Maildir:
    """Another program on a maildir."""

    LOCATION = "maildir:{home}/Maildir"

    def __init__(self, home: Path) -> None:
        self._path = home / "Maildir"
        self._count = 0

    def _files(self) -> list[Path]:
        return sorted(
            [*(self._path / "cur").iterdir(), *(self._path / "new").iterdir()], key=lambda f: f.name
        )

    def act(self, what: str, index: int, letter: str) -> None:
        if what == "deliver":
            self._count += 1
            name = f"{1_700_000_000 + self._count}.M{self._count}P1.other"
            (self._path / "tmp" / name).write_bytes(message(name).replace(b"\r\n", b"\n"))
            os.rename(self._path / "tmp" / name, self._path / "new" / name)
            return
        files = self._files()
        if index >= len(files):
            return
        if what == "remove":
            files[index].unlink()
            return
        name, _, flags = files[index].name.partition(":2,")
        flags = "".join(sorted(set(flags) ^ {letter if what == "flag" else "S"}))
        os.rename(files[index], self._path / "cur" / f"{name}:2,{flags}")

    def flags(self) -> list[set[bytes]]:
        """The flags of each message, in no order."""
        return [{_LETTERS[letter] for letter in file.name.partition(":2,")[2] if letter in _LETTERS}
                for file in self._files()]  # fmt: skip


class Mbox:
    """Another program on an mbox, as Python's `mailbox` module reads and rewrites it."""

    LOCATION = "mbox:{home}/mail:INBOX={home}/inbox"

    def __init__(self, home: Path) -> None:
        self._path = home / "inbox"
        self._count = 0

    @contextmanager
    def _open(self) -> Iterator[mailbox.mbox]:
        box = mailbox.mbox(self._path)
        box.lock()
        try:
            yield box
        finally:
            box.close()

    def act(self, what: str, index: int, letter: str) -> None:
        with self._open() as box:
            keys = box.keys()
            if what == "deliver":
                self._count += 1
                box.add(message(str(self._count)).replace(b"\r\n", b"\n"))
            elif index < len(keys) and what == "remove":
                box.remove(keys[index])
            elif index < len(keys):
                changed = box[keys[index]]
                flag = {"S": "R", "T": "D", "F": "F"}[letter if what == "flag" else "S"]
                changed.set_flags("".join(set(changed.get_flags()) ^ {flag}))
                box[keys[index]] = changed

    def flags(self) -> list[set[bytes]]:
        """The flags of each message, in no order."""
        letters = {"R": "S", "D": "T", "F": "F", "A": "R", "T": "D"}
        with self._open() as box:
            return [{_LETTERS[letters[flag]] for flag in one.get_flags() if flag in letters} for one in box]


def _act(step: tuple[object, ...], model: Model, outside: Maildir | Mbox) -> None:
    match step:
        case ("deliver" | "flag" | "remove" | "mark read") as what, int(index), str(letter):
            outside.act(what, index, letter)
        case ("noop",):
            model.ask(b"NOOP")
            model.learn()
        case ("append",):
            model.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(message()), message()))
        case ("idle",):
            model.listen(model.client.ask(b"i IDLE"))
            model.listen(model.client.ask(b"DONE"))
            if model.with_vanished:
                model.learn()
        case ("store", int(number), bytes(sign), bytes(flags)) if number <= len(model.uids):
            model.ask(b"STORE %d %bFLAGS (%b)" % (number, sign, flags), may_expunge=False)
        case ("search",):
            model.ask(b"SEARCH UNSEEN", may_expunge=False)
        case ("flags",):
            model.learn()
        case ("fetch",) if model.uids:
            model.ask(b"FETCH 1 BODY[]", may_expunge=False)
        case ("move",) if model.uids:
            model.ask(b"MOVE %d other" % len(model.uids))
        case ("expunge",):
            model.ask(b"EXPUNGE")


def _play(
    steps: list[tuple[int, tuple[object, ...]]], program: Callable[[Path], Maildir | Mbox], where: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        home.mkdir()
        location = where.format(home=home)
        registry = FileStoreRegistry(
            lambda account: layout_for(account, location), str(Path(directory) / "state"), "host.example"
        )
        server = Server(registry=registry)
        first = server.log_in()
        first.ask(b"a CREATE other")
        for subject in ("one", "two", "three"):
            first.ask(b"b APPEND INBOX {%d+}\r\n%b" % (len(message(subject)), message(subject)))
        outside = program(home)
        models = [Model(server.log_in(), with_vanished=index == 2) for index in range(3)]
        for index, step in steps:
            _act(step, models[index], outside)
        for model in [*models, *models]:
            model.ask(b"NOOP")
        for model in models:
            model.learn()
        assert all(model.uids == models[0].uids for model in models)
        known = [model.flags[uid] for model in models[:1] for uid in model.uids]
        for model in models:
            assert [model.flags[uid] for uid in model.uids] == known
            model.client.transport.close()
        first.transport.close()
        registry.shut()  # an mbox has all flags in it once nobody has it open
        assert sorted(map(sorted, known)) == sorted(map(sorted, outside.flags()))


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_maildir(steps: list[tuple[int, tuple[object, ...]]]) -> None:
    """Deliveries into new/, renames for flags, removals."""
    _play(steps, Maildir, Maildir.LOCATION)


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_mbox(steps: list[tuple[int, tuple[object, ...]]]) -> None:
    """Appends and whole rewrites under the locks that mail programs take."""
    _play(steps, Mbox, Mbox.LOCATION)


@pytest.mark.parametrize(("program", "where"), [(Maildir, Maildir.LOCATION), (Mbox, Mbox.LOCATION)])
def test_a_message_that_goes_and_flags_that_change(
    program: Callable[[Path], Maildir | Mbox], where: str
) -> None:
    """The plain case, always played."""
    steps: list[tuple[int, tuple[object, ...]]] = [
        (0, ("remove", 0, "S")), (1, ("fetch",)), (0, ("deliver", 0, "S")), (2, ("noop",)), (0, (
            "flag", 1, "F")),
        (1, ("store", 1, b"+", b"\\Seen")), (0, ("noop",)), (2, ("expunge",)),
    ]  # fmt: skip
    _play(steps, program, where)

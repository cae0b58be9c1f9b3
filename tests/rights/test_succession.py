"""A reload: one generation of roles takes the place of another, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mailserver.maillog import FileLog
from mailserver.rights.generation import Generation, Passage, Role
from mailserver.rights.supervisor import BEGIN, MOST_RETIRED, RETIRE, Supervisor, fork_child
from tests.rights.test_tree import is_alive, wait_for


class Stage:
    """Generations whose roles write what they do into one file, a word a line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = FileLog(str(directory / "log"))
        self.said = directory / "said"
        self.said.touch()
        self.number = 0
        self.problems: list[str] = []

    def say(self, word: str) -> None:
        """One write: whole lines of several processes."""
        with self.said.open("a") as file:
            file.write(f"{word}\n")

    def words(self) -> list[str]:
        return self.said.read_text().split()

    def next(self) -> Generation | None:
        """See `Renewal.next`. The file `broken` says which generation fails."""
        self.number += 1
        number, is_broken = self.number, (self.directory / f"broken-{self.number}").exists()
        passage = Passage()

        def front() -> None:
            self._front(number, passage)

        def servant() -> None:
            if is_broken:
                raise ValueError("broken")
            self.say(f"servant-{number}:{os.getpid()}")
            while True:
                signal.pause()

        roles = [Role("front", front, passage=passage), Role("servant", servant)]
        return Generation(
            roles,
            {},
            self.log,
            begins=lambda: self.say(f"begins-{number}"),
            ended=lambda: self.say(f"ended-{number}"),
        )

    def _front(self, number: int, passage: Passage) -> None:
        """Ends after RETIRE when the file `session-N` is gone."""
        asked: list[int] = []
        for each in (BEGIN, RETIRE):
            signal.signal(each, lambda received, frame: asked.append(received))
        signal.signal(signal.SIGTERM, lambda *unused: (self.say(f"stopped-{number}"), os._exit(0)))
        self.say(f"front-{number}:{os.getpid()}")
        while (self.directory / f"broken-{number}").exists():  # it asks its servant, and hears nothing
            time.sleep(0.005)
        passage.ready.give()
        while RETIRE not in asked or (self.directory / f"session-{number}").exists():
            while asked and asked[0] == BEGIN:
                asked.pop(0)
                self.say(f"begun-{number}")
            if RETIRE in asked and not passage.released.is_given():
                self.say(f"released-{number}")
                passage.released.give()
            time.sleep(0.005)
        passage.released.give()
        self.say(f"finished-{number}")

    def taken(self, problem: str) -> None:
        """See `Renewal.taken`."""
        self.say(f"taken:{problem.replace(' ', '_')}")

    def pid(self, name: str) -> int:
        wait_for(lambda: any(word.startswith(f"{name}:") for word in self.words()))
        return int(next(word for word in self.words() if word.startswith(f"{name}:")).partition(":")[2])


@contextlib.contextmanager
def running(directory: Path) -> Iterator[tuple[Stage, Callable[[], None]]]:
    """A supervisor in its first generation, and what makes it reload and waits for the end of that."""
    stage = Stage(directory)

    def main() -> None:
        first = stage.next()
        assert first is not None
        Supervisor(first, stop_seconds=5, renewal=stage).run()

    pid = fork_child(main, lambda: None)
    reloads = 0

    def reload() -> None:
        nonlocal reloads
        reloads += 1
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: sum(word.startswith("taken:") for word in stage.words()) == reloads)

    try:
        stage.pid("front-1"), stage.pid("servant-1")
        yield stage, reload
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_the_new_one_begins_when_the_old_one_has_let_go(tmp_path: Path) -> None:
    """In this order; the old front and those that serve it live as long as it has work."""
    (tmp_path / "session-1").touch()
    with running(tmp_path) as (stage, reload):
        reload()
        wait_for(lambda: "begun-2" in stage.words())
        words = [word.partition(":")[0] for word in stage.words()]
        assert words.index("front-2") < words.index("released-1") < words.index("begun-2")
        assert words.index("begins-2") < words.index("begun-2")
        assert is_alive(stage.pid("front-1")) and is_alive(stage.pid("servant-1"))
        (tmp_path / "session-1").unlink()
        wait_for(lambda: "ended-1" in stage.words())
        assert not is_alive(stage.pid("front-1")) and not is_alive(stage.pid("servant-1"))
        assert is_alive(stage.pid("front-2"))
        wait_for(lambda: stage.words().count("begun-2") >= 2)  # for what the old one left
    assert "restart" not in (tmp_path / "log").read_text()


def test_one_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The old roles were not told anything, and the new ones are gone."""
    (tmp_path / "broken-2").touch()
    with running(tmp_path) as (stage, reload):
        reload()
        wait_for(lambda: "ended-2" in stage.words())
        words = stage.words()
        assert any(word.startswith("taken:process_servant_ended") for word in words)
        assert "released-1" not in words and "begun-2" not in words
        assert is_alive(stage.pid("front-1")) and is_alive(stage.pid("servant-1"))
        reload()  # the next one is sound
        wait_for(lambda: "begun-3" in stage.words() and "ended-1" in stage.words())


def test_a_servant_of_the_old_generation_is_restarted(tmp_path: Path) -> None:
    """P8: sessions of before a reload do not lose what they need; the front itself is not started again."""
    (tmp_path / "session-1").touch()
    with running(tmp_path) as (stage, reload):
        reload()
        os.kill(stage.pid("servant-1"), signal.SIGKILL)
        wait_for(lambda: sum(word.startswith("servant-1:") for word in stage.words()) == 2)
        os.kill(stage.pid("front-1"), signal.SIGKILL)
        wait_for(lambda: "ended-1" in stage.words())
        assert sum(word.startswith("front-1:") for word in stage.words()) == 1


def test_the_past_is_bounded(tmp_path: Path) -> None:
    """Many reloads beside sessions that never end: the oldest is told to stop."""
    with running(tmp_path) as (stage, reload):
        for number in range(1, MOST_RETIRED + 2):
            (tmp_path / f"session-{number}").touch()
            reload()
        wait_for(lambda: "ended-1" in stage.words())
        assert "stopped-1" in stage.words() and "stopped-2" not in stage.words()
        assert is_alive(stage.pid("front-2"))


def test_a_stop_ends_every_generation(tmp_path: Path) -> None:
    """SIGTERM while sessions of before a reload go on."""
    (tmp_path / "session-1").touch()
    with running(tmp_path) as (stage, reload):
        reload()
        pids = [stage.pid(name) for name in ("front-1", "servant-1", "front-2", "servant-2")]
    assert not any(map(is_alive, pids))
    assert "stopped-1" in stage.words() and "stopped-2" in stage.words()

"""Change notices: open mailboxes learn at once what other programs did to the spool.

inotify on the paths that each mailbox names (never on the data bases: a WAL's event comes before
its commit is visible), and `nudge` for what this process delivered itself. Both only cause
`refresh`, in a thread, one at a time per mailbox; a notice that comes during one causes
another after it. The mailbox then tells its listeners. An event that our own change of the mailbox
caused costs no more than a look.

Watches of a mailbox that nobody has open any more linger until the next slow poll: many clients
select one for a moment, again and again.

A path that does not exist is expected: a spool file is often made by the first mail, and removed with
the last. A slow poll refreshes every open mailbox and renews its watches: it is the net under lost
events, file systems without inotify, watches that ran out, and files that were replaced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.maillog import MailLog
from mailserver.store.contract import MailboxReplaced
from mailserver.store.inotify import ARRIVED, REPLACED, Inotify
from mailserver.store.mailbox import IndexedMailbox
from mailserver.threads import Threads

POLL_INTERVAL: Final = 30.0  # seconds
_OWN_WORK: Final = 0.01  # seconds after which a mailbox that was at work is asked whether it has news


class _Watched:
    """A mailbox that somebody has open."""

    def __init__(self, mailbox: IndexedMailbox) -> None:
        self.mailbox = mailbox
        self.paths: list[str] = []
        self.is_busy = False
        self.again = False
        self.is_wanted = True
        self.has_missed = False  # an event while it was not wanted
        self.question: Any = None  # the timer of `_consider_again`

    def drop_question(self) -> None:
        """Nothing will be asked."""
        if self.question is not None:
            self.question.cancel()
            self.question = None


class Notices:
    """A `Watcher` (see `store.account`). Made and started in the reactor's thread.

    `chores` are called in a thread at every slow poll (`FileStoreRegistry.sweep`).
    """

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        log: MailLog | None = None,
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._reactor = reactor
        self._thread = get_ident()
        self._threads = threads
        self._log = log
        self._interval = interval
        self._watched: dict[IndexedMailbox, _Watched] = {}
        self._on_path: dict[str, set[IndexedMailbox]] = {}
        self._inotify: Inotify | None = None
        self._tick: Any = None
        self.chores: list[Callable[[], None]] = []

    def start(self) -> None:
        """Changes are noticed from now on. In the reactor's thread."""
        try:
            self._inotify = Inotify(self._reactor, self._seen)
            self._inotify.startReading()
        except OSError as error:
            self._warn(f"inotify is not to be had, new mail is noticed every {self._interval:g} s: {error}")
        self._tick = self._reactor.callLater(self._interval, self._poll)

    def stop(self) -> None:
        """Nothing is noticed any more. In the reactor's thread."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify = None
        for watched in self._watched.values():
            watched.drop_question()
        self._watched.clear()
        self._on_path.clear()

    def _warn(self, text: str) -> None:
        if self._log is not None:
            self._log.write("imap", f"Warning: {text}")

    # From any thread.

    def watch(self, mailbox: IndexedMailbox) -> None:
        """See `Watcher.watch`."""
        self._heed(mailbox)

    def unwatch(self, mailbox: IndexedMailbox) -> None:
        """See `Watcher.unwatch`."""
        self._heed(mailbox)

    def _heed(self, mailbox: IndexedMailbox) -> None:
        """At once in the reactor's thread. What the mailbox says then counts: calls may overtake others."""
        if get_ident() == self._thread:
            self._follow(mailbox)
        else:
            self._reactor.callFromThread(self._follow, mailbox)

    def nudge(self, path: str) -> None:
        """Something was delivered to the maildir or mbox of that path: who has it open hears now."""
        path = path.rstrip("/")
        if path in self._on_path or path + "/new" in self._on_path:
            self._reactor.callFromThread(self._nudged, path)

    # In the reactor's thread.

    def _follow(self, mailbox: IndexedMailbox) -> None:
        if mailbox.is_watched:
            self._add(mailbox)
        else:
            self._drop(mailbox)

    def _add(self, mailbox: IndexedMailbox) -> None:
        watched = self._watched.get(mailbox)
        if watched is None:
            watched = self._watched[mailbox] = _Watched(mailbox)
        watched.is_wanted = True
        if watched.paths != list(mailbox.watched_paths()):  # new, moved, or one did not exist
            self._reactor.callLater(0, self._begin, mailbox)  # behind the answer: large directories take long
        elif watched.has_missed:
            watched.has_missed = False
            self._refresh([mailbox])

    def _begin(self, mailbox: IndexedMailbox) -> None:
        """The mailbox is watched, and refreshed for what came between its opening and the watch."""
        if mailbox in self._watched:
            self._renew([mailbox])
            self._refresh([mailbox])

    def _drop(self, mailbox: IndexedMailbox) -> None:
        watched = self._watched.get(mailbox)
        if watched is not None:
            watched.is_wanted = False
            watched.drop_question()

    def _watch_paths(self, watched: _Watched) -> None:
        for path in watched.mailbox.watched_paths():
            if path in self._on_path or self._watch_path(path):
                watched.paths.append(path)
                self._on_path.setdefault(path, set()).add(watched.mailbox)

    def _watch_path(self, path: str) -> bool:
        """Whether the path is watched, or expected where it does not exist. Else the slow poll has it."""
        if self._inotify is None:
            return False
        try:
            self._watch_or_expect(self._inotify, path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._warn(f"cannot watch {path}: {error}")
            return False
        return True

    def _watch_or_expect(self, inotify: Inotify, path: str) -> None:
        """Raises OSError: FileNotFoundError where the path has no directory either."""
        with contextlib.suppress(FileNotFoundError):
            return inotify.watch(path)
        inotify.expect(path)
        if os.path.exists(path):  # it came just now
            inotify.ignore(path)
            inotify.watch(path)

    def _unwatch_paths(self, watched: _Watched) -> None:
        for path in watched.paths:
            sharing = self._on_path.get(path, set())
            sharing.discard(watched.mailbox)
            if not sharing:
                self._on_path.pop(path, None)
                if self._inotify is not None:
                    self._inotify.ignore(path)
        watched.paths = []

    def _seen(self, path: str, mask: int) -> None:
        mailboxes = list(self._on_path.get(path, ()))
        if mask & REPLACED:
            self._renew(mailboxes)
            self._refresh(mailboxes)
            return
        for mailbox in mailboxes:
            if mask & ARRIVED:
                mailbox.expect_news(path)
            self._consider(mailbox)

    def _consider(self, mailbox: IndexedMailbox) -> None:
        """The mailbox is refreshed, unless the change was its own. One at work is asked again soon."""
        watched = self._watched[mailbox]
        if not watched.is_wanted:
            watched.has_missed = True
            return
        has_news = mailbox.may_have_news()
        if has_news:
            self._refresh([mailbox])
        elif has_news is None and watched.question is None:
            watched.question = self._reactor.callLater(_OWN_WORK, self._consider_again, watched)

    def _consider_again(self, watched: _Watched) -> None:
        watched.question = None
        if watched.mailbox.may_have_news() is not False:
            self._refresh([watched.mailbox])

    def _renew(self, mailboxes: Iterable[IndexedMailbox]) -> None:
        """The mailboxes' watches are on the files that bear the names now."""
        watched = [self._watched[mailbox] for mailbox in mailboxes]
        for each in watched:
            self._unwatch_paths(each)
        for each in watched:
            self._watch_paths(each)

    def _nudged(self, path: str) -> None:
        for candidate in (path, path + "/new"):
            mailboxes = list(self._on_path.get(candidate, ()))
            for mailbox in mailboxes:
                mailbox.expect_news(candidate)
            self._refresh(mailboxes)

    def _refresh(self, mailboxes: Iterable[IndexedMailbox]) -> None:
        for mailbox in mailboxes:
            watched = self._watched[mailbox]
            if not watched.is_wanted:
                watched.has_missed = True
                continue
            if watched.is_busy:
                watched.again = True
                continue
            watched.is_busy = True
            done: Deferred[bool] = self._threads.run(mailbox.refresh)
            done.addBoth(self._refreshed, watched)

    def _refreshed(self, result: bool | Failure, watched: _Watched) -> None:
        watched.is_busy = False
        if isinstance(result, Failure) and not isinstance(result.value, MailboxReplaced):
            self._warn(f"mailbox {watched.mailbox.name}: {result.getErrorMessage()}")
        if watched.again and self._watched.get(watched.mailbox) is watched:
            watched.again = False
            self._refresh([watched.mailbox])

    def _poll(self) -> None:
        self._tick = self._reactor.callLater(self._interval, self._poll)
        for watched in [each for each in self._watched.values() if not each.is_wanted]:
            del self._watched[watched.mailbox]
            self._unwatch_paths(watched)
        open_mailboxes = list(self._watched)
        self._renew(open_mailboxes)
        self._refresh(open_mailboxes)
        for chore in self.chores:
            self._threads.run(chore).addErrback(self._chore_failed)

    def _chore_failed(self, failure: Failure) -> None:
        self._warn(failure.getErrorMessage())

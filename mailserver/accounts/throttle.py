"""How long an answer to a login is held back. RELIABILITY B20.

Every wrong password is answered after at least 2 s (auth_failure_delay). Each further *different* wrong
password from the same place (an IPv4 address, an IPv6 /48) doubles that, up to 15 s; the answers to one
place follow each other, so that parallel connections gain nothing, and where too many wait the next
attempt is not checked at all. An old phone that repeats one wrong password stays at the
first step. A right password from a place where this name logged in before is never slowed, nor left
unchecked for what others do there; one from another place waits as long as a wrong one would (but not on a
place without failures). An account that many places guess at is slowed the same way, without
lock-out. After an hour without failures a place is forgotten. Everything is in memory and bounded, and
handed down at a reload.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

FIRST_DELAY: Final = 2.0  # seconds
LONGEST_DELAY: Final = 15.0  # seconds
MEMORY: Final = 3600.0  # seconds without a failure after which a place is forgotten
MOST_WAITING: Final = 10  # attempts of one place whose answers are held back
_FREE_PLACES_OF_ACCOUNT: Final = 10  # places that guess at it: each is slowed by itself anyway
_MOST_GUESSES_KEPT: Final = 16
_MOST_PLACES: Final = 20_000
_MOST_KNOWN: Final = 100_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")


def place(address: str) -> str:
    """The place that a penalty belongs to: an IPv4 address, an IPv6 /48, else the text itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 48), strict=False))


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether the address lies in one of the networks; what is no address lies in none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in networks)


@dataclass(slots=True)
class _Record:
    """What is held against a place or an account, and the answers held back: when, and to whom.

    `guesses` are a place's different wrong passwords, by a digest, each with the name tried; for an
    account the different places.
    """

    guesses: dict[bytes, str] = field(default_factory=dict)
    last_failure: float = 0.0
    free_at: float = 0.0  # when the last held answer goes out
    waiting: list[tuple[float, str]] = field(default_factory=list)

    def exported(self) -> list[Any]:
        """The record as JSON values."""
        guesses = {guess.hex(): name for guess, name in self.guesses.items()}
        return [guesses, self.last_failure, self.free_at, self.waiting]

    def add(
        self,
        guesses: Mapping[str, str],
        last_failure: float,
        free_at: float,
        waiting: Sequence[Sequence[Any]],
    ) -> None:
        """What another record says is held too."""
        room = _MOST_GUESSES_KEPT - len(self.guesses)
        self.guesses.update({bytes.fromhex(guess): name for guess, name in [*guesses.items()][:room]})
        self.last_failure = max(self.last_failure, last_failure)
        self.free_at = max(self.free_at, free_at)
        self.waiting += [(float(due), str(name)) for due, name in waiting]

    def delay(self, first: float, free: int = 0) -> float:
        """Seconds: `first` for one guess, then doubling from FIRST_DELAY."""
        steps = len(self.guesses) - free
        if steps <= 1:
            return first if steps == 1 else 0.0
        return min(FIRST_DELAY * float(2 ** (steps - 1)), LONGEST_DELAY)


class _Records(Generic[T]):
    """A bounded map that forgets what was used longest ago."""

    def __init__(self, most: int, make: Callable[[], T]) -> None:
        self._most = most
        self._make = make
        self._items: OrderedDict[str, T] = OrderedDict()

    def find(self, key: str) -> T | None:
        return self._items.get(key)

    def touch(self, key: str) -> T:
        item = self._items.pop(key, None)
        self._items[key] = item = self._make() if item is None else item
        if len(self._items) > self._most:
            self._items.popitem(last=False)
        return item

    def forget(self, key: str) -> None:
        self._items.pop(key, None)

    def items(self) -> list[tuple[str, T]]:
        return list(self._items.items())


class Penalties(Protocol):
    """What is held against whom: a `Throttle`, here or in the helper. May block; raises OSError then."""

    def penalties(self) -> list[tuple[str, int, float]]:
        """(place, different wrong passwords, seconds since the last one)."""

    def forgive(self, where: str) -> bool:
        """Nothing is held against the place any more; whether anything was."""


class Throttle:
    """The memory of failures. Safe to use from any thread; `clock` is monotonic seconds.

    Places in `trusted` networks (webmail, a proxy) wait the first delay only.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        trusted: Sequence[Network] = (),
        first_delay: float = FIRST_DELAY,
    ) -> None:
        self._clock = clock
        self._first_delay = first_delay
        self._trusted = tuple(trusted)
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._places: _Records[_Record] = _Records(_MOST_PLACES, _Record)
        self._accounts: _Records[_Record] = _Records(_MOST_PLACES, _Record)
        self._known: _Records[bool] = _Records(_MOST_KNOWN, lambda: True)

    def may_check(self, address: str, name: str) -> bool:
        """Whether the next attempt of this place is looked at; false where too many answers wait.

        Where the name is known there, only the answers to that name count.
        """
        where = place(address)
        with self._lock:
            record = self._places.find(where)
            if record is None:
                return True
            now = self._clock()
            record.waiting = [(due, name) for due, name in record.waiting if due > now]
            waiting = [other for _, other in record.waiting]
            is_known = self._known.find(f"{where} {name}") is not None
            return (waiting.count(name) if is_known else len(waiting)) < MOST_WAITING

    def failed(self, address: str, name: str, password: bytes) -> float:
        """Seconds to hold back the answer to a wrong password."""
        where = place(address)
        guess = hmac.digest(self._key, name.encode("utf-8", "replace") + b"\0" + password, "sha256")
        with self._lock:
            here = self._record(self._places, where)
            anywhere = self._record(self._accounts, name)
            for record, mark in ((here, guess), (anywhere, where.encode("utf-8", "replace"))):
                record.last_failure = self._clock()
                if len(record.guesses) < _MOST_GUESSES_KEPT:
                    record.guesses[mark] = name
            return self._hold(address, name, here, anywhere)

    def _record(self, records: _Records[_Record], key: str) -> _Record:
        found = records.find(key)
        if found is not None and self._clock() - found.last_failure > MEMORY:
            records.forget(key)
        return records.touch(key)

    def _hold(self, address: str, name: str, here: _Record, anywhere: _Record) -> float:
        """Seconds until this place's next free moment, which is taken."""
        if is_within(address, self._trusted):
            return self._first_delay if here.guesses else 0.0
        now = self._clock()
        first = self._first_delay
        delay = max(here.delay(first), anywhere.delay(first, _FREE_PLACES_OF_ACCOUNT))
        if delay == 0.0:
            return 0.0
        here.free_at = max(here.free_at, now) + delay
        here.waiting.append((here.free_at, name))
        return here.free_at - now

    def succeeded(self, address: str, name: str) -> float:
        """Seconds to hold back the answer to a right password: 0 from a known place.

        The name's own wrong guesses from this place no longer count, and the place is known from now on.
        """
        where = place(address)
        with self._lock:
            was_known = self._known.find(f"{where} {name}") is not None
            self._known.touch(f"{where} {name}")
            here = self._record(self._places, where)
            anywhere = self._record(self._accounts, name)
            delay = 0.0 if was_known else self._hold(address, name, here, anywhere)
            here.guesses = {guess: tried for guess, tried in here.guesses.items() if tried != name}
            return delay

    def exported(self) -> dict[str, Any]:
        """Everything as JSON values, for a successor in a process that has the same clock."""
        with self._lock:
            return {
                "key": self._key.hex(),
                "places": [[where, each.exported()] for where, each in self._places.items()],
                "accounts": [[name, each.exported()] for name, each in self._accounts.items()],
                "known": [key for key, _ in self._known.items()],
            }

    def adopt(self, exported: Mapping[str, Any]) -> None:
        """What a predecessor held against places and accounts, and the places it knew, count here.

        Where something was noted here already the two are held together; a password that was guessed
        before and after then counts twice.
        """
        with self._lock:
            if not self._places.items():
                self._key = bytes.fromhex(exported["key"])
            for records, name in ((self._places, "places"), (self._accounts, "accounts")):
                for key, values in exported[name]:
                    records.touch(key).add(*values)
            for key in exported["known"]:
                self._known.touch(key)

    def forgive(self, where: str) -> bool:
        """See `Penalties.forgive`."""
        with self._lock:
            found = self._places.find(where)
            self._places.forget(where)
            return found is not None and bool(found.guesses)

    def penalties(self) -> list[tuple[str, int, float]]:
        """See `Penalties.penalties`."""
        now = self._clock()
        with self._lock:
            return [
                (where, len(record.guesses), now - record.last_failure)
                for where, record in self._places.items()
                if record.guesses and now - record.last_failure <= MEMORY
            ]

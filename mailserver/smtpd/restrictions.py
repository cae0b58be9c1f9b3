"""Lists of restrictions, from the text of main.cf to something that can be asked.

A list is words separated by commas or white space; some take the next word as their argument;
`warn_if_reject` turns the next one's refusal into a log line; the names of
`smtpd_restriction_classes` stand for lists of their own. A word that this server does not know or
cannot honour stops the start: passing over it would open what the operator closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from mailserver.smtpd.access import CHECKS, AccessCheck, Actions, KeysOf, certificate_keys
from mailserver.smtpd.address_restrictions import LoginChecks, RecipientDirectory, RelayChecks
from mailserver.smtpd.basic_restrictions import BASIC, Restriction
from mailserver.smtpd.dns_restrictions import (
    DomainChecks,
    reject_rbl_client,
    reject_rhsbl,
    reject_unknown_client_hostname,
    reject_unknown_reverse_client_hostname,
)
from mailserver.smtpd.lookups import Networks, Resolver
from mailserver.smtpd.policy_service import PolicyCheck, PolicyService
from mailserver.smtpd.verdict import Codes, Evaluation, RestrictionError, Subject, Verdict
from mailserver.smtpd.verification import Verification
from mailserver.tables.access import first_entry
from mailserver.tables.table import Table, TableError
from mailserver.tables.words import split_words, unbrace
from mailserver.threads import Threads

DEEPEST_NESTING: Final = 20  # classes and table results within each other
_MOST_TABLE_RESULTS: Final = 1000
RELAY_STOPPERS: Final = frozenset(
    ("reject", "defer", "defer_if_permit", "reject_unauth_destination", "defer_unauth_destination")
)
_RHSBL: Final = {
    "reject_rhsbl_client": Subject.CLIENT,
    "reject_rhsbl_helo": Subject.HELO,
    "reject_rhsbl_sender": Subject.SENDER,
    "reject_rhsbl_recipient": Subject.RECIPIENT,
}

_UNVERIFIED: Final = ("reject_unverified_sender", "reject_unverified_recipient")
_SUBJECTS: Final = {
    "client": Subject.CLIENT,
    "helo": Subject.HELO,
    "sender": Subject.SENDER,
    "end_of_data": Subject.END_OF_DATA,
    "data": Subject.DATA,
}


@dataclass(frozen=True, slots=True)
class Named:
    """A restriction as it was written, with its argument."""

    text: str
    check: Restriction
    only_warns: bool = False
    stops_relaying: bool = False


RestrictionList = tuple[Named, ...]


def _no_policy_service(text: str) -> PolicyService:
    raise ValueError(f"{text}: there are no policy services here")


@dataclass(frozen=True, slots=True)
class Tools:
    """What restrictions are built from. `open_table` raises TableError or ValueError for an unusable name.

    `open_policy_service` raises ValueError for one. `verification` is called where a list needs it;
    where there is none, the restrictions on unverified addresses decide nothing: an explanation sends
    no probes.
    """

    directory: RecipientDirectory
    mynetworks: Networks
    threads: Threads
    open_table: Callable[[str], Table]
    resolver: Resolver
    classes: Mapping[str, str] = field(default_factory=dict)
    sender_login_maps: tuple[Table, ...] = ()
    relay_certificates: tuple[Table, ...] = ()
    delimiters: str = ""
    allow_untrusted_routing: bool = False
    shows_table_name: bool = True
    codes: Codes = field(default_factory=Codes)
    open_policy_service: Callable[[str], PolicyService] = _no_policy_service
    verification: Callable[[], Verification] | None = None


class Compiler:
    """Makes restriction lists. One serves all parameters."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._from_tables: dict[str, RestrictionList] = {}
        codes = (tools.codes.access_map_reject_code, tools.codes.access_map_defer_code)
        self._actions = Actions(self.run_text, codes)
        relay = RelayChecks(tools.directory, tools.allow_untrusted_routing, tools.shows_table_name)
        logins = LoginChecks(tools.sender_login_maps, tools.threads)
        domains = DomainChecks(tools.resolver, tools.directory)
        self.reject_unlisted_recipient: Restriction = relay.reject_unlisted_recipient
        self.reject_unlisted_sender: Restriction = relay.reject_unlisted_sender
        self._words: dict[str, Restriction] = BASIC | {
            "permit_mynetworks": self._permit_mynetworks,
            "permit_tls_clientcerts": self._permit_tls_clientcerts,
            "reject_unauth_destination": relay.reject_unauth_destination,
            "defer_unauth_destination": relay.defer_unauth_destination,
            "permit_auth_destination": relay.permit_auth_destination,
            "reject_unlisted_recipient": relay.reject_unlisted_recipient,
            "check_recipient_maps": relay.reject_unlisted_recipient,
            "reject_unlisted_sender": relay.reject_unlisted_sender,
            "reject_sender_login_mismatch": logins.reject_sender_login_mismatch,
            "reject_authenticated_sender_login_mismatch": logins.reject_authenticated_mismatch,
            "reject_known_sender_login_mismatch": logins.reject_known_mismatch,
            "reject_unauthenticated_sender_login_mismatch": logins.reject_unauthenticated_mismatch,
            "reject_unknown_client_hostname": reject_unknown_client_hostname,
            "reject_unknown_client": reject_unknown_client_hostname,
            "reject_unknown_reverse_client_hostname": reject_unknown_reverse_client_hostname,
            "reject_unknown_helo_hostname": domains.reject_unknown_helo_hostname,
            "reject_unknown_hostname": domains.reject_unknown_helo_hostname,
            "reject_unknown_sender_domain": domains.reject_unknown_sender_domain,
            "reject_unknown_recipient_domain": domains.reject_unknown_recipient_domain,
        }

    def compile(self, parameter: str, text: str, depth: int = 0) -> RestrictionList:
        """The list that the parameter's value stands for. Raises RestrictionError, naming the word."""
        if depth > DEEPEST_NESTING:
            raise RestrictionError(f"{parameter}: restriction classes nest too deeply")
        return tuple(self._items(parameter, iter(split_words(text)), depth))

    def _items(self, parameter: str, words: Iterator[str], depth: int) -> Iterator[Named]:
        only_warns = False
        for word in words:
            if word.startswith("{"):
                for item in self.compile(parameter, unbrace(word), depth + 1):
                    yield Named(item.text, item.check, item.only_warns or only_warns, item.stops_relaying)
                only_warns = False
            elif word.lower() == "warn_if_reject":
                only_warns = True
            else:
                yield self._item(parameter, word, words, depth, only_warns)
                only_warns = False

    def _item(self, parameter: str, word: str, words: Iterator[str], depth: int, only_warns: bool) -> Named:
        name = word.lower()
        stops = name in RELAY_STOPPERS and not only_warns
        if name in self._words:
            return Named(name, self._words[name], only_warns, stops)
        if word in self._tools.classes:
            inner = self.compile(parameter, self._tools.classes[word], depth + 1)
            stops = stops_relaying(inner) and not only_warns
            return Named(word, _list_check(inner), only_warns, stops)
        if name == "sleep":
            return Named(f"sleep {_argument(parameter, word, words)}", _do_nothing, only_warns)
        if name in _UNVERIFIED:
            return Named(name, self._verification_check(name), only_warns)
        if name == "check_policy_service":
            argument = _argument(parameter, word, words)
            return Named(f"{name} {argument}", self._policy_check(parameter, argument), only_warns)
        if name in CHECKS or name in _RHSBL or name in ("reject_rbl_client", "reject_maps_rbl"):
            argument = _argument(parameter, word, words)
            return Named(f"{name} {argument}", self._with_argument(parameter, name, argument), only_warns)
        if ":" in word:  # a bare table, in the sense of the list it stands in
            return Named(word, self._with_argument(parameter, _bare_table_check(parameter), word), only_warns)
        raise RestrictionError(f'{parameter}: unknown or unsupported restriction "{word}"')

    def _with_argument(self, parameter: str, name: str, argument: str) -> Restriction:
        tools = self._tools
        if name in _RHSBL:
            return reject_rhsbl(tools.resolver, _RHSBL[name], argument)
        if name not in CHECKS:
            return reject_rbl_client(tools.resolver, argument)
        try:
            table_name, keys_of = _with_search_order(name, argument)
            table = tools.open_table(table_name)
        except (TableError, ValueError) as error:
            raise RestrictionError(f"{parameter}: {name} {argument}: {error}") from error
        return AccessCheck(name, table, tools.threads, self._actions, tools.delimiters, keys_of)

    def _verification_check(self, name: str) -> Restriction:
        if self._tools.verification is None:
            return _do_nothing
        check: Restriction = getattr(self._tools.verification(), name)
        return check

    def _policy_check(self, parameter: str, argument: str) -> Restriction:
        try:
            service = self._tools.open_policy_service(argument)
        except ValueError as error:
            raise RestrictionError(f"{parameter}: check_policy_service {error}") from error
        return PolicyCheck(service, _subject_of(parameter), self._actions)

    async def run_text(self, evaluation: Evaluation, text: str, source: str) -> Verdict | None:
        """The answer of restrictions that a table gave as its result. Raises RestrictionError."""
        evaluation.nesting += 1
        if evaluation.nesting > DEEPEST_NESTING:
            raise RestrictionError(f"{source}: access tables name each other without end")
        items = self._from_tables.get(text)
        if items is None:
            items = self.compile(source, text)
            if len(self._from_tables) < _MOST_TABLE_RESULTS:
                self._from_tables[text] = items
        return await run(items, evaluation)

    async def _permit_mynetworks(self, evaluation: Evaluation) -> Verdict | None:
        request = evaluation.request
        entry = self._tools.mynetworks.find(request.address, request.client_name)
        return evaluation.permit(f"{entry.value}, {entry.source}") if entry is not None else None

    async def _permit_tls_clientcerts(self, evaluation: Evaluation) -> Verdict | None:
        """Whoever shows a certificate passes whose print, or its key's, is in relay_clientcerts."""
        found, tables = evaluation.request.certificate, self._tools.relay_certificates
        if found is None or not tables:
            return None
        keys = (found.fingerprint, found.public_key_fingerprint)
        entry = await self._tools.threads.run(first_entry, tables, keys)
        return evaluation.permit(entry.source) if entry is not None else None


def stops_relaying(items: RestrictionList) -> bool:
    """Whether nothing permits everything before something stops mail for elsewhere."""
    for item in items:
        if item.stops_relaying:
            return True
        if item.text == "permit" and not item.only_warns:
            return False
    return False


def _with_search_order(name: str, argument: str) -> tuple[str, KeysOf | None]:
    """The table of `{ type:table, { search_order = ... } }`, and what it is asked. Raises ValueError."""
    if not argument.startswith("{"):
        return argument, None
    table, *attributes = split_words(unbrace(argument))
    keys_of: KeysOf | None = None
    for attribute in attributes:
        key, _, value = unbrace(attribute).partition("=")
        if key.strip() != "search_order" or name != "check_ccert_access":
            raise ValueError(f"unknown map attribute: {key.strip()}")
        keys_of = certificate_keys(split_words(value))
    return table, keys_of


def _bare_table_check(parameter: str) -> str:
    for word in ("client", "helo", "sender"):
        if f"_{word}_" in parameter:
            return f"check_{word}_access"
    return "check_recipient_access"


def _subject_of(parameter: str) -> Subject:
    """What the restrictions of the parameter are about. A table's result has no parameter of its own."""
    return next(
        (subject for name, subject in _SUBJECTS.items() if f"_{name}_r" in parameter), Subject.RECIPIENT
    )


def _argument(parameter: str, word: str, words: Iterator[str]) -> str:
    try:
        return next(words)
    except StopIteration:
        raise RestrictionError(f'{parameter}: restriction "{word}" needs an argument') from None


async def _do_nothing(evaluation: Evaluation) -> Verdict | None:
    return None


def _list_check(items: RestrictionList) -> Restriction:
    async def check(evaluation: Evaluation) -> Verdict | None:
        return await run(items, evaluation)

    return check


async def run(items: RestrictionList, evaluation: Evaluation) -> Verdict | None:
    """The first decision of the list; None where its end is reached. Raises TableError."""
    for item in items:
        evaluation.asked = item.text
        verdict = await item.check(evaluation)
        if evaluation.trace is not None:
            answer = "no decision" if verdict is None else "permit" if verdict.permits else str(verdict)
            evaluation.trace.append(f"{evaluation.parameter}: {item.text}: {answer}")
        if verdict is None:
            continue
        if item.only_warns and not verdict.permits:
            evaluation.warnings.append(verdict)
            continue
        return verdict
    return None

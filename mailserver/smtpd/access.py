"""Access tables: which keys are asked, and what their results mean. access(5).

A result refuses, permits, leaves the decision to the next restriction, or is itself a list
of restrictions. Results that change the message (HOLD, REDIRECT, …) gather in the
evaluation's `Effects`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from mailserver.smtpd.verdict import Evaluation, Request, Subject, Verdict
from mailserver.tables.access import client_address_keys, domain_keys, first_entry, mail_address_keys
from mailserver.tables.table import Entry, Table, TableError
from mailserver.threads import Threads
from mailserver.wire.address import AddressError, parse_lenient

ListRunner = Callable[[Evaluation, str, str], Awaitable[Verdict | None]]  # restrictions, their source

_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_REPLY: Final = re.compile(r"([45]\d\d)(?:\s+|$)")


def _domain(text: str) -> tuple[tuple[str, ...], ...]:
    return (tuple(domain_keys(text)),) if text and text != "<>" else ()


def _client(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
    return (tuple(domain_keys(request.client_name)), tuple(client_address_keys(request.address)))


def _reverse_name(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
    return _domain(request.reverse_name)


def _helo(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
    return _domain(request.helo)


def _sender(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
    return (tuple(mail_address_keys(request.value_of(Subject.SENDER), delimiters)),)


def _recipient(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
    return (tuple(mail_address_keys(request.value_of(Subject.RECIPIENT), delimiters)),)


def _login(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
    return ((request.login,),) if request.login else ()


KeysOf = Callable[[Request, str], tuple[tuple[str, ...], ...]]

PRINTS: Final = ("cert_fingerprint", "pubkey_fingerprint")
NAMES: Final = ("subject_cn", "issuer_cn")


def certificate_keys(search_order: tuple[str, ...] = PRINTS) -> KeysOf:
    """What is asked about a client's certificate, in that order; of NAMES nothing unless it is trusted.

    Raises ValueError for an unknown word.
    """
    for word in search_order:
        if word not in PRINTS + NAMES:
            raise ValueError(f"unknown search_order {word}: write some of {', '.join(PRINTS + NAMES)}")

    def keys(request: Request, delimiters: str) -> tuple[tuple[str, ...], ...]:
        found = request.certificate
        if found is None:
            return ()
        known = {"cert_fingerprint": found.fingerprint, "pubkey_fingerprint": found.public_key_fingerprint}
        if request.certificate_is_trusted:  # anybody can write any name into a certificate
            known |= {"subject_cn": found.subject, "issuer_cn": found.issuer}
        return (tuple(known[word] for word in search_order if known.get(word)),)

    return keys


CHECKS: Final[dict[str, tuple[Subject, KeysOf]]] = {
    "check_client_access": (Subject.CLIENT, _client),
    "check_reverse_client_hostname_access": (Subject.CLIENT, _reverse_name),
    "check_helo_access": (Subject.HELO, _helo),
    "check_sender_access": (Subject.SENDER, _sender),
    "check_recipient_access": (Subject.RECIPIENT, _recipient),
    "check_sasl_access": (Subject.CLIENT, _login),
    "check_ccert_access": (Subject.CLIENT, certificate_keys()),
}


class AccessCheck:
    """One `check_*_access type:table`: a restriction. `keys_of`: what is asked, where not the usual keys."""

    def __init__(
        self,
        kind: str,
        table: Table,
        threads: Threads,
        actions: Actions,
        delimiters: str,
        keys_of: KeysOf | None = None,
    ) -> None:
        self._subject, usual = CHECKS[kind]
        self._keys_of = keys_of or usual
        self._table = table
        self._threads = threads
        self._actions = actions
        self._delimiters = delimiters

    async def __call__(self, evaluation: Evaluation) -> Verdict | None:
        """What the table says about the request; a table that cannot be asked defers the mail."""
        for keys in self._keys_of(evaluation.request, self._delimiters):
            entry: Entry | None = await self._threads.run(first_entry, (self._table,), keys)
            if entry is not None:
                return await self._actions.carry_out(evaluation, entry, self._subject)
        return None


class Actions:
    """Carries out what access tables, and policy servers, say. `codes` are those of REJECT and DEFER."""

    def __init__(self, run_list: ListRunner, codes: tuple[int, int]) -> None:
        self._run_list = run_list
        self._reject_code, self._defer_code = codes

    async def carry_out(self, evaluation: Evaluation, entry: Entry, subject: Subject) -> Verdict | None:
        """The verdict, None where the next restriction decides. Raises TableError for what is no action."""
        word, _, text = entry.value.strip().partition(" ")
        text = text.strip()
        upper = word.upper()
        if upper == "OK" or (word.isdecimal() and not _REPLY.match(entry.value.strip() + " ")):
            return evaluation.permit(entry.source)
        if upper == "DUNNO":
            return None
        if upper in _REFUSALS or _REPLY.match(word + " "):
            return self._refuse(evaluation, upper, text, entry.source, subject)
        effect = _EFFECTS.get(upper)
        if effect is not None:
            about = f"<{evaluation.request.value_of(subject)}>: {subject.value}"
            effect(evaluation, about, text, entry.source)
            return None
        return await self._run_list(evaluation, entry.value, entry.source)

    def _refuse(
        self, evaluation: Evaluation, word: str, text: str, source: str, subject: Subject
    ) -> Verdict | None:
        if word == "REJECT":
            code, dsn = self._reject_code, "5.7.1"
        elif word.isdecimal():
            code, dsn = int(word), "5.7.1" if word.startswith("5") else "4.7.1"
        else:
            code, dsn = self._defer_code, "4.7.1"
        enhanced = _ENHANCED.match(text)
        if enhanced:
            dsn, text = enhanced[1], text[enhanced.end() :]
        verdict = evaluation.refuse(code, dsn, subject, text or "Access denied", source)
        if word == "DEFER_IF_PERMIT":
            evaluation.postpone(verdict)
            return None
        if word == "DEFER_IF_REJECT":
            evaluation.defer_if_reject = evaluation.defer_if_reject or verdict
            return None
        return verdict


_REFUSALS: Final = frozenset(("REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT"))


def _hold(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    evaluation.effects.hold = text or "triggers HOLD action"
    evaluation.notes.append(f"hold: {about} {evaluation.effects.hold}")


def _discard(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    evaluation.effects.discard = text or "triggers DISCARD action"
    evaluation.notes.append(f"discard: {about} {evaluation.effects.discard}")


def _redirect(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    try:
        evaluation.effects.redirect = parse_lenient(text)
    except AddressError:
        raise TableError(f"{source}: bad REDIRECT address: {text}") from None
    evaluation.notes.append(f"redirect: {about} triggers REDIRECT {text}")


def _filter(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    if ":" not in text:
        raise TableError(f"{source}: FILTER {text}: write FILTER transport:destination")
    evaluation.effects.content_filter = text
    evaluation.notes.append(f"filter: {about} triggers FILTER {text}")


def _bcc(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    try:
        evaluation.effects.bcc = [parse_lenient(text)]
    except AddressError:
        raise TableError(f"{source}: bad BCC address: {text}") from None


def _prepend(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    name = text.partition(":")[0]
    if ":" not in text or not name.isascii() or not re.fullmatch(r"[!-9;-~]+", name):
        raise TableError(f"{source}: PREPEND wants a header field, not: {text}")
    if text not in evaluation.effects.prepend:
        evaluation.effects.prepend.append(text)


def _info(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    evaluation.notes.append(f"info: {about} {text}")


def _warn(evaluation: Evaluation, about: str, text: str, source: str) -> None:
    evaluation.notes.append(f"warn: {about} {text}")


_EFFECTS: Final[dict[str, Callable[[Evaluation, str, str, str], None]]] = {
    "HOLD": _hold,
    "DISCARD": _discard,
    "FILTER": _filter,
    "REDIRECT": _redirect,
    "BCC": _bcc,
    "PREPEND": _prepend,
    "INFO": _info,
    "WARN": _warn,
}

"""Accounts and login attempts as messages between roles. What cannot be decoded is a ValueError."""

from __future__ import annotations

from dataclasses import asdict

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Peer, Refused
from mailserver.accounts.scram import Challenge, Proof
from mailserver.rights.messages import Message, to_octets, to_text


def account_message(account: Account) -> Message:
    """The account as plain values."""
    return {**asdict(account), "extra": dict(account.extra)}


def account_from(message: Message) -> Account:
    """The inverse of `account_message`. Raises ValueError."""
    try:
        return Account(**message)
    except TypeError as error:
        raise ValueError("no account") from error


def attempt_message(attempt: Attempt) -> Message:
    """The attempt as plain values, password included: for the channel to the helper only."""
    proof = attempt.proof
    return {
        **asdict(attempt),
        "password": to_text(attempt.password),
        "certificates": [to_text(each) for each in attempt.certificates],
        "proof": proof and {"message": to_text(proof.message), "client_proof": to_text(proof.client_proof)},
    }


def attempt_from(message: Message) -> Attempt:
    """The inverse of `attempt_message`, every field checked for its type. Raises ValueError."""
    try:
        peer = Peer(**message["peer"])
        password, said = to_octets(message["password"]), message["proof"]
        proof = said and Proof(to_octets(said["message"]), to_octets(said["client_proof"]))
        shown = tuple(to_octets(each) for each in message["certificates"])
        decoded = {"password": password, "peer": peer, "proof": proof or None, "certificates": shown}
        attempt = Attempt(**{**message, **decoded})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no attempt") from error
    texts = (attempt.service, attempt.mechanism, attempt.name, attempt.session, peer.address)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("no attempt")
    return attempt


def refused_message(refused: Refused) -> Message:
    """The refusal as plain values; its reason stays behind where it is not our own fault's."""
    return {"temporary": refused.temporary, "reason": refused.reason}


def refused_from(message: Message) -> Refused:
    """The inverse of `refused_message`."""
    return Refused(message.get("temporary") is True, str(message.get("reason", "")))


def challenge_message(challenge: Challenge) -> Message:
    """The challenge as plain values."""
    return {"salt": to_text(challenge.salt), "iterations": challenge.iterations}


def challenge_from(message: Message) -> Challenge:
    """The inverse of `challenge_message`. Raises ValueError."""
    try:
        return Challenge(to_octets(message["salt"]), int(message["iterations"]))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no challenge") from error

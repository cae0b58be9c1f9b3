"""IMAP and POP3 workloads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Final

from benchmarks import messages
from benchmarks.clients import ImapClient
from benchmarks.measure import Sample, Workload, once, repeated, rest
from benchmarks.servers import Server

MANY: Final = 10_000
_ENVELOPES: Final = "FETCH 1:* (FLAGS UID RFC822.SIZE INTERNALDATE ENVELOPE)"
_MUTT: Final = (
    "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE FROM SENDER SUBJECT TO CC "
    "MESSAGE-ID REFERENCES CONTENT-TYPE CONTENT-DESCRIPTION IN-REPLY-TO REPLY-TO LINES LIST-POST X-LABEL)])"
)


# Logins.


def _first_logins(server: Server) -> Sample:
    accounts = [server.new_account() for _ in range(40)]
    for account in accounts:
        server.imap(account).command("LOGOUT")
    server.stop()
    server.start()

    def act() -> int:
        for account in accounts:
            server.imap(account).command("LOGOUT")
        return len(accounts)

    return once(server, act)


def _repeated_logins(is_tls: bool) -> Callable[[Server], Sample]:
    def run(server: Server) -> Sample:
        account = server.new_account()
        server.imap(account).command("LOGOUT")

        def act() -> int:
            client = server.imap(account, is_tls)
            client.command("LOGOUT")
            client.close()
            return 1

        return repeated(server, act)

    return run


def _pop3_logins(server: Server) -> Sample:
    account = server.new_account(10)
    server.pop3(account).command("QUIT")

    def act() -> int:
        client = server.pop3(account)
        client.command("QUIT")
        client.close()
        return 1

    return repeated(server, act)


# Reading.


def _large(server: Server) -> ImapClient:
    """A client with 10,000 messages selected, which the server has seen whole."""
    account = _ACCOUNTS.get((server.name, server.directory.name))
    if account is None:
        account = server.new_account(MANY, is_mixed=False)
        _ACCOUNTS[server.name, server.directory.name] = account
        client = server.imap(account)
        client.command("SELECT INBOX")
        client.command(_ENVELOPES)
        client.command("LOGOUT")
    client = server.imap(account)
    client.command("SELECT INBOX")
    return client


_ACCOUNTS: dict[tuple[str, str], str] = {}


def _on_large(command: str, operations: int) -> Callable[[Server], Sample]:
    """The command on the large mailbox, warm."""

    def run(server: Server) -> Sample:
        client = _large(server)
        client.command(command)
        rest(server)

        def act() -> int:
            client.command(command)
            return operations

        return repeated(server, act)

    return run


def _select_after_login(server: Server) -> Sample:
    account = server.new_account(MANY, is_mixed=False)
    client = server.imap(account)
    client.command("SELECT INBOX")
    client.command("LOGOUT")
    client = server.imap(account)

    def act() -> int:
        client.command("SELECT INBOX")
        client.command("UNSELECT")
        return 1

    return repeated(server, act)


def _first_open(server: Server) -> Sample:
    account, count = server.new_account(), 2000
    client = server.smtp()
    for number in range(count):
        client.send([f"{account}@example.org"], messages.of_size(3000, number))
    server.wait_for(account, count)

    def act() -> int:
        reader = server.imap(account)
        reader.command("SELECT INBOX")
        reader.command(_ENVELOPES)
        return count

    return once(server, act)


def _bodies(server: Server) -> Sample:
    account = server.new_account(1000)
    client = server.imap(account)
    client.command("SELECT INBOX")
    client.command("FETCH 1:* (UID FLAGS BODY.PEEK[])")

    def act() -> int:
        client.command("FETCH 1:* (UID FLAGS BODY.PEEK[])")
        return 1000

    return repeated(server, act)


def _bodies_over_tls(server: Server) -> Sample:
    account = server.new_account(1000)
    client = server.imap(account, is_tls=True)
    client.command("SELECT INBOX")
    client.command("FETCH 1:* (UID FLAGS BODY.PEEK[])")

    def act() -> int:
        client.command("FETCH 1:* (UID FLAGS BODY.PEEK[])")
        return 1000

    return repeated(server, act)


def _status_of_folders(server: Server) -> Sample:
    client = server.imap(server.new_account(10))
    for number in range(100):
        client.command(f"CREATE folder{number}")
        client.append(f"folder{number}", messages.of_size(500))
    names = [f"folder{number}" for number in range(100)]

    def act() -> int:
        for name in names:
            client.command(f"STATUS {name} (MESSAGES UNSEEN UIDNEXT)")
        return len(names)

    act()
    return repeated(server, act)


def _retrieve(server: Server) -> Sample:
    account = server.new_account(1000)
    server.pop3(account).command("QUIT")

    def act() -> int:
        client = server.pop3(account)
        for number in range(1, 1001):
            client.multiline(f"RETR {number}")
        client.command("QUIT")
        return 1000

    return repeated(server, act)


# Changing.


def _store_all(server: Server) -> Sample:
    client = _large(server)
    signs = cycle("+-")

    def act() -> int:
        client.command(f"STORE 1:* {next(signs)}FLAGS.SILENT (\\Flagged)")
        return MANY

    act()
    return repeated(server, act, at_most=20)


def _store_one_by_one(server: Server) -> Sample:
    client = server.imap(server.new_account(1000))
    client.command("SELECT INBOX")
    numbers = cycle(range(1, 1001))
    signs = cycle(["+"] * 1000 + ["-"] * 1000)

    def act() -> int:
        client.command(f"STORE {next(numbers)} {next(signs)}FLAGS (\\Seen)")
        return 1

    return repeated(server, act)


def _append(server: Server) -> Sample:
    client = server.imap(server.new_account())
    client.command("CREATE target")
    content = messages.of_size(4096)

    def act() -> int:
        client.append("target", content)
        return 1

    return repeated(server, act)


def _transferring(verb: str) -> Callable[[Server], Sample]:
    def run(server: Server) -> Sample:
        client = server.imap(server.new_account(1000, is_mixed=False))
        client.command("CREATE target")
        folders = cycle(["target", "INBOX"])
        client.command("SELECT INBOX")
        count = [1000]

        def act() -> int:
            target = next(folders) if verb == "MOVE" else "target"
            client.command(f"{verb} 1:{count[0]} {target}")
            if verb == "MOVE":
                client.command(f"SELECT {target}")
            return count[0]

        return repeated(server, act, at_most=10)

    return run


def _expunge(server: Server) -> Sample:
    count = 5000
    client = server.imap(server.new_account(count, is_mixed=False))
    client.command("SELECT INBOX")
    client.command(f"STORE 1:{count // 2} +FLAGS.SILENT (\\Deleted)")

    def act() -> int:
        client.command("EXPUNGE")
        return count // 2

    return once(server, act)


WORKLOADS: Final = (
    Workload("login-first", "login and logout, passwords not seen before", _first_logins, 1.0),
    Workload("login", "login and logout, repeated", _repeated_logins(False), 5.0),
    Workload("login-tls", "login and logout over TLS", _repeated_logins(True), 1.0),
    Workload("pop3-login", "POP3 login and QUIT, 10 messages", _pop3_logins, 5.0),
    Workload("select", "SELECT of 10,000 messages", _select_after_login, 2.0),
    Workload("first-open", "FETCH ENVELOPE, first open of mail that came by SMTP", _first_open, 2.0),
    Workload("fetch-envelope", "FETCH ENVELOPE of 10,000 messages", _on_large(_ENVELOPES, MANY), 3.0),
    Workload("fetch-fields", "FETCH of mutt's fields of 10,000 messages", _on_large(_MUTT, MANY), 2.0),
    Workload("fetch-flags", "FETCH (UID FLAGS) of 10,000 messages", _on_large("FETCH 1:* (UID FLAGS)", MANY)),
    Workload("fetch-bodies", "FETCH of 1,000 mixed bodies", _bodies, 2.0),
    Workload("fetch-bodies-tls", "the same over TLS", _bodies_over_tls, 1.0),
    Workload("search-text", "SEARCH TEXT in 10,000 messages", _on_large("SEARCH TEXT qzxjv", MANY), 20.0),
    Workload(
        "search-subject", "SEARCH SUBJECT in 10,000 messages", _on_large("SEARCH SUBJECT qzx", MANY), 1.5
    ),
    Workload("search-flags", "SEARCH by flags in 10,000 messages", _on_large("SEARCH SEEN FLAGGED", MANY)),
    Workload("sort", "SORT (DATE) of 10,000 messages", _on_large("SORT (DATE) UTF-8 ALL", MANY)),
    Workload(
        "thread",
        "THREAD REFERENCES of 10,000 messages",
        _on_large("THREAD REFERENCES UTF-8 ALL", MANY),
        2.0,
    ),
    Workload("store-all", "STORE on 10,000 messages", _store_all),
    Workload("store-one", "STORE one by one", _store_one_by_one, 1.5),
    Workload("status", "STATUS of 100 folders", _status_of_folders, 2.0),
    Workload("append", "APPEND of 4 KiB", _append, 2.0),
    Workload("copy", "COPY of 1,000 messages", _transferring("COPY")),
    Workload("move", "MOVE of 1,000 messages", _transferring("MOVE")),
    Workload("expunge", "EXPUNGE of 2,500 of 5,000 messages", _expunge),
    Workload("pop3-retr", "POP3 RETR of 1,000 mixed messages", _retrieve, 1.5),
)

"""Who is logged in: listed, counted, kicked."""

from __future__ import annotations

from mailserver.accounts.logged_in import LoggedIn, Login


class Kicked:
    """A session that notes whether it was kicked."""

    was_kicked = False

    def kick(self) -> None:
        self.was_kicked = True


def login(session: str, user: str = "alice", service: str = "imap", address: str = "192.0.2.1") -> Login:
    return Login(user, service, address, 0, session)


def test_a_session_is_listed_until_it_leaves() -> None:
    """With the time of its login; leaving twice is once."""
    logged_in = LoggedIn(now=lambda: 7.0)
    session = Kicked()
    assert logged_in.enter(session, login("a"))
    assert logged_in.logins() == [(login("a"), 7.0)]
    logged_in.leave(session)
    logged_in.leave(session)
    assert logged_in.logins() == []


def test_the_limit_counts_user_address_and_protocol() -> None:
    """mail_max_userip_connections, as Dovecot counts; who leaves makes room."""
    logged_in = LoggedIn(2)
    first = Kicked()
    assert logged_in.enter(first, login("a")) and logged_in.enter(Kicked(), login("b"))
    assert not logged_in.enter(Kicked(), login("c"))
    assert logged_in.enter(Kicked(), login("d", user="bob"))
    assert logged_in.enter(Kicked(), login("e", service="pop3"))
    assert logged_in.enter(Kicked(), login("f", address="192.0.2.2"))
    assert logged_in.enter(Kicked(), login("g"), is_limited=False)
    assert [each.session for each, _ in logged_in.logins()] == ["a", "b", "d", "e", "f", "g"]
    logged_in.leave(first)
    assert not logged_in.enter(Kicked(), login("h"))
    assert logged_in.enter(first, login("i", service="pop3"))


def test_addresses_of_ours_are_not_limited() -> None:
    """A webmail on this host has all its users' sessions (RELIABILITY B19: mynetworks exempt)."""
    logged_in = LoggedIn(1, is_ours=lambda address: address == "127.0.0.1")
    assert all(logged_in.enter(Kicked(), login(name, address="127.0.0.1")) for name in "abc")
    assert [logged_in.enter(Kicked(), login(name)) for name in "de"] == [True, False]


def test_only_the_named_sessions_are_kicked() -> None:
    """They are the answer; they leave when their connections end."""
    logged_in = LoggedIn()
    sessions = {name: Kicked() for name in "abc"}
    for name, session in sessions.items():
        logged_in.enter(session, login(name))
    assert [each.session for each in logged_in.kick(["b", "x"])] == ["b"]
    assert [session.was_kicked for session in sessions.values()] == [False, True, False]

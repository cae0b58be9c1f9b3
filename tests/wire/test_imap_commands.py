"""Commands become values. RFC 3501 §6 and the extensions."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire import imap_commands as commands
from mailserver.wire import imap_search as search
from mailserver.wire.imap_append import Append, AppendedMessage
from mailserver.wire.imap_fetch import Attribute, Fetch, Section
from mailserver.wire.imap_filter import MailboxFilter
from mailserver.wire.imap_framing import CommandText
from mailserver.wire.imap_list import List
from mailserver.wire.imap_multisearch import MultiSearch
from mailserver.wire.imap_namespace import PersonalNamespace
from mailserver.wire.imap_results import RETURN_ALL, Returns
from mailserver.wire.imap_select import Resync, Select
from mailserver.wire.imap_sequence import SequenceSet

ONE = SequenceSet(((1, 1),))


def parsed(text: bytes, *literals: bytes) -> object:
    return commands.parse_command(CommandText(b"a " + text, literals)).arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"NOOP", commands.Nothing()),
        (b"noop ", commands.Nothing()),
        (b'LOGIN al "s\\"c"', commands.Login(b"al", b's"c')),
        (b"AUTHENTICATE PLAIN", commands.Authenticate("PLAIN")),
        (b"AUTHENTICATE PLAIN =", commands.Authenticate("PLAIN", b"")),
        (b"AUTHENTICATE PLAIN AGEAYg==", commands.Authenticate("PLAIN", b"\0a\0b")),
        (b"SELECT inbox", Select("INBOX")),
        (b"EXAMINE x (CONDSTORE)", Select("x", True, True)),
        (
            b"SELECT x (QRESYNC (67890007 20050715 41,43:211))",
            Select(
                "x", False, True,
                Resync(67890007, 20050715, SequenceSet(((41, 41), (43, 211)))),
            ),
        ),
        (
            b"SELECT x (QRESYNC (1 2 (1 1)))",
            Select("x", False, True, Resync(1, 2, None, ONE, ONE)),
        ),
        (b"CREATE x/", commands.Create("x")),
        (b"CREATE x (USE (\\Sent))", commands.Create("x", b"\\Sent")),
        (b"RENAME a b", commands.Rename("a", "b")),
        (b"STATUS x (MESSAGES unseen)", commands.Status("x", ("MESSAGES", "UNSEEN"))),
        (b"LIST a %", List("a", ("%",))),
        (
            b'LIST (SUBSCRIBED) "" ("a" b*) RETURN (CHILDREN STATUS (MESSAGES))',
            List("", ("a", "b*"), frozenset({"SUBSCRIBED"}), frozenset({"CHILDREN", "STATUS"}),
                 ("MESSAGES",), True),
        ),
        (b"STORE 1 FLAGS \\seen foo", commands.Store(ONE, "", frozenset({b"\\Seen", b"foo"}))),
        (b"STORE 1 FLAGS (\\Recent)", commands.Store(ONE, "", frozenset())),
        (
            b"UID STORE 1 (UNCHANGEDSINCE 7) -FLAGS.SILENT ()",
            commands.Store(ONE, "-", frozenset(), True, True, 7),
        ),
        (b"UID EXPUNGE 1", commands.Expunge(ONE)),
        (b"COPY 1 x", commands.Copy(ONE, "x")),
        (b"ENABLE condstore X", commands.Enable(("CONDSTORE", "X"))),
        (b"ID NIL", commands.Identify()),
        (b'ID ("name" "x" "v" NIL)', commands.Identify(((b"name", b"x"), (b"v", b"")))),
        (
            b"FETCH 1 FAST",
            Fetch(ONE, (Attribute("FLAGS"), Attribute("INTERNALDATE"), Attribute("RFC822.SIZE"))),
        ),
        (b"FETCH 1 BODY", Fetch(ONE, (Attribute("BODY"),))),
        (b"FETCH 1 BODY[]<0.10>", Fetch(ONE, (Section(partial=(0, 10)),))),
        (
            b"UID FETCH 1 (UID body.peek[1.2.header.fields (To Cc)]) (CHANGEDSINCE 5 VANISHED)",
            Fetch(
                ONE,
                (Attribute("UID"), Section("BODY", (1, 2), "HEADER.FIELDS", (b"To", b"Cc"), None, True)),
                True, 5, True,
            ),
        ),
        (b"FETCH 1 RFC822.HEADER", Fetch(ONE, (Section("RFC822.HEADER", text="HEADER", is_peek=True),))),
        (b"FETCH 1 BINARY.SIZE[2]", Fetch(ONE, (Section("BINARY.SIZE", (2,), is_peek=True),))),
        (b"SEARCH ALL", search.Search(search.Every())),
        (
            b"SEARCH RETURN () CHARSET utf-8 1 UNSEEN",
            search.Search(
                search.Every((search.Numbered(ONE, False), search.Not(search.HasFlag(b"\\Seen")))),
                returns=RETURN_ALL,
            ),
        ),
        (
            b"SEARCH OR NOT (TO x SINCE 1-Feb-1994) HEADER a b",
            search.Search(
                search.Either(
                    search.Not(
                        search.Every(
                            (search.InField(b"TO", "x"), search.Dated("SINCE", date(1994, 2, 1), False))
                        )
                    ),
                    search.InField(b"a", "b"),
                )
            ),
        ),
        (
            b"ESEARCH ALL",
            MultiSearch((MailboxFilter("SELECTED"),), search.Search(search.Every(), True, RETURN_ALL)),
        ),
        (
            b"ESEARCH in (mailboxes (a inbox) Subtree-One b) RETURN (COUNT) CHARSET UTF-8 TEXT x",
            MultiSearch(
                (MailboxFilter("MAILBOXES", ("a", "INBOX")), MailboxFilter("SUBTREE-ONE", ("b",))),
                search.Search(search.InText("TEXT", "x"), True, Returns(frozenset({"COUNT"}))),
            ),
        ),
        (
            b"SEARCH RETURN (RELEVANCY) FUZZY (TEXT a FROM \"\") BODY b",
            search.Search(
                search.Every(
                    (
                        search.Every((search.InText("TEXT", "a", True), search.InField(b"FROM", ""))),
                        search.InText("BODY", "b"),
                    )
                ),
                returns=Returns(frozenset({"RELEVANCY", "ALL"})),
            ),
        ),
        (b"UIDBATCHES 2000", commands.UidBatches(2000)),
        (b"UIDBATCHES 2000 10:20", commands.UidBatches(2000, 10, 20)),
        (b"SORT (REVERSE DATE) UTF-8 ALL", search.Order(search.Every(), (("DATE", True),))),
        (
            b"UID THREAD REFERENCES UTF-8 ALL",
            search.Order(search.Every(), algorithm="REFERENCES", by_uid=True),
        ),
    ],
)  # fmt: skip
def test_commands(text: bytes, value: object) -> None:
    """Each command gives its value."""
    assert parsed(text) == value


def test_append() -> None:
    """Flags, date and literal, once or several times. RFC 3501 §6.3.11, RFC 3502."""
    one = AppendedMessage(b"m")
    two = AppendedMessage(b"n", frozenset({b"\\Seen"}), 0)
    assert parsed(b"APPEND x {1}\r\n", b"m") == Append("x", (one,))
    text = b'APPEND x {1+}\r\n (\\seen) "01-Jan-1970 00:00:00 +0000" ~{1}\r\n'
    assert parsed(text, b"m", b"n") == Append("x", (one, two))
    assert parsed(b"APPEND x UTF8 (~{1}\r\n)", b"m") == Append("x", (one,))


@pytest.mark.parametrize(
    "text",
    [b"", b"FOO", b"UID", b"UID NOOP", b"NOOP x", b"LOGIN a", b"LOGIN a b c", b"SELECT", b"SELECT a b",
     b"STORE 1 GARBAGE (\\Deleted)", b"STORE 1 FLAGS (\\Foo)", b"STORE x FLAGS (a)", b"FETCH 1",
     b"FETCH 1 ()",
     b"FETCH 1 BODY[0]", b"FETCH 1 BODY[MIME]", b"FETCH 1 BODY[1.HEADER.FIELDS ()]", b"FETCH 1 BODY[]<0.0>",
     b"FETCH 1 BODY[]<0.>", b"FETCH 1 FOO", b"FETCH 1 (FLAGS", b"FETCH 1 FLAGS (VANISHED)", b"STATUS x ()",
     b"STATUS x (FOO)", b"SEARCH", b"SEARCH FOO", b"SEARCH NOT", b"SEARCH OR ALL", b"SEARCH SINCE x",
     b"SEARCH (ALL", b"APPEND x y", b"AUTHENTICATE PLAIN !", b"LOGIN {-5}", b"ID (a)", b"ENABLE",
     b"LIST (FOO) a b", b"LIST a b RETURN", b"CREATE x (USE)", b"EXPUNGE 1", b"SEARCH YOUNGER 0",
     b"SEARCH FUZZY", b"SEARCH RETURN (RELEVANCY) ALL", b"SORT (RELEVANCY) UTF-8 ALL",
     b"ESEARCH", b"ESEARCH IN ALL", b"ESEARCH IN (all) ALL", b"ESEARCH IN (mailboxes) ALL",
     b"ESEARCH IN (subtree ()) ALL", b"ESEARCH IN (personal)"],
)  # fmt: skip
def test_what_is_bad(text: bytes) -> None:
    """Anything else is BAD, with the client's tag."""
    with pytest.raises(commands.BadCommand) as fault:
        parsed(text)
    assert fault.value.tag == b"a"


@pytest.mark.parametrize(
    "text", [b"* NOOP", b"+ NOOP", b"", b" NOOP", b"a+b NOOP", b"\xff NOOP", b"x" * 300 + b" NOOP"]
)
def test_bad_tags(text: bytes) -> None:
    """`*` is no tag (twisted: accepted)."""
    with pytest.raises(commands.BadCommand) as fault:
        commands.parse_command(CommandText(text))
    assert fault.value.tag == b"*"


@pytest.mark.parametrize("text", [b"SEARCH " + b"NOT " * 2000 + b"ALL", b"SEARCH " + b"(" * 1000 + b"ALL",
                                  b"SEARCH " + b"OR ALL " * 2000 + b"ALL"])  # fmt: skip
def test_deep_search_programs_are_refused(text: bytes) -> None:
    """A bound of 50 levels (twisted: RecursionError)."""
    with pytest.raises(commands.BadCommand, match="complex"):
        parsed(text)


def test_many_keys_are_refused() -> None:
    """A bound of 1,000 keys."""
    with pytest.raises(commands.BadCommand, match="complex"):
        parsed(b"SEARCH" + b" ALL" * 1001)


WORDS = st.sampled_from(
    b'FETCH UID STORE SEARCH LIST STATUS SELECT APPEND ( ) [ ] < > " \\ * % {0} {3} 1 1:* , : BODY[ HEADER '
    b"FLAGS (FLAGS) NOT OR SINCE 1-Feb-1994 TO x RETURN QRESYNC \xff \0 $ INBOX".split(b" ")
)


@given(st.lists(WORDS, max_size=12), st.binary(max_size=10))
def test_no_input_raises_anything_else(words: list[bytes], noise: bytes) -> None:
    """Words of the grammar in any order, and noise."""
    for separator in (b" ", b""):
        try:
            commands.parse_command(CommandText(b"a " + separator.join(words) + noise, (b"abc",)))
        except commands.BadCommand:
            pass


def test_a_command_that_was_read_before_is_the_same_under_another_tag() -> None:
    """What is kept of a short command stands for its arguments alone, not for its tag."""
    first = commands.parse_command(CommandText(b"a STATUS x (MESSAGES)"))
    again = commands.parse_command(CommandText(b"b STATUS x (MESSAGES)"))
    assert (first.tag, again.tag) == (b"a", b"b")
    assert first.arguments is again.arguments


def test_what_is_kept_of_a_command_holds_for_one_spelling_of_names() -> None:
    """RFC 6855 §3: the same octets are another name once the client enabled UTF8=ACCEPT."""
    text = CommandText(b"a SELECT &AOQ-")
    assert commands.parse_command(text).arguments.mailbox == "\u00e4"
    assert commands.parse_command(text, takes_utf8=True).arguments.mailbox == "&AOQ-"
    assert (
        commands.parse_command(CommandText(b"a SELECT x.y"), False, PersonalNamespace(".")).arguments.mailbox
        == "x/y"
    )
    assert commands.parse_command(CommandText(b"a SELECT x.y")).arguments.mailbox == "x.y"


@pytest.mark.parametrize("tag", [b"", b"*", b"a+", b"a(", b"x" * (commands.LONGEST_TAG + 1)])
def test_a_command_that_was_read_before_still_needs_a_tag(tag: bytes) -> None:
    """RFC 3501 §2.2.1."""
    commands.parse_command(CommandText(b"a NOOP"))
    with pytest.raises(commands.BadCommand) as refused:
        commands.parse_command(CommandText(tag + b" NOOP"))
    assert refused.value.tag == b"*"


def test_nothing_secret_is_kept_of_a_command() -> None:
    """A password is in memory no longer than its LOGIN; nor is anything without a bound."""
    commands.parse_command(CommandText(b"a LOGIN al geheim"))
    commands.parse_command(CommandText(b"a AUTHENTICATE PLAIN AGFsAGdlaGVpbQ=="))
    for number in range(2000):
        commands.parse_command(CommandText(b"a STATUS x%d (MESSAGES)" % number))
    assert not any(b"LOGIN" in rest or b"AUTHENTICATE" in rest for rest, *_ in commands._known)
    assert len(commands._known) <= 500


def test_a_literal_is_never_taken_from_a_command_that_was_read_before() -> None:
    """The text of both is the same, what the literals hold is not."""
    text = b"a STATUS {1+}\r\n (MESSAGES)"
    names = [commands.parse_command(CommandText(text, (name,))).arguments.mailbox for name in (b"x", b"y")]
    assert names == ["x", "y"]

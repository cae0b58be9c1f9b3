r"""Several sessions and another program on one mailbox, at random, against a model of a client.

Each model client believes what it is told, and nothing else: EXISTS, EXPUNGE, VANISHED and
FETCH change its list. At any time its list must agree with what the server means by its
sequence numbers, and after NOOP with what is in the mailbox. RFC 3501 §2.3.1.2, §7.4.1.
"""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.contract import NewMessage
from mailserver.wire.imap_sequence import parse_sequence_set
from tests.imapd.harness import Client, Server, message

FLAG_SETS = st.sampled_from([b"\\Deleted", b"\\Seen", b"\\Flagged key", b"\\Deleted \\Seen"])
STEPS = st.one_of(
    st.tuples(st.just("expunge")),
    st.tuples(st.just("noop")),
    st.tuples(st.just("append")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("idle")),
    st.tuples(st.just("fetch"), st.integers(1, 8)),
    st.tuples(st.just("store"), st.integers(1, 8), st.sampled_from([b"+", b"-", b""]), FLAG_SETS),
    st.tuples(st.just("uid store"), st.integers(1, 12), FLAG_SETS),
    st.tuples(st.just("move"), st.integers(1, 8)),
    st.tuples(st.just("search")),
)


class Model:
    """A client with a list of UIDs (0: not known yet) and of flags. `notifies`: it listens at any time."""

    def __init__(self, client: Client, with_vanished: bool, notifies: bool = False) -> None:
        self.client = client
        self.uids: list[int] = []
        self.flags: dict[int, set[bytes]] = {}
        self.count = 0
        self.with_vanished = with_vanished
        if with_vanished:
            client.ask(b"q ENABLE QRESYNC")
        self.ask(b"SELECT INBOX")
        self.learn()
        if notifies:
            self.ask(b"NOTIFY SET (selected (MessageNew (UID FLAGS) MessageExpunge FlagChange))")

    def ask(self, command: bytes, may_expunge: bool = True) -> bytes:
        self.listen(self.client.read())  # what NOTIFY brought between commands
        self.count += 1
        said = self.client.ask(b"t%d %b" % (self.count, command))
        self.listen(said, may_expunge)
        assert re.search(rb"^t%d (OK|NO) " % self.count, said, re.MULTILINE), said
        if self.with_vanished and 0 in self.uids:
            self.learn()  # VANISHED speaks of UIDs: such a client asks for them at once
        return said

    def listen(self, said: bytes, may_expunge: bool = True) -> None:
        for line in said.split(b"\r\n"):
            self._hear(line, may_expunge)

    def _hear(self, line: bytes, may_expunge: bool) -> None:
        if found := re.fullmatch(rb"\* (\d+) EXISTS", line):
            assert int(found[1]) >= len(self.uids)
            self.uids += [0] * (int(found[1]) - len(self.uids))
        elif found := re.fullmatch(rb"\* (\d+) EXPUNGE", line):
            assert may_expunge
            del self.uids[int(found[1]) - 1]
        elif found := re.fullmatch(rb"\* VANISHED ([\d:,]+)", line):
            assert may_expunge
            gone = {uid for low, high in parse_sequence_set(found[1]).ranges for uid in range(low, high + 1)}
            assert gone <= set(self.uids)
            self.uids = [uid for uid in self.uids if uid not in gone]
        elif found := re.match(rb"\* (\d+) FETCH \(", line):
            self._hear_fetch(int(found[1]), line)

    def _hear_fetch(self, number: int, line: bytes) -> None:
        assert number <= len(self.uids)
        uid = re.search(rb"UID (\d+)", line)
        if uid:
            assert self.uids[number - 1] in (0, int(uid[1]))
            self.uids[number - 1] = int(uid[1])
        flags = re.search(rb"FLAGS \(([^)]*)\)", line)
        if flags:
            self.flags[self.uids[number - 1]] = set(flags[1].split()) - {b"\\Recent"}

    def learn(self) -> None:
        """The UIDs and flags of new messages are asked for."""
        if self.uids:
            self.ask(b"FETCH 1:* (UID FLAGS)", may_expunge=False)


def act(step: tuple[object, ...], model: Model, server: Server) -> None:
    inbox = server.registry.stores["alice"].inbox
    match step:
        case ("expunge",):
            model.ask(b"EXPUNGE")
        case ("noop",):
            model.ask(b"NOOP")
            model.learn()
            assert model.uids == list(inbox.uids)
            assert model.flags.keys() >= set(inbox.uids)
            for uid in inbox.uids:
                assert model.flags[uid] == inbox.messages[uid].flags
        case ("append",):
            content = message()
            model.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(content), content))
        case ("deliver",):
            inbox.deliver(message())
            inbox.refresh()
        case ("idle",):
            model.listen(model.client.ask(b"i IDLE"))
            model.listen(model.client.ask(b"DONE"))
            model.learn()
        case ("fetch", int(number)) if number <= len(model.uids):
            model.ask(b"FETCH %d BODY[]" % number, may_expunge=False)
        case ("store", int(number), bytes(sign), bytes(flags)) if number <= len(model.uids):
            model.ask(b"STORE %d %bFLAGS (%b)" % (number, sign, flags), may_expunge=False)
        case ("uid store", int(uid), bytes(flags)):
            model.ask(b"UID STORE %d +FLAGS (%b)" % (uid, flags))
        case ("move", int(number)) if number <= len(model.uids):
            model.ask(b"MOVE %d other" % number)
        case ("search",):
            model.ask(b"SEARCH UNDELETED", may_expunge=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), STEPS), max_size=40))
def test_all_clients_agree(steps: list[tuple[int, tuple[object, ...]]]) -> None:
    """Whatever happens in whatever order, every number means what its client thinks."""
    server = Server()
    server.store.create("other")
    server.registry.stores["alice"].inbox.deliver(*[message(str(number)) for number in range(4)])
    models = [Model(server.log_in(), index == 2, notifies=index == 1) for index in range(3)]
    for index, step in steps:
        act(step, models[index], server)
        models[1].listen(models[1].client.read())
        inbox = server.registry.stores["alice"].inbox
        # RFC 5465: it knows at once, but for the UIDs of what it appended itself
        assert all(known in (0, uid) for known, uid in zip(models[1].uids, inbox.uids, strict=True))
    for model in models:
        act(("noop",), model, server)
    assert all(model.uids == models[0].uids for model in models)


def test_recent_belongs_to_one_session() -> None:
    r"""A message is \Recent to the first session that is told of it. RFC 3501 §2.3.2."""
    server = Server()
    first, second = server.select(), server.select()
    server.registry.stores["alice"].inbox.deliver(message())
    assert b"* 1 RECENT" in first.ask(b"c NOOP")
    assert b"* 0 RECENT" in second.ask(b"c NOOP")
    assert b"\\Recent" in first.ask(b"d FETCH 1 FLAGS") and b"\\Recent" not in second.ask(b"d FETCH 1 FLAGS")
    assert first.ask(b"e SEARCH NEW") == b"* SEARCH 1\r\ne OK Search completed.\r\n"
    assert second.ask(b"e SEARCH OLD") == b"* SEARCH 1\r\ne OK Search completed.\r\n"


def test_a_long_answer_lets_others_in() -> None:
    """After 10 ms the reactor has its turn: a NOOP beside a long FETCH waits no longer."""
    server = Server()
    reader, other = server.select(), server.select()
    server.registry.stores["alice"].inbox.deliver(*[message()] * 5000)
    reader.ask(b"c NOOP")
    time = iter(range(10**6))
    server.clock.seconds = lambda: next(time) * 0.006  # type: ignore[method-assign]
    said = reader.ask(b"d FETCH 1:* (FLAGS)")
    assert b"d OK" not in said
    assert other.ask(b"d NOOP").endswith(b"d OK NOOP completed.\r\n")
    for _ in range(20):
        server.clock.advance(0)
    assert reader.read().endswith(b"d OK Fetch completed.\r\n")


def test_a_deleted_mailbox_is_not_selected_any_longer() -> None:
    """By the session itself: back to the authenticated state; others get BYE."""
    server = Server()
    server.store.create("x")
    first, second = server.select(b"x"), server.select(b"x")
    assert first.ask(b"c DELETE x") == b"c OK Delete completed.\r\n"
    assert first.ask(b"d FETCH 1 FLAGS").startswith(b"d BAD ")
    assert second.ask(b"d NOOP").startswith(b"* BYE ")


def test_search_answers_in_order_whatever_the_store_remembers() -> None:
    """Facts may come in any order; numbers and sets are ascending."""
    server = Server()
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    inbox.deliver(*[message("same")] * 5)
    client.ask(b"c NOOP")
    facts = inbox.facts
    inbox.facts = lambda *arguments, **named: dict(reversed(facts(*arguments, **named).items()))
    assert client.ask(b"d SEARCH SUBJECT same") == b"* SEARCH 1 2 3 4 5\r\nd OK Search completed.\r\n"
    assert b" ALL 1:5\r\n" in client.ask(b"e SEARCH RETURN (ALL) OR SUBJECT same SEEN")


def test_a_long_search_lets_others_in() -> None:
    """The index of a large mailbox is walked in slices."""
    server = Server()
    reader, other = server.select(), server.select()
    server.registry.stores["alice"].inbox.deliver(*[message()] * 20_000)
    reader.ask(b"c NOOP")
    reader.ask(b"s SEARCH RETURN (COUNT) UNSEEN")
    time = iter(range(10**6))
    server.clock.seconds = lambda: next(time) * 0.011  # type: ignore[method-assign]
    assert reader.ask(b"d SEARCH SINCE 1-Jan-1971") == b""
    assert other.ask(b"d NOOP").endswith(b"d OK NOOP completed.\r\n")
    for _ in range(20):
        server.clock.advance(0)
    assert reader.read().endswith(b" 20000\r\nd OK Search completed.\r\n")


def test_sort_asked_again_knows_what_came_and_went() -> None:
    """The last answer is remembered, and holds for the same messages in the same order only."""
    server = Server()
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    inbox.deliver(message("b"), message("c"))
    client.ask(b"c NOOP")
    for _ in range(2):
        assert client.ask(b"d SORT (SUBJECT) UTF-8 ALL").startswith(b"* SORT 1 2\r\n")
    assert client.ask(b"e SORT (REVERSE SUBJECT) UTF-8 ALL").startswith(b"* SORT 2 1\r\n")
    inbox.deliver(message("a"))
    client.ask(b"f NOOP")
    assert client.ask(b"g SORT (SUBJECT) UTF-8 ALL").startswith(b"* SORT 3 1 2\r\n")
    inbox.vanish(1)
    client.ask(b"h NOOP")
    assert client.ask(b"i SORT (SUBJECT) UTF-8 ALL").startswith(b"* SORT 2 1\r\n")


def test_recent_messages_that_are_gone_are_forgotten() -> None:
    r"""Who claims \Recent in turns with others, for days, remembers it of messages that are there."""
    server = Server()
    inbox = server.store.inbox
    first, second = server.select(), server.select()
    for _ in range(3):
        for client in (first, second):
            inbox.append([NewMessage(message("x"))])
            assert b"* 1 RECENT" in client.ask(b"a NOOP")
        first.ask(b"b NOOP")
        rows = [each.ask(b"c FETCH 1:2 FLAGS").splitlines()[:2] for each in (first, second)]
        assert [[b"\\Recent" in row for row in each] for each in rows] == [[True, False], [False, True]]
        assert [len(each.protocol._session.selected._recent) for each in (first, second)] == [1, 1]
        inbox.remove([*inbox.messages])
        assert b"* 0 RECENT" in first.ask(b"d NOOP") and b"* 0 RECENT" in second.ask(b"d NOOP")
        assert not first.protocol._session.selected.has_recent

"""THREAD's algorithms on plain values: ORDEREDSUBJECT and REFERENCES (RFC 5256 §3), and REFS.

REFS is REFERENCES without the merging of subjects, the threads in the order of their newest
message. Every loop is bounded by the number of messages and references; nothing recurses,
so a chain of a hundred thousand replies is only a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Threadable:
    """What is known of a message: its number (or UID), ids, folded base subject, and sent date."""

    number: int
    message_id: bytes = b""
    references: tuple[bytes, ...] = ()  # oldest first
    subject: str = ""
    is_reply: bool = False
    date: int = 0


@dataclass(slots=True, eq=False)
class Thread:
    """A message and what follows it; a `message` of None stands for one that is not here."""

    message: Threadable | None = None
    parent: Thread | None = None
    children: list[Thread] = field(default_factory=list)

    def adopt(self, child: Thread) -> None:
        """`child` is the last child of this node, and nobody else's."""
        child.release()
        child.parent = self
        self.children.append(child)

    def release(self) -> None:
        """The node has no parent."""
        if self.parent is not None:
            self.parent.children.remove(self)
            self.parent = None

    def descends_from(self, other: Thread) -> bool:
        """Whether `other` is this node or above it."""
        if not other.children:
            return self is other  # the usual case, at no cost
        node: Thread | None = self
        while node is not None:
            if node is other:
                return True
            node = node.parent
        return False


def ordered_subject(messages: Iterable[Threadable]) -> list[Thread]:
    """Threads of equal base subject, all further messages below the first. RFC 5256 §3."""
    by_subject: dict[str, Thread] = {}
    for message in sorted(messages, key=lambda message: (message.date, message.number)):
        first = by_subject.get(message.subject)
        if first is None:
            by_subject[message.subject] = Thread(message)
        else:
            first.adopt(Thread(message))
    return list(by_subject.values())


def by_references(messages: Sequence[Threadable]) -> list[Thread]:
    """THREAD=REFERENCES. RFC 5256 §3."""
    roots = _pruned(_linked(messages))
    _sort(roots, _date_of_first)
    roots = _merged(roots)
    _sort_all(roots)
    return roots


def by_refs(messages: Sequence[Threadable]) -> list[Thread]:
    """THREAD=REFS: no merging by subject, threads in the order of their newest messages' dates."""
    roots = _pruned(_linked(messages))
    _sort_all(roots)
    newest = {id(root): max((date for date, _ in _dates(root)), default=0) for root in roots}
    roots.sort(key=lambda root: newest[id(root)])
    return roots


def _linked(messages: Sequence[Threadable]) -> list[Thread]:
    """Step 1: parents and children by Message-ID and References; the roots, in order of appearance."""
    nodes: dict[bytes | int, Thread] = {}
    for message in messages:
        own = nodes.setdefault(message.message_id, Thread()) if message.message_id else Thread()
        if own.message is not None or not message.message_id:
            own = nodes[message.number] = Thread()  # no id, or one that another message has
        own.message = message
        previous: Thread | None = None
        for reference in message.references:
            node = nodes.setdefault(reference, Thread())
            if previous is not None and node.parent is None and not previous.descends_from(node):
                previous.adopt(node)
            previous = node
        if previous is None:
            own.release()
        elif not previous.descends_from(own):
            previous.adopt(own)
    return [node for node in nodes.values() if node.parent is None]


def _pruned(roots: list[Thread]) -> list[Thread]:
    """Step 3: placeholders without children are gone, others give way to their children.

    At the top a placeholder stays where it has more than one child.
    """
    order = list(_walk(roots))
    for node in reversed(order):
        node.children = _spliced(node.children)
        for child in node.children:
            child.parent = node
    kept = []
    for root in roots:
        if root.message is not None or len(root.children) > 1:
            kept.append(root)
        else:
            kept.extend(root.children)
    for root in kept:
        root.parent = None
    return kept


def _spliced(children: list[Thread]) -> list[Thread]:
    if all(child.message is not None for child in children):
        return children
    return [node for child in children for node in ([child] if child.message is not None else child.children)]


def _walk(roots: Iterable[Thread]) -> list[Thread]:
    """Every node, parents before children."""
    order = list(roots)
    for node in order:
        order.extend(node.children)
    return order


def _first(thread: Thread) -> Threadable:
    """The thread's message, or its first child's where it is a placeholder."""
    node = thread
    while node.message is None:
        node = node.children[0]
    return node.message


def _date_of_first(thread: Thread) -> tuple[int, int]:
    message = _first(thread)
    return message.date, message.number


def _dates(thread: Thread) -> list[tuple[int, int]]:
    return [(node.message.date, node.message.number) for node in _walk([thread]) if node.message is not None]


def _sort(threads: list[Thread], key: Callable[[Thread], tuple[int, int]]) -> None:
    for thread in threads:
        if thread.message is None:
            thread.children.sort(key=key)
    threads.sort(key=key)


def _sort_all(roots: list[Thread]) -> None:
    """Step 6: children by date at every level, from the bottom up, then the threads."""
    for node in reversed(_walk(roots)):
        if len(node.children) > 1:
            node.children.sort(key=_date_of_first)
    roots.sort(key=_date_of_first)


def _merged(roots: list[Thread]) -> list[Thread]:
    """Step 5: threads of one base subject are gathered."""
    by_subject: dict[str, Thread] = {}
    for root in roots:
        subject = _first(root).subject
        if subject and ((known := by_subject.get(subject)) is None or _is_better(root, known)):
            by_subject[subject] = root
    merged: list[Thread] = []
    places: dict[int, int] = {}
    for root in roots:
        subject = _first(root).subject
        other = by_subject.get(subject, root) if subject else root
        if other is root:
            places[id(root)] = len(merged)
            merged.append(root)
    for root in roots:
        subject = _first(root).subject
        other = by_subject.get(subject, root) if subject else root
        if other is not root:
            combined = _combined(root, other)
            if combined is not other:
                merged[places[id(other)]] = by_subject[subject] = combined
                places[id(combined)] = places[id(other)]
    return merged


def _is_better(thread: Thread, known: Thread) -> bool:
    """Whether the thread should stand for its subject: a placeholder first, then what is no reply."""
    if thread.message is None:
        return known.message is not None
    return known.message is not None and known.message.is_reply and not thread.message.is_reply


def _combined(thread: Thread, other: Thread) -> Thread:
    """What becomes of two threads of one subject. RFC 5256 §3, step 5.D."""
    if other.message is None:
        for node in list(thread.children) if thread.message is None else [thread]:
            node.parent = None
            node.parent = other
            other.children.append(node)
        return other
    if thread.message is not None and thread.message.is_reply and not other.message.is_reply:
        other.adopt(thread)
        return other
    top = Thread()
    top.adopt(other)
    top.adopt(thread)
    return top


def render(threads: Iterable[Thread]) -> bytes:
    """The threads as THREAD's answer has them: `(2)(3 6 (4 23)(44 7 96))`. RFC 5256 §4."""
    pieces: list[str] = []
    waiting: list[Thread | str] = []
    for thread in threads:
        waiting.append(thread)
        pieces.append("(")
        while waiting:
            node = waiting.pop()
            if isinstance(node, str):
                pieces.append(node)
                continue
            if node.message is not None:
                pieces.append(str(node.message.number))
            if len(node.children) == 1:
                pieces.append(" " if node.message is not None else "")
                waiting.append(node.children[0])
            elif node.children:
                pieces.append(" " if node.message is not None else "")
                for child in reversed(node.children):
                    waiting.extend((")", child, "("))
        pieces.append(")")
    return "".join(pieces).encode("ascii")

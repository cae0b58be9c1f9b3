"""Expands one recipient into leaves, in local(8)'s order, and tells why.

Order: virtual_alias_maps; then for a local address aliases (with the extension, then
without), .forward, mailbox_transport, mailbox_command, home_mailbox, mail_spool_directory;
for an unknown user fallback_transport, luser_relay. Decisions only: nothing is delivered.

Bounds: DEPTH_LIMIT levels; an alias or file that was met already is not expanded again, and
virtual_alias_expansion_limit bounds what virtual aliases make, so the cost is linear in what tables and
files say. An address gets one copy, as long as duplicate_filter_limit addresses have not been met. A cycle
of aliases is one FAILED leaf, and what else the list names is still served. A virtual alias may name its
own address; for any longer cycle the recipient waits, as for whatever nests without end. No recursion.

What cannot be known now: a recipient's own part waits (a PENDING leaf with the reason) where
an account's .forward or data base entry cannot be read; everything else raises, and the whole
recipient waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.delivery.job import Forward, Owner
from mailserver.delivery.lookups import LocalRules, Lookups, owner_of
from mailserver.delivery.plan import Leaf, LeafKind, Plan, Step
from mailserver.delivery.routing import AddressClass, Match, Route, Routing, find_first
from mailserver.envelope import Address
from mailserver.tables.table import Entry, Table
from mailserver.wire.address import parse_sender
from mailserver.wire.aliases import (
    Destination,
    Include,
    ToAddress,
    ToCommand,
    ToFile,
    ToMailbox,
    Unusable,
    parse_destinations,
    parse_file,
)

DEPTH_LIMIT: Final = 100
_EXPANDED: Final = frozenset({"alias", "include", "forward"})  # what more addresses come of
_PARAMETER: Final = re.compile(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))")
_CODE: Final = re.compile(r"([45]\.\d{1,3}\.\d{1,3})[ \t]+(.*)", re.DOTALL)


class CannotExpandNow(Exception):
    """The recipient must wait: the text says what is wrong and where."""


class PutOff(CannotExpandNow):
    """A `retry:` transport says that the recipient must wait, with that enhanced status and text."""

    def __init__(self, nexthop: str) -> None:
        self.dsn, self.text = _status(nexthop, "4.0.0")
        super().__init__(nexthop)


@dataclass(frozen=True, slots=True)
class _Node:
    """Where a destination stands: what it came from, and with whose rights it acts."""

    parent: _Node | None
    depth: int
    kind: str  # recipient, virtual, alias, include, forward or luser
    alias: str = ""
    owner: Owner | None = None
    sender: str | None = None
    delivered_to: Address | None = None
    forwarder: Account | None = None
    source: str = ""
    nesting: int = 0  # of virtual aliases

    def has_ancestor(self, alias: str) -> bool:
        """Whether that alias (or virtual alias) is being expanded further up."""
        return any(node.alias == alias for node in self.ancestors())

    def ancestors(self) -> Iterator[_Node]:
        """What it came from, the nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent


def expand(
    leaf: Leaf,
    *,
    routing: Routing,
    rules: LocalRules,
    lookups: Lookups,
    already_delivered_to: frozenset[str] = frozenset(),
    sender: Address | None = None,
) -> Plan:
    """Where the mail of a PENDING leaf goes. *Blocking.*

    `already_delivered_to` are the addresses in the content's Delivered-To: fields, in lower case;
    `sender` is the message's, None the null sender.
    Raises CannotExpandNow, TableError, TemporaryAccountFailure, OSError: nothing is decided.
    """
    return _Expansion(leaf, routing, rules, lookups, already_delivered_to, sender).run()


class _Expansion:
    """One run of `expand`: the stack of what is to be done, and what came out so far."""

    def __init__(
        self,
        leaf: Leaf,
        routing: Routing,
        rules: LocalRules,
        lookups: Lookups,
        already_delivered_to: frozenset[str],
        sender: Address | None,
    ) -> None:
        self._start = leaf
        self._routing = routing
        self._rules = rules
        self._lookups = lookups
        self._delivered = already_delivered_to
        self._sender = sender
        self._leaves: list[Leaf] = []
        self._steps: list[Step] = []
        self._warnings: list[str] = []
        self._met: set[tuple[str, str]] = set()
        self._virtual_addresses = 1
        self._names_itself: set[str] = set()  # virtual aliases that do
        self._forwards: dict[str, tuple[Leaf, dict[Address, None]]] = {}
        self._stack: list[tuple[_Node, Destination, str]] = []

    def run(self) -> Plan:
        """The plan; see `expand`."""
        start = self._start
        node = _Node(None, 0, "recipient", sender=start.sender, delivered_to=start.delivered_to)
        recipient = self._routing.canonical_recipient(start.recipient)
        if recipient != start.recipient:
            self._say(node, f"{start.recipient}: rewritten to {recipient}", "canonical_maps")
        if start.past_aliases:
            self._account(node, self._routing.complete(start.recipient))
        else:
            self._stack.append((node, ToAddress(recipient), ""))
        while self._stack:
            self._destination(*self._stack.pop())
        for leaf, addresses in self._forwards.values():
            if addresses:
                self._leaves.append(replace(leaf, addresses=tuple(addresses)))
        if not self._leaves:
            raise CannotExpandNow(f"the expansion of {start.recipient} is empty")
        return Plan(tuple(self._leaves), tuple(self._steps), tuple(self._warnings))

    # ------------------------------------------------------------ what comes out

    def _say(self, node: _Node, text: str, source: str = "") -> None:
        self._steps.append(Step(node.depth, text, source))

    def _leaf(
        self, node: _Node, kind: LeafKind, recipient: Address, target: str, owner: Owner | None
    ) -> Leaf:
        return Leaf(
            kind=kind,
            recipient=recipient,
            root=self._start.root,
            target=target,
            owner=owner,
            delivered_to=node.delivered_to or recipient,
            sender=node.sender,
        )

    def _add(self, leaf: Leaf) -> None:
        """The leaf is delivered once, however often it is named."""
        key = f"{leaf.target}\0{leaf.owner.name if leaf.owner else leaf.recipient}"
        if not self._was_met(leaf.kind.value, key):
            self._leaves.append(leaf)

    def _fail(self, node: _Node, recipient: Address, dsn: str, text: str, source: str = "") -> None:
        self._say(node, f"{recipient}: failed ({dsn}): {text}", source)
        self._add(replace(self._leaf(node, LeafKind.FAILED, recipient, text, None), dsn=dsn))

    def _is_met(self, node: _Node, kind: str, key: str) -> bool:
        if self._was_met(kind, key):
            self._say(node, f"{key}: met already, not repeated")
            return True
        return False

    def _was_met(self, kind: str, key: str) -> bool:
        """Whether that was met before; from now on it was, but for addresses beyond the filter's limit."""
        if (kind, key) in self._met:
            return True
        limit = self._rules.duplicate_filter_limit
        if not limit or kind in _EXPANDED or len(self._leaves) < limit:
            self._met.add((kind, key))
        return False

    # ------------------------------------------------------------ destinations

    def _destination(self, node: _Node, destination: Destination, source: str) -> None:
        match destination:
            case ToAddress(address) if node.forwarder is not None:
                self._forwarded_address(node, node.forwarder, address, source)
            case ToAddress(address):
                self._address(node, self._routing.complete(address))
            case ToMailbox(name):
                self._account(node, self._routing.complete(Address(name)), with_forward=False)
            case ToFile(path):
                self._external(node, LeafKind.FILE, path, self._rules.allow_mail_to_files, source)
            case ToCommand(command):
                self._external(node, LeafKind.COMMAND, command, self._rules.allow_mail_to_commands, source)
            case Include(path):
                self._include(node, path, source)
            case Unusable(text, reason):
                self._warnings.append(f"{source}: bad destination {text!r} ignored: {reason}")
                self._say(node, f"bad destination {text!r} ignored: {reason}", source)

    def _push(self, node: _Node, destinations: Iterable[tuple[Destination, str]]) -> None:
        for destination, source in reversed(list(destinations)):
            self._stack.append((node, destination, source))

    def _recipient(self, node: _Node) -> Address:
        """What the log calls a file or command's recipient: the address that named it."""
        return node.delivered_to or self._routing.complete(self._start.recipient)

    def _external(
        self, node: _Node, kind: LeafKind, target: str, allowed: frozenset[str], source: str
    ) -> None:
        """A /file or |command, which each parameter allows for some places only."""
        noun = "file" if kind is LeafKind.FILE else "command"
        recipient = self._recipient(node)
        place = "alias" if node.kind == "luser" else node.kind
        if place not in allowed:
            self._fail(node, recipient, "5.7.1", f"mail to {noun} is restricted", source)
            return
        owner = node.owner or self._rules.default_privs
        self._say(node, f"{noun} {target}, as {owner.name}", source)
        self._add(self._leaf(node, kind, recipient, target, owner))

    def _include(self, node: _Node, path: str, source: str) -> None:
        if node.depth >= DEPTH_LIMIT:
            self._fail(node, self._recipient(node), "5.4.6", f"too many :include: levels at {path}", source)
            return
        if self._is_met(node, "include", path):
            return
        text = self._lookups.include(path, node.owner or self._rules.default_privs)
        self._say(node, f":include:{path}", source)
        inner = replace(node, parent=node, depth=node.depth + 1, kind="include", source=path)
        self._push(inner, ((each, f"{path}:{number}") for number, each in parse_file(text)))

    # ------------------------------------------------------------ addresses

    def _address(self, node: _Node, address: Address) -> None:
        is_fresh = node.kind in ("recipient", "virtual")
        if is_fresh or self._routing.classify(address) is not AddressClass.LOCAL:
            match = self._routing.find_virtual_alias(address)
            if match is not None and self._virtual_alias(node, address, match):
                return
        original = self._routing.srs_original(address)
        if original is not None:
            self._say(node, f"{address}: forwarded for {original}", "srs_domain")
            inner = replace(node, parent=node, depth=node.depth + 1, kind="virtual")
            self._push(inner, [(ToAddress(original), "srs_domain")])
            return
        moved = self._routing.relocated_to(address)
        if moved is not None:
            self._fail(node, address, "5.1.6", f"User has moved to {moved}", "relocated_maps")
        else:
            self._routed(node, address, self._routing.resolve(address, self._sender_at(node)))

    def _sender_at(self, node: _Node) -> Address | None:
        """The envelope sender that mail has from here on."""
        return self._sender if node.sender is None else parse_sender(node.sender)

    def _virtual_alias(self, node: _Node, address: Address, match: Match) -> bool:
        """Whether the entry says something else than the address itself. virtual(5)."""
        key = _virtual_key(address)
        if key in self._names_itself:
            return False
        entry = match.entry
        if key == node.alias or node.has_ancestor(key):
            self._virtual_loop(node, address, entry, key)
            return True
        destinations = [
            self._matched(address, each, match.extension) for each in parse_destinations(entry.value)
        ]
        if any(self._is_virtual_key(each, key) for each in destinations):
            self._names_itself.add(key)
        self._bound_virtual(node, entry, destinations)
        nesting = node.nesting + 1
        inner = replace(node, parent=node, depth=node.depth + 1, kind="virtual", alias=key, nesting=nesting)
        self._say(node, f"{address}: virtual alias for {entry.value}", entry.source)
        self._push(inner, ((each, entry.source) for each in destinations))
        return True

    def _is_virtual_key(self, destination: Destination, key: str) -> bool:
        return (
            isinstance(destination, ToAddress)
            and _virtual_key(self._routing.complete(destination.address)) == key
        )

    def _virtual_loop(self, node: _Node, address: Address, entry: Entry, key: str) -> None:
        """Among themselves they nest without end; by way of aliases(5) the mail came back to where it was."""
        for step in (node, *node.ancestors()):
            if step.kind != "virtual":
                self._fail(node, address, "5.4.6", f"mail forwarding loop for {address}", entry.source)
                return
            if step.alias == key:
                raise self._unreasonable(entry, f"nesting for {self._start.recipient}")

    def _bound_virtual(self, node: _Node, entry: Entry, destinations: Sequence[Destination]) -> None:
        """Raises CannotExpandNow where virtual aliases nest, or make addresses, beyond their limits."""
        rules, recipient = self._rules, self._start.recipient
        self._virtual_addresses += len(destinations) - 1
        if node.nesting + 1 >= rules.virtual_alias_recursion_limit > 0:
            raise self._unreasonable(entry, f"nesting for {recipient}")
        if self._virtual_addresses > rules.virtual_alias_expansion_limit > 0:
            raise self._unreasonable(entry, f"expansion size for {recipient}")
        for text in (str(each.address) for each in destinations if isinstance(each, ToAddress)):
            if len(text) > rules.virtual_alias_address_length_limit > 0:
                raise self._unreasonable(entry, f"result {text[:300]}...")

    def _unreasonable(self, entry: Entry, problem: str) -> CannotExpandNow:
        return CannotExpandNow(f"{entry.source}: unreasonable virtual_alias_maps map {problem}")

    def _matched(self, address: Address, destination: Destination, extension: str) -> Destination:
        """`@domain` on the right keeps the local-part."""
        if isinstance(destination, Unusable) and destination.text.startswith("@"):
            return ToAddress(Address(address.local, destination.text[1:]))
        return self._extended(destination, extension, "virtual")

    def _extended(self, destination: Destination, extension: str, place: str) -> Destination:
        """See `Routing.extended`; files and commands stay as they are."""
        if isinstance(destination, ToAddress):
            return ToAddress(self._routing.extended(destination.address, extension, place))
        return destination

    def _routed(self, node: _Node, address: Address, route: Route) -> None:
        if route.transport == "local":
            self._local(node, address)
        elif route.transport == "virtual":
            self._virtual_mailbox(node, address)
        elif route.transport == "retry":
            raise PutOff(route.nexthop)
        elif route.transport == "error":
            self._fail(node, address, *_status(route.nexthop, "5.0.0"), route.source)
        elif not self._is_met(node, "remote", str(address).lower()):
            kind = LeafKind.DISCARD if route.transport == "discard" else LeafKind.REMOTE
            self._say(node, f"{address}: {route.transport} to {route.nexthop}", route.source)
            leaf = self._leaf(node, kind, address, route.nexthop, None)
            self._add(replace(leaf, transport=route.transport))

    def _virtual_mailbox(self, node: _Node, address: Address) -> None:
        name = self._routing.virtual_mailbox_account(address)
        account = self._lookups.account(name) if name else None
        if account is None:
            self._fail(node, address, "5.1.1", f'unknown user: "{address}"', "virtual_mailbox_maps")
        else:
            self._deposit(node, address, account)

    # ------------------------------------------------------------ local(8)

    def _local(self, node: _Node, address: Address) -> None:
        text = str(address).lower()
        if text in self._delivered:
            self._fail(node, address, "5.4.6", f"mail forwarding loop for {address}")
            return
        if node.delivered_to is None:
            node = replace(node, delivered_to=address)
        local = address.local.lower()
        user = self._routing.split(local)[0]
        for name in dict.fromkeys((local, user)):
            if name == node.alias:
                continue  # the alias names itself: its mailbox is meant
            if node.has_ancestor(name) or node.depth > DEPTH_LIMIT:
                self._fail(node, address, "5.4.6", f"alias database loop for {node.alias}", node.source)
                return
            entry = self._lookups.alias(name)
            if entry is not None:
                self._alias(node, name, entry, address)
                return
        self._account(node, address)

    def _alias(self, node: _Node, name: str, entry: Entry, address: Address) -> None:
        if self._is_met(node, "alias", name):
            return
        destinations = parse_destinations(entry.value)
        if not destinations:
            raise CannotExpandNow(f"{entry.source}: alias {name} is empty")
        self._say(node, f"{address}: alias {name} for {entry.value}", entry.source)
        inherited = None if self._rules.reset_owner_alias else node.sender
        inner = _Node(
            parent=node,
            depth=node.depth + 1,
            kind="alias",
            alias=name,
            sender=self._owner_sender(name, address) or inherited,
            delivered_to=node.delivered_to,
            source=entry.source,
        )
        extension = address.local[len(name) :]
        found = (self._extended(each, extension, "alias") for each in destinations)
        self._push(inner, ((each, entry.source) for each in found))

    def _owner_sender(self, name: str, address: Address) -> str | None:
        """owner-NAME becomes the envelope sender, where there is such an alias. aliases(5)."""
        if name.startswith("owner-"):
            return None
        owner = self._lookups.alias(f"owner-{name}")
        if owner is None:
            return None
        if self._rules.expand_owner_alias:
            found = parse_destinations(owner.value)
            if len(found) == 1 and isinstance(found[0], ToAddress):
                return str(self._routing.complete(found[0].address))
        return str(Address(f"owner-{name}", address.domain))

    def _account(self, node: _Node, address: Address, with_forward: bool = True) -> None:
        local = address.local.lower()
        user, extension = self._routing.split(local)
        try:
            account = self._lookups.account(local)
            if account is None and user != local:
                account = self._lookups.account(user)
            elif account is not None:
                extension = ""
            if account is None:
                self._unknown(node, address, extension)
                return
            destinations = self._read_forward(node, account, extension) if with_forward else None
        except (OSError, TemporaryAccountFailure) as error:
            self._wait(node, address, str(error))
            return
        if destinations:
            lacking = address.local[len(user) :] if extension else ""
            found = [(self._extended(each, lacking, "forward"), source) for each, source in destinations]
            self._forward(node, account, address, found)
        else:
            self._mailbox(node, address, account)

    def _wait(self, node: _Node, address: Address, reason: str) -> None:
        """This part of the mail waits until the account can be read."""
        self._say(node, f"{address}: must wait: {reason}")
        leaf = self._leaf(node, LeafKind.PENDING, address, reason, None)
        self._leaves.append(replace(leaf, past_aliases=True))

    def _unknown(self, node: _Node, address: Address, extension: str) -> None:
        rules = self._rules
        user = self._routing.split(address.local)[0]
        transport, source = self._chosen(
            "fallback_transport", rules.fallback_transport_maps, user.lower(), rules.fallback_transport
        )
        if transport:
            self._transport(node, address, transport, source)
        elif rules.luser_relay and node.kind != "luser":
            values = {"user": user, "local": address.local}
            values |= {"recipient": str(address), "domain": address.domain, "extension": extension}
            text = substitute(rules.luser_relay, values)
            self._say(node, f"{address}: unknown user, luser_relay {text}", "luser_relay")
            inner = replace(node, parent=node, depth=node.depth + 1, kind="luser", alias="")
            self._push(inner, ((each, "luser_relay") for each in parse_destinations(text)))
        else:
            self._fail(node, address, "5.1.1", f'unknown user: "{user}"')

    def _chosen(self, parameter: str, maps: Sequence[Table], user: str, value: str) -> tuple[str, str]:
        """What `parameter`_maps says for the user, else `parameter` itself; and which one said it."""
        entry = find_first(maps, user)
        return (value, parameter) if entry is None else (entry.value, f"{parameter}_maps, {entry.source}")

    def _transport(self, node: _Node, address: Address, value: str, source: str) -> None:
        transport, _, nexthop = value.partition(":")
        self._routed(node, address, Route(transport, nexthop or address.domain, source))

    # ------------------------------------------------------------ .forward

    def _read_forward(self, node: _Node, account: Account, extension: str) -> list[tuple[Destination, str]]:
        delimiter = self._routing.recipient_delimiter[:1]
        paths = forward_paths(self._rules.forward_path, account, extension, delimiter)
        forward, warnings = self._lookups.forward(account, paths)
        self._warnings.extend(warnings)
        for warning in warnings:
            self._say(node, warning)
        return _forward_destinations(forward) if forward is not None else []

    def _forward(
        self, node: _Node, account: Account, address: Address, destinations: list[tuple[Destination, str]]
    ) -> None:
        if self._is_met(node, "forward", account.name):
            return
        self._say(node, f"{address}: forwarded by {account.name}", destinations[0][1])
        inner = replace(
            node,
            parent=node,
            depth=node.depth + 1,
            kind="forward",
            alias=address.local.lower(),
            owner=owner_of(account),
            forwarder=account,
        )
        leaf = self._leaf(node, LeafKind.FORWARD, address, "", owner_of(account))
        self._forwards[account.name] = (leaf, {})
        self._push(inner, destinations)

    def _forwarded_address(self, node: _Node, account: Account, address: Address, source: str) -> None:
        """An address in a .forward: the user's own means the mailbox, any other a new message."""
        complete = self._routing.complete(address)
        own = {account.name, node.alias}
        is_local = self._routing.classify(complete) is AddressClass.LOCAL
        if is_local and complete.local.lower() in own:
            self._mailbox(node, complete, account)
            return
        self._say(node, f"{complete}: in a new message", source)
        self._forwards[account.name][1][complete] = None

    # ------------------------------------------------------------ the mailbox

    def _mailbox(self, node: _Node, address: Address, account: Account) -> None:
        rules = self._rules
        transport, source = self._chosen(
            "mailbox_transport", rules.mailbox_transport_maps, account.name, rules.mailbox_transport
        )
        if transport:
            if not self._is_met(node, "account", account.name):
                self._transport(node, address, transport, source)
            return
        command, source = self._chosen(
            "mailbox_command", rules.mailbox_command_maps, account.name, rules.mailbox_command
        )
        if not command:
            self._deposit(node, address, account)
        elif not self._is_met(node, "account", account.name):
            self._say(node, f"{address}: command {command}, as {account.name}", source)
            self._add(self._leaf(node, LeafKind.COMMAND, address, command, owner_of(account)))

    def _deposit(self, node: _Node, address: Address, account: Account) -> None:
        """Into the account's mailbox, whatever local(8) would do instead: virtual(8)'s way."""
        if self._is_met(node, "account", account.name):
            return
        path, source = self._lookups.mailbox(account)
        self._say(node, f"{address}: mailbox {path}, as {account.name}", source)
        self._add(self._leaf(node, LeafKind.MAILBOX, address, path, owner_of(account)))


def _status(nexthop: str, otherwise: str) -> tuple[str, str]:
    """The enhanced status that an error: or retry: transport's text begins with, and the text behind it."""
    code = _CODE.fullmatch(nexthop)
    return (code[1], code[2]) if code else (otherwise, nexthop)


def _virtual_key(address: Address) -> str:
    """What the expansion of that address by virtual_alias_maps is called in `_Node.alias`."""
    return f"virtual {str(address).lower()}"


def substitute(text: str, values: dict[str, str]) -> str:
    """The text with $name, ${name} and $(name) replaced; unknown names become empty."""
    return _PARAMETER.sub(lambda found: values.get(found[1] or found[2] or found[3], ""), text)


def forward_paths(forward_path: str, account: Account, extension: str, delimiter: str) -> tuple[str, ...]:
    """The files that may be the account's .forward, in order.

    An extension that could lead out of the home directory is never part of a path.
    """
    if not account.home:
        return ()
    is_safe = bool(extension) and "/" not in extension and "\0" not in extension
    values = {"home": account.home, "user": account.name, "logname": account.name, "shell": account.shell}
    values |= {"extension": extension, "recipient_delimiter": delimiter} if is_safe else {}
    patterns = re.split(r"[,\s]+", forward_path.strip())
    return tuple(dict.fromkeys(substitute(pattern, values) for pattern in patterns if pattern))


def _forward_destinations(forward: Forward) -> list[tuple[Destination, str]]:
    return [(each, f"{forward.path}:{number}") for number, each in parse_file(forward.text)]

"""ESEARCH: a search of several mailboxes. RFC 7377 §4."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_filter import NAMED, UNNAMED, MailboxFilter, read_filter
from mailserver.wire.imap_results import RETURN_ALL
from mailserver.wire.imap_search import Search, read_search

_SELECTED: Final = MailboxFilter("SELECTED")
_UNNAMED: Final = UNNAMED | {_SELECTED.kind}
_NAMED: Final = NAMED | {"SUBTREE-ONE"}


@dataclass(frozen=True, slots=True)
class MultiSearch:
    """What to search for, by UID and with an ESEARCH response, in the mailboxes that any source names."""

    sources: tuple[MailboxFilter, ...]
    search: Search

    @property
    def is_of_selected(self) -> bool:
        """Whether the selected mailbox is asked for, whichever that is."""
        return _SELECTED in self.sources


def read_multisearch(reader: ArgumentReader) -> MultiSearch:
    """The arguments of ESEARCH. Raises BadCharset."""
    sources: tuple[MailboxFilter, ...] = (_SELECTED,)
    if reader.text[reader.position : reader.position + 5].upper() == b" IN (":
        reader.position += 4
        sources = tuple(reader.list_of(lambda: read_filter(reader, _UNNAMED, _NAMED)))
    search = read_search(reader, by_uid=True)
    returns = search.returns or RETURN_ALL
    if "SAVE" in returns and any(source != _SELECTED for source in sources):
        raise ImapSyntaxError("SAVE is for the selected mailbox alone")  # §2.2
    return MultiSearch(sources, replace(search, returns=returns))

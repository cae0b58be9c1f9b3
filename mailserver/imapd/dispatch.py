"""Which handler does which command after login, and which of them need a selected mailbox.

A handler gets the session and the parsed arguments; it says untagged responses through the
session's output and returns the tagged one, or raises what `replies` offers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from mailserver.imapd import (
    acl,
    append,
    contexts,
    fetch,
    idle,
    mailboxes,
    messages,
    metadata,
    multisearch,
    notify,
    order,
    quota,
    search,
    selection,
    uid_batches,
    urlauth,
)
from mailserver.imapd.replies import Reply
from mailserver.imapd.session import Session

Handler = Callable[[Session, Any], Awaitable[Reply]]

_ON_MESSAGES: Final[dict[str, Handler]] = {
    "FETCH": fetch.fetch,
    "STORE": messages.store,
    "COPY": messages.copy,
    "MOVE": messages.move,
    "SEARCH": search.search,
    "SORT": order.order,
    "THREAD": order.order,
    "EXPUNGE": messages.expunge,
    "REPLACE": append.replace,
}
_ON_SELECTED: Final[dict[str, Handler]] = {
    **_ON_MESSAGES,
    **{f"UID {name}": handler for name, handler in _ON_MESSAGES.items()},
    "CANCELUPDATE": contexts.cancel,
    "CHECK": selection.check,
    "UIDBATCHES": uid_batches.uid_batches,
    "CLOSE": selection.close,
    "UNSELECT": selection.unselect,
}
HANDLERS: Final[dict[str, Handler]] = {
    **_ON_SELECTED,
    "NOOP": selection.noop,
    "SELECT": selection.select,
    "EXAMINE": selection.select,
    "ENABLE": selection.enable,
    "IDLE": idle.idle,
    "ESEARCH": multisearch.multisearch,
    "APPEND": append.append,
    "LIST": mailboxes.list_mailboxes,
    "LSUB": mailboxes.list_subscribed,
    "CREATE": mailboxes.create,
    "DELETE": mailboxes.delete,
    "RENAME": mailboxes.rename,
    "SUBSCRIBE": mailboxes.subscribe,
    "UNSUBSCRIBE": mailboxes.unsubscribe,
    "STATUS": mailboxes.status,
    "NAMESPACE": mailboxes.namespace,
    "GETMETADATA": metadata.get_metadata,
    "SETMETADATA": metadata.set_metadata,
    "NOTIFY": notify.notify,
    "GETQUOTA": quota.get_quota,
    "SETQUOTA": quota.set_quota,
    "GETQUOTAROOT": quota.get_quota_root,
    "RESETKEY": urlauth.reset_key,
    "GENURLAUTH": urlauth.generate,
    "URLFETCH": urlauth.fetch,
    "GETACL": acl.get_acl,
    "SETACL": acl.set_acl,
    "DELETEACL": acl.delete_acl,
    "LISTRIGHTS": acl.list_rights,
    "MYRIGHTS": acl.my_rights,
}
NEEDS_SELECTED: Final = frozenset(_ON_SELECTED)
NEEDS_MESSAGES: Final = NEEDS_SELECTED - {"CHECK", "CLOSE", "UNSELECT"}

"""Where our answer is not Dovecot's, and why that is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Difference:
    """In `where` (messages' names, or a dialogue's; empty: in all), what matches `what` may differ."""

    where: str
    what: str
    why: str

    def covers(self, where: str, what: str) -> bool:
        """Whether this explains a difference found there."""
        return (not self.where or where in self.where.split()) and re.fullmatch(self.what, what) is not None


FETCH: Final = (
    Difference(
        "nested", r"BODY(STRUCTURE)?|BODY\.PEEK\[1(\.TEXT)?\]|BINARY.*\[1?\]",
        "The line end before a boundary belongs to the boundary (RFC 2046 §5.1.1); Dovecot counts it as "
        "the text of a message/rfc822 whose inner multipart ends just there.",
    ),
    Difference(
        "addresses bad-addresses", "ENVELOPE",
        "No address in there is valid. We keep more of what can be read (a mailbox after a stray word, "
        "a quoted string without an end); Dovecot writes MISSING_MAILBOX or SYNTAX_ERROR.",
    ),
    Difference(
        "empty-boundary", r"BODY(STRUCTURE)?|BODY\.PEEK\[1.*\]|BINARY.*\[1\]",
        "RFC 2046 §5.1.1 has no empty boundary: nothing can be told from lines that begin with `--`, so "
        "we find no parts.",
    ),
    Difference(
        "bad-type junk-type", r"BODY(STRUCTURE)?",
        "A Content-Type that does not parse means text/plain (RFC 2045 §5.2); Dovecot gives empty words.",
    ),
    Difference("parameters", r"BODY(STRUCTURE)?", "A parameter without a value is left out, not "
        "given as empty."),
    Difference(
        "no-blank-line only-header", r"BODY\.PEEK\[HEADER\.FIELDS .*\]",
        "RFC 3501 §6.4.5: no blank line is invented for a message that has neither blank line nor body.",
    ),
    Difference(
        "empty-parts", r"BODY\.PEEK\[2\.MIME\]", "A part that is one blank line: its header is that line."
    ),
    Difference(
        "", r"BODY\.PEEK\[[12]\.1(\.MIME)?\]",
        "RFC 3501 §6.4.5: a part that is no multipart and no message has no parts; Dovecot takes "
        "its part 1 for itself.",
    ),
    Difference(
        "bad-base64 unknown-encoding qp uuencode", r"BINARY.*",
        "We decode as far as can be, and refuse an unknown encoding with UNKNOWN-CTE (RFC 3516 "
        "§4.3); Dovecot "
        "refuses what is not valid to the last octet.",
    ),
    Difference(
        " ".join(f"valid-{number}" for number in range(100)), r"BINARY.*",
        "Their header fields are valid; what they call base64 or quoted-printable is not.",
    ),
    Difference(
        "alternative attachment", r"BINARY\.PEEK\[\]",
        "A multipart has nothing to be decoded as a whole (RFC 3516 §4.2): it comes as it is. "
        "Dovecot decodes "
        "every part and rewrites the headers, which breaks signatures.",
    ),
)  # fmt: skip

DIALOGUES: Final = (
    Difference("extensions", "e1", "One quota root without limits; Dovecot without limits has no root."),
    Difference("extensions", "f1", "RFC 5161 §3.2: ENABLED answers every ENABLE, also with nothing in it."),
    Difference("extensions", "f3", "RFC 5465 §3.1: an unknown event is NO [BADEVENT], never BAD."),
    Difference("extensions", "f4", "UNSEEN is told where flags were asked for (RFC 5465 §5.1)."),
    Difference("extensions", "f5", "RFC 5465 §5: FlagChange without MessageNew is BAD."),
    Difference("extensions", "f6", "RFC 5465 §6.1: the selected mailbox has message events only."),
    Difference(
        "condstore",
        "b2|b3|c16",
        "RFC 7162 §3.2.4: a server with QRESYNC tells UID and MODSEQ together once CONDSTORE is in force.",
    ),
    Difference(
        "condstore", "c1", "RFC 5161 §3.2: ENABLED names what this command enabled; CONDSTORE was in force."
    ),
    Difference(
        "condstore",
        "c13|c15",
        "A SELECT that is BAD was not understood and changes nothing: the mailbox stays selected, "
        "and is closed by "
        "the next one. Dovecot closes it at once.",
    ),
    Difference(
        "list",
        "b1|b2|d3|e6",
        "CREATE of a name with a separator at the end makes the mailbox itself (RFC 3501 §6.3.3 "
        "leaves it open); "
        "Dovecot makes a level that cannot be selected, which most clients show as broken.",
    ),
    Difference("list", "c4|c5", "LSUB has no special-use attributes: RFC 6154 §2 gives them to LIST."),
    Difference(
        "list",
        "d1|d2|d3|d4|d5",
        r"Extended LIST gives \HasChildren and the special use unasked (RFC 5258 §4 and RFC 6154 §2 "
        r"allow it): "
        "clients that forget RETURN (SPECIAL-USE) find Sent and Trash nevertheless.",
    ),
    Difference(
        "list", "e10", "A level without a mailbox goes with its last child; Dovecot leaves it behind."
    ),
    Difference(
        "move", "b8", "Dovecot still tells the flags of a message that was expunged after they changed."
    ),
    Difference("move", "b11|b13", "RFC 2180 §4.3: SEARCH does not find what another session expunged."),
    Difference(
        "move",
        "b12",
        "RFC 5530 §3: EXPUNGEISSUED tells that another session expunged the message; Dovecot says OK alone.",
    ),
    Difference(
        "move",
        "c9",
        "The message that a session moves into its own mailbox is recent to it; Dovecot clears that.",
    ),
    Difference(
        "move", "c12|c13|c14", "RFC 3501 §6.3.2: nothing changes in a mailbox that was opened with EXAMINE."
    ),
    Difference("prefix", "c14|d11", r"As for `list`: \HasChildren and the special use come unasked."),
    Difference(
        "prefix",
        "g2",
        "A level above INBOX.INBOX.x would be told as INBOX.INBOX, which is INBOX itself: it is not told.",
    ),
    Difference(
        "prefix",
        "g3",
        "RFC 3501 §6.3.5: RENAME of INBOX moves its messages; Dovecot takes the new name for a child's.",
    ),
    Difference(
        "select",
        "a5",
        "RFC 3501 §6.3.2: STORE in an EXAMINEd mailbox fails; Dovecot says OK and does nothing.",
    ),
    Difference("search", "b46", "Asking for a keyword does not create it."),
    Difference(
        "store", "b7", r"\Recent in a list of flags is dropped, as clients that echo what they read expect."
    ),
)

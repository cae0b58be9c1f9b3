"""Messages that are valid to the letter and odd in spirit: folds, comments and quotes where they may stand.

RFC 5322 §3, RFC 2045 §5, RFC 2046 §5.1, RFC 2183, RFC 2231. Made by chance from a seed: the same in each
run. What `differences` explains is not made again: a message/rfc822 that ends with its multipart's last
boundary, a parameter given twice, a field whose first line is blanks alone.
"""

from __future__ import annotations

from random import Random
from typing import Final

_DEEPEST: Final = 4
_ATOMS: Final = ("alice", "bob", "a.b", "x+y", '"q\\"s"', '"a b"', "=x", "o'k", "#!$%&")
_DOMAINS: Final = ("example.org", "[127.0.0.1]", "x", "sub.example.com", "[IPv6:::1]")
_WORDS: Final = (
    "foo",
    "Bar",
    "x-1",
    '"q s"',
    "=?utf-8?Q?H=C3=A4?=",
    "=?iso-8859-1?B?5A==?=",
    '"a.b"',
    '"x\\\\y"',
)
_BLANK: Final = ("", "", "", " ", "\r\n ", "\r\n\t", " (c)", " (a (b) c)", "(\\))", "\r\n (x\r\n y) ")
_PARAMETERS: Final = (
    "charset=utf-8", 'charset="us-ascii"', "CHARSET=x", 'name="a b.txt"', "name*=utf-8''%C3%A4",
    "name*0=ab; name*1=cd", "name*0*=utf-8''%41; name*1=b", "format=flowed", 'x="q\\"s"', "y=z(c)",
    'z = "sp"', 'e=""', 'type="text/plain"',
)  # fmt: skip
_LEAVES: Final = (
    "text/plain", "TEXT/HTML", "image/PNG", "application/x", "text (c)/ (d) plain", "message/delivery-status",
    "message/external-body; access-type=x", 'message/partial; id="1"; number=1', None,
)  # fmt: skip
_LINES: Final = (
    "line\r\n",
    "\r\n",
    "-- \r\n",
    ".\r\n",
    "From x\r\n",
    "long " * 20 + "\r\n",
    "=41=\r\n",
    "AAEC\r\n",
)


def valid_messages(seed: int, count: int) -> dict[str, bytes]:
    """`count` messages with CRLF line ends, by a name for each."""
    return {f"valid-{number}": _Writer(Random(seed + number)).message(0).encode() for number in range(count)}


class _Writer:
    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._boundaries = 0

    def message(self, depth: int) -> str:
        """A whole message."""
        fields = [
            (name, self._addresses())
            for name in ("From", "To", "Cc", "Bcc", "Reply-To", "Sender")
            if self._perhaps(0.5)
        ]
        texts = {
            "Subject": (
                "hi",
                "a\r\n b",
                "a\r\n\t b  c",
                "=?utf-8?Q?H?=  =?utf-8?Q?i?=",
                "trail  ",
                '"q"',
                "b\\s",
                "",
            ),
            "Date": ("Tue, 24 Nov 2026 19:00:00 +0000", "Tue,\r\n\t24 Nov 2026 19:00:00 +0000 (UTC)"),
            "Message-ID": (f"<a@b>{self._blank()}", '<"x y"@[z]>'),
            "In-Reply-To": ("<a@b>", "<a@b> <c@d>", "<a@b>\r\n\t<c@d>"),
        }
        fields += [(name, self._one(values)) for name, values in texts.items() if self._perhaps(0.6)]
        return self._entity(depth, [*fields, ("MIME-Version", "1.0")])

    def _one(self, values: tuple[str, ...]) -> str:
        return self._chance.choice(values)

    def _perhaps(self, chance: float) -> bool:
        return self._chance.random() < chance

    def _blank(self) -> str:
        return self._one(_BLANK)

    def _spec(self) -> str:
        return f"{self._one(_ATOMS)}{self._blank()}@{self._blank()}{self._one(_DOMAINS)}"

    def _mailbox(self) -> str:
        spec, word, blank = self._spec(), self._one(_WORDS), self._blank
        return self._one(
            (
                f"{spec}{blank()}", f"{word}{blank()} {self._one(_WORDS)}{blank()} <{spec}>{blank()}",
                f"<{spec}>", f"{spec} (A (x) B)", f"<@r1,@r2:{spec}>",
                f"{word}{blank()}<{blank()}{spec}{blank()}>",
            )
        )  # fmt: skip

    def _addresses(self) -> str:
        addresses = []
        for _ in range(self._chance.randint(1, 4)):
            if self._perhaps(0.85):
                addresses.append(self._mailbox())
            else:
                members = ",".join(self._mailbox() for _ in range(self._chance.randint(0, 2)))
                addresses.append(
                    f"{self._one(_WORDS)} {self._one(_WORDS)}:{self._blank()}{members}{self._blank()};"
                )
        return ("," + self._one(("", " ", "\r\n "))).join(addresses)

    def _parameters(self) -> str:
        drawn = self._chance.sample(_PARAMETERS, self._chance.randint(0, 3))
        by_name = {each.partition("=")[0].partition("*")[0].lower(): each for each in drawn}
        return "".join(f"{self._blank()};{self._blank()}{each}" for each in by_name.values())

    def _mime_fields(self, kind: str | None, encodings: tuple[str, ...]) -> list[tuple[str, str]]:
        values = {
            "Content-Transfer-Encoding": (self._one(encodings) + self._blank(),),
            "Content-Disposition": (
                "attachment", "inline ; filename=\"a\\\\b\"", 'attachment;\r\n\tfilename="x y"',
                "attachment; filename*=utf-8''%C3%A4; size=3", "x-foo (c); a=b",
            ),
            "Content-ID": ("<a@b>", '<"x y"@z> (c)'),
            "Content-Description": ("desc", "=?utf-8?Q?=C3=A4?=", "two\r\n lines  ", "(c) x"),
            "Content-Language": ("en", "en, de", "en,(c)de", "en , fr-CA"),
            "Content-Location": ("http://x/", "http://x/\r\n y", "a.html"),
            "Content-MD5": ("Q2hlY2sgSW50ZWdyaXR5IQ==",),
        }  # fmt: skip
        fields = [(name, self._one(each)) for name, each in values.items() if self._perhaps(0.3)]
        return fields if kind is None else [*fields, ("Content-Type", kind)]

    def _header(self, fields: list[tuple[str, str]]) -> str:
        self._chance.shuffle(fields)
        spelt = [(self._one((name, name.upper(), name.lower())), value) for name, value in fields]
        return "".join(f"{name}:{self._one((' ', '', '  '))}{value}\r\n" for name, value in spelt)

    def _entity(self, depth: int, fields: list[tuple[str, str]]) -> str:
        choice = self._chance.random()
        if depth < _DEEPEST and choice < 0.35:
            return self._multipart(depth, fields)
        if depth < _DEEPEST and choice < 0.45:
            own = self._mime_fields("message/rfc822" + self._parameters(), ("7bit", "8bit"))
            return self._header(fields + own) + "\r\n" + self.message(depth + 1)
        kind = self._chance.choice(_LEAVES)
        encodings = ("7bit", "8BIT", "base64", "quoted-printable", "x-foo", "binary")
        own = self._mime_fields(
            kind and kind + self._parameters() if kind and ";" not in kind else kind, encodings
        )
        lines = "".join(self._one(_LINES) for _ in range(self._chance.randint(0, 5)))
        return self._header(fields + own) + "\r\n" + lines + self._one(("", "no end", "x\r\n"))

    def _multipart(self, depth: int, fields: list[tuple[str, str]]) -> str:
        self._boundaries += 1
        boundary = self._one(
            (f"b{self._boundaries}", f"=_{self._boundaries}", f"'()+_,-./:=?{self._boundaries}")
        )
        subtype = self._one(("mixed", "alternative", "digest", "MIXED", "x-foo"))
        given = f'{self._blank()};{self._blank()}{self._one(("boundary", "BOUNDARY"))}="{boundary}"'
        parameters = self._one((given + self._parameters(), self._parameters() + given))
        own = self._mime_fields(f"multipart/{subtype}{parameters}", ("7bit", "8bit"))
        text = self._header(fields + own) + "\r\n" + self._one(("", "preamble\r\n", "\r\n"))
        for _ in range(self._chance.randint(1, 3)):
            is_message = subtype == "digest"  # RFC 2046 §5.1.5
            part = "\r\n" + self.message(depth + 1) if is_message else self._entity(depth + 1, [])
            text += f"--{boundary}{self._one(('', ' '))}\r\n{part}\r\n"
        return text + f"--{boundary}--\r\nepilogue"

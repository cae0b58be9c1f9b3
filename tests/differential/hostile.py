"""Messages that are hard to take apart: valid but unusual, and broken ones as they arrive (RFC 7103)."""

from __future__ import annotations

from typing import Final

_HEAD: Final = b"From: a@example.org\nDate: Mon, 7 Feb 1994 21:52:25 -0800\nMIME-Version: 1.0\n"


def _multipart(kind: bytes, body: bytes, boundary: bytes = b"b") -> bytes:
    return _HEAD + b'Content-Type: multipart/%b; boundary="%b"\n\n' % (kind, boundary) + body


HOSTILE: Final[dict[str, bytes]] = {
    "alternative": _multipart(
        b"alternative",
        b"preamble\n--b\nContent-Type: text/plain; charset=utf-8\n\nplain\n--b\n"
        b"Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<b>h=C3=A4</b>\n"
        b"--b--\nepilogue\n",
    ),
    "attachment": _multipart(
        b"mixed",
        b"--b\n\nno header\n--b\nContent-Type: application/octet-stream; name=x.bin\n"
        b"Content-Disposition: attachment; filename=x.bin; size=4\nContent-Transfer-Encoding: base64\n"
        b"Content-ID: <id@x>\nContent-Description: four octets\nContent-Language: en, de\n"
        b"Content-Location: http://example.org/\nContent-MD5: Q2hlY2s=\n\nAAECAw==\n--b--\n",
    ),
    "rfc822": _multipart(
        b"mixed",
        b"--b\nContent-Type: message/rfc822\n\nFrom: in@example.org\nSubject: inner\nContent-Type: "
        b"multipart/mixed; boundary=i\n\n"
        b"--i\n\none\n--i\n\ntwo\n--i--\n\n--b\nContent-Type: message/rfc822\n\nSubject: plain "
        b"inner\n\nbody\n--b--\n",
    ),
    "top-rfc822": _HEAD + b"Content-Type: message/rfc822\n\nSubject: in\n\nhello\n",
    "digest": _multipart(b"digest", b"--b\n\nSubject: one\n\n1\n--b\n\nSubject: two\n\n2\n--b--\n"),
    "no-end": _multipart(b"mixed", b"--b\n\none\n--b\n\ntwo\n"),
    "no-part": _multipart(b"mixed", b"nothing here\n"),
    "empty-parts": _multipart(b"mixed", b"--b\n--b\n\n--b--\n"),
    "only-end": _multipart(b"mixed", b"--b--\n"),
    "no-boundary": _HEAD + b"Content-Type: multipart/mixed\n\n--b\n\none\n--b--\n",
    "empty-boundary": _multipart(b"mixed", b"--\n\none\n----\n", b""),
    "prefix-boundaries": _multipart(
        b"mixed", b"--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\none\n--bb--\n\n"
                  b"--b\n\ntwo\n--b--\n"
    ),
    "outer-ends-inner": _multipart(
        b"mixed", b"--b\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\none\n--b\n\ntwo\n--b--\n"
    ),
    "same-boundary": _multipart(
        b"mixed", b"--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n\n--b--\n"
    ),
    "boundary-spaces": _multipart(b"mixed", b"--b  \n\none\n--b--  \n"),
    "bad-type": _HEAD + b"Content-Type: text\n\nhello\n",
    "junk-type": _HEAD + b"Content-Type: ;;;=;\n\nhello\n",
    "parameters": _HEAD
    + b'Content-Type: text/plain; charset="us\\"ascii"; name*0="lo"; name*1="ng"; x=\n\nhello\n',
    "encoded-parameter": _HEAD + b"Content-Type: text/plain; name*=utf-8''%C3%A4.txt\n\nhello\n",
    "comment-type": _HEAD + b"Content-Type: (c) text/(c)html (d); charset=(e)utf-8\n\nhello\n",
    "addresses": b"From: =?utf-8?q?=C3=A4?= <a@x>, \"q, \\\"uoted\" <b@y> (note)\nTo: group: c@z, "
                 b"d; <@r,@s:e@t>\n"
    b"Cc: undisclosed-recipients:;\nBcc: <>\nReply-To: bare\nSender: a b c@d\nIn-Reply-To: <x@y>\n"
    b"Message-Id: <m@n>\n\nx\n",
    "bad-addresses": b"From: <\nTo: a@b@c, (, ,,\nCc: \"open\nReply-To: @\nSubject:\n\nx\n",
    "twice": b"Subject: one\nSubject: two\nFrom: a@b\nFrom: c@d\nTo: a@b\nTo: c@d\n\nx\n",
    "folded": b"Subject: one\n two\n\tthree\nTo: a@b,\n c@d\n\nx\n",
    "eight-bit": b"Subject: \xc3\xa4 \xff\nFrom: \xe4 <a@b>\n\n\xe4\xf6\n",
    "no-header": b"\nonly a body\n",
    "only-header": b"Subject: no body\n",
    "no-colon": b"Subject: one\nthis is no field\nTo: a@b\n\nx\n",
    "empty": b"\n",
    "carriage-returns": b"Subject: cr\rin it\n\nbody\rwith\r\r\ncr\n",
    "bad-base64": _HEAD + b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\naGVsbG8*=\n?\n",
    "unknown-encoding": _HEAD + b"Content-Transfer-Encoding: x-rot13\n\nuryyb\n",
    "qp": _HEAD + b"Content-Transfer-Encoding: quoted-printable\n\nsoft=\nbreak =3D =zz  \nend=",
    "uuencode": _HEAD + b"Content-Transfer-Encoding: x-uuencode\n\nbegin 644 x\n#:&4*\n`\nend\n",
    "deep": _HEAD
    + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(30))
    + b"\nbottom\n",
    "long-line": b"Subject: " + b"x" * 5000 + b"\n\n" + b"y" * 5000 + b"\n",
    "calendar": _HEAD + b"Content-Type: text/calendar; method=REQUEST; charset=utf-8\n\n"
                        b"BEGIN:VCALENDAR\nEND:VCALENDAR\n",
    "language": _HEAD + b"Content-Language: de\nContent-Disposition: inline\nContent-Type: image/png\n\nx\n",
    "delivery-status": _multipart(
        b"report; report-type=delivery-status",
        b"--b\n\nfailed\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
        b"Action: failed\n"
        b"--b\nContent-Type: text/rfc822-headers\n\nSubject: x\n--b--\n",
    ),
}  # fmt: skip

"""SCRAM's messages. RFC 5802 §7, RFC 7677 §3."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.scram import (
    ScramSyntaxError,
    parse_client_final,
    parse_client_first,
    server_final,
    server_first,
)

PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != ",")
NONCES = st.text(PRINTABLE, min_size=1, max_size=40)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def escaped(name: str) -> str:
    """The name as a saslname."""
    return name.replace("=", "=3D").replace(",", "=2C")


def test_the_example_of_the_rfc() -> None:
    """RFC 7677 §3."""
    first = parse_client_first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert (first.name, first.nonce, first.gs2_header) == ("user", b"rOprNGfwEbeRWgbNEkqO", b"n,,")
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert server_first(nonce, salt, 4096) == b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = parse_client_final(b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    assert (final.channel_binding, final.nonce, len(final.proof)) == (b"n,,", nonce, 32)
    assert final.without_proof == b"c=biws,r=" + nonce
    assert server_final(b"\1\2") == b"v=AQI="


@given(
    NAMES,
    NONCES,
    st.sampled_from(["n", "y", "p=tls-exporter", "p=tls-server-end-point"]),
    NAMES | st.just(""),
)
def test_every_first_message_is_read_back(name: str, nonce: str, flag: str, authorization: str) -> None:
    """Names are UTF-8, with comma and equals sign escaped; the header is kept as it was."""
    header = f"{flag},{'a=' + escaped(authorization) if authorization else ''},"
    bare = f"n={escaped(name)},r={nonce}"
    first = parse_client_first((header + bare).encode())
    assert (first.name, first.authorization) == (name, authorization)
    assert (first.nonce, first.bare, first.gs2_header) == (nonce.encode(), bare.encode(), header.encode())
    assert (first.binding, first.knows_binding) == (flag.partition("=")[2], flag == "y")


@given(st.binary(min_size=1, max_size=80), NONCES, st.binary(min_size=1, max_size=40), st.booleans())
def test_every_final_message_is_read_back(channel: bytes, nonce: str, proof: bytes, extended: bool) -> None:
    """What the proof is over is everything before it, extensions included."""
    without = f"c={base64.b64encode(channel).decode()},r={nonce}{',x=more' if extended else ''}".encode()
    final = parse_client_final(without + b",p=" + base64.b64encode(proof))
    assert (final.channel_binding, final.nonce, final.proof) == (channel, nonce.encode(), proof)
    assert final.without_proof == without


@given(st.binary(max_size=100))
def test_anything_else_is_refused_in_one_way(octets: bytes) -> None:
    """No octets raise anything but ScramSyntaxError."""
    for parse in (parse_client_first, parse_client_final):
        try:
            parse(octets)
        except ScramSyntaxError:
            pass


@pytest.mark.parametrize(
    "message",
    [b"", b"n,,", b"n,,n=,r=x", b"n,,n=a", b"n,,n=a,r=", b"n,,r=x,n=a", b"n,a=,n=a,r=x", b"x,,n=a,r=x",
     b"p,,n=a,r=x", b"p=,,n=a,r=x", b"n,,m=x,n=a,r=x", b"n,,n=a=b,r=x", b"n,,n=a=2c,r=x", b"n,,n=a\0,r=x",
     b"n,,n=\xff,r=x", b"n,,n=a,r=x y", b"n,,n=a,r=x,", b"n,,n=a,r=x,yy", b"n,n=a,r=x", b"n,,n=a,r=x\n"],
)  # fmt: skip
def test_malformed_first_messages(message: bytes) -> None:
    """The mandatory extension `m=` is among them: RFC 5802 §5.1."""
    with pytest.raises(ScramSyntaxError):
        parse_client_first(message)


@pytest.mark.parametrize(
    "message",
    [b"", b"c=biws", b"c=biws,r=x", b"c=biws,r=x,p=", b"c=b,r=x,p=AA==", b"c=biws,r=x,p=A", b"r=x,p=AA=="],
)
def test_malformed_final_messages(message: bytes) -> None:
    """Base64 included."""
    with pytest.raises(ScramSyntaxError):
        parse_client_final(message)

"""Messages without their schema, against what the format's own page spells out."""

from __future__ import annotations

import pytest

from retinue.protobuf import Malformed, Piece, fields, masked, pieces, signed, varint


def test_the_examples_of_the_formats_description() -> None:
    assert list(fields(Piece(b"\x08\x96\x01", 0))) == [(1, 0, 150)]
    assert list(pieces(Piece(b"\x12\x07testing\x08\x01", 5))) == [(2, Piece(b"testing", 7))]
    assert signed(varint(b"\xfe" + b"\xff" * 8 + b"\x01", 0)[0]) == -2
    assert varint(b"x\xac\x02y", 1) == (300, 3)


def test_numbers_of_fixed_length_are_no_pieces() -> None:
    content = b"\x0d\x01\x02\x03\x04\x11\0\0\0\0\0\0\0\0"
    found = [(n, wire, value) for n, wire, value in fields(Piece(content, 0))]
    assert found == [(1, 5, Piece(b"\x01\x02\x03\x04", 1)), (2, 1, Piece(bytes(8), 6))]
    assert list(pieces(Piece(content, 0))) == []


@pytest.mark.parametrize("content", [b"\x08", b"\x08\x96", b"\x12\x08testing", b"\x0d\x01", b"\x0b",
                                     b"\x80" * 11])  # fmt: skip
def test_what_is_cut_off_or_no_message(content: bytes) -> None:
    with pytest.raises(Malformed):
        list(fields(Piece(content, 0)))


def test_the_checksum_by_hand() -> None:
    """CRC-32C of "123456789" is e3069283: rotated by 15 to 2507c60d, and a282ead8 added."""
    assert masked(b"123456789") == 0xC78AB0E5

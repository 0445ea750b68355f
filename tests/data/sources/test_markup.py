"""XML from outside: every encoding that it names, and nothing that grows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from retinue.data.sources.markup import NotXml, parse_xml, read_xml


@pytest.mark.parametrize(
    "content",
    [
        "<a>浣熊</a>".encode(),
        "﻿<a>浣熊</a>".encode(),
        '<?xml version="1.0" encoding="UTF-8"?>\n<a>浣熊</a>'.encode(),
        '<?xml version="1.0" encoding="GBK"?><a>浣熊</a>'.encode("gbk"),
        "<?xml version='1.0' encoding='gb2312' ?>\r\n<a>浣熊</a>".encode("gb2312"),
        '<?xml version="1.0" encoding="utf-16"?><a>浣熊</a>'.encode("utf-16"),
        '<?xml version="1.0" encoding="utf-16"?><a>浣熊</a>'.encode("utf-16-le"),
        '<?xml version="1.0" encoding="utf-16"?><a>浣熊</a>'.encode(),
        '  <?xml version="1.0"?><!-- <!DOCTYPE of no use> --><a>浣熊</a>'.encode(),
    ],
)
def test_text_in_any_encoding(content: bytes) -> None:
    assert parse_xml(content).text == "浣熊"


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB.encode(), "line 1: a document type"),
        (BOMB.encode("utf-16"), "a document type"),
        (b'\n<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "line 2: a document type"),
        (b"<!-- <!x -->\n<!DOCTYPE a><a/>", "line 2: a document type"),
        (b"<?p <!-- ?>" + BOMB.encode()[21:] + b"<!-- -->", "line 1: a document type"),
        (b"<a>&b;</a>", "undefined entity.*line 1"),
        (b"<a><b></a>", "mismatched tag: line 1, column 8"),
        (b"<a>\n<name>R&B</name></a>", "line 2"),
        (b"", "no element found"),
        (b"not at all", "syntax error"),
        (b"\x00\x01\x02", "line 1"),
        ("<a>\n浣熊</a>".encode("gbk"), "line 2: it is not in UTF-8.*encoding='GBK'"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "'klingon', which is not known"),
        (b'<?xml version="1.0" encoding="zlib"?><a/>', "'zlib', which is not known"),
        (b"<a>" * 5000 + b"</a>" * 5000, "nested more than 64 deep"),
    ],
)
def test_what_is_none(content: bytes, words: str) -> None:
    with pytest.raises(NotXml, match=words):
        parse_xml(content)


@pytest.mark.parametrize("begin", ["<!--", "<![CDATA[", "<?", "<a", "<a b='", "</a", "<!-->"])
def test_what_begins_and_never_ends_takes_no_time(begin: str) -> None:
    content = f"<a>{begin * (200_000 // len(begin))}".encode()
    start = time.process_time()
    with pytest.raises(NotXml):
        parse_xml(content)
    assert time.process_time() - start < 2  # by looking on to the end at each: minutes


def test_lines_are_counted_with_the_declaration(tmp_path: Path) -> None:
    with pytest.raises(NotXml, match="line 4"):
        parse_xml(b'<?xml version="1.0"\n?>\n<a>\n</b></a>')


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    with open(path, "wb") as file:
        file.truncate(1 << 26)
    with pytest.raises(NotXml, match="more than 32 MB"):
        read_xml(path)

"""XML from outside: bounded before anything is built of it, without entities, in any encoding that
it names."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from xml.etree import ElementTree

from retinue.files import encoding_of, open_file
from retinue.text import first_line

MOST_BYTES = 1 << 25
"""Of an XML file; ten thousand boxes take 4 MB."""
DEEPEST = 64
"""Elements within each other."""
_PROLOG = re.compile(r"\s*<\?xml\s[^>]*\?>")
_ENCODING = re.compile(r"encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_TAG = re.compile(r"<(/?)[^\s<>/!?][^<>]*?(/?)>")
_BLIND = re.compile(r"<!--|<!\[CDATA\[|<\?")
"""Where text begins in which nothing is an element."""
_ENDS = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>"}
_TYPED = re.compile(r"<!DOCTYPE|<!ENTITY")


class NotXml(ValueError):  # noqa: N818 - it says what the text is
    """Why a file is no XML that is read here; with line and column, where there are any."""


def read_xml(path: str | Path) -> ElementTree.Element:
    """The root of the XML file at `path`.

    A document type is refused: with it come entities that stand for gigabytes (a "billion laughs")
    or for other files. Raises OSError for a file that cannot be read, NotXml for what is none.
    """
    with open_file(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise NotXml(f"it has more than {MOST_BYTES >> 20} MB")
    return parse_xml(content)


def parse_xml(content: bytes) -> ElementTree.Element:
    """The root of the XML that is `content`. Raises NotXml."""
    text = _decoded(content)
    bare = _bare(text)
    if typed := _TYPED.search(bare):
        line = 1 + bare.count("\n", 0, typed.start())
        raise NotXml(f"line {line}: a document type (<!DOCTYPE …>) is not read: remove it")
    _refuse_deep(bare)
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise NotXml(f"{first_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise NotXml(first_line(error, type(error).__name__)) from None


def _decoded(content: bytes) -> str:
    """As text, without the declaration of how it is encoded."""
    encoding = encoding_of(content[:200])
    if encoding == "utf-8-sig" and not content.startswith(codecs.BOM_UTF8):
        prolog = _PROLOG.match(content[:200].decode("latin-1"))
        told = _ENCODING.search(prolog[0]) if prolog else None
        # Some programs write what they hold text in, UTF-16, above what they write as UTF-8.
        if told is not None and not told[1].lower().startswith(("utf-16", "ucs", "utf-8")):
            encoding = told[1]
    try:
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
        text = content.decode(encoding)
    except LookupError:
        raise NotXml(f"it is said to be in {encoding!r}, which is not known") from None
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        mend = "save it as UTF-8, or say in its first line what it is: encoding='GBK'"
        raise NotXml(f"line {line}: it is not in {encoding.upper()[:12]}: {mend}") from None
    text = text.removeprefix("\ufeff")
    prolog = _PROLOG.match(text)
    # The lines are counted on.
    return "\n" * text.count("\n", 0, prolog.end()) + text[prolog.end() :] if prolog else text


def _bare(text: str) -> str:
    """Without comments and the like, which may hold anything, in as many lines. Each character is
    looked at once, however many of them begin and do not end."""
    parts, at = [], 0
    while begin := _BLIND.search(text, at):
        parts.append(text[at : begin.start()])
        close = _ENDS[begin[0]]
        end = text.find(close, begin.end())
        if end < 0:
            return "".join(parts)
        at = end + len(close)
        parts.append("\n" * text.count("\n", begin.start(), at))
    return "".join([*parts, text[at:]])


def _refuse_deep(text: str) -> None:
    depth = 0
    for tag in _TAG.finditer(text):
        if tag[2]:
            continue
        depth += -1 if tag[1] else 1
        if depth > DEEPEST:
            line = 1 + text.count("\n", 0, tag.start())
            raise NotXml(f"line {line}: it is nested more than {DEEPEST} deep")

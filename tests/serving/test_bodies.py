"""Bodies to pictures, whatever is sent."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.serving.bodies import Body, decoded, parsed
from retinue.serving.problems import Problem

EDGE = "----edge"
KIND = f"multipart/form-data; boundary={EDGE}"


def part(data: bytes, head: str = 'name="image"; filename="a.png"') -> bytes:
    return f"--{EDGE}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"


END = f"--{EDGE}--\r\n".encode()


def taken(kind: str, body: bytes, disposition: str = "", most: int = 4) -> Body:
    return parsed(kind, disposition, body, most=most)


def refusal(kind: str, body: bytes, **how: int) -> tuple[int, str]:
    with pytest.raises(Problem) as told:
        taken(kind, body, **how)  # type: ignore[arg-type]
    return told.value.status, told.value.code


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
def test_parts_are_what_was_sent(datas: list[bytes]) -> None:
    datas = [data.replace(EDGE.encode(), b"") or b"x" for data in datas]
    body = b"".join(part(data) for data in datas) + END
    assert [picture.data for picture in taken(KIND, body).pictures] == datas


@given(st.binary(max_size=400))
def test_any_body_is_pictures_or_a_problem(body: bytes) -> None:
    for kind in (KIND, "application/json", "image/png", "", "text/html"):
        try:
            found, status = taken(kind, body), 200
        except Problem as problem:
            found, status = Body(), problem.status
        assert status in (200, 400, 413, 415)
        assert all(picture.data for picture in found.pictures)


@pytest.mark.parametrize(
    "text",
    ['{"image": NaN}', "[]", '"x"', "{", '{"image": 3}', '{"images": "x"}', '{"image": "*"}',
     '{"image": {"data": "eA==", "url": "http://x"}}', '{"image": {}}', '{"image": null}',
     '{"image": {"data": "eA==", "more": 1}}', '{"image": "eA==", "top_k": [1]}', "{}",
     '{"image": ""}', '{"image": "data:image/png,%89PNG"}', '{"image": "ä"}', '{"images": []}',
     "[" * 100_000, '{"image": "x"}'],
)  # fmt: skip
def test_other_json_is_400(text: str) -> None:
    status, _ = refusal("application/json", text.encode())
    assert status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"--", b"junk", part(b"x"), part(b"x") + b"--", part(b"x")[:-8] + END,
        f"--{EDGE}\r\nno header at all\r\n\r\nx\r\n".encode() + END,
        f"--{EDGE}\r\n".encode() + b"A: b\r\n" * 100 + b"\r\nx\r\n" + END,
        f"--{EDGE}\r\n".encode() + b"A: " + b"b" * 100_000 + b"\r\n\r\nx\r\n" + END,
        f"--{EDGE}\r\n".encode() + b"A" * 1_000_000,
        part(b""),
        END,
    ],
)  # fmt: skip
def test_broken_multipart_is_400(body: bytes) -> None:
    status, _ = refusal(KIND, body)
    assert status == 400


def test_multipart_needs_a_boundary_and_a_sane_one() -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", KIND + "x" * 5000):
        assert refusal(kind, part(b"x") + END)[0] == 400


@pytest.mark.parametrize("behind", [b"-" * (1 << 20), b"\r\n" * (1 << 19), b"x" * (1 << 20)])
def test_a_megabyte_behind_the_closing_boundary_costs_nothing(behind: bytes) -> None:
    start = time.perf_counter()
    assert len(taken(KIND, part(b"x") + END + behind).pictures) == 1
    assert time.perf_counter() - start < 0.5


def test_more_pictures_than_are_taken_are_413() -> None:
    assert refusal(KIND, part(b"x") * 5 + END) == (413, "too_many_images")
    many = '{"images": [' + ",".join(['"eA=="'] * 5) + "]}"
    assert refusal("application/json", many.encode()) == (413, "too_many_images")


def test_names_come_as_they_were_sent() -> None:
    name = 'ä 猫 & <b>"'
    sent = part(b"x", f'name="image"; filename="{name[:-1]}"') + END
    assert taken(KIND, sent).pictures[0].name == name[:-1]
    latin = "attachment; filename*=UTF-8''%C3%A4%20%E7%8C%AB.png; filename=\"a.png\""
    assert taken("image/png", b"x", latin).pictures[0].name == "ä 猫.png"
    assert taken("image/png", b"x", 'inline; filename="b.png"').pictures[0].name == "b.png"
    assert taken("image/png", b"x").pictures[0].name == "image"


def test_fields_are_options_and_huge_ones_are_refused() -> None:
    body = part(b"2", 'name="top_k"') + part(b"x") + END
    assert taken(KIND, body).options == {"top_k": "2"}
    assert refusal(KIND, part(b"2" * 70_000, 'name="top_k"') + part(b"x") + END)[0] == 400


@given(st.binary(min_size=1, max_size=200), st.booleans(), st.booleans(), st.booleans())
def test_base64_of_every_kind(data: bytes, url: bool, padded: bool, prefixed: bool) -> None:
    text = (base64.urlsafe_b64encode if url else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    prefix = "data:image/jpeg;charset=utf-8;base64," if prefixed else ""
    assert decoded(prefix + text, "a") == data
    assert decoded(prefix + text[:5] + "\r\n " + text[5:], "a") == data


def test_other_kinds_are_415_and_told_what_is_taken() -> None:
    for kind in ("text/html", "application/pdf", "multipart/mixed; boundary=x", "video/mp4"):
        assert refusal(kind, b"x")[0] == 415

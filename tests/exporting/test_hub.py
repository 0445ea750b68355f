"""A model to a hub and back, on loopback: one commit, nothing unasked, no refusal masked by a
cache, and the token nowhere."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hubs
import pytest
from carded import written
from hubs import TOKEN, HubServer, Repository

import retinue
from retinue.cli.app import run
from retinue.errors import RetinueError, UsageError
from retinue.exporting.hub import Address


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    hubs.use(server, str(tmp_path / "cache"), monkeypatch)
    monkeypatch.chdir(tmp_path)
    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})  # not the server's clock
    monkeypatch.setattr("huggingface_hub.utils._http.time", hasty)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path / "m.safetensors")


def test_there_and_back(hub: HubServer, model: Path, tmp_path: Path) -> None:
    pushed = retinue.push(model, "me/flowers", licence="mit")
    there = hub.repositories["me/flowers"]
    assert pushed.made
    assert there.private, "for its owner alone unless asked otherwise"
    assert there.messages == ["initial commit", "Add a model with its card"], "one commit"
    assert pushed.commit == there.references["main"]
    assert there.files["best.safetensors"] == model.read_bytes()
    pulled = retinue.pull("me/flowers")
    assert pulled.path == Path("flowers")
    assert pulled.commit == pushed.commit
    assert (tmp_path / "flowers" / "best.safetensors").read_bytes() == model.read_bytes()
    assert (tmp_path / "flowers" / "README.md").read_bytes() == there.files["README.md"]
    assert retinue.load("flowers").classes == ("no", "1.0", "a: b", "x|`y`")
    assert retinue.pull("me/flowers").commit == pushed.commit, "again, into the same folder"


def test_a_second_push(hub: HubServer, model: Path) -> None:
    first = retinue.push(model, "me/flowers", private=False)
    assert not hub.repositories["me/flowers"].private
    again = retinue.push(model, "me/flowers")
    assert (again.made, again.changed) == (False, False)
    assert again.commit == first.commit
    assert len(hub.repositories["me/flowers"].messages) == 2
    third = retinue.push(model, "me/flowers", licence="mit", message="Say the licence")
    assert third.changed
    assert hub.repositories["me/flowers"].messages[2:] == ["Say the licence"]


def test_a_card_that_somebody_wrote_stays(hub: HubServer, model: Path, tmp_path: Path) -> None:
    retinue.push(model, "me/flowers")
    there = hub.repositories["me/flowers"]
    mine = there.files["README.md"] + b"\nMind the frost.\n"
    there.commit({"README.md": mine})
    with pytest.raises(UsageError, match=r"has not written.*--card FILE"):
        retinue.push(model, "me/flowers", licence="mit")
    assert there.files["README.md"] == mine
    (tmp_path / "card.md").write_bytes(mine)
    retinue.push(model, "me/flowers", card=tmp_path / "card.md")
    assert there.files["README.md"] == mine
    retinue.push(model, "me/flowers", force=True)
    assert b"frost" not in there.files["README.md"]


def test_nothing_is_sent_before_all_is_sound(hub: HubServer, model: Path, tmp_path: Path) -> None:
    own = tmp_path / "card.md"
    own.write_text("---\nlicense: no\n---\n")
    damaged = tmp_path / "d.safetensors"
    damaged.write_bytes(model.read_bytes()[:-100])
    for call in (
        lambda: retinue.push(model, "me/flowers", card=own),
        lambda: retinue.push(damaged, "me/flowers"),
        lambda: retinue.push(model, "flowers"),
        lambda: retinue.push(model, "me/flowers@v1"),
        lambda: retinue.push(tmp_path / "absent", "me/flowers"),
    ):
        with pytest.raises(RetinueError):
            call()
    assert hub.writes() == []
    assert retinue.model_card(model, repository="me/flowers")
    assert hub.seen == [], "the card alone asks nobody"


def test_somebody_pushes_in_between(hub: HubServer, model: Path) -> None:
    retinue.push(model, "me/flowers")
    hub.answer, hub.answering = 412, "/commit/"
    with pytest.raises(RetinueError, match=r"412: somebody else changed it.*try again"):
        retinue.push(model, "me/flowers", licence="mit")


@pytest.mark.parametrize("revision", ["", "@v1", "@refs/pr/1"])
def test_offline_a_revision_is_looked_up_in_the_cache(
    hub: HubServer, model: Path, tmp_path: Path, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retinue.push(model, "me/flowers", private=False).commit
    there = hub.repositories["me/flowers"]
    there.references |= {"v1": first, "refs/pr/1": first}
    retinue.pull(f"me/flowers{revision}", out="one")
    there.commit({"best.safetensors": b"newer"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pulled = retinue.pull(f"me/flowers{revision}", out="two")
    assert (pulled.offline, pulled.commit) == (True, first)
    assert (tmp_path / "two" / "best.safetensors").read_bytes() == model.read_bytes()
    assert (tmp_path / "two" / "README.md").is_file()
    assert retinue.pull(f"me/flowers@{first}", out="three").commit == first
    with pytest.raises(RetinueError, match=r"the cache does not have it either.*go online once"):
        retinue.pull("me/flowers@v2")
    with pytest.raises(RetinueError, match="HF_HUB_OFFLINE"):
        retinue.push(model, "me/flowers")


def test_a_hub_that_is_gone(hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = retinue.push(model, "me/flowers").commit
    retinue.pull("me/flowers", out="one")
    hub.shutdown()
    hub.server_close()
    assert retinue.pull("me/flowers", out="two").commit == first


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "401.*hf auth login"), (403, "403"), (404, "404"), (500, "500"), (429, "429")],
)
def test_a_refusal_is_not_masked_by_the_cache(
    hub: HubServer, model: Path, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    retinue.push(model, "me/flowers", private=False)
    retinue.pull("me/flowers", out="one")
    if status == 401:
        monkeypatch.setenv("HF_TOKEN", "")
    hub.answer, hub.answering = status, "api/models"
    with pytest.raises(RetinueError, match=said) as caught:
        retinue.pull("me/flowers", out="two")
    assert TOKEN not in str(caught.value)
    assert not Path("two").exists()


def test_a_password_in_the_address_is_not_told(
    hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://me:{TOKEN}@127.0.0.1:9")
    for call in (lambda: retinue.push(model, "me/flowers"), lambda: retinue.pull("me/flowers")):
        with pytest.raises(RetinueError, match="cannot be reached") as caught:
            call()
        assert TOKEN not in str(caught.value)
        assert "me:" not in str(caught.value)


def test_what_is_not_there(hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RetinueError, match="404: there is no such repository"):
        retinue.pull("me/absent")
    retinue.push(model, "me/flowers")
    with pytest.raises(RetinueError, match=r"no such revision.*me/flowers@v9"):
        retinue.pull("me/flowers@v9")
    hub.repositories["me/other"] = Repository()
    hub.repositories["me/other"].commit({"model.safetensors": b"x"})
    with pytest.raises(RetinueError, match=r"no best.safetensors.*model.weights=hub:me/other@"):
        retinue.pull("me/other")
    hub.repositories["me/other"].commit({"best.safetensors": b"no model"})
    with pytest.raises(RetinueError, match="not a safetensors file"):
        retinue.pull("me/other")
    assert not Path("other").exists()
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(RetinueError, match="needs a login"):
        retinue.pull("me/flowers")
    with pytest.raises(RetinueError, match="needs a login"):
        retinue.push(model, "me/new")
    assert "me/new" not in hub.repositories


def test_what_lies_in_the_way_stays(hub: HubServer, model: Path, tmp_path: Path) -> None:
    retinue.push(model, "me/flowers")
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"another file.*README.md"):
        retinue.pull("me/flowers")
    assert not (tmp_path / "flowers" / "best.safetensors").exists()
    retinue.pull("me/flowers", force=True)
    assert (tmp_path / "flowers" / "README.md").read_text() != "mine"
    with pytest.raises(UsageError, match="a file, not a folder"):
        retinue.pull("me/flowers", out=model)


@pytest.mark.parametrize(
    "text",
    ["flowers", "a/b/c", "../b", "a/..", "me/flowers@", "me/flowers@../../x", "me/a--b", "", "/",
     "me/flo wers", "https://huggingface.co/me/flowers", "me/flowers@a b", "me/f\n"],
)  # fmt: skip
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="OWNER/REPO@REVISION"):
        Address.of(text)


def test_no_token_anywhere(
    hub: HubServer, model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    assert run(["push", str(model), "me/flowers", "--licence", "mit", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["repository"] == "me/flowers"
    assert run(["pull", "me/flowers"]) == 0
    assert "4 classes: “no”, “1.0”, “a: b”" in capfd.readouterr().out
    hub.answer, hub.answering = 500, "preupload"
    assert run(["push", str(model), "me/flowers", "--force", "--licence", "x"]) == 1
    hub.answer, hub.answering = 401, "validate"
    assert run(["--debug", "pull", "me/absent"]) == 1
    said = capfd.readouterr()
    assert TOKEN not in caplog.text + said.out + said.err
    assert run(["push", str(model), "me/flowers", "--dry-run"]) == 0
    assert capfd.readouterr().out.startswith("---\nlibrary_name:")

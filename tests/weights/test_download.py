"""Fetching weights, from a server on loopback that breaks off, lies and is not there."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.weights import catalogue, download, files, resolution
from retinue.weights.catalogue import Hub, Url, WeightsEntry
from retinue.weights.resolution import resolve

BODY = bytes(range(256)) * 4096  # 1 MiB
PIECE = 2**16
FETCH = f"""
import sys
from pathlib import Path
import huggingface_hub.constants
from retinue.weights import download
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = {PIECE}
download.fetch(sys.argv[1], Path(sys.argv[2]), lambda path: "")
"""


class Server(http.server.ThreadingHTTPServer):
    """`answers`: path → (status, headers, body). `cuts`: after how many bytes the next answers
    break off. `pause`: seconds between pieces of 64 KiB. `seen`: method, path, range."""

    def __init__(self):
        self.answers = {}
        self.cuts = []
        self.pause = 0.0
        self.ranges = True
        self.seen = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                server.seen.append((self.command, self.path, wanted))
                status, headers, body = server.answers.get(self.path, (404, {}, b""))
                start, length = 0, len(body)
                if wanted and status == 200 and server.ranges:
                    start = int(wanted.removeprefix("bytes=").split("-")[0])
                    status = 206 if start < length else 416
                    whole = f"{start}-{length - 1}" if status == 206 else "*"
                    headers = {**headers, "Content-Range": f"bytes {whole}/{length}"}
                body = body[start:]
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "GET":
                    return
                if server.cuts:
                    body = body[: server.cuts.pop(0)]
                for at in range(0, len(body), PIECE):
                    self.wfile.write(body[at : at + PIECE])
                    self.wfile.flush()
                    time.sleep(server.pause)
                self.close_connection = True

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        """Clients that go away are part of the tests."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def ranges_of(self, path):
        return [asked for method, at, asked in self.seen if method == "GET" and at == path]


@pytest.fixture
def server():
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    """Written in pieces of 64 KiB (10 MB otherwise), and no waiting between attempts."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", PIECE)
    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})  # not the server's clock
    monkeypatch.setattr("huggingface_hub.file_download.time", hasty)
    monkeypatch.setattr("huggingface_hub.utils._http.time", hasty)


def kept(cache):
    return sorted(path.name for path in cache.iterdir() if path.name != ".locks")


def entry_of(url, body=BODY, **facts):
    return WeightsEntry(
        network="mobilenet_v2_035",
        tag="imagenet",
        places=(Url(url),),
        licence="none",
        layout="torchvision",
        **(facts or {"sha256": hashlib.sha256(body).hexdigest()[:8]}),
    )


@pytest.fixture
def entry(server, cache):
    server.answers["/w.pth"] = (200, {}, BODY)
    return entry_of(f"{server.url}/w.pth")


# ------------------------------------------------------------------------------------ an address


def test_download_once_and_keep(server, cache, entry):
    path = resolution.locate(entry)
    assert path == cache / "w.pth"
    assert path.read_bytes() == BODY
    assert resolution.locate(entry) == path
    assert len(server.seen) == 1
    assert kept(cache) == ["w.pth"]


def test_a_broken_connection_is_taken_up_again(server, cache, entry):
    server.cuts = [300_000, 200_000]
    assert resolution.locate(entry).read_bytes() == BODY
    asked = server.ranges_of("/w.pth")
    assert len(asked) == 3
    starts = [int(re.search(r"\d+", text).group()) for text in asked[1:]]
    assert 0 < starts[0] <= 300_000
    assert starts[0] < starts[1] <= 500_000


def test_what_has_arrived_is_kept_for_the_next_attempt(server, cache, entry):
    (cache).mkdir(parents=True)
    (cache / "w.pth.part").write_bytes(BODY[:700_000])
    assert resolution.locate(entry).read_bytes() == BODY
    assert server.ranges_of("/w.pth") == ["bytes=700000-"]
    assert kept(cache) == ["w.pth"]


def test_a_killed_process_loses_nothing(server, cache, entry):
    server.pause = 0.5
    target = cache / "w.pth"
    process = subprocess.Popen([sys.executable, "-c", FETCH, entry.places[0].url, str(target)])
    part = cache / "w.pth.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    have = part.stat().st_size
    assert 0 < have < len(BODY)
    assert not target.exists()
    server.pause = 0.0
    assert resolution.locate(entry).read_bytes() == BODY
    assert server.ranges_of("/w.pth")[-1] == f"bytes={have}-"


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, cache, entry):
    server.ranges = False
    server.cuts = [300_000]
    assert resolution.locate(entry).read_bytes() == BODY


def test_a_whole_part_needs_nothing_more(server, cache, entry):
    cache.mkdir(parents=True)
    (cache / "w.pth.part").write_bytes(BODY)
    assert resolution.locate(entry).read_bytes() == BODY


@pytest.mark.parametrize("beginning", [b"x" * 1000, BODY + b"more"])
def test_the_beginning_of_another_file_is_thrown_away(server, cache, entry, beginning):
    cache.mkdir(parents=True)
    (cache / "w.pth.part").write_bytes(beginning)
    assert resolution.locate(entry).read_bytes() == BODY
    assert kept(cache) == ["w.pth"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"sha256": "0" * 8}, r"its SHA-256 begins with \w{8}, not with 00000000"),
        ({"md5": "0" * 32}, r"its MD5 begins with \w{8}, not with 00000000"),
    ],
)
def test_another_file_than_the_published_one_is_not_kept(server, cache, facts, message):
    server.answers["/w.pth"] = (200, {}, BODY)
    with pytest.raises(RetinueError, match=rf"not the published file: {message}.*weights=PATH"):
        resolution.locate(entry_of(f"{server.url}/w.pth", **facts))
    assert kept(cache) == []


def test_md5_is_believed_where_there_is_nothing_better(server, cache):
    server.answers["/w.pth"] = (200, {}, BODY)
    entry = entry_of(f"{server.url}/w.pth", sha256="", md5=hashlib.md5(BODY).hexdigest())
    assert resolution.locate(entry).is_file()


def test_files_without_a_published_hash_are_said_to_be(server, cache, caplog):
    server.answers["/w.pth"] = (200, {}, BODY)
    with caplog.at_level("INFO", "retinue"):
        resolution.locate(entry_of(f"{server.url}/w.pth", sha256=""))
    assert "states no hash of w.pth: it is not compared" in caplog.text


def test_a_files_own_server_may_state_its_md5(server, cache, caplog):
    """As Google's storage does of the files whose publisher states nothing."""
    stated = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={stated}"}
    server.answers["/w.pth"] = (200, headers, BODY[:-1] + b"x")
    entry = entry_of(f"{server.url}/w.pth", sha256="")
    with pytest.raises(RetinueError, match="not the published file: its MD5 begins with"):
        resolution.locate(entry)
    assert kept(cache) == []
    server.answers["/w.pth"] = (200, headers, BODY)
    with caplog.at_level("INFO", "retinue"):
        assert resolution.locate(entry).read_bytes() == BODY
    assert "w.pth: it is compared with its server's MD5" in caplog.text


@pytest.mark.parametrize("stated", ["", "crc32c=AAAAAA==", "md5=no base64", "nonsense,"])
def test_what_a_server_states_may_be_nothing(server, stated):
    server.answers["/w.pth"] = (200, {"x-goog-hash": stated}, BODY)
    assert download.stated_md5(f"{server.url}/w.pth") == ""
    assert download.stated_md5(f"{server.url}/other.pth") == ""


def test_size_is_compared_where_it_is_all_that_is_known(server, cache):
    server.answers["/w.pth"] = (200, {}, BODY)
    assert resolution.locate(entry_of(f"{server.url}/w.pth", sha256="", size=len(BODY))).is_file()
    server.answers["/v.pth"] = (200, {}, BODY)
    with pytest.raises(RetinueError, match=f"it has {len(BODY):,} bytes, not {len(BODY) + 1:,}"):
        resolution.locate(entry_of(f"{server.url}/v.pth", sha256="", size=len(BODY) + 1))


def test_missing(server, cache):
    with pytest.raises(RetinueError, match=r"answers 404.*put http.*/w\.pth into.*weights=PATH"):
        resolution.locate(entry_of(f"{server.url}/w.pth"))
    assert kept(cache) == []


def test_what_cannot_be_reached_is_said_once(cache, caplog, capfd):
    """In our words alone, and with one way out."""
    with pytest.raises(RetinueError, match=r"127\.0\.0\.1:9/w\.pth cannot be reached") as caught:
        resolution.locate(entry_of("http://127.0.0.1:9/w.pth"))
    assert str(caught.value).count("weights=PATH") == 1
    assert kept(cache) == []
    assert "Error while downloading" not in caplog.text + capfd.readouterr().err


def test_nobody_there(server, cache, entry):
    cache.mkdir(parents=True)
    (cache / "w.pth.part").write_bytes(BODY[:500_000])
    server.shutdown()
    server.server_close()
    with pytest.raises(RetinueError, match=r"cannot be reached.*0\.5 MB have arrived.*goes on"):
        resolution.locate(entry)
    assert (cache / "w.pth.part").stat().st_size == 500_000


def test_offline(cache, entry, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RetinueError, match=r"HF_HUB_OFFLINE is set.*put http.*weights=PATH"):
        resolution.locate(entry)


def test_a_full_disk_is_named(cache, entry, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(RetinueError, match=r"no space is left.*checkpoints"):
        resolution.locate(entry)


def test_two_at_once_download_once(server, cache, entry):
    server.pause = 0.02
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(resolution.locate(entry))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "w.pth"] * 3
    assert found[0].read_bytes() == BODY
    assert len(server.seen) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_is_shown_on_a_terminal_and_not_in_a_log(server, cache, entry, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    server.pause = 0.1
    command = [sys.executable, "-c", FETCH, entry.places[0].url]
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([*command, str(tmp_path / "a.pth")], stderr=below, stdout=below)
    os.close(below)
    shown = b""
    while True:
        try:
            piece = os.read(above, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    assert b"w.pth" in shown
    assert b"%" in shown
    logged = subprocess.run([*command, str(tmp_path / "b.pth")], capture_output=True, check=True)
    assert b"%" not in logged.stderr + logged.stdout


# --------------------------------------------------------------------------------------- the hub

REVISION = "0123456789abcdef0123456789abcdef01234567"
PLACE = Hub("owner/repo", REVISION, "model.safetensors")
PATH = f"/owner/repo/resolve/{REVISION}/model.safetensors"


@pytest.fixture
def state():
    torch.manual_seed(0)
    return create_model("mobilenet_v2_035", num_classes=3).state_dict()


@pytest.fixture
def hub(server, tmp_path, monkeypatch, state):
    """A hub with one file at one revision, and an empty cache of its own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # what HF_ENDPOINT does, which is read at the import
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    body = save(state)
    headers = {"X-Repo-Commit": REVISION, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
    server.answers[PATH] = (200, headers, body)
    return server


def test_hub_file_by_revision(hub, state):
    path = resolution.from_hub(PLACE)
    contents = files.read(path)
    assert all(torch.equal(contents.tensors[k], v) for k, v in state.items())
    seen = len(hub.seen)
    assert resolution.from_hub(PLACE) == path  # a pinned revision: no asking
    assert len(hub.seen) == seen


def test_the_hubs_broken_connection_is_taken_up_again(hub, state):
    hub.cuts = [300_000]
    contents = files.read(resolution.from_hub(PLACE))
    assert contents.tensors.keys() == state.keys()
    assert [asked is not None for asked in hub.ranges_of(PATH)][-2:] == [False, True]


def test_a_hub_that_keeps_breaking_off(hub):
    hub.cuts = [300_000, *[0] * 20]
    with pytest.raises(RetinueError, match=r"does not give the file: .*owner/repo@0123"):
        resolution.from_hub(PLACE)


def test_what_the_hub_garbles_is_forgotten(hub, tmp_path):
    status, headers, body = hub.answers[PATH]
    hub.answers[PATH] = (status, headers, body[:-1] + b"x")
    with pytest.raises(RetinueError, match=r"not the file that it states.*try again"):
        resolution.from_hub(PLACE)
    hub.answers[PATH] = (status, headers, body)
    assert resolution.from_hub(PLACE).read_bytes() == body


def test_hub_entry_of_the_wrong_hash(hub, monkeypatch):
    """Also what the hub sends is compared with the catalogue."""
    entry = WeightsEntry(
        network="mobilenet_v2_035",
        tag="mine",
        layout="torchvision",
        sha256="0" * 64,
        places=(PLACE,),
        licence="none",
    )
    monkeypatch.setattr(catalogue, "find", lambda *_: entry)
    with pytest.raises(RetinueError, match=r"not the published one: its SHA-256"):
        resolve("mobilenet_v2_035", "mobilenet_v2", "mine")


def test_another_endpoint_by_the_environment(hub, tmp_path):
    """HF_ENDPOINT, as huggingface_hub reads it, in a process of its own."""
    code = (
        "from retinue.weights import resolution\nfrom retinue.weights.catalogue import Hub\n"
        f"print(resolution.from_hub(Hub('owner/repo', '{REVISION}', 'model.safetensors')))"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "elsewhere"),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "elsewhere" in done.stdout
    assert hub.ranges_of(PATH)


def test_hub_without_the_file(hub):
    place = Hub("owner/repo", REVISION, "missing.safetensors")
    with pytest.raises(RetinueError, match=r"owner/repo@0123.*missing\.safetensors"):
        resolution.from_hub(place)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_hub_that_denies_a_file_is_not_masked_by_the_cache(hub, status):
    """Of a branch, whose commit may be another one by now."""
    branch = Hub("owner/repo", "main", "model.safetensors")
    path = PATH.replace(REVISION, "main")
    hub.answers[path] = hub.answers[PATH]
    found = resolution.from_hub(branch)
    for headers in ({}, {"X-Error-Code": "RepoNotFound"}):
        hub.answers[path] = (status, headers, b"no")
        told = rf"does not give the file: .*{status}.*owner/repo@main.*hf auth login"
        with pytest.raises(RetinueError, match=told):
            resolution.from_hub(branch)
    hub.answers[path] = (503, {}, b"later")  # the hub's own trouble
    assert resolution.from_hub(branch) == found
    hub.shutdown()
    hub.server_close()
    assert resolution.from_hub(branch) == found  # nobody is there to say otherwise


def test_hub_offline(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RetinueError, match=r"cannot be reached.*owner/repo@.*weights=PATH"):
        resolution.from_hub(PLACE)


def test_hub_that_is_not_there(hub):
    hub.shutdown()
    hub.server_close()
    began = time.monotonic()
    with pytest.raises(RetinueError, match=r"cannot be reached.*owner/repo@.*weights=PATH"):
        resolution.from_hub(PLACE)
    assert time.monotonic() - began < 10  # its own library tries six times, for 23 seconds


def test_what_was_fetched_needs_no_hub(hub, caplog):
    found = resolution.from_hub(PLACE)
    asked = len(hub.seen)
    assert resolution.from_hub(PLACE) == found
    assert len(hub.seen) == asked  # a commit does not change
    entry = WeightsEntry(network="x", tag="y", layout="timm", places=(PLACE,), licence="none")
    assert resolution.at_hand(entry) == found
    elsewhere = replace(entry, places=(Hub("owner/other", REVISION, "model.safetensors"),))
    assert resolution.at_hand(elsewhere) is None

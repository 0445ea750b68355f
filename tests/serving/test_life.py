"""From start to stop: when it is ready, what becomes of a file that changes, how it ends."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from predictors import CLASSES
from served import ON_TORCH, Service, picture, quick, serving, wait_until

from retinue.errors import RetinueError, UsageError
from retinue.inference.predictor import Predictor
from retinue.serving.counters import Counters
from retinue.serving.models import Served, named
from retinue.serving.server import make_room, names_of
from retinue.serving.settings import Settings

from .conftest import write_classifier

PICTURE = picture()
WATCHED = {"watch": 0.05}


def version(client: httpx.Client) -> str:
    response = client.post("/v1/predict", content=PICTURE)
    assert response.status_code == 200, response.text
    told: str = response.json()["version"]
    return told


# --- ready ---------------------------------------------------------------------------------------


def test_it_is_alive_before_it_is_ready_and_ready_once_it_has_answered(classifier: Path) -> None:
    go, shown = threading.Event(), []

    def opened(path: Path) -> Predictor:
        predictor = ON_TORCH(path)
        predictor.network.register_forward_pre_hook(lambda _, x: shown.append(len(x[0])))
        assert go.wait(10)
        return predictor

    with serving({"flowers": classifier}, load=opened, ready=False) as (service, client):
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "not_ready"
        assert client.post("/v1/predict", content=PICTURE).status_code == 503
        assert client.get("/v1/models").json()["models"] == [{"name": "flowers", "ready": False}]
        assert not shown
        go.set()
        wait_until(lambda: service.house.ready)
        assert client.get("/readyz").status_code == 200
        assert shown == [1, 4]  # alone, and by the batch


def test_a_model_that_is_missing_or_damaged_ends_the_server_with_the_reason(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="there is no such model"):
        Service({"a": tmp_path / "nothing.safetensors"}, quick())
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"x" * 100)
    with pytest.raises(RetinueError, match="not a safetensors file"), serving({"a": broken}):
        pass


def test_an_address_that_is_taken_is_said(
    both: tuple[Service, httpx.Client], tmp_path: Path
) -> None:
    service, _ = both
    port = int(service.address.rsplit(":", 1)[1])
    file = write_classifier(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=f"cannot listen: address already in use, .*{port}"):
        Service({"a": file}, quick(port=port))
    with pytest.raises(UsageError, match="cannot listen"):
        Service({"a": file}, quick(host="no.such.host.invalid"))


# --- another file --------------------------------------------------------------------------------


@pytest.fixture
def own(classifier: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(classifier, tmp_path / "own.safetensors"))


def test_a_replaced_file_is_taken_up_and_it_is_ready_all_the_while(own: Path) -> None:
    with serving({"own": own}, quick(**WATCHED)) as (_, client):
        before = version(client)
        new = write_classifier(own.with_name("new.safetensors"), scale=0.5)
        os.replace(new, own)
        end = time.monotonic() + 10
        while (now := version(client)) == before:
            assert client.get("/readyz").status_code == 200
            assert time.monotonic() < end
        assert now != before
        assert (
            'retinue_reloads_total{model="own",outcome="taken"} 1.0' in client.get("/metrics").text
        )


def test_a_half_copied_file_is_not_taken_and_a_repaired_one_is(own: Path) -> None:
    with serving({"own": own}, quick(**WATCHED)) as (_, client):
        before = version(client)
        new = write_classifier(own.with_name("new.safetensors"), scale=0.5).read_bytes()
        own.write_bytes(new[: len(new) // 2])
        refused = 'retinue_reloads_total{model="own",outcome="refused"} 1.0'
        wait_until(lambda: refused in client.get("/metrics").text)
        assert version(client) == before
        own.unlink()
        time.sleep(0.2)
        assert version(client) == before
        own.write_bytes(new)
        wait_until(lambda: version(client) != before)


def test_a_file_that_is_being_written_is_waited_for(own: Path) -> None:
    with serving({"own": own}, quick(watch=0.15)) as (_, client):
        before = version(client)
        new = write_classifier(own.with_name("new.safetensors"), scale=0.5).read_bytes()
        with own.open("wb") as file:
            for start in range(0, len(new), len(new) // 10 + 1):
                file.write(new[start : start + len(new) // 10 + 1])
                file.flush()
                time.sleep(0.06)
        wait_until(lambda: version(client) != before)
        assert 'outcome="refused"' not in client.get("/metrics").text


def test_a_new_file_that_says_nothing_finite_is_not_taken(own: Path) -> None:
    with serving({"own": own}, quick(**WATCHED)) as (_, client):
        before = version(client)
        os.replace(write_classifier(own.with_name("new.safetensors"), scale=float("nan")), own)
        wait_until(lambda: 'outcome="refused"' in client.get("/metrics").text)
        assert version(client) == before


def test_what_a_new_file_changes_for_clients_is_said(
    own: Path, detector: Path, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    served = Served("own", own, quick(), Counters(), load=ON_TORCH)
    try:
        served.load()

        def told(file: Path) -> str:
            caplog.clear()
            os.replace(shutil.copy(file, own.with_name("new.safetensors")), own)
            served.look()
            served.look()
            assert served.current.digest[:8] in caplog.text
            return caplog.text.partition(served.current.digest)[2].strip()

        other = own.with_name("other.safetensors")
        assert told(write_classifier(other, scale=0.5)) == ""
        assert {one.levelno for one in caplog.records} == {logging.INFO}
        assert told(write_classifier(other, classes=[*CLASSES[:-1], "a\nb", "fern"])) == (
            f"; 1 class gone: “{CLASSES[-1]}”; 2 classes new: “a\\nb” and “fern”"
        )
        assert told(write_classifier(other, classes=["fern", *CLASSES[:-1], "a\nb"])) == (
            "; the classes are in another order"
        )
        assert {one.levelno for one in caplog.records} == {logging.WARNING}
        assert told(detector).startswith("; the task is bright, not classification any more; 5")
    finally:
        served.batcher.close()


def test_a_file_that_is_replaced_while_it_is_loaded_first_is_loaded_anew(
    own: Path, detector: Path
) -> None:
    """A few times over, were it cut short or moved away in between."""
    whole, others = own.read_bytes(), [detector.read_bytes(), b"short", None]

    def opened(path: Path) -> Predictor:
        if others:
            other = others.pop(0)
            own.unlink()
            if other is not None:
                own.write_bytes(other)
            if not others:
                threading.Timer(0.1, lambda: own.write_bytes(whole)).start()
        return ON_TORCH(path)

    served = Served("own", own, quick(), Counters(), load=opened)
    try:
        served.begin()
        assert not others
        assert served.current.describe()["classes"] == CLASSES
        others += [whole[:-1] + bytes([k]) for k in range(9)]  # never at rest
        with pytest.raises(RetinueError):
            served.begin()
    finally:
        served.batcher.close()


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_ends_it_stands_in_the_log_in_its_own_form(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from retinue.cli.app import run

    file = tmp_path / "own.safetensors"
    file.write_bytes(b"short")
    code = run(["serve", str(file), "--port", "0", "--engine", "torch", "--log", form])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert code == 1
    if form == "text":
        assert line.startswith("error: ")
        assert str(file) in line
    else:
        told = json.loads(line)
        assert told["level"] == "error"
        assert str(file) in told["message"]


def test_a_file_that_is_gone_is_said_once_and_the_model_goes_on(own: Path, caplog: Any) -> None:
    served = Served("own", own, quick(), Counters(), load=ON_TORCH)
    try:
        served.load()
        away = own.with_name("away")
        for _ in range(2):
            os.rename(own, away)
            served.look()
            assert not caplog.messages  # perhaps another is put there the next moment
            for _ in range(3):
                served.look()
            (line,) = caplog.messages
            assert f"the model file is gone from {own}" in line
            assert served.ready
            os.rename(away, own)
            served.look()
            caplog.clear()
    finally:
        served.batcher.close()


def test_requests_under_way_keep_the_model_and_the_size_that_they_began_with(own: Path) -> None:
    """The new one takes other pixels; every answer is whole, of either."""
    from retinue import modelfile
    from retinue.sample import Preprocessing

    with serving({"own": own}, quick(**WATCHED)) as (service, client):
        description, tensors = modelfile.read(own)
        other = Preprocessing(size=(96, 32)).as_dict()
        new = own.with_name("new.safetensors")
        modelfile.write(new, tensors, description.model_copy(update={"preprocessing": other}))
        statuses: list[int] = []
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                answer = httpx.post(f"{service.address}/v1/predict", content=PICTURE)
                statuses.append(answer.status_code)

        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        before = version(client)
        os.replace(new, own)
        wait_until(lambda: version(client) != before)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}


# --- names and addresses -------------------------------------------------------------------------


def test_models_are_called_as_their_run_or_file(tmp_path: Path) -> None:
    run = tmp_path / "finetune-3"
    run.mkdir()
    (run / "best.safetensors").touch()
    assert named([str(run)]) == {"finetune-3": run}
    assert list(named([f"{run}/best.safetensors"])) == ["finetune-3"]
    assert named(["a=x.safetensors", "y/b.safetensors"]) == {
        "a": Path("x.safetensors"), "b": Path("y/b.safetensors")
    }  # fmt: skip
    odd = tmp_path / "k=v.safetensors"
    odd.touch()
    assert named([str(odd)]) == {"k=v": odd}
    with pytest.raises(UsageError, match="two models are called 'b'"):
        named(["x/b.safetensors", "y/b.safetensors"])


def test_loopback_has_its_names_and_others_those_that_are_given() -> None:
    assert names_of("127.0.0.1", ("Mine",)) == ("localhost", "127.0.0.1", "[::1]", "mine")
    assert names_of("0.0.0.0", ()) == ()
    assert names_of("0.0.0.0", ("a.example",)) == ("a.example",)


def test_who_is_open_to_others() -> None:
    assert not Settings().open_to_others
    assert Settings(host="0.0.0.0").open_to_others
    assert Settings(host="::").open_to_others


def test_files_are_allowed_for_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: given.append(limits))
    for soft, hard, expected in (
        (1024, 4096, [(1200, 4096)]),
        (256, 512, [(512, 512)]),
        (1024, resource.RLIM_INFINITY, [(1200, resource.RLIM_INFINITY)]),
        (4096, 4096, []),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, []),
    ):
        given.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda which, found=(soft, hard): found)
        make_room(1000)
        assert given == expected


# --- the end -------------------------------------------------------------------------------------


def test_every_request_that_was_taken_is_answered_after_it_is_told_to_stop(
    classifier: Path,
) -> None:
    seconds = [0.0]

    def opened(path: Path) -> Predictor:
        predictor = ON_TORCH(path)
        predictor.network.register_forward_pre_hook(lambda *_: time.sleep(seconds[0]))
        return predictor

    settings = quick(lame_duck=0.3, batch_size=2)
    with serving({"flowers": classifier}, settings, load=opened) as (service, _):
        seconds[0] = 0.3
        (model,) = service.house.models.values()
        answers: list[Any] = []

        def send() -> None:
            answers.append(httpx.post(f"{service.address}/v1/predict", content=PICTURE, timeout=20))

        threads = [threading.Thread(target=send) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: model.batcher.pending == 6)
        service.stop()
        wait_until(lambda: service.house.draining)
        late = httpx.get(f"{service.address}/readyz")  # still let in, and told that it is over
        assert late.status_code == 503
        assert late.headers["connection"] == "close"
        for thread in threads:
            thread.join()
        assert [one.status_code for one in answers] == [200] * 6
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.address}/healthz")


def test_several_servers_behind_one_name_stand_in_for_each_other(classifier: Path) -> None:
    """As docs/serve.md has them behind a proxy, which hands on the name that it was asked by."""
    named_so = quick(hosts=("models.example",))
    host = {"host": "models.example"}

    def proxied(*servers: Service) -> httpx.Response:
        for server in servers:
            try:
                told = httpx.post(f"{server.address}/v1/predict", content=PICTURE, headers=host)
            except httpx.ConnectError:
                continue
            if told.status_code not in (429, 503):
                return told
        raise AssertionError("none answers")

    with serving({"flowers": classifier}, named_so) as (first, client):
        with serving({"flowers": classifier}, named_so) as (second, other):
            answers = [proxied(*order) for order in ((first, second), (second, first))]
            assert answers[0].status_code == 200
            assert answers[0].json() == answers[1].json()
            for one in (client, other):
                counted = 'route="/v1/predict",status="200"} 1.0'
                assert counted in one.get("/metrics").text
        assert proxied(second, first).json() == answers[0].json()  # the second has ended


def test_names_of_classes_are_text_everywhere(tmp_path: Path) -> None:
    odd = ['a"b', "<b>x</b>\n", "猫 & dog/1", *CLASSES]
    file = write_classifier(tmp_path / "odd.safetensors", classes=odd)
    with serving({'we"ird': file}, quick()) as (_, client):
        response = client.post("/v1/predict?top_k=7", content=PICTURE)
        assert {c["name"] for c in response.json()["results"][0]["classes"]} == set(odd)
        assert response.json()["model"] == 'we"ird'
        text = client.get("/metrics").text
        assert 'model="we\\"ird"' in text


def test_the_weights_beside_a_file_are_a_part_of_it(tmp_path: Path) -> None:
    """OpenVINO's `.bin`, ONNX's `.data`: the file itself may stay as it is."""
    from retinue.serving.models import _signature

    for name, beside in (("a.xml", "a.bin"), ("b.onnx", "b.onnx.data")):
        file, other = tmp_path / name, tmp_path / beside
        file.write_text("x")
        alone = _signature(file)
        other.write_text("1")
        before = _signature(file)
        assert before != alone
        os.replace(_written(tmp_path / "new", "2"), other)
        assert _signature(file) != before
    (tmp_path / "b.bin").write_text("1")
    before = _signature(tmp_path / "b.onnx")
    (tmp_path / "b.bin").write_text("of something else")
    assert _signature(tmp_path / "b.onnx") == before


def test_the_members_of_an_ensemble_are_parts_of_it(tmp_path: Path) -> None:
    """One that is replaced makes another version, which is taken up."""
    members = [tmp_path / name / "best.safetensors" for name in ("a", "b")]
    for member in members:
        member.parent.mkdir()
        write_classifier(member)
    file = tmp_path / "both.json"
    models = [{"file": "a", "weight": 0.5}, {"file": "b/best.safetensors", "weight": 0.5}]
    file.write_text(json.dumps({"retinue_ensemble": 1, "models": models}))
    served = Served("both", file, quick(), Counters(), load=ON_TORCH)
    try:
        served.load()
        old = served.current
        for member in members:
            write_classifier(tmp_path / "new.safetensors", scale=2.0)
            os.replace(tmp_path / "new.safetensors", member)
            served.look()
            served.look()
            assert served.current.digest != old.digest
            old = served.current
        os.rename(members[0], tmp_path / "away")
        served.look()
        served.look()
        assert served.current is old
        os.rename(tmp_path / "away", members[0])
    finally:
        served.batcher.close()


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path

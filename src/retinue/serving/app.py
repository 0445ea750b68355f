"""The addresses that a server answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from importlib import resources
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import retinue
from retinue.documents import json_text
from retinue.serving import openapi, reference
from retinue.serving.answers import Answers
from retinue.serving.bodies import Body, Buffers, parsed
from retinue.serving.counters import Counters
from retinue.serving.edge import Edge
from retinue.serving.keys import Keys
from retinue.serving.models import Served
from retinue.serving.problems import Problem, bad, failure, unready
from retinue.serving.samples import Samples
from retinue.serving.settings import Settings
from retinue.text import few, shorten

T = TypeVar("T")

LARGE = 1 << 20
"""Bytes of a body that is taken apart in a thread."""
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Json(Response):
    """Nothing that is no number gets out: `json_text` refuses it."""

    media_type = "application/json"

    def __init__(self, value: Any, status: int = 200, headers: Any = None) -> None:
        super().__init__(json_text(value), status, {"cache-control": "no-store", **(headers or {})})


class House:
    """What the addresses share."""

    def __init__(
        self,
        settings: Settings,
        models: Sequence[Served],
        counters: Counters,
        answers: Answers,
        samples: Samples,
    ) -> None:
        self.settings, self.counters, self.answers = settings, counters, answers
        self.models = {model.name: model for model in models}
        self.samples = samples
        self.buffers = Buffers(settings)
        self.warm = False
        """Whether everything has been loaded, and has worked once."""
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether every model answers at once, and the server is not going down."""
        return self.warm and not self.draining

    def model(self, name: str | None) -> Served:
        """The one that is asked for; of none, the first. Raises `Problem`."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            told = f"there is no model {shorten(name, 40)!r}"
            mend = f"choose one of {few(list(self.models), 20)}"
            raise Problem(404, "no_such_model", told, mend=mend)
        return self.models[name]


def made(house: House) -> Edge:
    """The application."""
    app = FastAPI(
        title="retinue", version=retinue.__version__, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", description=openapi.DESCRIPTION,
    )  # fmt: skip

    @app.post("/v1/predict", **openapi.PREDICT)
    async def predict(request: Request) -> Response:
        """Recognise what is in one picture or several."""
        return await while_there(request, _predict(house, request))

    @app.post("/v1/explain", **openapi.EXPLAIN)
    async def explain(request: Request) -> Response:
        """What an answer rests on: a picture to lay over the one that is sent."""
        return await while_there(request, _explain(house, request))

    @app.get("/v1/models", **openapi.MODELS)
    async def models() -> Response:
        """The models that are served, with their classes and what can be set."""
        return Json({"models": [_described(model) for model in house.models.values()]})

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Response:
        """Whether the process is alive."""
        return Json({"status": "alive"})

    @app.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        """Whether every model is loaded and has answered once."""
        if house.ready:
            return Json({"status": "ready"})
        raise unready("the server is going down" if house.draining else "a model is being loaded")

    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(house.counters.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(reference.page(app.openapi()), media_type="text/html; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _static("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return _static(name)

    @app.get("/samples", include_in_schema=False)
    async def samples() -> Response:
        return Json({"samples": house.samples.names()})

    @app.get("/samples/{number}", include_in_schema=False)
    async def sample(number: int) -> Response:
        return house.samples.response(number)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        codes = {404: "no_such_address", 405: "wrong_method"}
        problem = Problem(error.status_code, codes.get(error.status_code, "refused"), error.detail)
        return _refused(request, problem, error.headers)

    @app.exception_handler(Problem)
    async def refused(request: Request, problem: Problem) -> Response:
        return _refused(request, problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        return _refused(request, bad("bad_request", shorten(told, 200)))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _refused(request, failure())  # starlette raises it again, to be noted at the edge

    return Edge(
        app, settings=house.settings, counters=house.counters, keys=Keys(house.settings.keys),
        routes=list(app.routes),
    )  # fmt: skip


def _refused(request: Request, problem: Problem, headers: Any = None) -> Response:
    told = request.scope["state"]["told"]
    told["code"] = problem.code
    answer = {"error": problem.as_dict(), "request": told["request"]}
    return Json(answer, problem.status, {**(headers or {}), **problem.headers})


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """`work`, given up as soon as the client has gone. Raises `Problem` then."""
    task = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_gone(request, task))
    try:
        return await task
    except asyncio.CancelledError:
        if listening.done() and not listening.cancelled():
            raise Problem(499, "gone", "the client has gone") from None
        task.cancel()
        raise
    finally:
        listening.cancel()


async def _gone(request: Request, task: asyncio.Future[Any]) -> None:
    """Cancels the task when the client goes. The body is the task's to read, and only once it is
    all there may somebody else listen."""
    body_read: asyncio.Event = request.scope["state"].setdefault("body_read", asyncio.Event())
    await body_read.wait()
    with suppress(Exception):
        while (await request.receive())["type"] != "http.disconnect":
            pass
    task.cancel()


@asynccontextmanager
async def _asked(house: House, request: Request) -> AsyncIterator[tuple[Served, Body, Any]]:
    """The model that is asked, and what the request holds; what stands in the query goes before
    what stands in the body. Raises `Problem`."""
    told = request.scope["state"]["told"]
    query = dict(request.query_params)
    if "model" in query or len(house.models) == 1:
        # Whoever will not be taken need not send the body, nor the server hold it.
        house.model(query.get("model")).batcher.refuse_full()
    async with house.buffers.received(request) as data:
        request.scope["state"].setdefault("body_read", asyncio.Event()).set()
        headers = request.headers
        parse = partial(
            parsed, headers.get("content-type", ""), headers.get("content-disposition", ""), data,
            most=house.settings.max_images,
        )  # fmt: skip
        # A large one takes a while, and others want to be answered meanwhile.
        body = parse() if len(data) < LARGE else await asyncio.to_thread(parse)
        body.options |= query
        model = house.model(body.options.pop("model", None))
        told |= {"model": model.name, "images": len(body.pictures), "bytes": len(data)}
        del data, parse  # while it is answered, the pictures alone are held
        yield model, body, told


async def _predict(house: House, request: Request) -> Response:
    async with _asked(house, request) as (model, body, told):
        version, found = await house.answers.of(model, body.pictures, body.options)
    problems = [one for one in found if isinstance(one, Problem)]
    if len(problems) == len(found):
        raise problems[0]
    results = [
        {"path": picture.name, "error": one.as_dict()} if isinstance(one, Problem) else one
        for picture, one in zip(body.pictures, found, strict=True)
    ]
    told["failed"] = len(problems)
    return Json({"model": model.name, "version": version, "results": results})


async def _explain(house: House, request: Request) -> Response:
    async with _asked(house, request) as (model, body, _):
        target = body.options.pop("target", None)
        if len(body.pictures) != 1 or body.options:
            raise bad("bad_request", "send exactly one picture, with no option but `target`")
        overlay, headers = await house.answers.explained(model, body.pictures[0], target)
    return Response(overlay, media_type="image/png", headers=headers)


def _described(model: Served) -> dict[str, Any]:
    about = model.current.describe() if model.ready else {}
    return {"name": model.name, "ready": model.ready, **about}


@cache
def page_files() -> dict[str, bytes]:
    """The files of the page, by their names."""
    folder = resources.files("retinue.serving") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def _static(name: str) -> Response:
    content = page_files().get(name)
    if content is None:
        raise Problem(404, "no_such_address", "Not Found")
    kind = KINDS[name[name.rindex(".") :]]
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

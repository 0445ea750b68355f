"""A hub on loopback, as much of one as pushing and pulling a model needs."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_aVerySecretTokenOfTheTests"


@dataclass
class Repository:
    """`commits`: SHA-1 → files, in their order. `references`: branch or tag → SHA-1."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], message: str = "by hand") -> str:
        before = self.commits.get(self.references.get("main", ""), {})
        sha = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = {**before, **files}
        self.messages.append(message)
        self.references["main"] = sha
        return sha

    def at(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.references.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.references["main"]]


class HubServer(http.server.ThreadingHTTPServer):
    """`seen`: method and path of each request. `answer`: a status that all get in place of theirs,
    where `answering` is in the path."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.seen: list[tuple[str, str]] = []
        self.answer: int | None = None
        self.answering = ""
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def writes(self) -> list[str]:
        return [path for method, path in self.seen if method == "POST"]


class Handler(http.server.BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        self._take()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append((self.command, path))
        if self.server.answer and self.server.answering in path and "/" in path.strip("/"):
            code = {401: "RepoNotFound", 404: "RepoNotFound"}.get(self.server.answer, "")
            self._say(self.server.answer, {"error": "refused"}, {"X-Error-Code": code})
            return
        parts = path.strip("/").split("/")
        if parts[0] != "api":
            self._file(parts)
        elif parts[1:] == ["repos", "create"]:
            said = json.loads(body)
            if not self._may_write():
                return
            name = f"{said['organization']}/{said['name']}"
            self.server.repositories[name] = Repository(private=said.get("visibility") == "private")
            self.server.repositories[name].commit({".gitattributes": b""}, "initial commit")
            self._say(200, {"url": f"{self.server.url}/{name}"})
        elif parts[1:] == ["validate-yaml"]:
            self._validate(json.loads(body)["content"])
        elif parts[1] == "models":
            self._model("/".join(parts[2:4]), parts[4:], body)
        else:
            self._say(404, {"error": "no such page"})

    def _validate(self, content: str) -> None:
        try:
            read = yaml.safe_load(content.split("---\n")[1])
            assert isinstance(read, dict)
            assert all(isinstance(one, str) for one in [*read["tags"], *read.get("classes", [])])
        except (yaml.YAMLError, AssertionError, IndexError, KeyError) as error:
            self._say(400, {"errors": [{"message": repr(error)}], "warnings": []})
        else:
            self._say(200, {"errors": [], "warnings": []})

    def _token(self) -> bool:
        return bool(self.headers.get("Authorization") == f"Bearer {TOKEN}")

    def _may_write(self) -> bool:
        if not self._token():
            self._say(401, {"error": "Invalid username or password."})
        return self._token()

    def _find(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self._token()):
            code = 404 if self._token() else 401
            self._say(code, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _model(self, name: str, rest: list[str], body: bytes) -> None:
        found = self._find(name)
        if found is None:
            return
        if self.command == "GET":
            sha = found.at("/".join(rest[1:]) or "main")
            if sha is None:
                code = {"X-Error-Code": "RevisionNotFound"}
                self._say(404, {"error": "Invalid rev id"}, code)
                return
            files = [{"rfilename": name} for name in found.commits[sha]]
            self._say(200, {"id": name, "modelId": name, "sha": sha, "siblings": files})
        elif not self._may_write():
            return
        elif rest[0] == "preupload":
            files = []
            for asked in json.loads(body)["files"]:
                there = found.files.get(asked["path"])
                blob = b"" if there is None else b"blob %d\0" % len(there) + there
                oid = None if there is None else hashlib.sha1(blob).hexdigest()
                files.append({"path": asked["path"], "uploadMode": "regular",
                              "shouldIgnore": False, "oid": oid})  # fmt: skip
            self._say(200, {"files": files})
        elif rest[0] == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            head = lines[0]["value"]
            if head.get("parentCommit") not in (None, found.references["main"]):
                self._say(412, {"error": "the branch has moved"})
                return
            sent = {line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines[1:]}  # fmt: skip
            sha = found.commit(sent, head["summary"])
            self._say(200, {"commitUrl": f"{self.server.url}/{name}/commit/{sha}",
                            "commitOid": sha, "success": True})  # fmt: skip

    def _file(self, parts: list[str]) -> None:
        if len(parts) < 5 or parts[2] != "resolve":
            self._say(200, {})
            return
        found = self._find("/".join(parts[:2]))
        if found is None:
            return
        sha = found.at(parts[3])
        content = found.commits[sha].get("/".join(parts[4:])) if sha else None
        if content is None:
            self._say(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha1(content).hexdigest()
        self._say(200, content, {"X-Repo-Commit": str(sha), "ETag": f'"{etag}"'})

    def _say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def use(server: HubServer, cache: str, patch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN do, which are read at the import."""
    import huggingface_hub.constants as constants

    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setenv("HF_TOKEN", TOKEN)

"""A small server that answers as the Hugging Face Hub does, for those of its addresses that we use."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_stand_in"


@dataclass
class Hub:
    """Its address, and what is in its repositories."""

    address: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256, as Git LFS keeps them
    asked: list[str] = field(default_factory=list)


@contextmanager
def hub() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def revision(files: dict[str, bytes]) -> str:
    return sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, code: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def refuse(self, code: int, kind: str = "") -> None:
        self.answer(code, {"error": kind or "refused"}, **({"X-Error-Code": kind} if kind else {}))

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self.body()
        self.hub.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401)
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said['organization']}/{said['name']}"
            if said["organization"] != "me":
                return self.refuse(403)
            code = 409 if name in self.hub.repositories else 200
            self.hub.repositories.setdefault(name, {})
            return self.answer(code, {"url": f"{self.hub.address}/{name}", "error": "exists"})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/storage/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.hub.repositories[name][value["path"]] = self.hub.large[value["oid"]]
            oid = revision(self.hub.repositories[name])
            return self.answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid})
        return self.refuse(404)

    def do_PUT(self) -> None:
        body = self.body()
        assert sha256(body).hexdigest() == self.path.split("/")[-1]
        self.hub.large[self.path.split("/")[-1]] = body
        self.answer(200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        files = self.hub.repositories.get(name)
        if files is None:
            return self.refuse(401, "RepoNotFound")
        oid = revision(files)
        if parts[:2] == ["api", "models"]:
            if "revision" in parts and parts[-1] not in ("main", oid):
                return self.refuse(404, "RevisionNotFound")
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            return self.answer(200, {"id": name, "sha": oid, "private": False, "siblings": siblings})
        file = "/".join(parts[4:])
        if parts[2] != "resolve" or file not in files:
            return self.refuse(404, "EntryNotFound")
        return self.answer(200, files[file], ETag=f'"{sha256(files[file]).hexdigest()}"', X_Repo_Commit=oid)

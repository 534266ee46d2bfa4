"""A stand-in for a Weights & Biases server, which keeps the rows that a client uploads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Server(ThreadingHTTPServer):
    """Listens on a free port of this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.rows: dict[str, list[dict[str, Any]]] = {}  # history by run id
        self.about: dict[str, dict[str, Any]] = {}  # what a run was created with

    def answer(self, query: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL query."""
        words, name = query.get("variables") or {}, query.get("operationName")
        entity = {"id": "1", "name": "me"}
        project = {"id": "1", "name": words.get("project"), "entity": entity}
        run = {
            "id": words.get("name"),
            "name": words.get("name"),
            "displayName": "",
            "config": "{}",
        }
        if name == "Viewer":
            return {"viewer": entity | {"entity": "me", "flags": "{}", "teams": {"edges": []}}}
        if name == "RunResumeStatus":
            rows = self.rows.get(words["name"])
            counts = {"logLineCount": 0, "historyLineCount": len(rows or ()), "eventsLineCount": 0}
            tails = {"historyTail": json.dumps([json.dumps(r) for r in (rows or ())[-1:]])}
            tails |= {"eventsTail": "[]", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}'}
            return {"model": project | {"bucket": None if rows is None else run | counts | tails}}
        if name == "UpsertBucket":
            new = words["name"] not in self.rows
            self.rows.setdefault(words["name"], [])
            self.about.setdefault(words["name"], words)
            bucket = run | {"project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/file"} for file in words["files"]]
            made = {"runID": words["run"], "uploadHeaders": [], "files": files}
            return {"createRunFiles": made}
        return {}


class Handler(BaseHTTPRequestHandler):
    """Takes what a client sends."""

    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply: dict[str, Any] = {}
        if self.path == "/graphql":
            reply = {"data": self.server.answer(json.loads(body))}
        elif self.path.endswith("/file_stream"):
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl", {})
            run = self.path.split("/")[-2]
            self.server.rows[run] += [json.loads(line) for line in history.get("content", [])]
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Serve while inside."""
    server = Server()
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

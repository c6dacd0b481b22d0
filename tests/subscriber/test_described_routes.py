"""Every route of the OpenAPI document asked with nonsense: what comes is an answer, or a refusal with its reason."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.subscriber.test_handlers import Served, with_foo

TEXTS = [
    "", "0", "-1", "foo", "foo/", "foo/dir/grid.b2nd", "foo/readme.md", "foo/../x", "/etc/x", "@public", "@shared/x",
    "x" * 300, "é\u202e", "a\0b", "0:5", "::-2", "[1]", "9" * 30, "1e9", "{}", "null", "%00", "nan", "foo/dir",
]  # fmt: skip
VALUES = [*TEXTS, None, True, 0, -1, 2**70, 1.5, [], [[0, 1, 1]], [["x"]], {}, {"a": "foo/x"}, [[[[]]]]]
STREAMS = ("/api/v1/events", "/api/v1/event-lines")
ROUNDS = 12


def test_nonsense_is_refused_with_a_reason(tmp_path: Path) -> None:
    dice = random.Random(2026)

    async def ask(sub: Served, verb: str, route: str, operation: dict[str, Any]) -> None:
        target, query = route, {}
        for parameter in operation["parameters"]:
            text = dice.choice(TEXTS)
            if parameter["in"] == "path":
                target = target.replace(f"{{{parameter['name']}}}", quote(text.replace("\0", "%00"), safe="/@"))
            elif parameter["required"] or dice.random() < 0.7:
                query[parameter["name"]] = text
        body = None
        if verb in ("POST", "PUT"):
            names = [
                name
                for content in operation.get("requestBody", {}).get("content", {}).values()
                for name in content.get("schema", {}).get("properties", {})
            ]
            form = {name: dice.choice(VALUES) for name in names if dice.random() < 0.9}
            body = dice.choice([json.dumps(form), json.dumps(form), "{", "[]", ""])
        answer = await sub.fetch(f"{target}?{urlencode(query)}" if query else target, verb, body)
        asked = (verb, target, query, body, answer.code, answer.body[:200])
        # Of the root nothing is away, so nothing is a gateway's fault.
        assert answer.code < 500 or answer.code == 503, asked
        if answer.code >= 400 and verb != "HEAD":
            assert "detail" in json.loads(answer.body), asked

    async def check(sub: Served) -> None:
        document = await sub.json("/openapi.json")
        assert isinstance(document, dict)
        for route, operations in document["paths"].items():
            if route in STREAMS:
                continue
            for verb, operation in operations.items():
                for _ in range(ROUNDS):
                    await ask(sub, verb.upper(), route, operation)
        page = await sub.fetch("/docs")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"<script" not in page.body
        assert b"/api/v1/read-many" in page.body

    with_foo(check, tmp_path)

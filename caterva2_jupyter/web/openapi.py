"""What services answer, as an OpenAPI document at ``/openapi.json`` and a page at ``/docs``.

``OPERATIONS`` is the one table: a verb, a route and what goes in and out. ``describe`` picks what an application
really mounts, so a document tells of its own service only; that every mounted verb stands in the table, and nothing
else does, is tested. How bodies of records look is docs/protocol.md's business.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tornado.web import RequestHandler

from .access import AccessPolicy, Open
from .service import JsonAnswers, Route, ServiceHandler
from .source_handlers import bind

__all__ = ["OPERATIONS", "DocsAnswers", "OpenApiAnswers", "describe", "mounted", "openapi_routes"]

VERBS = ("get", "head", "post", "put", "delete", "patch")
_TYPES = {"int": "integer", "bool": "boolean", "list": "array", "map": "object"}
_MEDIA = {
    "bytes": "application/octet-stream",
    "frame": "application/octet-stream",
    "records": "application/x-caterva2-records",
    "lines": "application/x-ndjson",
    "html": "text/html",
    "script": "text/javascript",
}

# Verb and route; what it does; parameters of the query; fields of the body; answer; statuses of refusals.
# A name ends with ``?`` when it may be left out; ``name:int`` is no text.
OPERATIONS: tuple[tuple[str, str, str, str, str], ...] = (
    ("GET /api/v1/health", "Whether the service is alive, and what it is.", "", "", "json"),
    ("GET /openapi.json", "This document.", "", "", "json"),
    ("GET /docs", "This document as a page.", "", "", "html"),
    ("GET /api/v1/roots", "All roots, with what is known of their publishers.", "", "", "json"),
    ("GET /api/v1/roots/{root}/catalog", "A page of a root's catalog, or what changed since a cursor.", "under? depth:int? after? limit:int? since? q?", "", "json 304 410"),
    ("GET /api/v1/meta", "The entry of a dataset or group, with all its attributes.", "path", "", "json 304"),
    ("POST /api/v1/read", "The blocks of a selection, or its exact slice.", "", "path version? selection:list? held? known? window:list? mode? fast:bool?", "records 409 410 413 429"),
    ("POST /api/v1/read-many", "The answers to several reads, one after the other.", "", "reads:list", "records 413 429"),
    ("POST /api/v1/reduce", "A reduction over axes, computed where the data is.", "", "path version? op field:list? axis:list? steps:list? dtype? keepdims:bool? ddof? skip? selection:list?", "records 409 413 429"),
    ("GET /api/v1/chunks/{id}/{version}/{nchunk}", "One chunk of a version, which never changes.", "", "", "records 304"),
    ("HEAD /api/v1/chunks/{id}/{version}/{nchunk}", "The headers of one chunk.", "", "", "records"),
    ("GET /api/v1/file", "The stored bytes of a dataset; Range, If-None-Match and If-Range are understood.", "path", "", "bytes 206 304 416"),
    ("HEAD /api/v1/file", "The headers of the stored bytes.", "path", "", "bytes"),
    ("GET /api/v1/files/{path}", "The same by a path of the URL.", "", "", "bytes 206 304 416"),
    ("HEAD /api/v1/files/{path}", "The same by a path of the URL.", "", "", "bytes"),
    ("PUT /api/v1/files/{path}", "Store the body as a file of an area; If-None-Match: * replaces nothing.", "", "bytes", "json=201 409 411 413"),
    ("DELETE /api/v1/files/{path}", "Remove a file or directory of an area.", "", "", "json"),
    ("GET /api/v1/events", "A WebSocket of what changes in a root; of a subscriber without one: which roots there are.", "root? since?", "", "json=101 429"),
    ("GET /api/v1/event-lines", "The same of a root as lines of an answer without end.", "root since?", "", "lines 429"),
    ("POST /api/v1/roots/{root}/announce", "Look at a path again.", "", "path?", "json"),
    ("POST /api/v1/roots/{root}/follow", "Follow a root.", "", "", "json"),
    ("DELETE /api/v1/roots/{root}/follow", "Follow a root no more.", "", "", "json"),
    ("GET /api/v1/values", "Decoded values of a slice, in C order and little endian.", "path sel? version?", "", "bytes 304 413 429"),
    ("GET /api/v1/overview", "The same of fewer values, for a first look.", "path sel? max_pixels:int? method? version?", "", "bytes 304 413 429"),
    ("GET /api/v1/displays", "Displays of datasets, and the viewer's URL.", "path?", "", "json"),
    ("GET /api/v1/user", "Who asks, and whether one could log in.", "", "", "json"),
    ("GET /api/v1/users", "Users, as far as the asker may know.", "", "", "json"),
    ("POST /api/v1/users", "Add a user.", "", "email password? is_superuser:bool?", "json=201 409"),
    ("DELETE /api/v1/users/{email}", "Remove a user.", "", "", "json"),
    ("GET /api/v1/areas", "The areas that the asker sees, and what may still be written.", "", "", "json"),
    ("POST /api/v1/areas/mkdir", "Make a directory in an area.", "", "path", "json 409"),
    ("POST /api/v1/areas/move", "Move within or between areas.", "", "src dst overwrite:bool?", "json 409"),
    ("POST /api/v1/areas/copy", "Copy from any root into an area.", "", "src dst overwrite:bool?", "json 409 413"),
    ("POST /api/v1/expressions", "Store a lazy expression in an area.", "", "path expression operands:map? overwrite:bool?", "json=201 409"),
    ("POST /api/v1/publishers", "Follow a publisher for as long as it is there.", "", "url root?", "json"),
    ("DELETE /api/v1/publishers", "Leave such a publisher.", "", "url", "json"),
    ("GET /api/v1/cache", "What is cached.", "path?", "", "json"),
    ("GET /api/v1/cache/summary", "The running state of the cache.", "", "", "json"),
    ("GET /api/v1/cache/location", "Where the cache is, for those on the same machine.", "", "", "json"),
    ("POST /api/v1/cache/uses", "Blocks that were read from the cache's files.", "", "uses:list", "json"),
    ("POST /api/v1/cache/estimate", "What a read would cost.", "", "path version? selection:list?", "json 409"),
    ("POST /api/v1/cache/prefetch", "Fetch what is not cached yet.", "", "path version? selection:list?", "lines 409"),
    ("POST /api/v1/cache/verify", "Check all checksums, and drop what fails.", "", "path?", "lines"),
    ("POST /api/v1/cache/clear", "Forget what is cached.", "", "path?", "json"),
    ("POST /api/v1/cache/pin", "Keep a dataset or group whatever the quota.", "", "path", "json"),
    ("POST /api/v1/cache/unpin", "Let it go in its turn again.", "", "path", "json"),
    ("GET /api/v1/cache/sealed", "What is cached as one Blosc2 file, if it is complete.", "path version?", "", "frame 409"),
    ("GET /zarr/{path}", "A read-only Zarr v3 view of every root.", "", "", "bytes 206 304 416"),
    ("HEAD /zarr/{path}", "The headers of the same.", "", "", "bytes"),
    # The older system's routes.
    ("GET /api/roots", "Roots by name.", "", "", "json"),
    ("POST /api/roots", "Register a root at the broker.", "", "name http", "json 409 422"),
    ("POST /api/subscribe/{root}", "Follow a root.", "", "", "json"),
    ("GET /api/list", "Paths of all datasets.", "", "", "json"),
    ("GET /api/list/{path}", "Paths of the datasets below a path, relative to it.", "", "", "json"),
    ("GET /api/info/{path}", "Metadata of a dataset.", "", "", "json"),
    ("GET /api/fetch/{path}", "A slice, or all, as a Blosc2 frame.", "slice_?", "", "frame 413"),
    ("GET /api/chunk/{path}", "One compressed chunk.", "nchunk:int", "", "bytes 413 422"),
    ("GET /api/download/{path}", "A dataset to be saved; at a publisher, one compressed chunk.", "nchunk:int?", "", "bytes 413"),
    ("POST /api/upload/{path}", "Store a file in an area: a form with the field file.", "", "form file", "json 413 422"),
    ("POST /api/remove/{path}", "Remove a file or directory of an area.", "", "", "json"),
    ("POST /api/move/", "Move within or between areas.", "", "src dst", "json 409"),
    ("POST /api/copy/", "Copy into an area.", "", "src dst", "json 409 413"),
    ("POST /api/lazyexpr/", "Store a lazy expression in the personal area.", "", "name expression operands:map", "json 422"),
    ("POST /api/adduser/", "Add a user.", "", "username password? superuser:bool", "json 422"),
    ("GET /api/deluser/{username}", "Delete a user.", "", "", "json"),
    ("GET /api/listusers/", "Users.", "username?", "", "json"),
    ("POST /auth/jwt/login", "Log in: a cookie.", "", "form username password", "none=204 422 429"),
    ("POST /auth/jwt/logout", "Log out.", "", "", "none=204"),
    ("POST /auth/register", "Register oneself, where the service lets.", "", "email password", "json=201 422 429"),
    ("POST /auth/forgot-password", "Ask for a mail that lets one set a new password.", "", "email", "json=202 422 429"),
    ("POST /auth/reset-password", "Set a new password.", "", "token password", "json 422"),
    # Pages.
    ("GET /", "The page.", "", "", "html 302"),
    ("GET /roots/{path}", "Addresses of the older system's page: on to ours.", "", "", "html=302"),
    ("GET /static/{name}", "What the page is made of.", "", "", "script 304"),
    ("GET /displays/{name}.js", "A display's module.", "", "", "script 304"),
    ("GET /login", "Where one logs in.", "", "", "html 302"),
    ("POST /login", "Log in from the page.", "", "form username password", "html=302 429"),
    ("GET /logout", "Where one logs out.", "", "", "html 302"),
    ("POST /logout", "Log out from the page.", "", "form", "html=302"),
    ("GET /register", "Where one registers.", "", "", "html 302"),
    ("POST /register", "Register from the page.", "", "form username password", "html=302 429"),
    ("GET /forgot-password", "For those who forgot their password.", "", "", "html 302"),
    ("POST /forgot-password", "The same, as a form.", "", "form username", "html 429"),
    ("GET /reset-password/{token}", "Where one sets a new password.", "", "", "html 302"),
    ("POST /reset-password/{token}", "Set it.", "", "form password", "html=302"),
    # The broker's.
    ("DELETE /api/v1/roots/{root}", "Forget a root.", "", "", "none=204"),
    ("GET /api/v1/publish", "A WebSocket of a publisher: its registration, then what changes.", "", "", "json=101 429"),
    ("GET /pubsub", "The older system's WebSocket, for its subscribers and publishers.", "", "", "json=101 429"),
    ("GET /api/v1/subscribe", "A WebSocket of a subscriber: roots, and what changes in those it follows.", "", "", "json=101 429"),
)  # fmt: skip

_REFUSALS = {
    304: "What the asker has is the newest.",
    302: "On to another page.",
    400: "The request cannot be understood or done; `detail` says why.",
    401: "A token or login is needed.",
    403: "Not allowed, or from a foreign page.",
    404: "Not there, or hidden.",
    409: "Something is in the way, or the dataset changed.",
    410: "The cursor or version is gone: ask anew.",
    411: "The length has to be told.",
    413: "Too large; `detail` has the cure.",
    415: "Nothing to look at.",
    416: "Not a range of these bytes.",
    422: "Fields are missing or of another type.",
    429: "Too many at once.",
    502: "The source cannot be reached.",
    206: "The range that was asked for.",
}


def mounted(routes: Iterable[tuple[Any, ...]], prefix: str = "") -> list[tuple[str, str]]:
    """Verb and pattern (``{}`` for what varies) of all that is mounted."""
    found = []
    for pattern, handler, *_ in routes:
        template = re.sub(r"\([^)]*\)", "{}", pattern.removeprefix(prefix).removesuffix("$")).replace("\\", "")
        template = template.removesuffix("?") or "/"
        for verb in VERBS:
            if getattr(handler, verb) is not RequestHandler._unimplemented_method:
                found.append((verb.upper(), template))
    return found


def _plain(template: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", template)


_TABLE: Mapping[tuple[str, str], tuple[str, str, str, str, str]] = {
    (row[0].partition(" ")[0], _plain(row[0].partition(" ")[2])): row for row in OPERATIONS
}


def describe(service: str, routes: Iterable[tuple[Any, ...]], prefix: str = "") -> dict[str, Any]:
    """The OpenAPI document of what is mounted.

    Parameters
    ----------
    service : str
        "broker", "publisher" or "subscriber".
    routes : iterable of Route
    prefix : str
        Of all routes.

    Examples
    --------
    >>> describe("broker", [])["openapi"]
    '3.1.0'
    """
    from .. import __version__

    paths: dict[str, dict[str, Any]] = {}
    for verb, template in mounted(routes, prefix):
        row = _TABLE.get((verb, template))
        if row is not None:
            route = prefix + row[0].partition(" ")[2]
            paths.setdefault(route, {})[verb.lower()] = _operation(*row)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"caterva2-jupyter {service}", "version": __version__},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Error": {"type": "object", "properties": {"detail": {}, "error": {"type": "string"}}}},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "c2subauth"},
            },
        },
        "security": [{}, {"token": []}, {"cookie": []}],
    }


def _operation(route: str, summary: str, query: str, body: str, answer: str) -> dict[str, Any]:
    verb, _, template = route.partition(" ")
    names = re.findall(r"\{([^}]*)\}", template)
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    for field in query.split():
        name, schema, is_required = _field(field)
        parameters.append({"name": name, "in": "query", "required": is_required, "schema": schema})
    kind, *others = answer.split()
    kind, _, status = kind.partition("=")
    success: dict[str, Any] = {"description": summary}
    if kind != "none" and verb != "HEAD":
        success["content"] = {_MEDIA.get(kind, "application/json"): {}}
    refusals = sorted({400, 401, 403, 404, 502, *map(int, others)} - {int(status or 200)})
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{verb.lower()}_{template}").strip("_"),
        "summary": summary,
        "tags": ["v1" if template.startswith("/api/v1") else "api" if template.startswith("/api") else "other"],
        "parameters": parameters,
        "responses": {
            status or "200": success,
            **{str(r): {"description": _REFUSALS[r], **(error if r >= 400 else {})} for r in refusals},
        },
    }
    if body:
        operation["requestBody"] = _body(body)
    return operation


def _field(text: str) -> tuple[str, dict[str, Any], bool]:
    name, _, kind = text.removesuffix("?").partition(":")
    return name, {"type": _TYPES.get(kind, "string")}, not text.endswith("?")


def _body(text: str) -> dict[str, Any]:
    if text == "bytes":
        return {"required": True, "content": {"application/octet-stream": {}}}
    is_form = text.startswith("form")
    fields = [_field(field) for field in text.split()[is_form:]]
    schema = {
        "type": "object",
        "properties": {name: schema for name, schema, _ in fields},
        "required": [name for name, _, is_required in fields if is_required],
    }
    has_file = is_form and fields and fields[0][0] == "file"
    form = "multipart/form-data" if has_file else "application/x-www-form-urlencoded"
    return {"required": True, "content": {form if is_form else "application/json": {"schema": schema}}}


class OpenApiAnswers(JsonAnswers):
    """``GET /openapi.json``."""

    def initialize(self, document: dict[str, Any], **kwargs: Any) -> None:
        super().initialize(**kwargs)
        self.document = document

    async def answer_get(self) -> None:
        self.write_json(self.document)


class DocsAnswers(OpenApiAnswers):
    """``GET /docs``: the same to be read, with nothing from elsewhere."""

    async def answer_get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.write(_page(self.document))


def _page(document: Mapping[str, Any]) -> str:
    title = html.escape(document["info"]["title"])
    rows = []
    for route, operations in document["paths"].items():
        for verb, operation in operations.items():
            names = [f"{p['name']}{'' if p['required'] else '?'}" for p in operation["parameters"]]
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                names += [f"{name} (body)" for name in content.get("schema", {}).get("properties", [media])]
            cells = (verb.upper(), route, operation["summary"], ", ".join(names), ", ".join(operation["responses"]))
            rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th align=left>{name}</th>" for name in ("", "Route", "", "Parameters", "Statuses"))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>"
        '<p>As an OpenAPI document: <a href="openapi.json">openapi.json</a>.</p>'
        f"<table cellpadding=4><tr>{head}</tr>{''.join(rows)}</table></html>"
    )


def openapi_routes(
    service: str,
    routes: Iterable[tuple[Any, ...]],
    prefix: str = "",
    mount: Callable[[type[OpenApiAnswers]], type[RequestHandler]] = lambda answers: bind(answers, ServiceHandler),
    policy: Mapping[str, AccessPolicy] = {"policy": Open()},
) -> list[Route]:
    """The two routes that tell of all routes, themselves included.

    Parameters
    ----------
    service : str
        "broker", "publisher" or "subscriber".
    routes : iterable of Route
        The others that are mounted.
    prefix : str
        Of all routes.
    mount : callable
        Makes handlers of answers; by default those of a stand-alone service, which are open to all.
    policy : mapping
        What the handlers are made with besides.
    """
    document: dict[str, Any] = {}
    arguments = {"document": document, **policy}
    own: list[Route] = [
        (f"{prefix}/openapi.json", mount(OpenApiAnswers), arguments),
        (f"{prefix}/docs", mount(DocsAnswers), arguments),
    ]
    document |= describe(service, [*routes, *own], prefix)
    return own

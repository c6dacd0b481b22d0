"""Storing expressions in areas: REST v1, and the older system's ``/api/lazyexpr/`` with its statuses and texts."""

from __future__ import annotations

import json
from typing import Any

from ..core.paths import join, parse_path, split_address
from ..core.paths import name as last_name
from ..errors import (
    AuthenticationError,
    ConflictError,
    InvalidPathError,
    NotFoundError,
    RequestError,
    UnsupportedDatasetError,
)
from ..web.source_handlers import Limits, SourceAnswers
from .areas import AreaSource
from .expression_source import ExpressionSource
from .frames import FrameMaker
from .handlers import OldAnswers, OldNotFoundError, OldRefusalError, seen_by
from .permissions import PERSONAL
from .seen_roots import AllRoots, SeenRoots

__all__ = ["expression_routes"]

_SUFFIX = ".b2nd"


async def store(
    seen: SeenRoots, area: AreaSource, path: str, text: object, operands: object, *, overwrite: bool
) -> str:
    """Store an expression in an area; the path that it has there.

    Raises
    ------
    RequestError, NotFoundError, UnsupportedDatasetError
        When it is none, or its operands are not there for whoever asks.
    ConflictError
        When something is there, and is not to be replaced.
    """
    name = last_name(path)
    if not name.strip(".") or name == _SUFFIX:
        raise RequestError("an expression needs a name")
    path = path if path.endswith(_SUFFIX) else path + _SUFFIX
    source = seen.source(area.root)
    if not isinstance(source, ExpressionSource):
        raise UnsupportedDatasetError("expressions are not evaluated here")
    stored = await source.define(text, operands, f"{area.root}/{path}")
    data = stored.to_bytes()
    upload = await area.begin(path, len(data), overwrite=overwrite)
    try:
        await area.write(upload.write, data)
        return await area.commit(upload)
    finally:
        await area.write(upload.abort)


class ExpressionsAnswers(SourceAnswers):
    """``POST expressions`` with ``{"path", "expression", "operands", "overwrite"}`` -> its entry."""

    changes_state = True

    async def answer_post(self) -> None:
        seen = seen_by(self)
        seen.check_writer()
        form = self.json_body()
        unknown = set(form) - {"path", "expression", "operands", "overwrite"}
        if unknown:
            raise RequestError(f"unknown key: {min(unknown)[:40]!r}")
        address, overwrite = form.get("path"), form.get("overwrite", False)
        if not isinstance(address, str) or not isinstance(overwrite, bool):
            raise RequestError("path is where to store it (@public/NAME), and overwrite is true or false")
        root, path = split_address(address)
        area = seen.writable(root)
        path = await store(seen, area, path, form.get("expression"), form.get("operands", {}), overwrite=overwrite)
        entry = await seen.source(root).entry(path)
        self.set_status(201)
        await self.write_pieces(json.dumps({"root": root, **entry.to_json()}, separators=(",", ":")).encode())


class _OldLazyexprAnswers(OldAnswers):
    """``POST /api/lazyexpr/`` with ``{"name", "expression", "operands"}`` -> ``"@personal/NAME.b2nd"``."""

    changes_state = True

    async def answer_post(self) -> None:
        seen = seen_by(self)
        if not seen.visitor.is_person:
            if seen.permissions.has_users or seen.visitor.is_service:
                raise AuthenticationError("Unauthorized")
            raise OldRefusalError("Creating lazy expressions requires authentication")
        fields = self.fields(name=str, expression=str, operands=dict)
        if fields is None:
            return
        area = seen.writable(PERSONAL)
        try:
            path = parse_path(fields["name"])
            path = await store(seen, area, path, fields["expression"], fields["operands"], overwrite=True)
        except (RequestError, InvalidPathError, UnsupportedDatasetError) as error:
            raise RequestError(_old_text(str(error))) from None
        except ConflictError as error:
            raise RequestError(f"Invalid name or expression: {error}") from None
        except NotFoundError as error:
            raise OldNotFoundError(str(error)) from None
        self.write_json(join(area.root, path))


def _old_text(text: str) -> str:
    if text.endswith("is not in the list of available datasets"):
        return f"Expression error: {text}"
    if any(words in text for words in ("do not broadcast", "does not work on", "out of bounds", "too many indices")):
        return f"Runtime error: {text}"
    return f"Invalid name or expression: {text}"


def expression_routes(
    all_roots: AllRoots, frames: FrameMaker, limits: Limits
) -> list[tuple[str, type[SourceAnswers], dict[str, Any]]]:
    """Pattern, answers (to be bound) and their arguments."""
    arguments: dict[str, Any] = {"sources": all_roots, "limits": limits}
    return [
        (r"/api/v1/expressions", ExpressionsAnswers, arguments),
        (r"/api/lazyexpr/", _OldLazyexprAnswers, {**arguments, "frames": frames}),
    ]

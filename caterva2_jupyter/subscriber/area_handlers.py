"""Writing to areas over HTTP: REST v1, and the same by the older system's routes, statuses and texts.

Bodies are stored as they come. Which area is meant, and whether it may be written to, is asked of `SeenRoots`; what is
done is the area's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from ..core.paths import join, parse_path, split_address
from ..core.paths import name as last_name
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    ConflictError,
    InvalidPathError,
    NotFoundError,
    RequestError,
)
from ..storage.quota import QuotaExceededError
from ..storage.upload import Upload
from ..web.source_handlers import Limits, PlainFileAnswers, SourceAnswers
from ..web.uploads import MultipartFile, StreamedBody
from .areas import AreaSource, goal_in, has_suffix
from .expression_handlers import expression_routes
from .expression_source import area_of
from .frames import FrameMaker
from .handlers import OldAnswers, OldNotFoundError, OldRefusalError, seen_by
from .permissions import AREAS
from .seen_roots import AllRoots, SeenRoots

__all__ = ["area_routes"]

_OLD_AREAS = "@personal or @shared or @public roots is allowed"


class AreaAnswers(SourceAnswers):
    """Base of answers about areas."""

    @property
    def seen(self) -> SeenRoots:
        return seen_by(self)

    def check_writer(self) -> None:
        """Refuse those who could not write to any area, whatever they ask for.

        Raises
        ------
        AuthenticationError, AccessDeniedError
        """
        self.seen.check_writer()

    async def may_change(self) -> None:
        """Jupyter's authorizer is asked by a verb's guard, which comes after the body: ask it before."""
        ask = getattr(self, "check_authorized", None)
        if ask is not None:
            await ask("write")

    def texts(self, *names: str) -> tuple[str, ...]:
        """Texts of the body.

        Raises
        ------
        RequestError
        """
        form = self.json_body()
        values = tuple(form.get(name) for name in names)
        if not all(isinstance(value, str) for value in values):
            raise RequestError(f"the body is a JSON object with the texts {', '.join(names)}")
        return values  # type: ignore[return-value]

    def flag(self, name: str) -> bool:
        value = self.json_body().get(name, False)
        if not isinstance(value, bool):
            raise RequestError(f"{name} is true or false")
        return value


class _UploadAnswers(StreamedBody, AreaAnswers):
    """A body that becomes a file of an area."""

    upload: Upload | None = None
    area: AreaSource | None = None

    async def drop_body(self) -> None:
        if self.upload is not None and self.area is not None:
            # In the executor's turn: a thread may still be writing.
            await self.area.write(self.upload.abort)


class AreaFileAnswers(_UploadAnswers, PlainFileAnswers):
    """``GET files/ROOT/PATH``: stored bytes; ``PUT`` and ``DELETE`` for files and directories of areas."""

    streamed_methods: ClassVar[tuple[str, ...]] = ("PUT",)

    async def begin_body(self) -> None:
        await self.may_change()
        root, path = split_address(self.path_args[0])
        self.area = self.seen.writable(root)
        keep = self.request.headers.get("If-None-Match", "").strip()
        if keep not in ("", "*"):
            raise RequestError("If-None-Match is understood as * here: nothing is replaced then")
        self.upload = await self.area.begin(path, self.body_nbytes, overwrite=keep != "*")

    async def take_body(self, data: bytes) -> None:
        assert self.area is not None
        assert self.upload is not None
        await self.area.write(self.upload.write, data)

    async def answer_put(self, address: str) -> None:
        await self.end_body()
        assert self.area is not None
        assert self.upload is not None
        nbytes = self.body_nbytes
        if nbytes is not None and nbytes != self.upload.received_nbytes:
            raise RequestError(f"{self.upload.received_nbytes} bytes came of {nbytes}: nothing was stored")
        path = await self.area.commit(self.upload)
        self.set_status(201)
        self.write_json({"path": f"{self.area.root}/{path}"})

    async def answer_delete(self, address: str) -> None:
        root, path = split_address(address)
        area = self.seen.writable(root)
        if not path:
            raise AccessDeniedError(f"{root} is an area: it cannot be removed, only what is in it")
        await area.remove(path)
        self.write_json({"path": f"{root}/{path}"})


class AreasAnswers(AreaAnswers):
    """``GET areas``: those that the visitor sees, and what may still be written."""

    async def answer_get(self) -> None:
        seen = self.seen
        quota = self.all_roots.areas.quota
        forms = [
            {"name": root, "writable": seen.permissions.may_write(seen.visitor, root)}
            for root in AREAS
            if seen.sees(root)
        ]
        form: dict[str, Any] = {"areas": forms}
        if seen.visitor.is_person:
            usage = await self.all_roots.subscriber.run(lambda: quota.usage_nbytes)
            form |= {"quota_nbytes": quota.limit_nbytes, "usage_nbytes": usage}
        self.write_json(form)

    def initialize(self, all_roots: AllRoots, **kwargs: Any) -> None:  # type: ignore[override]
        self.all_roots = all_roots
        super().initialize(**kwargs)


class MakeDirectoryAnswers(AreaAnswers):
    """``POST areas/mkdir`` with ``{"path"}``."""

    changes_state = True

    async def answer_post(self) -> None:
        self.check_writer()
        (address,) = self.texts("path")
        root, path = split_address(address)
        await self.seen.writable(root).make_directory(path)
        self.write_json({"path": join(root, path)})


class MoveAnswers(AreaAnswers):
    """``POST areas/move`` with ``{"src", "dst", "overwrite"}``."""

    changes_state = True

    async def answer_post(self) -> None:
        self.check_writer()
        source_address, goal_address = self.texts("src", "dst")
        overwrite = self.flag("overwrite")
        root, path = split_address(source_address)
        goal_root, goal = split_address(goal_address)
        area, goal_area = self.seen.writable(root), self.seen.writable(goal_root)
        if not path:
            raise AccessDeniedError(f"{root} is an area: it cannot be moved, only what is in it")
        goal = await _into(goal_area, goal, goal_address, last_name(path))
        await area.move(path, goal_area, goal, overwrite=overwrite)
        self.write_json({"path": join(goal_root, goal)})


class CopyAnswers(AreaAnswers):
    """``POST areas/copy`` with ``{"src", "dst", "overwrite"}``; what is copied may be of any root."""

    changes_state = True

    def initialize(self, frames: FrameMaker, **kwargs: Any) -> None:  # type: ignore[override]
        self.frames = frames
        super().initialize(**kwargs)

    async def answer_post(self) -> None:
        self.check_writer()
        source_address, goal_address = self.texts("src", "dst")
        overwrite = self.flag("overwrite")
        goal_root, goal = split_address(goal_address)
        root, path = split_address(source_address)
        goal_area = self.seen.writable(goal_root)
        goal = await _into(goal_area, goal, goal_address, last_name(path) or root.lstrip("@"))
        goal, skipped = await copy(self.seen, root, path, goal_area, goal, self.frames, overwrite=overwrite)
        self.write_json({"path": join(goal_root, goal), "skipped": skipped})


async def _into(area: AreaSource, goal: str, address: str, name: str) -> str:
    """The goal, or what has that name in it where it is a directory, or is said to be one."""
    return goal_in(goal, address.endswith("/") or await area.is_directory(goal), name)


async def copy(
    seen: SeenRoots, root: str, path: str, goal_area: AreaSource, goal: str, frames: FrameMaker, *, overwrite: bool
) -> tuple[str, list[str]]:
    """Copy what is at a path of a root; where it is in the end, and what could not be copied."""
    source = seen.source(root)
    from_area = area_of(source)
    if from_area is not None and path and await from_area.exists(path):
        await from_area.copy(path, goal_area, goal, overwrite=overwrite)
        return goal, []
    if from_area is goal_area and not path:
        raise ConflictError(f"{root} cannot be copied into itself")
    if path:
        entry = await source.entry(path)
        if entry.kind == "array" and not goal.endswith(".b2nd"):
            goal += ".b2nd"
    return goal, await goal_area.copy_from(source, path, goal, frames, overwrite=overwrite)


# The older system's routes


class _OldAreaAnswers(OldAnswers, AreaAnswers):
    """Base of the old REST over areas: who may not, and what is no area, is told as it was there."""

    changes_state = True

    def check_user(self, doing: str) -> None:
        seen = self.seen
        if seen.visitor.is_person:
            return
        if seen.permissions.has_users or seen.visitor.is_service:
            raise AuthenticationError("Unauthorized")
        raise OldRefusalError(f"{doing} requires authentication")

    def old_area(self, address: str, doing: str) -> tuple[AreaSource, str]:
        """An area and a path in it.

        Raises
        ------
        RequestError
        """
        root, _, path = address.partition("/")
        if root not in AREAS:
            raise RequestError(f"Only {doing} {_OLD_AREAS}")
        return self.seen.writable(root), parse_path(path)

    async def old_goal(self, area: AreaSource, goal: str, name: str) -> str:
        """A name with no suffix is a directory's, whether it is there or not."""
        return goal_in(goal, not has_suffix(goal) or await area.is_directory(goal), name)


class _OldUploadAnswers(_UploadAnswers, _OldAreaAnswers):
    """``POST /api/upload/PATH``: a form with the field ``file``."""

    streamed_methods: ClassVar[tuple[str, ...]] = ("POST",)
    _form: MultipartFile | None = None

    async def begin_body(self) -> None:
        self.check_user("Uploading")
        await self.may_change()
        raw = self.path_args[0] if self.path_args else ""
        self.area, self._goal = self.old_area(raw, "uploading to")
        self._is_directory = raw.endswith("/")
        with _old_quota():
            await self.area.write(self.area.area.quota.check, 0)
        kind = self.request.headers.get("Content-Type", "")
        if kind.lower().startswith("multipart/form-data"):
            self._form = MultipartFile(kind, "file")

    async def take_body(self, data: bytes) -> None:
        assert self.area is not None
        if self._form is None:
            return
        found = self._form.feed(data)
        if self.upload is None and self._form.filename is not None:
            goal = self._goal
            if not goal or self._is_directory or await self.area.is_directory(goal):
                name = parse_path(last_name(self._form.filename.replace("\\", "/")))
                if not name:
                    return  # a form without a file
                goal = join(goal, name)
            self.upload = await self.area.begin(goal, self.body_nbytes)
        if self.upload is not None and found:
            with _old_quota():
                await self.area.write(self.upload.write, found)

    async def answer_post(self, address: str) -> None:
        await self.end_body()
        if self.area is None or self.upload is None or self._form is None:
            self.refuse_missing("file")
            return
        if not self._form.is_complete:
            raise RequestError("the form was cut short: nothing was stored")
        with _old_quota():
            path = await self.area.commit(self.upload)
        self.write_json(f"{self.area.root}/{path}")


@contextmanager
def _old_quota() -> Iterator[None]:
    """400 for what is 413 in v1."""
    try:
        yield
    except QuotaExceededError as error:
        raise RequestError(str(error)) from None


class _OldRemoveAnswers(_OldAreaAnswers):
    """``POST /api/remove/PATH``: a file, or a directory with all that is in it."""

    async def answer_post(self, address: str) -> None:
        self.check_user("Removing files")
        area, path = self.old_area(address, "removing from")
        with _old_absent():
            await area.remove(path)
        self.write_json(address)


@contextmanager
def _old_absent() -> Iterator[None]:
    try:
        yield
    except InvalidPathError:
        raise
    except NotFoundError as error:
        raise OldNotFoundError("The specified path does not exist") from error


class _OldMoveAnswers(_OldAreaAnswers):
    """``POST /api/move/``."""

    async def answer_post(self) -> None:
        self.check_user("Moving files")
        fields = self.fields(src=str, dst=str)
        if fields is None:
            return
        source, goal = fields["src"], fields["dst"]
        area, path = self.old_area(source, "moving from")
        goal_area, goal = self.old_area(goal, "moving to")
        if not path:
            raise RequestError(f"{area.root} itself cannot be moved")
        goal = await self.old_goal(goal_area, goal, last_name(path))
        with _old_absent():
            await area.move(path, goal_area, goal, overwrite=True)
        self.write_json(f"{goal_area.root}/{goal}")


class _OldCopyAnswers(_OldAreaAnswers):
    """``POST /api/copy/``; single datasets of roots, too, which the older system refused."""

    async def answer_post(self) -> None:
        self.check_user("Copying files")
        fields = self.fields(src=str, dst=str)
        if fields is None:
            return
        source, goal = fields["src"], fields["dst"]
        root, _, path = source.partition("/")
        seen = self.seen
        if root not in {form["name"] for form in await seen.roots()}:
            raise RequestError("Only copying from existing roots is allowed")
        goal_area, goal = self.old_area(goal, "copying to")
        path = parse_path(path)
        goal = await self.old_goal(goal_area, goal, last_name(path) or root.lstrip("@"))
        with _old_absent(), _old_quota():
            goal, _ = await copy(seen, root, path, goal_area, goal, self.frames, overwrite=True)
        self.write_json(f"{goal_area.root}/{goal}")


Routes = list[tuple[str, type[SourceAnswers], dict[str, Any]]]


def area_routes(all_roots: AllRoots, frames: FrameMaker, limits: Limits) -> Routes:
    """Routes of areas, and those of plain files, which areas have more verbs for."""
    sources: dict[str, Any] = {"sources": all_roots, "limits": limits}
    old = {**sources, "frames": frames}
    return [
        (r"/api/v1/files/(.+)", AreaFileAnswers, sources),
        (r"/api/v1/areas", AreasAnswers, {**sources, "all_roots": all_roots}),
        (r"/api/v1/areas/mkdir", MakeDirectoryAnswers, sources),
        (r"/api/v1/areas/move", MoveAnswers, sources),
        (r"/api/v1/areas/copy", CopyAnswers, {**sources, "frames": frames}),
        (r"/api/upload/(.*)", _OldUploadAnswers, old),
        (r"/api/remove/(.*)", _OldRemoveAnswers, old),
        (r"/api/move/", _OldMoveAnswers, old),
        (r"/api/copy/", _OldCopyAnswers, old),
        *expression_routes(all_roots, frames, limits),
    ]

"""The roots of a subscriber as one visitor sees them: those that it knows, and the areas.

Routes ask nobody else for a source, so what ``permissions`` hides is hidden from all of them. It performs nothing
itself: the subscriber and the areas do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..core.source import Source
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    RootNotFoundError,
    SourceUnavailableError,
)
from ..web.compute_pool import ComputePool
from .areas import Areas, AreaSource
from .expression_source import ExpressionSource
from .permissions import AREAS, PUBLIC, Permissions, Visitor, visitor_of
from .subscriber import Subscriber

__all__ = ["AllRoots", "SeenRoots"]


class AllRoots:
    """Every root of a subscriber; what of it a visitor sees is told by ``seen_by``.

    Parameters
    ----------
    subscriber : Subscriber
    areas : Areas
    permissions : Permissions
    expressions : ComputePool or None
        Where stored expressions are evaluated; None: they are listed and cannot be read.
    """

    def __init__(
        self, subscriber: Subscriber, areas: Areas, permissions: Permissions, expressions: ComputePool | None = None
    ) -> None:
        self.subscriber, self.areas, self.permissions = subscriber, areas, permissions
        self.expressions = expressions

    def seen_by(self, user: object) -> SeenRoots:
        """The roots as a handler's ``current_user`` sees them."""
        return SeenRoots(self, visitor_of(user))


class SeenRoots:
    """A directory of sources, for one visitor. Made by ``AllRoots.seen_by``."""

    def __init__(self, all_roots: AllRoots, visitor: Visitor) -> None:
        self._subscriber, self._areas = all_roots.subscriber, all_roots.areas
        self._expressions = all_roots.expressions
        self.permissions, self.visitor = all_roots.permissions, visitor

    # SourceDirectory, StatusDirectory, ChangingDirectory, LoopGuard, Announcer

    async def roots(self) -> list[dict[str, Any]]:
        listed = [form for form in await self._subscriber.roots() if self.sees(form["name"])]
        listed += [await self._area_form(root) for root in AREAS if self.sees(root)]
        return sorted(listed, key=lambda form: str(form["name"]))

    async def _area_form(self, root: str) -> dict[str, Any]:
        form: dict[str, Any] = {"name": root, "http": "", "owner": "", "followed": True, "online": True}
        form |= {"via": [self._subscriber.ident], "writable": self.permissions.may_write(self.visitor, root)}
        try:
            cursor = await self._areas.source(root, self.visitor).cursor()
        except SourceUnavailableError as error:
            return {**form, "online": False, "reason": str(error)}
        return {**form, "epoch": cursor.epoch, "seq": cursor.seq}

    def source(self, root: str) -> Source:
        self.check(root)
        if root not in AREAS:
            return self._subscriber.source(root)
        area = self._areas.source(root, self.visitor)
        if self._expressions is None:
            return area
        # Operands are found by this very method, so an expression shows nobody what they do not see.
        return ExpressionSource(area, self.source, self._expressions, self._areas.readers)

    async def status(self, root: str) -> AsyncIterator[bool]:
        self.check(root)
        if root in AREAS:
            yield True
            return
        async for online in self._subscriber.status(root):
            yield online

    def changes(self) -> AsyncIterator[None]:
        return self._subscriber.changes()

    def check_asker(self, root: str, asker: str) -> None:
        self.check(root)
        self._subscriber.check_asker(root, asker)

    async def announce(self, root: str, path: str) -> None:
        self.check(root)
        if root not in AREAS:
            await self._subscriber.announce(root, path)
            return
        area = self._areas.source(root, self.visitor)
        await area.look(path)
        if path:
            await area.entry(path)

    # What may be done

    def sees(self, root: str) -> bool:
        return self.permissions.may_see(self.visitor, root)

    def check(self, root: str) -> None:
        """Refuse what the visitor may not see, as what is not there.

        Raises
        ------
        AuthenticationError
            To strangers where there are users, whether it is there or not.
        RootNotFoundError
        """
        if self.sees(root):
            return
        if self.permissions.has_users and not self.visitor.is_person and not self.visitor.is_service:
            raise AuthenticationError("a valid token or login is needed")
        if root in AREAS:
            raise RootNotFoundError(f"area {root!r} belongs to users, and there is none here: log in, where one can")
        raise RootNotFoundError(f"no root {root!r} is known here: is its publisher running?")

    def check_manager(self, root: str) -> None:
        """Refuse what concerns all who use a root here to those who may only read it.

        Raises
        ------
        AccessDeniedError, RootNotFoundError, AuthenticationError
        """
        self.check(root)
        if not self.permissions.may_manage(self.visitor, root):
            raise AccessDeniedError(f"you may read {root!r}, but not manage it for others: that needs access to write")

    def is_followed(self, root: str) -> bool:
        """Is its catalog known here? That of an area always is."""
        return self.sees(root) and (root in AREAS or self._subscriber.is_followed(root))

    async def follow(self, root: str) -> None:
        """See ``Subscriber.follow``; nothing is to be done for an area.

        Raises
        ------
        RootNotFoundError, AuthenticationError
        """
        self.check(root)
        if root not in AREAS:
            await self._subscriber.follow(root)

    async def unfollow(self, root: str) -> None:
        """See ``Subscriber.unfollow``.

        Raises
        ------
        RootNotFoundError, AuthenticationError, AccessDeniedError
        """
        self.check(root)
        if root in AREAS:
            raise AccessDeniedError(f"{root} is an area of this subscriber: it is always there")
        self.check_manager(root)
        await self._subscriber.unfollow(root)

    def writable(self, root: str) -> AreaSource:
        """An area that the visitor may write to.

        Raises
        ------
        AuthenticationError
            When nobody is known who could.
        AccessDeniedError
            When it is not an area, or not this visitor's to change.
        RootNotFoundError
        """
        if root not in AREAS:
            self.check(root)
            raise AccessDeniedError(f"{root!r} cannot be written to: only the areas {', '.join(AREAS)} can")
        self.check_writer(root)
        if not self.permissions.may_write(self.visitor, root):
            self.check(root)
            raise AccessDeniedError(f"you may read {root}, but not write to it")
        return self._areas.source(root, self.visitor)

    def check_writer(self, root: str = PUBLIC) -> None:
        """Refuse those who could not write to any area.

        Raises
        ------
        AuthenticationError, AccessDeniedError
        """
        if self.visitor.is_service:
            raise AccessDeniedError("a token of the network does not write to areas: log in as a user")
        if not self.visitor.is_person:
            how = "log in" if self.permissions.has_users else "start it with CATERVA2_SECRET, or use it in Jupyter"
            raise AuthenticationError(f"writing to {root} needs a user: {how}")

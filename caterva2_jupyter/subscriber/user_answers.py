"""``GET user``: who one is to a subscriber, stand-alone or inside Jupyter. Nothing is changed here."""

from __future__ import annotations

from typing import Any

from ..web.source_handlers import SourceAnswers
from .handlers import seen_by
from .permissions import SignedIn

__all__ = ["USER_ROUTE", "UserAnswers"]

USER_ROUTE = r"/api/v1/user"


class UserAnswers(SourceAnswers):
    """``GET user``: whoever asks; ``name`` is null for strangers, ``login`` is whether they could log in here."""

    def initialize(self, can_log_in: bool, can_register: bool, **kwargs: Any) -> None:  # type: ignore[override]
        self._can_log_in, self._can_register = can_log_in, can_register
        super().initialize(**kwargs)

    async def answer_get(self) -> None:
        visitor = seen_by(self).visitor
        user: object = self.current_user
        name = user.email if isinstance(user, SignedIn) else visitor.name
        self.set_header("Cache-Control", "private, no-store")
        self.write_json(
            {
                "name": name or None,
                "is_superuser": visitor.is_superuser,
                "groups": sorted(visitor.groups),
                "login": self._can_log_in,
                "register": self._can_register,
            }
        )

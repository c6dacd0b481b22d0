"""Who may see a root, and who may write to one: asked here, by every route, and nowhere else.

What may not be seen is not there: whoever asks gets the same answer for a root that is hidden as for one that does
not exist. Who somebody is was found out before (``web.access``, Jupyter); this only says what they may.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

__all__ = ["ANONYMOUS", "AREAS", "PERSONAL", "PUBLIC", "SHARED", "Permissions", "Visitor", "visitor_of"]

PUBLIC, SHARED, PERSONAL = "@public", "@shared", "@personal"
AREAS = (PUBLIC, SHARED, PERSONAL)
JUPYTER_ID = "jupyter"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever sent a request.

    Attributes
    ----------
    id : str
        Of a person: what the personal area is kept under. Empty for all others.
    is_service : bool
        Another service of the network, which knows its token.
    """

    id: str = ""
    is_service: bool = False

    @property
    def is_person(self) -> bool:
        return bool(self.id)


ANONYMOUS = Visitor()


def visitor_of(user: object) -> Visitor:
    """Who a handler's ``current_user`` is.

    Stand-alone, the policies of ``web.access`` give texts: the id of who is logged in, a UUID; ``network`` for a token
    of the network; ``anonymous``. Jupyter gives an object: whoever it lets in acts for the account that it runs as,
    so all have the one personal area of that account.
    """
    if not isinstance(user, str):
        return ANONYMOUS if user is None else Visitor(JUPYTER_ID)
    if user == "network":
        return Visitor(is_service=True)
    try:
        return Visitor(str(uuid.UUID(user)))
    except ValueError:
        return ANONYMOUS


class Permissions:
    """What visitors may.

    Parameters
    ----------
    has_users : bool
        Are there people who log in? Where there are, strangers see the public area and nothing else. Where there are
        none, everybody sees every root and the public area, and nobody writes: there is nobody whose area it would be.
    """

    def __init__(self, *, has_users: bool) -> None:
        self.has_users = has_users

    def may_see(self, visitor: Visitor, root: str) -> bool:
        """May a root be listed and read?"""
        if root == PUBLIC:
            return True
        if root in AREAS:
            return visitor.is_person
        return visitor.is_person or visitor.is_service or not self.has_users

    def may_write(self, visitor: Visitor, root: str) -> bool:
        """May an area be written to? (Roots that are not areas are their publishers'.)"""
        return root in AREAS and visitor.is_person and self.may_see(visitor, root)

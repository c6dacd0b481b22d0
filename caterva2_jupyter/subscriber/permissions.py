"""Who may see a root, and who may write to one: asked here, by every route, and nowhere else.

What may not be seen is not there: whoever asks gets the same answer for a root that is hidden as for one that does
not exist. Who somebody is was found out before (``login``, Jupyter); this only says what they may.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..config import Grant

__all__ = ["ANONYMOUS", "AREAS", "PERSONAL", "PUBLIC", "SHARED", "Permissions", "SignedIn", "Visitor", "visitor_of"]

PUBLIC, SHARED, PERSONAL = "@public", "@shared", "@personal"
AREAS = (PUBLIC, SHARED, PERSONAL)
JUPYTER_ID = "jupyter"
EVERYBODY = "*"


class SignedIn(str):
    """A handler's ``current_user`` stand-alone: the id of who has logged in, and what else is known of them."""

    email: str
    is_superuser: bool
    owns_email: bool

    def __new__(cls, ident: str, email: str, *, is_superuser: bool = False, owns_email: bool = True) -> SignedIn:
        self = super().__new__(cls, ident)
        self.email, self.is_superuser, self.owns_email = email, is_superuser, owns_email
        return self


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever sent a request.

    Attributes
    ----------
    id : str
        Of a person: what the personal area is kept under. Empty for all others.
    is_service : bool
        Another service of the network, which knows its token.
    name : str
        What a person is called in grants: an e-mail, or the name in Jupyter.
    groups : frozenset of str
        Those that Jupyter says a person is in.
    is_superuser : bool
        Sees every root, and manages users.
    """

    id: str = ""
    is_service: bool = False
    name: str = ""
    groups: frozenset[str] = frozenset()
    is_superuser: bool = False

    @property
    def is_person(self) -> bool:
        return bool(self.id)


ANONYMOUS = Visitor()


def visitor_of(user: object) -> Visitor:
    """Who a handler's ``current_user`` is.

    Stand-alone, the policies of ``web.access`` give texts: `SignedIn` for who is logged in; ``network`` for a token
    of the network; ``anonymous``. Jupyter gives an object: whoever it lets in acts for the account that it runs as,
    so all have the one personal area of that account; grants go by the name, and by groups where the identity has
    them, as JupyterHub's does.
    """
    if not isinstance(user, str):
        if user is None:
            return ANONYMOUS
        return Visitor(JUPYTER_ID, name=str(getattr(user, "username", "")), groups=_jupyter_groups(user))
    if user == "network":
        return Visitor(is_service=True)
    try:
        ident = str(uuid.UUID(user))
    except ValueError:
        return ANONYMOUS
    if isinstance(user, SignedIn):
        # Who registered under somebody's e-mail has nothing that was granted to it, until a mail there was answered.
        return Visitor(ident, name=user.email if user.owns_email else "", is_superuser=user.is_superuser)
    return Visitor(ident)


def _jupyter_groups(user: object) -> frozenset[str]:
    """Groups of an identity: its own, or those of JupyterHub's model of the user."""
    model = getattr(user, "hub_user", None)
    groups = model.get("groups") if isinstance(model, Mapping) else getattr(user, "groups", None)
    if not isinstance(groups, Iterable) or isinstance(groups, str):
        return frozenset()
    return frozenset(group for group in groups if isinstance(group, str))


@dataclass(frozen=True)
class Permissions:
    """What visitors may.

    Parameters
    ----------
    has_users : bool
        Are there people who log in? Where there are, strangers see the public area and nothing else. Where there are
        none, everybody sees every root and the public area, and nobody writes: there is nobody whose area it would be.
    anonymous : bool
        Strangers have what everybody has who logged in, publishers' roots included, but no more than to read it.
    grants : tuple of Grant
        Where there are any, roots of publishers that are granted to nobody are hidden from all but superusers and
        services. Areas that a grant names are restricted to it; the public one is read by everybody all the same.
    groups : mapping
        Members by group, besides those that Jupyter knows.

    Examples
    --------
    >>> grants = (Grant(("climate-*",), groups=("modellers",)),)
    >>> permissions = Permissions(has_users=True, grants=grants, groups={"modellers": ("ada@example.org",)})
    >>> ada, bob = (Visitor("1", name=f"{name}@example.org") for name in ("ada", "bob"))
    >>> [permissions.may_see(who, "climate-2026") for who in (ada, bob, ANONYMOUS)]
    [True, False, False]
    """

    has_users: bool
    anonymous: bool = False
    grants: tuple[Grant, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def may_see(self, visitor: Visitor, root: str) -> bool:
        """May a root be listed and read?"""
        if root == PUBLIC:
            return True
        if root in AREAS:
            if not visitor.is_person or root == PERSONAL:
                return visitor.is_person
            return not self._are_granting(root) or self._is_granted(visitor, root, writing=False)
        if visitor.is_service or not self.has_users:
            return True
        if not visitor.is_person and not self.anonymous:
            return False
        return not self.grants or self._is_granted(visitor, root, writing=False)

    def may_write(self, visitor: Visitor, root: str) -> bool:
        """May an area be written to? (Roots that are not areas are their publishers'.)"""
        if root not in AREAS or not visitor.is_person:
            return False
        return root == PERSONAL or not self._are_granting(root) or self._is_granted(visitor, root, writing=True)

    def may_manage(self, visitor: Visitor, root: str) -> bool:
        """May what is kept of a root be dropped or pinned, and may it be unfollowed, for all who use it here?"""
        if visitor.is_service or not self.has_users:
            return True
        return visitor.is_person and (not self.grants or self._is_granted(visitor, root, writing=True))

    def sees_all(self, visitor: Visitor) -> bool:
        """May a visitor see every root that there is or will be, whatever its name?"""
        if visitor.is_service or not self.has_users:
            return True
        return (visitor.is_person or self.anonymous) and (not self.grants or visitor.is_superuser)

    def manages_all(self, visitor: Visitor) -> bool:
        """The same for ``may_manage``."""
        return self.sees_all(visitor) and (visitor.is_person or visitor.is_service or not self.has_users)

    def _are_granting(self, area: str) -> bool:
        return any(_is_named(area, grant) for grant in self.grants)

    def _is_granted(self, visitor: Visitor, root: str, *, writing: bool) -> bool:
        if visitor.is_superuser:
            return True
        return any(
            (grant.is_write or not writing) and _is_named(root, grant) and self._is_one_of(visitor, grant)
            for grant in self.grants
        )

    def _is_one_of(self, visitor: Visitor, grant: Grant) -> bool:
        if EVERYBODY in grant.users:
            return True
        name = _folded(visitor.name)
        if not name:
            return False
        return any(_folded(user) == name for user in grant.users) or any(
            group in visitor.groups or name in map(_folded, self.groups.get(group, ())) for group in grant.groups
        )


def _folded(name: str) -> str:
    """E-mails are alike whatever their case, in ASCII only: no other letter may pass for one. Other names are exact."""
    return name.encode().lower().decode() if "@" in name else name


def _is_named(root: str, grant: Grant) -> bool:
    """Is a root among those of a grant? ``*`` means no area."""
    return any(
        fnmatchcase(root, pattern) and root.startswith("@") == pattern.startswith("@") for pattern in grant.roots
    )

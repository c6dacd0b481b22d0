"""For whom the kernels of a Jupyter server act: in JupyterHub, the user whose server it is.

Kernels have a token of their own, which says nothing of people; grants need a name, and groups. Of those JupyterHub
tells with each request of a person, so what was told last is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyter_server.auth import User

from .permissions import visitor_of

__all__ = ["KernelUser", "ServerOwner"]

NAMELESS = "caterva2-kernel"


@dataclass
class KernelUser(User):
    """The identity of this server's kernels."""

    groups: frozenset[str] = field(default_factory=frozenset)


class ServerOwner:
    """Whose server it is.

    Parameters
    ----------
    environ : mapping
        JupyterHub names the user in it; on other servers kernels have a name of their own.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.name = environ.get("JUPYTERHUB_USER", "")
        self._groups: frozenset[str] = frozenset()

    def note(self, user: object) -> None:
        """Somebody has been let in: if that is the owner, remember the groups."""
        visitor = visitor_of(user)
        if self.name and visitor.name == self.name:
            self._groups = visitor.groups

    def kernel_user(self) -> KernelUser:
        return KernelUser(self.name or NAMELESS, name="Kernels of this server", groups=self._groups)

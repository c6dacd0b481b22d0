"""What a name that is not there may have been meant to be.

Looked for when something is missing and a person is told so, by at most a few small requests; programs that ask
whether something is there (``in``, ``get``) pay nothing. Whatever goes wrong here, the error stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import SequenceMatcher

from ..core.catalog import CatalogQuery
from ..core.metadata import Entry
from ..core.paths import name as last_name
from ..core.paths import parents
from ..errors import Caterva2Error, DatasetNotFoundError, NotFoundError, RootNotFoundError
from .representation import plain
from .service import Service

__all__ = ["near", "suggesting"]

MAX_LISTED = 1000
MAX_LEVELS = 8
MAX_SHOWN = 3
LEAST_RATIO = 0.6
SUFFIX = ".b2nd"
_KINDS = {"array": "an array", "file": "a file", "link": "a link", "unsupported": "not supported"}


@contextmanager
def suggesting(service: Service, root: str, path: str = "") -> Iterator[None]:
    """Errors about a root or dataset that is not there tell what there is that looks like it."""
    try:
        yield
    except RootNotFoundError as error:
        raise RootNotFoundError(_said(error, _roots_near(service, root))) from None
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(_said(error, _datasets_near(service, root, path))) from None


def near(wanted: str, names: Iterable[str]) -> list[str]:
    """Those of some names that look like one, best first; ``.b2nd`` and case count for nothing.

    Examples
    --------
    >>> near("ds-2x", ["ds-1d.b2nd", "ds-2d.b2nd", "README.md"])
    ['ds-2d.b2nd', 'ds-1d.b2nd']
    """
    compared = SequenceMatcher(autojunk=False)
    compared.set_seq2(_bare(wanted))
    rated = []
    for name in names:
        compared.set_seq1(_bare(name))
        if compared.quick_ratio() >= LEAST_RATIO and (ratio := compared.ratio()) >= LEAST_RATIO:
            rated.append((-ratio, name))
    return [name for _, name in sorted(rated)]


def _bare(name: str) -> str:
    return name.removesuffix(SUFFIX).casefold()


def _said(error: NotFoundError, hint: str) -> str:
    message = str(error)
    if not hint or hint in message:
        return message
    return f"{message} {hint[0].upper()}{hint[1:]}" if message.endswith("?") else f"{message}: {hint}"


def _did_you_mean(names: list[str]) -> str:
    shown = [repr(plain(name)) for name in names[:MAX_SHOWN]]
    return f"did you mean {' or '.join(shown)}?" if shown else ""


def _roots_near(service: Service, root: str) -> str:
    with suppress(Caterva2Error):
        return _did_you_mean(near(root, service.roots()))
    return ""


def _datasets_near(service: Service, root: str, path: str) -> str:
    with suppress(Caterva2Error):
        group = _deepest(service, root, path)
        if group.kind != "group":
            return f"{plain(group.path)!r} is {_KINDS.get(group.kind, group.kind)}, and nothing is below it"
        return _indexed(service, root, path) or _did_you_mean(_paths_near(service, root, group.path, path))
    return ""


def _deepest(service: Service, root: str, path: str) -> Entry:
    """What is there of a path: the lowest of the groups that it names, or what is there in the place of one."""
    for above in reversed([*parents(path), path][-MAX_LEVELS:]):
        with suppress(NotFoundError):
            return service.entry(root, above)
    return Entry("", "group")


def _indexed(service: Service, root: str, path: str) -> str:
    """For an index that was written into the path of a dataset that is there."""
    before, bracket, key = path.partition("[")
    if not bracket or not key.endswith("]") or not before:
        return ""
    with suppress(NotFoundError):
        service.entry(root, before)
        return f"open it, then index it, as in client[{f'{root}/{before}'!r}][{plain(key[:-1])}]"
    return ""


def _paths_near(service: Service, root: str, group: str, path: str) -> list[str]:
    """Paths of the root that look like one, all of whose groups down to ``group`` are there."""
    everything = service.page(root, CatalogQuery(limit=MAX_LISTED))
    paths = [entry.path for entry in everything.entries() if entry.path]
    if everything.next is None:
        wanted = _bare(last_name(path))
        if elsewhere := [found for found in paths if _bare(last_name(found)) == wanted]:
            return elsewhere
    else:
        beside = service.page(root, CatalogQuery(under=group, depth=1, limit=MAX_LISTED))
        paths = [entry.path for entry in beside.entries()]
    start = len(group) + 1 if group else 0
    here = {found[start:]: found for found in paths if found.startswith(group) and "/" not in found[start:]}
    return [here[name] for name in near(path[start:].partition("/")[0], here)]

"""Every exception of the project, one tree; each carries the HTTP status it travels as.

    Caterva2Error
    ├── NotFoundError               (LookupError)        404
    │   ├── DatasetNotFoundError    (FileNotFoundError)  404  no such dataset, group or file
    │   ├── RootNotFoundError                            404  no such root
    │   └── InvalidPathError        (ValueError)         404  not a path that could exist
    ├── RequestError                (ValueError)         400  the request cannot be understood
    │   └── SelectionError          (IndexError)         400  not a selection of that dataset
    ├── AuthenticationError         (PermissionError)    401  who are you?
    ├── AccessDeniedError           (PermissionError)    403  you may not
    ├── ConflictError                                    409
    │   ├── DatasetChangedError     (RuntimeError)       409  the version asked for is gone
    │   └── RootTakenError                               409  another publisher owns that name
    ├── ResyncError                 (LookupError)        410  the cursor is too old: list again
    ├── TooLargeError               (ValueError)         413  over a limit that the message names
    ├── UnsupportedDatasetError     (TypeError)          422  listed, but cannot be served
    ├── TooManyRequestsError                             429  slow down
    ├── IntegrityError              (OSError)            502  bytes that are not what was announced
    ├── SourceUnavailableError      (ConnectionError)    503  cannot be reached now
    │   └── NotCachedError                               503  ... and it is not in the cache
    ├── DeadlineError               (TimeoutError)       504  no progress in time
    └── ConfigError                 (ValueError)         500  a setting is wrong (never over HTTP)

The same class is raised at both ends: a service answers ``error_to_json(error)`` with
``error.status``; the client calls ``error_from_json``. This module imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "Caterva2Error",
    "ConfigError",
    "ConflictError",
    "DatasetChangedError",
    "DatasetNotFoundError",
    "DeadlineError",
    "IntegrityError",
    "InvalidPathError",
    "NotCachedError",
    "NotFoundError",
    "RequestError",
    "ResyncError",
    "RootNotFoundError",
    "RootTakenError",
    "SelectionError",
    "SourceUnavailableError",
    "TooLargeError",
    "TooManyRequestsError",
    "UnsupportedDatasetError",
    "error_from_json",
    "error_to_json",
]


class Caterva2Error(Exception):
    """Base of all errors of this package."""

    status = 500

    def __str__(self) -> str:  # OSError subclasses would format their errno
        return str(self.args[0]) if self.args else type(self).__name__


class NotFoundError(Caterva2Error, LookupError):
    """What was asked for does not exist (or is hidden: the two look alike)."""

    status = 404


class DatasetNotFoundError(NotFoundError, FileNotFoundError):
    """No dataset, group or file has that path."""


class RootNotFoundError(NotFoundError):
    """No root has that name."""


class InvalidPathError(NotFoundError, ValueError):
    """A text that cannot be the path of any dataset."""


class RequestError(Caterva2Error, ValueError):
    """A request that cannot be understood; nothing was read."""

    status = 400


class SelectionError(RequestError, IndexError):
    """A selection that does not fit the dataset."""


class AuthenticationError(Caterva2Error, PermissionError):
    """Missing, wrong or expired credentials."""

    status = 401


class AccessDeniedError(Caterva2Error, PermissionError):
    """Known, but not allowed."""

    status = 403


class ConflictError(Caterva2Error):
    """The request does not fit the present state."""

    status = 409


class DatasetChangedError(ConflictError, RuntimeError):
    """The version asked for is no longer served; open the dataset again or ``refresh()``."""


class RootTakenError(ConflictError):
    """The root's name belongs to another publisher."""


class ResyncError(Caterva2Error, LookupError):
    """A cursor from another epoch, or too old: list the catalog from the start."""

    status = 410


class TooLargeError(Caterva2Error, ValueError):
    """More than a limit allows; the message names the limit and the way out."""

    status = 413


class UnsupportedDatasetError(Caterva2Error, TypeError):
    """The dataset is listed but cannot be served; the message has the reason."""

    status = 422


class TooManyRequestsError(Caterva2Error):
    """A cap on what one client may have at once."""

    status = 429


class IntegrityError(Caterva2Error, OSError):
    """Bytes that fail their checksum or do not fit what was announced."""

    status = 502


class SourceUnavailableError(Caterva2Error, ConnectionError):
    """A publisher, broker or subscriber that cannot be reached now."""

    status = 503


class NotCachedError(SourceUnavailableError):
    """The source is away and the cache does not hold what was asked for."""


class DeadlineError(Caterva2Error, TimeoutError):
    """No progress was made within the deadline."""

    status = 504


class ConfigError(Caterva2Error, ValueError):
    """A setting that cannot be used; the message says which and what to write."""


def _tree(cls: type[Caterva2Error]) -> Iterator[type[Caterva2Error]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _tree(sub)


def error_to_json(error: Caterva2Error) -> dict[str, str]:
    """The body that an error travels as: ``{"detail": message, "error": class name}``."""
    return {"detail": str(error), "error": type(error).__name__}


def error_from_json(body: object, status: int) -> Caterva2Error:
    """The exception that a response of that status and body stands for.

    Parameters
    ----------
    body : object
        The decoded JSON body, of which nothing is trusted.
    status : int
        HTTP status, used when the body does not name a class of ours.
    """
    detail, name = f"HTTP status {status}", ""
    if isinstance(body, Mapping):
        detail, name = str(body.get("detail", body.get("message", detail))), str(body.get("error", ""))
    classes = list(_tree(Caterva2Error))
    for cls in classes:
        if cls.__name__ == name and cls.status == status:
            return cls(detail)
    for cls in classes:
        if cls.status == status and cls is not ConfigError:
            return cls(detail)
    if status in (408, 502):
        return SourceUnavailableError(detail)
    return RequestError(detail) if 400 <= status < 500 else Caterva2Error(detail)

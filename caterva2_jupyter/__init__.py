"""On-demand access to remote Blosc2, HDF5 and netCDF4 arrays.

    import caterva2_jupyter as cat2

    client = cat2.connect()
    array = client["foo/dir2/ds-4d.b2nd"]
    array[1, 2, 3]

The names below are the public API. They are loaded when they are first used: importing this package
costs next to nothing, and neither the client nor an import of it loads Tornado or h5py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.changes import Change, Watch
    from .client.client import Client, connect, open_address
    from .client.group import Group, UnsupportedDataset
    from .client.remote_array import RemoteArray
    from .client.remote_dataset import Freshness
    from .client.remote_file import RemoteFile
    from .client.service import RootStatus
    from .errors import (
        AccessDeniedError,
        AuthenticationError,
        Caterva2Error,
        ConfigError,
        ConflictError,
        DatasetChangedError,
        DatasetNotFoundError,
        DeadlineError,
        IntegrityError,
        InvalidPathError,
        NotCachedError,
        NotFoundError,
        RequestError,
        ResyncError,
        RootNotFoundError,
        RootTakenError,
        SelectionError,
        SourceUnavailableError,
        TooLargeError,
        TooManyRequestsError,
        UnsupportedDatasetError,
    )
    from .publishing import Publication, publish
    from .widgets.watching import watch as watch
    from .xarray_backend.writing import to_caterva2 as to_caterva2

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "Caterva2Error",
    "Change",
    "Client",
    "ConfigError",
    "ConflictError",
    "DatasetChangedError",
    "DatasetNotFoundError",
    "DeadlineError",
    "Freshness",
    "Group",
    "IntegrityError",
    "InvalidPathError",
    "NotCachedError",
    "NotFoundError",
    "Publication",
    "RemoteArray",
    "RemoteFile",
    "RequestError",
    "ResyncError",
    "RootNotFoundError",
    "RootStatus",
    "RootTakenError",
    "SelectionError",
    "SourceUnavailableError",
    "TooLargeError",
    "TooManyRequestsError",
    "UnsupportedDataset",
    "UnsupportedDatasetError",
    "Watch",
    "__version__",
    "connect",
    "open_address",
    "publish",
]

_CLIENT_MODULES = {
    "Change": "changes",
    "Watch": "changes",
    "Client": "client",
    "connect": "client",
    "open_address": "client",
    "Group": "group",
    "UnsupportedDataset": "group",
    "RemoteArray": "remote_array",
    "Freshness": "remote_dataset",
    "RemoteFile": "remote_file",
    "RootStatus": "service",
}

_EXTRAS = ("to_caterva2", "watch")
"""Not in ``__all__``: what they need may not be installed."""
_PUBLISHING = ("Publication", "publish")


def __getattr__(name: str) -> Any:
    if name in _PUBLISHING:
        value = getattr(import_module(".publishing", __name__), name)
    elif name in _CLIENT_MODULES:
        value = getattr(import_module(f".client.{_CLIENT_MODULES[name]}", __name__), name)
    elif name == "to_caterva2":
        try:
            import_module("xarray")
        except ImportError:
            raise AttributeError("to_caterva2() needs xarray: pip install 'caterva2-jupyter[xarray]'") from None
        value = getattr(import_module(".xarray_backend.writing", __name__), name)
    elif name == "watch":
        try:
            value = import_module(".widgets.watching", __name__).watch
        except ModuleNotFoundError as error:
            raise AttributeError(f"watch() needs {error.name}: pip install 'caterva2-jupyter[widgets]'") from None
    elif name in __all__:
        value = getattr(import_module(".errors", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_EXTRAS, *(name for name in globals() if name.startswith("__"))})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """What Jupyter asks for when it loads the server extension; only then is it imported."""
    extension = import_module(".subscriber.extension", __name__)
    return [{"module": extension.__name__, "app": extension.SubscriberApp}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where the built front end is, for ``jupyter labextension develop``."""
    return [{"src": "labextension", "dest": "caterva2-jupyter"}]

"""What a service answers about its cache, as methods: ``api/v1/cache`` over a transport, values in and values out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import IntegrityError, SourceUnavailableError, UnsupportedDatasetError, error_from_json
from .transport import Answer, NoSuchRouteError, Transport

__all__ = ["CacheService"]

_API = "/api/v1/cache"
MAX_LINE_NBYTES = 1 << 20
SEALING_S = 600.0


class CacheService:
    """The cache of the service behind a transport.

    Paths are ``ROOT``, or ``ROOT/PATH`` of a dataset or group, which stands for all below it; ``""`` is everything.
    Every method raises `UnsupportedDatasetError` for a service that keeps none, such as a publisher,
    `AccessDeniedError` for what is not ours to do, and `SourceUnavailableError` when nobody answers.

    Examples
    --------
    >>> array = client["foo/ds-1d"]
    >>> estimate = array.prefetch()
    >>> client.cache.status("foo/ds-1d")["datasets"][0]["path"]
    'foo/ds-1d.b2nd'
    >>> client.cache.pin("foo/ds-1d"), client.cache.unpin("foo/ds-1d")
    (['foo/ds-1d.b2nd'], ['foo/ds-1d.b2nd'])
    >>> [told["bad"] for told in client.cache.verify("foo")][-1]
    0
    >>> client.cache.clear("foo/ds-1d")["datasets"]
    1
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __repr__(self) -> str:
        return f"<CacheService of {self._transport.url}>"

    def _ask(self, method: str, route: str, form: object = None, params: Mapping[str, str] | None = None) -> Answer:
        body = None if form is None else json.dumps(form, separators=(",", ":")).encode()
        try:
            return self._transport.request(method, _API + route, params=params, body=body)
        except NoSuchRouteError:
            raise UnsupportedDatasetError(
                f"{self._transport.url} keeps no cache: connect to a subscriber (cat2sub, or Jupyter)"
            ) from None

    def _json(self, method: str, route: str, form: object = None, params: Mapping[str, str] | None = None) -> Any:
        with self._ask(method, route, form, params) as answer:
            form = answer.json()
        if not isinstance(form, dict):
            raise IntegrityError("malformed answer about a cache")
        return form

    def _lines(self, route: str, form: object) -> Iterator[dict[str, Any]]:
        """The lines of an answer, to the one that says that it is complete."""
        with self._ask("POST", route, form) as answer:
            for line in _split_lines(answer.parts()):
                try:
                    told = json.loads(line)
                except (ValueError, RecursionError):
                    told = None
                if not isinstance(told, dict):
                    raise IntegrityError("malformed answer about a cache")
                if "error" in told:
                    status = told.get("status")
                    raise error_from_json(told, status if isinstance(status, int) else 500)
                yield told
                if told.get("done"):
                    return
        raise SourceUnavailableError(f"the connection to {self._transport.url} broke before the answer was complete")

    def status(self, path: str = "") -> dict[str, Any]:
        """What is kept: of all roots, of ``ROOT``, or at and below ``ROOT/PATH``.

        Returns
        -------
        dict
            ``directory``, ``quota_nbytes``, ``usage_nbytes`` (compressed bytes on disk), ``counters``, ``pins`` and,
            for each version of a dataset, what is kept of it in ``datasets``.
        """
        form: dict[str, Any] = self._json("GET", "", params={"path": path} if path else None)
        return form

    def estimate(self, path: str, version: str, selection: Any) -> dict[str, Any]:
        """What reading a selection would cost the service."""
        read = {"path": path, "version": version, "selection": selection}
        form: dict[str, Any] = self._json("POST", "/estimate", read)
        return form

    def prefetch(self, path: str, version: str, selection: Any) -> Iterator[dict[str, Any]]:
        """Have a selection fetched; how far it is."""
        return self._lines("/prefetch", {"path": path, "version": version, "selection": selection})

    def verify(self, path: str = "") -> Iterator[dict[str, Any]]:
        """Have what is kept checked; how far it is.

        Yields
        ------
        dict
            So far: ``blocks`` and ``nbytes`` that were checked, those that are ``bad`` (and dropped), of
            ``total_nbytes``; the last one is ``done``.
        """
        return self._lines("/verify", {"path": path})

    def clear(self, path: str) -> dict[str, Any]:
        """Have the service forget what it keeps at and below a path; of everything for ``""``.

        Returns
        -------
        dict
            ``datasets`` and ``nbytes`` that are gone.
        """
        form: dict[str, Any] = self._json("POST", "/clear", {"path": path})
        return form

    def pin(self, path: str) -> list[str]:
        """Let datasets at and below a path stay whatever the quota; which they are.

        Returns
        -------
        list of str
            Addresses of the datasets that are pinned now.
        """
        return _texts(self._json("POST", "/pin", {"path": path}), "pinned")

    def unpin(self, path: str) -> list[str]:
        """Let them go in their turn again.

        Returns
        -------
        list of str
            Addresses of the datasets that no longer are.
        """
        return _texts(self._json("POST", "/unpin", {"path": path}), "unpinned")

    def sealed(self, path: str, version: str) -> Answer:
        """Open what is kept of a dataset as a ``.b2nd``.

        Raises
        ------
        NotCachedError
            When it is not complete.
        UnsupportedDatasetError
            When it cannot be put in one as it is stored.
        """
        return self._patient()._ask("GET", "/sealed", params={"path": path, "version": version})

    def _patient(self) -> CacheService:
        """The same, for an answer that begins when a whole file has been written."""
        own = self._transport
        timeouts = replace(own.timeouts, progress_s=max(own.timeouts.progress_s, SEALING_S))
        return CacheService(Transport(own.url, own.credentials, timeouts, own.tls_ca))


def _texts(form: Mapping[str, Any], name: str) -> list[str]:
    texts = form.get(name)
    if not isinstance(texts, list):
        raise IntegrityError("malformed answer about a cache")
    return [str(text) for text in texts]


def _split_lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_LINE_NBYTES:
            raise IntegrityError("malformed answer about a cache")
        yield from lines
    if rest:
        yield rest

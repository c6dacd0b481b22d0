"""The routes over sources, and what answers each."""

from __future__ import annotations

from .event_handlers import EventLinesAnswers, EventsAnswers
from .read_handlers import ChunkAnswers, ReadAnswers, ReadManyAnswers, ReduceAnswers
from .source_handlers import CatalogAnswers, FileAnswers, MetaAnswers, PlainFileAnswers, RootsAnswers, SourceAnswers

__all__ = ["ANNOUNCE_ROUTE", "SOURCE_ROUTES"]

SOURCE_ROUTES: tuple[tuple[str, type[SourceAnswers]], ...] = (
    (r"/api/v1/roots", RootsAnswers),
    (r"/api/v1/roots/([^/]+)/catalog", CatalogAnswers),
    (r"/api/v1/meta", MetaAnswers),
    (r"/api/v1/read", ReadAnswers),
    (r"/api/v1/read-many", ReadManyAnswers),
    (r"/api/v1/reduce", ReduceAnswers),
    (r"/api/v1/chunks/([^/]+)/([^/]+)/([^/]+)", ChunkAnswers),
    (r"/api/v1/file", FileAnswers),
    (r"/api/v1/files/(.+)", PlainFileAnswers),
    (r"/api/v1/events", EventsAnswers),
    (r"/api/v1/event-lines", EventLinesAnswers),
)
ANNOUNCE_ROUTE = r"/api/v1/roots/([^/]+)/announce"

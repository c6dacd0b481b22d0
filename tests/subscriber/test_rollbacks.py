"""FAULTS V7: a dataset that went back to an older state is flagged."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from caterva2_jupyter.core.catalog import CatalogPage
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.subscriber.catalog import ApplyBatch, ReplaceReplica, UpdateReplica
from caterva2_jupyter.subscriber.followed_root import FollowedRoot
from caterva2_jupyter.subscriber.rollbacks import rolled_back

GEOMETRY = Geometry((9,), (4,), (2,), np.dtype("<i4"))
NOW = Entry("a.b2nd", "array", id="1", version="v2", geometry=GEOMETRY, mtime_ns=2_000)
RESTORED = replace(NOW, version="v3", mtime_ns=1_000)


@pytest.mark.parametrize(
    ("later", "is_rollback"),
    [
        (RESTORED, True),
        (replace(RESTORED, mtime_ns=3_000), False),
        (replace(RESTORED, mtime_ns=2_000), False),
        (replace(RESTORED, mtime_ns=0), False),
        (replace(RESTORED, version="v2"), False),
        (replace(RESTORED, path="new.b2nd"), False),
        (Entry("a.b2nd", "group"), False),
    ],
)
def test_only_what_changed_and_is_older_went_back(later: Entry, is_rollback: bool) -> None:
    assert rolled_back([later], {NOW.path: NOW}.get) == ([later.path] if is_rollback else [])


@pytest.mark.parametrize("kind", ["events", "delta", "listing"])
@pytest.mark.parametrize("later", [RESTORED, replace(RESTORED, mtime_ns=3_000)])
def test_it_is_said_however_it_is_heard_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, later: Entry
) -> None:
    store = CatalogStore(tmp_path / "catalog.db")
    for _ in store.replacing([(NOW, "")]):
        pass
    page = CatalogPage("e", 2, (json.dumps(later.to_json()),))
    action: Any = {
        "events": ApplyBatch(EventBatch("foo", "e", 2, 2, (Event("put", later.path, later),))),
        "delta": UpdateReplica((page,), page.cursor),
        "listing": ReplaceReplica((page,), page.cursor),
    }[kind]
    with ThreadPoolExecutor(1) as executor, caplog.at_level(logging.WARNING):
        followed = FollowedRoot("foo", cast("Any", None), store, executor)
        followed._look_for_rollbacks(action)
    assert ("a.b2nd" in caplog.text) == (later is RESTORED)
    store.close()

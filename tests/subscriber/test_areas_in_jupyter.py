"""Areas inside a Jupyter server: whoever it lets in has all three."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_data_dir

API = ("caterva2", "api", "v1")


@pytest.fixture
def jp_server_config(jp_server_config, tmp_path):
    return {**jp_server_config, "SubscriberApp": {"cachedir": str(tmp_path / "cache")}}


@pytest.fixture
def extension(jp_serverapp, jp_asyncio_loop):
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    app = jp_serverapp.extension_manager.extension_points["caterva2_jupyter"].app
    yield app
    jp_asyncio_loop.run_until_complete(app.stop_extension())


async def test_files_are_put_read_and_removed(extension, jp_fetch):
    for area in ("@public", "@shared", "@personal"):
        answer = await jp_fetch(*API, "files", area, "dir", "x.txt", method="PUT", body=b"hello" * 1000)
        assert (answer.code, json.loads(answer.body)) == (201, {"path": f"{area}/dir/x.txt"})
        assert (await jp_fetch(*API, "files", area, "dir", "x.txt")).body == b"hello" * 1000
    assert (Path(jupyter_data_dir()) / "caterva2/personal/jupyter/dir/x.txt.b2").is_file()
    again = await jp_fetch(
        *API,
        "files",
        "@public",
        "dir",
        "x.txt",
        method="PUT",
        body=b"",
        headers={"If-None-Match": "*"},
        raise_error=False,
    )
    assert again.code == 409
    body = json.dumps({"src": "@personal/dir", "dst": "@public/moved"})
    answer = await jp_fetch(*API, "areas", "move", method="POST", body=body)
    assert json.loads(answer.body)["path"] == "@public/moved"
    await jp_fetch(*API, "files", "@public", "moved", method="DELETE")
    listed = json.loads((await jp_fetch(*API, "roots", "@public", "catalog")).body)["items"]
    assert [item["path"] for item in listed] == ["dir", "dir/x.txt"]


async def test_a_body_is_not_stored_for_whom_jupyter_does_not_authorize(extension, jp_fetch):
    asked = []

    class Reader:
        async def is_authorized(self, handler, user, action, resource):
            asked.append((action, resource))
            return action == "read"

    extension.serverapp.web_app.settings["authorizer"] = Reader()
    for kwargs in ({"method": "PUT", "body": os.urandom(1000)}, {"method": "DELETE"}):
        refused = await jp_fetch(*API, "files", "@public", "x.bin", raise_error=False, **kwargs)
        assert refused.code == 403
        assert asked.pop() == ("write", "caterva2")
    refused = await jp_fetch(
        *API, "files", "@public", "x.bin", method="PUT", body=b"", headers={"Authorization": ""}, raise_error=False
    )
    assert refused.code == 403
    incoming = Path(jupyter_data_dir()) / "caterva2/public/.caterva2-incoming"
    assert not incoming.exists()

"""The subscriber inside a Jupyter server."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from platformdirs import user_cache_path
from tornado.httpclient import HTTPClientError

from caterva2_jupyter.client.transport import Credentials, Transport
from caterva2_jupyter.client.user_service import UserService
from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.core.wire import Preamble, RecordParser
from caterva2_jupyter.errors import UnsupportedDatasetError
from caterva2_jupyter.subscriber.extension import SubscriberApp
from tests.processes import Network

API = ("caterva2", "api", "v1")


@pytest.fixture
def publisher_url(network: Network, example_root: Path) -> str:
    return network.start_publisher("foo", example_root).url


@pytest.fixture
def extension_settings() -> dict[str, object]:
    return {}


@pytest.fixture
def jp_server_config(jp_server_config, extension_settings, tmp_path):
    settings = {"cachedir": str(tmp_path / "cache"), **extension_settings}
    return {**jp_server_config, "SubscriberApp": settings}


@pytest.fixture
def extension(jp_serverapp, jp_asyncio_loop) -> SubscriberApp:
    """The extension with its start hook run, which the fixtures of pytest-jupyter leave out."""
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    return jp_serverapp.extension_manager.extension_points["caterva2_jupyter"].app


class TestOwnCache:
    """With the cache where it is when nobody says anything."""

    @pytest.fixture
    def extension_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
        monkeypatch.setenv("HOME", str(tmp_path))
        user_cache_path("caterva2-jupyter").mkdir(parents=True, mode=0o755)  # as earlier versions left it
        return {"cachedir": ""}

    async def test_nobody_else_looks_into_the_users_cache_directory(self, extension):
        cachedir = extension.service.config.cachedir
        assert cachedir == user_cache_path("caterva2-jupyter")
        assert stat.S_IMODE(cachedir.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in cachedir.iterdir())


class TestAlone:
    """With no broker and no publisher."""

    async def test_health_is_open_and_says_only_that_it_is_there(self, jp_fetch):
        response = await jp_fetch(*API, "health", headers={"Authorization": ""})
        assert json.loads(response.body) == {"status": "ok", "service": "subscriber"}

    async def test_it_knows_no_roots_and_waits_for_no_broker(self, extension, jp_fetch):
        assert extension.service.config.broker is None
        roots = json.loads((await jp_fetch(*API, "roots")).body)["roots"]
        assert [(root["name"], root["writable"]) for root in roots] == [
            ("@personal", True),
            ("@public", True),
            ("@shared", True),
        ]

    async def test_kernels_get_a_private_file_with_a_token_for_the_subscriber_alone(
        self, extension, jp_fetch, jp_base_url
    ):
        path = Path(os.environ["CATERVA2_CONNECTION_FILE"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connection = json.loads(path.read_text())
        assert connection["url"].endswith(jp_base_url.rstrip("/") + "/caterva2")
        headers = {"Authorization": f"Bearer {connection['token']}"}
        assert (await jp_fetch(*API, "roots", headers=headers)).code == 200
        follow = await jp_fetch(
            *API, "roots", "nowhere", "follow", method="POST", body="{}", headers=headers, raise_error=False
        )
        assert follow.code == 404, "no XSRF cookie is asked of a token"
        for route in (("api", "kernels"), ("api", "contents"), ("api", "me")):
            assert (await jp_fetch(*route, headers=headers, raise_error=False)).code == 403
        await extension.stop_extension()
        assert not path.exists()
        assert "CATERVA2_CONNECTION_FILE" not in os.environ

    async def test_a_wrong_token_is_refused(self, extension, jp_fetch):
        for header in ("Bearer wrong", "token wrong", "Bearer \xff", ""):
            with pytest.raises(HTTPClientError) as caught:
                await jp_fetch(*API, "roots", headers={"Authorization": header})
            assert caught.value.code == 403

    async def test_a_cookie_needs_the_xsrf_token_to_change_state(self, extension, jp_fetch, jp_serverapp):
        """FAULTS A8: what another site can make a browser send."""
        provider = jp_serverapp.identity_provider
        from jupyter_server.auth import User

        async def cookie_user(handler):
            return User("someone")

        provider.get_user = cookie_user
        headers = {"Authorization": ""}
        route = (*API, "roots", "foo", "follow")
        refused = await jp_fetch(*route, method="POST", body="{}", headers=headers, raise_error=False)
        assert refused.code == 403
        old = ("caterva2", "api", "subscribe", "foo")
        refused = await jp_fetch(*old, method="POST", body="", headers=headers, raise_error=False)
        assert refused.code == 403
        foreign = {**headers, "Origin": "https://evil.example"}
        refused = await jp_fetch(*API, "roots", headers=foreign, raise_error=False)
        assert refused.code in (403, 404)

    async def test_who_is_not_authorized_is_refused(self, extension, jp_fetch, jp_serverapp):
        asked = []

        class Nobody:
            async def is_authorized(self, handler, user, action, resource):
                asked.append((action, resource))
                return False

        extension.serverapp.web_app.settings["authorizer"] = Nobody()
        for route, method, action in (
            (("roots",), "GET", "read"),
            (("read",), "POST", "read"),
            (("roots", "foo", "follow"), "POST", "write"),
            (("roots", "foo", "announce"), "POST", "write"),
        ):
            body = "{}" if method == "POST" else None
            response = await jp_fetch(*API, *route, method=method, body=body, raise_error=False)
            assert response.code == 403
            assert asked.pop() == (action, "caterva2")

    async def test_nothing_is_written_to_the_current_directory(self, extension, jp_root_dir, tmp_path):
        assert (tmp_path / "cache" / "blocks").is_dir()
        assert stat.S_IMODE((tmp_path / "cache" / "blocks").stat().st_mode) == 0o700
        assert not list(Path.cwd().glob("_caterva2*"))

    async def test_errors_are_json_with_the_class_that_clients_raise(self, extension, jp_fetch):
        response = await jp_fetch(*API, "meta", params={"path": "nowhere/x"}, raise_error=False)
        assert response.code == 404
        assert json.loads(response.body)["error"] == "RootNotFoundError"

    async def test_its_routes_are_described_under_its_base(self, extension, jp_fetch):
        document = json.loads((await jp_fetch("caterva2", "openapi.json")).body)
        described = {
            (verb, route.removeprefix("/caterva2"))
            for route, operations in document["paths"].items()
            for verb in operations
        }
        assert {("post", "/api/v1/read"), ("get", "/api/fetch/{path}"), ("get", "/openapi.json")} <= described
        assert all(route.startswith("/caterva2/") for route in document["paths"])
        assert not any("/users" in route for _, route in described)
        page = await jp_fetch("caterva2", "docs")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b"/caterva2/api/v1/read-many" in page.body

    async def test_routes_that_are_not_there_are_not_found_and_never_redirected(
        self, extension, http_server_client, jp_base_url, jp_auth_header
    ):
        for route in ("api/listusers/", "api/v1/nothing", "api/v1/roots/", "auth/jwt/login"):
            url = f"{jp_base_url.rstrip('/')}/caterva2/{route}"
            response = await http_server_client.fetch(
                url, headers=jp_auth_header, raise_error=False, follow_redirects=False
            )
            assert (response.code, json.loads(response.body)) == (404, {"detail": "Not Found"}), route

    async def test_who_asks_for_users_is_told_that_there_are_none(
        self, extension, http_server, http_server_port, jp_base_url
    ):
        token = json.loads(Path(os.environ["CATERVA2_CONNECTION_FILE"]).read_text())["token"]
        url = f"http://127.0.0.1:{http_server_port[-1]}{jp_base_url.rstrip('/')}/caterva2"
        users = UserService(Transport(url, Credentials(token=token)))
        for ask in (users.list, lambda: users.add("a@example.org"), lambda: users.remove("a@example.org")):
            with pytest.raises(UnsupportedDatasetError, match="no users of its own"):
                await asyncio.to_thread(ask)


class TestWithAProblem:
    """A setting that cannot be used harms nobody, and is said."""

    @pytest.fixture
    def extension_settings(self) -> dict[str, object]:
        return {"conf": "/nowhere/caterva2.toml"}

    async def test_every_route_says_what_is_wrong(self, extension, jp_fetch):
        response = await jp_fetch(*API, "roots", raise_error=False)
        assert response.code == 503
        assert "cannot read /nowhere/caterva2.toml" in json.loads(response.body)["detail"]
        health = json.loads((await jp_fetch(*API, "health")).body)
        assert health["status"] == "unavailable"
        assert (await jp_fetch("api", "kernels")).code == 200, "Jupyter itself is fine"


class TestFollowing:
    """With a publisher as a process."""

    @pytest.fixture
    def extension_settings(self, publisher_url) -> dict[str, object]:
        return {"publishers": [publisher_url]}

    async def test_a_slice_comes_through(self, extension, jp_fetch):
        await jp_fetch(*API, "roots", "foo", "follow", method="POST", body="{}")
        selection = [[1, 2, 1], [2, 3, 1], [3, 4, 1], [0, 5, 1]]
        body = json.dumps({"path": "foo/dir2/ds-4d", "selection": selection})
        response = await jp_fetch(*API, "read", method="POST", body=body)
        assert response.headers["Content-Type"] == "application/vnd.caterva2.records"
        parser = RecordParser()
        items = parser.feed(response.body)
        parser.close()
        entry = next(item.entry for item in items if isinstance(item, Preamble))
        assert isinstance(entry, Entry)
        box = Selection.from_json(selection, entry.geometry.shape)
        assembler = Assembler(entry.geometry, box)
        plan = {projection.nchunk: projection for projection in BlockPlan(entry.geometry, box)}
        for record in items:
            if isinstance(record, BlockRecord):
                assembler.add(plan[record.nchunk], record)
        assert np.array_equal(assembler.out[0, 0, 0], np.arange(115, 120) * (1 + 1j))

    async def test_listings_files_and_the_old_rest_come_through(self, extension, jp_fetch):
        await jp_fetch("caterva2", "api", "subscribe", "foo", method="POST", body="")
        listed = json.loads((await jp_fetch("caterva2", "api", "list", "foo")).body)
        assert len(listed) == 10
        catalog = json.loads((await jp_fetch(*API, "roots", "foo", "catalog")).body)
        assert {item["path"] for item in catalog["items"]} >= set(listed)
        response = await jp_fetch(*API, "file", params={"path": "foo/README.md"}, headers={"Range": "bytes=0-3"})
        assert response.code == 206
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert len(response.body) == 4

    async def test_events_come_over_a_websocket(self, extension, jp_fetch, jp_ws_fetch, example_root):
        await jp_fetch(*API, "roots", "foo", "follow", method="POST", body="{}")
        socket = await jp_ws_fetch(*API, "events", params={"root": "foo"})
        (example_root / "new.txt").write_text("new")
        async with asyncio.timeout(20):
            while True:
                message = json.loads(await socket.read_message())
                if any(e["path"] == "new.txt" for e in message.get("events", ())):
                    break
        socket.close()


def test_importing_the_package_loads_no_server() -> None:
    code = (
        "import sys, caterva2_jupyter; caterva2_jupyter.connect;"
        "print([m for m in ('tornado', 'jupyter_server', 'h5py', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_light_install_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from jupyter_server.serverapp import ServerApp\n"
        "from caterva2_jupyter.subscriber.extension import SubscriberApp\n"
        "app = SubscriberApp(); app.serverapp = ServerApp(runtime_dir=sys.argv[1])\n"
        "app.initialize_settings(); app.initialize_handlers(); print(app._problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "pip install 'caterva2-jupyter[lab]'" in done.stdout
    assert len(done.stdout.splitlines()) == 1


class TestWithUpstream:
    """Another subscriber in place of a publisher."""

    @pytest.fixture
    def extension_settings(self, network, publisher_url):
        return {"upstreams": [network.start_subscriber("--publisher", publisher_url).url]}

    async def test_roots_come_through_both(self, extension, jp_fetch):
        await jp_fetch(*API, "roots", "foo", "follow", method="POST", body="{}")
        response = await jp_fetch(*API, "meta", params={"path": "foo/dir2/ds-4d.b2nd"})
        assert json.loads(response.body)["kind"] == "array"
        roots = json.loads((await jp_fetch(*API, "roots")).body)["roots"]
        (root,) = [root for root in roots if not root["name"].startswith("@")]
        assert len(root["via"]) == 2, "the other one, and this one"

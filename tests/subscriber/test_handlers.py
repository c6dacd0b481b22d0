"""The old REST and following, over Tornado's real application and roots in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from caterva2_jupyter.config import load_config
from caterva2_jupyter.subscriber import handlers
from caterva2_jupyter.subscriber.app import make_app
from caterva2_jupyter.subscriber.areas import Areas
from caterva2_jupyter.subscriber.cache_access import CacheAccess
from caterva2_jupyter.subscriber.cache_keeper import CacheKeeper
from caterva2_jupyter.subscriber.displays import Displays, installed_displays
from caterva2_jupyter.subscriber.frames import FrameMaker
from caterva2_jupyter.subscriber.guests import Guests
from caterva2_jupyter.subscriber.pages import Assets
from caterva2_jupyter.subscriber.permissions import Permissions
from caterva2_jupyter.subscriber.seen_roots import AllRoots
from caterva2_jupyter.web.compute_pool import ComputePool
from caterva2_jupyter.web.source_handlers import Limits
from tests.subscriber.running import Running, running

GRID = np.arange(6_000, dtype="i4").reshape(60, 100)
FIELDS = np.array([(0, 0.0, b"foobar0"), (1, 0.5, b"foobar1")], dtype=[("a", "<i4"), ("b", "<f8"), ("c", "S10")])


class Served:
    """A stand-alone subscriber on a port of its own."""

    def __init__(self, run: Running, url: str, limits: Limits) -> None:
        self.run, self.url, self.limits = run, url, limits

    async def fetch(self, route: str, method: str = "GET", body: str | None = None, **headers: str) -> HTTPResponse:
        if method == "POST" and body is None:
            body = ""
        client = AsyncHTTPClient()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.fetch(
            self.url + route, method=method, body=body, headers=names, raise_error=False, follow_redirects=False
        )

    async def json(self, route: str, method: str = "GET", body: str | None = None) -> object:
        response = await self.fetch(route, method, body)
        assert response.code == 200, response.body
        assert response.headers["Content-Type"] == "application/json"
        return json.loads(response.body)

    async def refused(self, route: str, method: str = "GET", body: str | None = None) -> tuple[int, object]:
        response = await self.fetch(route, method, body)
        return response.code, json.loads(response.body)["detail"]


@asynccontextmanager
async def served(
    directory: Path, *names: str, prefix: str = "", max_frame_nbytes: int = 1 << 20
) -> AsyncIterator[Served]:
    async with running(directory, *names) as run:
        sockets = bind_sockets(0, "127.0.0.1")
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{prefix}"
        (directory / "c.toml").write_text(f'[subscriber]\nurlbase = "{url}"\n')
        config = load_config(directory / "c.toml", {}).subscriber(http=url.removesuffix(prefix))
        compute, expressions = ComputePool(), ComputePool()
        areas = Areas(directory / "areas", None, run.executor, compute)
        areas.start(directory / "areas" / "catalogs", "owner")
        frames, limits = FrameMaker(compute, max_nbytes=max_frame_nbytes), Limits()
        keeper = CacheKeeper(run.subscriber, run.executor)
        keeper.open(run.cache)
        service = SimpleNamespace(
            config=config,
            subscriber=run.subscriber,
            frames=frames,
            assets=Assets(Displays(installed_displays())),
            limits=limits,
            executor=run.executor,
            cache_access=CacheAccess(run.executor),
            cache_keeper=keeper,
            compute=compute,
            all_roots=AllRoots(run.subscriber, areas, Permissions(has_users=False), expressions),
        )
        service.guests = Guests(run.subscriber, None, None, config.network)  # type: ignore[arg-type]
        server = HTTPServer(make_app(service))  # type: ignore[arg-type]
        server.add_sockets(sockets)
        try:
            yield Served(run, url, limits)
        finally:
            server.stop()
            await server.close_all_connections()
            await areas.stop()
            await compute.stop()
            await expressions.stop()


def with_foo(test: Callable[[Served], Awaitable[None]], directory: Path, *, follow: bool = True) -> None:
    """Run a test on a subscriber that follows the root ``foo``."""

    async def main() -> None:
        async with served(directory, "foo") as sub:
            files = sub.run.publishers["foo"].files
            files.set("dir/grid.b2nd", GRID, chunks=(20, 30), blocks=(5, 10), attrs={"units": "m", "n": np.int32(3)})
            files.set("fields.b2nd", FIELDS)
            files.set("scalar.b2nd", np.array("foo"))
            files.set("names.b2nd", np.array(["a", "bcd"], dtype=object))
            files.set("flat.b2nd", GRID.astype(">f4"), chunks=(7, 100), layout="flat", blocks=(50,), padded=False)
            files.set("readme.md", b"Hello world!")
            files.set("odd.b2nd", np.array([1, None], dtype=object))
            await sub.run.start()
            if follow:
                assert await sub.json("/api/subscribe/foo", "POST") == "Ok"
            await test(sub)

    asyncio.run(main())


def test_what_is_not_ready_in_time_for_older_clients_is_413_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(sub: Served) -> None:
        monkeypatch.setattr(handlers, "READY_S", 1e-4)
        for route in ("/api/fetch/foo/dir/grid.b2nd", "/api/fetch/foo/dir/grid.b2nd?slice_=3:5"):
            code, detail = await sub.refused(route)
            assert code == 413
            assert "ask again" in detail
        monkeypatch.setattr(handlers, "READY_S", 4.5)
        assert (await sub.fetch("/api/fetch/foo/dir/grid.b2nd")).code == 200

    with_foo(check, tmp_path)


def array_of(response: HTTPResponse) -> np.ndarray:
    assert response.code == 200, response.body
    assert response.headers["Content-Type"] == "application/octet-stream"
    return blosc2.ndarray_from_cframe(response.body)[()]


def bytes_of(response: HTTPResponse) -> bytes:
    assert response.code == 200, response.body
    with pytest.raises(RuntimeError):  # how the published client tells them apart
        blosc2.ndarray_from_cframe(response.body)
    return blosc2.schunk_from_cframe(response.body)[:]


def test_roots_are_those_of_the_broker_and_the_public_area(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        expected = {
            "foo": {"name": "foo", "http": "foo.test", "subscribed": None},
            "@public": {"name": "@public", "http": "", "subscribed": True},
        }
        assert await sub.json("/api/roots") == expected
        assert await sub.json("/api/subscribe/foo", "POST") == "Ok"
        assert (await sub.json("/api/roots"))["foo"]["subscribed"] is True
        assert await sub.json("/api/subscribe/@public", "POST") == "Ok"
        assert await sub.refused("/api/subscribe/bar", "POST") == (404, "bar not known by the broker")
        for area in ("@personal", "@shared"):
            assert await sub.refused(f"/api/subscribe/{area}", "POST") == (
                401,
                f"Subscribing to {area} requires authentication",
            )

    with_foo(test, tmp_path, follow=False)


def test_before_it_is_followed_a_root_is_empty(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        assert await sub.json("/api/list/foo") == []
        assert await sub.refused("/api/info/foo/readme.md") == (404, "Not Found")
        assert await sub.refused("/api/fetch/foo/readme.md") == (404, "Not Found")

    with_foo(test, tmp_path, follow=False)


def test_listings_are_sorted_and_relative_to_what_is_listed(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        listed = ["dir/grid.b2nd", "fields.b2nd", "flat.b2nd", "readme.md", "scalar.b2nd"]
        assert await sub.json("/api/list/foo") == listed
        assert await sub.json("/api/list/foo/") == listed
        assert await sub.json("/api/list/foo/dir") == ["grid.b2nd"]
        assert await sub.json("/api/list/foo/dir/") == ["grid.b2nd"]
        assert await sub.json("/api/list/foo/dir/grid.b2nd") == ["grid.b2nd"]
        assert await sub.json("/api/list/foo/nothing") == []
        assert await sub.json("/api/list/@public") == []
        assert await sub.refused("/api/list/bar") == (404, "bar not known by the broker")
        assert await sub.refused("/api/list/@personal") == (404, "@personal needs authentication")
        assert (await sub.fetch("/api/list/")).code == 404

    with_foo(test, tmp_path)


def test_info_has_the_old_keys(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        info = await sub.json("/api/info/foo/dir/grid.b2nd")
        assert list(info) == ["shape", "chunks", "blocks", "dtype", "schunk", "mtime"]
        assert (info["shape"], info["chunks"], info["blocks"]) == ([60, 100], [20, 30], [5, 10])
        assert info["schunk"]["urlpath"] == "foo/dir/grid.b2nd"
        assert info["schunk"]["vlmeta"] == {"units": "m", "n": 3}
        assert await sub.json("/api/info/foo/dir/grid") == info
        assert (await sub.json("/api/info/foo/readme.md"))["nbytes"] == 12
        assert await sub.refused("/api/info/foo/dir") == (404, "Not Found")
        assert await sub.refused("/api/info/foo/nothing") == (404, "Not Found")
        code, detail = await sub.refused("/api/info/foo/odd.b2nd")
        assert code == 422
        assert "odd.b2nd" in str(detail)

    with_foo(test, tmp_path)


SLICES = {
    "3": 3,
    "0": 0,
    "3,4": (3, 4),
    "2:9, 5:50": (slice(2, 9), slice(5, 50)),
    " 2 : 9 ": slice(2, 9),
    "-1": -1,
    "::2,::-1": (slice(None, None, 2), slice(None, None, -1)),
    "70:80": slice(70, 80),
    "5:5": slice(5, 5),
    ":": slice(None),
    ":,:": slice(None),
    "": slice(None),
    "10:": slice(10, None),
}


def test_a_slice_is_what_numpy_gives(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        for text, key in SLICES.items():
            quoted = text.replace(" ", "%20")
            for path, array in (("dir/grid.b2nd", GRID), ("flat.b2nd", GRID.astype(">f4"))):
                got = array_of(await sub.fetch(f"/api/fetch/foo/{path}?slice_={quoted}"))
                assert got.dtype == array.dtype
                assert got.shape == array[key].shape
                assert np.array_equal(got, array[key])

    with_foo(test, tmp_path)


def test_a_column_of_a_slice_asks_the_publisher_for_its_values_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 2**60, (2000, 50))

    async def test(sub: Served) -> None:
        publisher = sub.run.publishers["foo"]
        publisher.files.set("noise.b2nd", noise, chunks=(500, 50), blocks=(100, 50))
        await publisher.changed()
        async with asyncio.timeout(60):
            while (await sub.fetch("/api/info/foo/noise.b2nd")).code != 200:
                await asyncio.sleep(0.01)
        for _ in range(2):
            response = await sub.fetch("/api/fetch/foo/noise.b2nd?slice_=:,7:8")
            assert np.array_equal(array_of(response), noise[:, 7:8])
        assert publisher.modes == ["slice"]

    with_foo(test, tmp_path)


def test_other_dtypes_come_through(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        assert np.array_equal(array_of(await sub.fetch("/api/fetch/foo/fields.b2nd?slice_=0:1")), FIELDS[:1])
        assert array_of(await sub.fetch("/api/fetch/foo/scalar.b2nd")) == "foo"
        assert array_of(await sub.fetch("/api/fetch/foo/names.b2nd?slice_=1")) == "bcd"
        assert array_of(await sub.fetch("/api/fetch/foo/names.b2nd")).tolist() == ["a", "bcd"]

    with_foo(test, tmp_path)


def test_bytes_come_as_a_frame_without_an_array(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        response = await sub.fetch("/api/fetch/foo/readme.md")
        assert bytes_of(response) == b"Hello world!"
        assert response.headers["Content-Disposition"] == 'attachment; filename="readme.md.b2"'
        response = await sub.fetch("/api/fetch/foo/readme.md?slice_=:5")
        assert bytes_of(response) == b"Hello"
        assert "Content-Disposition" not in response.headers
        assert bytes_of(await sub.fetch("/api/fetch/foo/readme.md?slice_=4")) == b"o"

    with_foo(test, tmp_path)


def test_a_whole_array_keeps_its_partition_and_attributes(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        response = await sub.fetch("/api/fetch/foo/dir/grid.b2nd")
        assert response.headers["Content-Disposition"] == 'attachment; filename="grid.b2nd"'
        array = blosc2.ndarray_from_cframe(response.body)
        assert (array.chunks, array.blocks) == ((20, 30), (5, 10))
        assert array.schunk.vlmeta[:] == {"units": "m", "n": 3}
        assert np.array_equal(array[:], GRID)

    with_foo(test, tmp_path)


def test_a_malformed_slice_is_400_and_says_why(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        for text in ("x", "1;2", "60", "-61", "1,2,3", "::0", "1.5", "__import__('os')", "9" * 20, "'a'"):
            code, detail = await sub.refused(f"/api/fetch/foo/dir/grid.b2nd?slice_={text}")
            assert code == 400
            assert "slice" in str(detail)

    with_foo(test, tmp_path)


def test_chunks_are_those_of_the_super_chunk(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        array = blosc2.asarray(GRID, chunks=(20, 30), blocks=(5, 10))
        for nchunk in (0, 3, 11):
            response = await sub.fetch(f"/api/chunk/foo/dir/grid.b2nd?nchunk={nchunk}")
            assert response.code == 200
            assert blosc2.decompress2(response.body) == array.schunk.decompress_chunk(nchunk)
        assert (await sub.refused("/api/chunk/foo/dir/grid.b2nd?nchunk=12"))[0] == 400
        for query in ("", "?nchunk=x", "?nchunk=-1", "?nchunk=%C2%B2"):
            assert (await sub.fetch(f"/api/chunk/foo/dir/grid.b2nd{query}")).code == 422

    with_foo(test, tmp_path)


def test_downloads_are_files_to_be_saved_never_shown(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        sub.run.publishers["foo"].files.set("page.html", b"<script>alert(1)</script>")
        await sub.run.publishers["foo"].changed()
        async with asyncio.timeout(60):
            while (await sub.fetch("/api/download/foo/page.html")).code != 200:
                await asyncio.sleep(0.01)
        response = await sub.fetch("/api/download/foo/page.html")
        assert response.body == b"<script>alert(1)</script>"
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert response.headers["Content-Disposition"] == 'attachment; filename="page.html"'
        assert np.array_equal(array_of(await sub.fetch("/api/download/foo/dir/grid.b2nd")), GRID)
        assert (await sub.fetch("/api/download/foo/readme.md", Range="bytes=0-4")).body == b"Hello"

    with_foo(test, tmp_path)


def test_writing_without_users_is_401_with_the_old_texts(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        for route, text in (
            ("/api/upload/@public/x", "Uploading requires authentication"),
            ("/api/remove/@public/x", "Removing files requires authentication"),
            ("/api/move/", "Moving files requires authentication"),
            ("/api/copy/", "Copying files requires authentication"),
            ("/api/lazyexpr/", "Creating lazy expressions requires authentication"),
        ):
            assert await sub.refused(route, "POST", "{}") == (401, text)
        for route in ("/api/adduser/", "/api/deluser/x", "/api/listusers/", "/auth/jwt/login", "/auth/register"):
            assert (await sub.fetch(route)).code == 404

    with_foo(test, tmp_path)


def test_a_publisher_that_is_away_is_502_for_what_is_not_held(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        assert np.array_equal(array_of(await sub.fetch("/api/fetch/foo/dir/grid.b2nd?slice_=:20")), GRID[:20])
        sub.run.publishers["foo"].is_away = True
        assert np.array_equal(array_of(await sub.fetch("/api/fetch/foo/dir/grid.b2nd?slice_=:20")), GRID[:20])
        code, detail = await sub.refused("/api/fetch/foo/dir/grid.b2nd?slice_=:21")
        assert code == 502
        assert "grid.b2nd" in str(detail)
        assert len(await sub.json("/api/list/foo")) == 5

    with_foo(test, tmp_path)


def test_too_large_an_answer_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """FAULTS I2."""

    async def test(sub: Served) -> None:
        files = sub.run.publishers["foo"].files
        files.set("large.b2nd", np.zeros((1000, 1000)))
        await sub.run.publishers["foo"].changed()
        async with asyncio.timeout(60):
            while (await sub.fetch("/api/info/foo/large.b2nd")).code != 200:
                await asyncio.sleep(0.01)
        nreads = sub.run.publishers["foo"].nreads
        code, detail = await sub.refused("/api/fetch/foo/large.b2nd")
        assert (code, sub.run.publishers["foo"].nreads) == (413, nreads)
        assert "1048576" in str(detail)
        assert (await sub.fetch("/api/fetch/foo/large.b2nd?slice_=0:5")).code == 200

    with_foo(test, tmp_path)


def test_following_and_announcing_over_rest_v1(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        assert (await sub.json("/api/v1/roots"))["roots"][-1]["followed"] is False
        await sub.json("/api/v1/roots/foo/follow", "POST", "{}")
        assert (await sub.json("/api/v1/roots"))["roots"][-1]["followed"] is True
        await sub.json("/api/v1/roots/foo/announce", "POST", '{"path": "dir"}')
        assert sub.run.publishers["foo"].announced == ["dir"]
        assert (await sub.json("/api/v1/meta?path=foo/dir/grid"))["path"] == "dir/grid.b2nd"
        await sub.json("/api/v1/roots/foo/follow", "DELETE")
        assert (await sub.json("/api/v1/roots"))["roots"][-1]["followed"] is False
        assert (await sub.refused("/api/v1/roots/foo/follow", "DELETE"))[0] == 404
        assert (await sub.refused("/api/v1/roots/bar/follow", "POST", "{}"))[0] == 404
        assert (await sub.refused("/api/v1/roots/bar/announce", "POST", '{"path": ""}'))[0] == 404
        assert (await sub.refused("/api/v1/roots/foo/announce", "POST", '{"path": "../x"}'))[0] == 404

    with_foo(test, tmp_path, follow=False)


def test_the_path_of_urlbase_is_the_prefix_of_every_route(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, "foo", prefix="/lab/data") as sub:
            await sub.run.start()
            assert "foo" in await sub.json("/api/roots")
            assert (await sub.json("/api/v1/health"))["status"] == "ok"
            sub.url = sub.url.removesuffix("/lab/data")
            assert (await sub.fetch("/api/roots")).code == 404

    asyncio.run(main())


def test_paths_that_lead_out_of_a_followed_root_are_absent(tmp_path: Path) -> None:
    """FAULTS A1: the older system deleted its own state when asked so."""

    async def test(sub: Served) -> None:
        absent = await sub.refused("/api/info/foo/nothing")
        for text in ("..", "../db.json", "%2e%2e/db.json", "%252e%252e/db.json", "dir/../../db.json", "//etc/passwd"):
            for route in ("info", "fetch", "download"):
                assert await sub.refused(f"/api/{route}/foo/{text}") == absent
            assert await sub.refused(f"/api/chunk/foo/{text}?nchunk=0") == absent
        for text in ("../foo", "foo/..", "@public/../personal", "%2e%2e", "foo%2f..%2f..", "foo/%00", "%ff"):
            assert (await sub.fetch(f"/api/list/{text}")).code == 404
            assert (await sub.fetch(f"/api/subscribe/{text}", "POST")).code in (404, 405)
        assert (tmp_path / "db.json").exists()

    with_foo(test, tmp_path)


def test_the_event_loop_answers_while_frames_are_made(tmp_path: Path) -> None:
    """FAULTS P10: decoding happens elsewhere."""

    async def test(sub: Served) -> None:
        slow = asyncio.gather(*(sub.fetch("/api/fetch/foo/dir/grid.b2nd?slice_=1:") for _ in range(20)))
        worst = 0.0
        while not slow.done():
            begun = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
            worst = max(worst, asyncio.get_running_loop().time() - begun)
        assert all(response.code == 200 for response in await slow)
        assert worst < 0.5

    with_foo(test, tmp_path)

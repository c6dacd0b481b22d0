"""``cat2pub`` and the publisher's routes, old and new."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest
from tornado.web import Application

from caterva2_jupyter.config import Config, NetworkConfig
from caterva2_jupyter.core.wire import RecordParser
from caterva2_jupyter.publisher.app import make_app
from caterva2_jupyter.publisher.publisher import Publisher
from tests.publisher.publishing import publisher_config
from tests.web.serving import Served
from tests.web.test_source_handlers import SOCKET_HEADERS, TRAVERSALS

CUBE = np.arange(2 * 3 * 4 * 5, dtype="c16").reshape(2, 3, 4, 5)
WORDS = np.array([b"foobar%d" % i for i in range(1000)])


def serving_root(root: Path, statedir: Path, network: NetworkConfig | None = None) -> Served:
    publishers: list[Publisher] = []

    async def make() -> Application:
        tables: dict[str, object] = {"publisher": {}}
        if network is not None:
            tables["network"] = {"token": f"publish={network.publish_token},read={network.read_token}"}
        config = Config(tables, "test.toml", {}).publisher(
            name="foo", root=str(root), http="localhost:0", statedir=str(statedir)
        )
        publisher = Publisher(config)
        publishers.append(publisher)
        await publisher.start()
        await publisher.scanned.wait()
        return make_app(publisher)

    async def stop() -> None:
        await publishers[0].stop()

    return Served(make, stop)


@pytest.fixture(scope="module")
def foo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("root")
    (root / "dir").mkdir()
    a = blosc2.asarray(CUBE, chunks=(1, 2, 3, 4), blocks=(1, 2, 2, 2), urlpath=str(root / "dir" / "cube.b2nd"))
    a.schunk.vlmeta["units"] = "K"
    blosc2.asarray(WORDS, chunks=(300,), blocks=(100,), urlpath=str(root / "words.b2nd"))
    frame = blosc2.SChunk(chunksize=100, contiguous=True, urlpath=str(root / "hello.b2frame"))
    for _ in range(12):
        frame.append_data((b"Hello world!" * 9)[:100])
    (root / "README.md").write_text("# Read me\n" * 9)
    (root / "large.bin").write_bytes(np.random.default_rng(0).integers(0, 256, 5 << 20, np.uint8).tobytes())
    with serving_root(root, tmp_path_factory.mktemp("state")) as served:
        yield served


def test_the_old_list_has_every_dataset_and_no_group(foo: Served) -> None:
    assert sorted(foo.get("/api/list").json()) == [
        "README.md", "dir/cube.b2nd", "hello.b2frame", "large.bin", "words.b2nd",
    ]  # fmt: skip


def test_the_old_info_of_an_array(foo: Served) -> None:
    answer = foo.get("/api/info/dir/cube.b2nd")
    form = answer.json()
    assert list(form) == ["shape", "chunks", "blocks", "dtype", "schunk", "mtime"]
    assert (form["shape"], form["chunks"], form["blocks"]) == ([2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 2, 2])
    assert form["dtype"] == "complex128"
    assert form["schunk"]["vlmeta"] == {"units": "K"}
    assert form["schunk"]["nchunks"] == 2 * 2 * 2 * 2
    assert form["schunk"]["urlpath"] == "foo/dir/cube.b2nd"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", form["mtime"])


def test_the_old_info_is_not_sent_again_for_the_same_etag(foo: Served) -> None:
    etag = foo.get("/api/info/README.md").headers["ETag"]
    again = foo.get("/api/info/README.md", If_None_Match=etag)
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["dir/cube.b2nd", "words.b2nd", "hello.b2frame", "README.md", "large.bin"])
def test_old_chunks_are_those_of_the_super_chunk_that_info_describes(foo: Served, path: str) -> None:
    form = foo.get(f"/api/info/{path}").json()
    schunk = form.get("schunk", form)
    decoded = b""
    for nchunk in range(schunk["nchunks"]):
        answer = foo.get(f"/api/download/{path}?nchunk={nchunk}")
        assert answer.status == 200
        decoded += blosc2.decompress2(answer.body)
    assert len(decoded) == schunk["nbytes"]
    stored = foo.get(f"/api/v1/file?path=foo/{path}").body
    if "schunk" not in form:
        expected = stored if not path.endswith("b2frame") else (b"Hello world!" * 9)[:100] * 12
        assert decoded == expected
        return
    # An older subscriber puts the chunks in an array of that shape.
    dtype = CUBE.dtype if "cube" in path else WORDS.dtype
    local = blosc2.empty(form["shape"], dtype, chunks=form["chunks"], blocks=form["blocks"])
    for nchunk in range(schunk["nchunks"]):
        local.schunk.update_chunk(nchunk, foo.get(f"/api/download/{path}?nchunk={nchunk}").body)
    np.testing.assert_array_equal(local[...], CUBE if "cube" in path else WORDS)


@pytest.mark.parametrize("query", ["", "?nchunk=-1", "?nchunk=99"])
def test_an_old_download_without_a_chunk_of_the_dataset_is_refused(foo: Served, query: str) -> None:
    answer = foo.get(f"/api/download/words.b2nd{query}")
    assert answer.status == 400
    assert "chunk" in answer.json()["detail"].lower()


@pytest.mark.parametrize("text", ["", "x", "1e9", "%d9%a3", "9" * 30])
def test_an_old_download_of_a_chunk_that_is_no_number_is_422(foo: Served, text: str) -> None:
    answer = foo.get(f"/api/download/words.b2nd?nchunk={text}")
    assert (answer.status, answer.json()["detail"][0]["loc"]) == (422, ["query", "nchunk"])


@pytest.mark.parametrize("route", ["/api/info/", "/api/download/"])
@pytest.mark.parametrize("path", [*TRAVERSALS, "none.b2nd", "dir", ""])
def test_the_old_routes_do_not_find_what_is_no_dataset(foo: Served, route: str, path: str) -> None:
    assert foo.get(f"{route}{path}?nchunk=0").status == 404


TARGETS = [
    ("GET", "/api/list"),
    ("GET", "/api/info/README.md"),
    ("GET", "/api/download/README.md?nchunk=0"),
    ("GET", "/api/v1/roots"),
    ("GET", "/api/v1/roots/foo/catalog"),
    ("GET", "/api/v1/meta?path=foo"),
    ("POST", "/api/v1/read"),
    ("GET", "/api/v1/file?path=foo/README.md"),
    ("GET", "/api/v1/files/foo/README.md"),
    ("GET", "/api/v1/chunks/id/version/0"),
    ("GET", "/api/v1/events?root=foo"),
]
# These want other bodies, or answer without end.
REFUSING = [("POST", "/api/v1/read-many"), ("POST", "/api/v1/reduce"), ("GET", "/api/v1/event-lines?root=foo")]
ANNOUNCE = ("POST", "/api/v1/roots/foo/announce")
OPEN = ["/api/v1/health", "/openapi.json", "/docs"]


def test_tokens_open_the_routes_of_their_scope_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "README.md").write_text("x")
    network = NetworkConfig(publish_token="pub-token", read_token="read-token")

    with serving_root(tmp_path / "root", tmp_path / "state", network) as served:

        def status(method: str, target: str, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            if "events" in target and token != "read-token":
                headers |= SOCKET_HEADERS
            body = b'{"path":"README.md"}' if "announce" in target else b'{"path":"foo/README.md"}'
            return served.request(method, target, headers, body if method == "POST" else None).status

        for method, target in TARGETS:
            assert [status(method, target, t) for t in ("", "wrong", "pub-token")] == [401, 401, 403], target
            # An event listener that is let in, but did not ask for a WebSocket, is told so.
            expected = 400 if "events" in target else 404 if "chunks" in target else 200
            assert status(method, target, "read-token") == expected, target
        for method, target in REFUSING:
            assert [status(method, target, t) for t in ("", "wrong", "pub-token")] == [401, 401, 403], target
        assert [status(*ANNOUNCE, t) for t in ("", "wrong", "read-token")] == [401, 401, 403]
        assert status(*ANNOUNCE, "pub-token") == 200
        assert served.get("/api/v1/health").json() == {"status": "ok", "service": "publisher"}


def test_every_route_of_a_publisher_is_in_the_matrix(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()

    async def main() -> list[re.Pattern[str]]:
        publisher = Publisher(publisher_config(tmp_path / "root", tmp_path / "state"))
        application = make_app(publisher)
        await publisher.stop()
        (group,) = [r for r in application.default_router.rules if hasattr(r.target, "rules")]
        return [rule.matcher.regex for rule in group.target.rules if hasattr(rule.matcher, "regex")]

    known = [target.partition("?")[0] for _, target in [*TARGETS, *REFUSING, ANNOUNCE]] + OPEN
    patterns = asyncio.run(main())
    assert len(patterns) >= 11
    for pattern in patterns:
        assert any(pattern.match(target) for target in known), pattern.pattern


def test_a_read_through_the_publisher_verifies(foo: Served) -> None:
    answer = foo.post("/api/v1/read", {"path": "foo/large.bin"})
    parser = RecordParser()
    parser.feed(answer.body)
    parser.close()


def test_a_symlink_out_of_the_root_is_not_served(tmp_path: Path) -> None:
    secret = tmp_path / "root-secret"
    secret.mkdir()
    (secret / "key.txt").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.txt").symlink_to(secret / "key.txt")
    (root / "dirlink").symlink_to(secret)
    with serving_root(root, tmp_path / "state") as served:
        for path in ("link.txt", "dirlink/key.txt", "../root-secret/key.txt", "-secret/key.txt"):
            for answer in (
                served.get(f"/api/v1/file?path=foo/{path}"),
                served.post("/api/v1/read", {"path": f"foo/{path}"}),
                served.get(f"/api/download/{path}?nchunk=0"),
                served.post("/api/v1/roots/foo/announce", {"path": path}),
            ):
                assert answer.status in (200, 403, 404, 422)
                assert b"secret" not in answer.body.replace(b"root-secret", b"").replace(b"-secret", b"")


# The program


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caterva2_jupyter.publisher.app", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_what_cannot_be_used_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        cases = [
            (["foo", "none"], "there is no"),
            ([], "cat2pub NAME ROOT"),
            (["foo", "root", "--http", address], "is in use"),
            (["foo", "root", "--http", "0.0.0.0:0"], "network token"),
            (["../foo", "root"], "letters"),
            (["foo", "root", "--loglevel", "loud"], "loglevel"),
            (["foo", "root", "--statedir", "root/state"], "--statedir"),
        ]
        for arguments, words in cases:
            done = run(*arguments, cwd=tmp_path)
            assert (done.returncode, done.stdout) == (1, ""), arguments
            assert done.stderr.startswith("cat2pub: ")
            assert words in done.stderr
            assert done.stderr.count("\n") == 1, done.stderr


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert run("--nonsense", cwd=tmp_path).returncode == 2

"""Areas over real sockets: the older system's routes and texts, REST v1, users apart from one another, and crashes."""

from __future__ import annotations

import http.client
import io
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import blosc2
import h5py
import numpy as np
import pytest
import urllib3

import caterva2_jupyter as cat2
from caterva2_jupyter.cli.main import main as cat2cli
from caterva2_jupyter.client.client import Client
from caterva2_jupyter.subscriber.users import UserStore
from tests.processes import Network, Service, wait_for

ADA, BOB, PASSWORD = "ada@example.org", "bob@example.org", "correct horse"
SECRET = "a long random text for tests"
QUOTA = 8 << 20


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    network = Network(tmp_path_factory.mktemp("areas"))
    for name in ("sub", "small"):
        store = UserStore(network.directory / name / "db.sqlite")
        store.add(ADA, PASSWORD)
        store.add(BOB, PASSWORD)
        store.close()
    yield network
    network.close()


@pytest.fixture(scope="module")
def service(network: Network) -> Service:
    return network.start_subscriber(CATERVA2_SECRET=SECRET)


@pytest.fixture(scope="module")
def small(network: Network) -> Service:
    """One with a quota."""
    (network.directory / "empty.toml").write_text(f"[subscriber]\nquota = {QUOTA}\n")
    service = network.start_subscriber(name="small", CATERVA2_SECRET=SECRET)
    (network.directory / "empty.toml").write_text("")
    return service


class Old:
    """A client of the older system: one cookie, and forms."""

    def __init__(self, url: str, user: str = "") -> None:
        self.url, self.pool, self.cookie = url, urllib3.PoolManager(), ""
        if user:
            answer = self.pool.request(
                "POST", f"{url}/auth/jwt/login", fields={"username": user, "password": PASSWORD}, encode_multipart=False
            )
            assert answer.status == 204
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def ask(self, method: str, route: str, **kwargs: object) -> tuple[int, object]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        target = self.url + quote(route, safe="/@?=&%")
        answer = self.pool.request(method, target, headers=headers, redirect=False, **kwargs)
        body: object = answer.data
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            body = json.loads(answer.data)
        return answer.status, body

    def upload(self, route: str, data: bytes, name: str = "local.txt") -> tuple[int, object]:
        return self.ask("POST", f"/api/upload/{route}", fields={"file": (name, data)})


@pytest.fixture
def ada(service: Service) -> Iterator[Old]:
    old = Old(service.url, ADA)
    yield old
    for area in ("@public", "@shared", "@personal"):
        old.ask("POST", f"/api/remove/{area}/")


@pytest.fixture
def client(service: Service, ada: Old) -> Iterator[Client]:
    with cat2.connect(service.url, username=ADA, password=PASSWORD) as client:
        yield client


def test_the_older_routes_have_their_statuses_and_texts(service: Service, ada: Old) -> None:
    assert ada.upload("@public/x.txt", b"hello") == (200, "@public/x.txt")
    assert ada.upload("@public/", b"hello") == (200, "@public/local.txt")
    assert ada.upload("@shared/dir1/y.txt", b"in a directory") == (200, "@shared/dir1/y.txt")
    assert ada.upload("@shared/dir1", b"named by the client") == (200, "@shared/dir1/local.txt")
    assert ada.upload("@personal/z.b2nd", blosc2.arange(5).to_cframe()) == (200, "@personal/z.b2nd")
    assert ada.ask("GET", "/api/list/@shared") == (200, ["dir1/local.txt", "dir1/y.txt"])
    assert ada.ask("GET", "/api/list/@shared/dir1/") == (200, ["local.txt", "y.txt"])
    assert ada.ask("GET", "/api/download/@public/x.txt") == (200, b"hello")
    status, frame = ada.ask("GET", "/api/fetch/@public/x.txt")
    assert blosc2.schunk_from_cframe(frame)[:] == b"hello"
    status, frame = ada.ask("GET", "/api/fetch/@personal/z.b2nd?slice_=1:3")
    assert blosc2.ndarray_from_cframe(frame)[:].tolist() == [1, 2]
    status, info = ada.ask("GET", "/api/info/@public/x.txt")
    assert (info["nbytes"], info["urlpath"]) == (5, "@public/x.txt")  # type: ignore[index]

    def move(src: str, dst: str, verb: str = "move") -> tuple[int, object]:
        return ada.ask("POST", f"/api/{verb}/", json={"src": src, "dst": dst})

    assert move("@public/x.txt", "@shared/") == (200, "@shared/x.txt")
    assert move("@shared/x.txt", "@shared/dir1") == (200, "@shared/dir1/x.txt")
    assert move("@shared/dir1/x.txt", "@shared/dir2/dir3/dir4") == (200, "@shared/dir2/dir3/dir4/x.txt")
    assert move("@shared/dir2/dir3/dir4/x.txt", "@public/new.md", "copy") == (200, "@public/new.md")
    assert move("@shared/dir1", "@public/all", "copy") == (200, "@public/all/dir1")
    assert ada.ask("GET", "/api/list/@public/all")[1] == ["dir1/local.txt", "dir1/y.txt"]
    for dst in ("..", ".", "foo", "foo/bar"):
        rule = "@personal or @shared or @public roots is allowed"
        assert move("@public/new.md", dst) == (400, {"detail": f"Only moving to {rule}"})
        assert move("@public/new.md", dst, "copy") == (400, {"detail": f"Only copying to {rule}"})
        assert move(f"{dst}/x", "@public") == (400, {"detail": f"Only moving from {rule}"})
        text = "Only copying from existing roots is allowed"
        assert move(f"{dst}/x", "@public", "copy") == (400, {"detail": text})
        assert ada.upload(f"{dst}/x" if dst.startswith("foo") else "foo/x", b"") == (
            400,
            {"detail": f"Only uploading to {rule}"},
        )
        assert ada.ask("POST", "/api/remove/foo/x") == (400, {"detail": f"Only removing from {rule}"})
    absent = (404, {"detail": "The specified path does not exist"})
    assert move("@public/absent", "@shared") == absent
    assert ada.ask("POST", "/api/remove/@public/absent") == absent
    assert ada.ask("POST", "/api/remove/@public/all") == (200, "@public/all")
    assert ada.ask("GET", "/api/list/@public")[1] == ["local.txt", "new.md"]
    status, body = ada.ask("POST", "/api/upload/@public/x", fields={"other": "text"})
    assert (status, body["detail"][0]["loc"]) == (422, ["body", "file"])  # type: ignore[index]
    nameless = ada.ask("POST", "/api/upload/@public/", fields={"file": ("", b"x")})
    assert nameless[0] == 422
    for doing in ("move", "copy"):
        status, body = ada.ask("POST", f"/api/{doing}/", json={"src": 1})
        assert (status, [d["loc"][1] for d in body["detail"]]) == (422, ["src", "dst"])  # type: ignore[index]


def test_who_is_not_logged_in_sees_the_public_area_and_writes_nothing(service: Service, ada: Old) -> None:
    ada.upload("@public/x.txt", b"for all")
    ada.upload("@shared/y.txt", b"for users")
    stranger = Old(service.url)
    assert set(stranger.ask("GET", "/api/roots")[1]) == {"@public"}  # type: ignore[call-overload]
    assert stranger.ask("GET", "/api/download/@public/x.txt") == (200, b"for all")
    for area in ("@shared", "@personal"):
        assert stranger.ask("GET", f"/api/list/{area}") == (404, {"detail": f"{area} needs authentication"})
        assert stranger.ask("GET", f"/api/info/{area}/y.txt") == (404, {"detail": "Not Found"})
        text = f"Subscribing to {area} requires authentication"
        assert stranger.ask("POST", f"/api/subscribe/{area}") == (401, {"detail": text})
    # Whether a root is there is told to nobody who may not see it.
    for root in ("@shared", "foo", "nothing"):
        assert stranger.ask("GET", f"/api/v1/meta?path={root}/y.txt")[0] == 401
    refused = (401, {"detail": "Unauthorized"})
    assert stranger.upload("@public/z.txt", b"") == refused
    assert stranger.ask("POST", "/api/remove/@public/x.txt") == refused
    assert stranger.ask("POST", "/api/move/", json={"src": "@public/x.txt", "dst": "@public/y"}) == refused
    assert stranger.ask("PUT", "/api/v1/files/@public/x.txt", body=b"x")[0] == 401
    assert stranger.ask("DELETE", "/api/v1/files/@public/x.txt")[0] == 401
    assert ada.ask("GET", "/api/list/@public")[1] == ["x.txt"]


def test_what_is_personal_is_one_users(service: Service, ada: Old) -> None:
    bob = Old(service.url, BOB)
    ada.upload("@personal/diary.txt", b"ada's")
    assert bob.ask("GET", "/api/list/@personal") == (200, [])
    assert bob.ask("GET", "/api/info/@personal/diary.txt")[0] == 404
    assert bob.upload("@personal/diary.txt", b"bob's")[0] == 200
    assert ada.ask("GET", "/api/download/@personal/diary.txt") == (200, b"ada's")
    assert bob.ask("GET", "/api/download/@personal/diary.txt") == (200, b"bob's")
    entry = ada.ask("GET", "/api/v1/meta?path=@personal/diary.txt")[1]
    assert bob.ask("GET", f"/api/v1/chunks/{entry['id']}/{entry['version']}/0")[0] == 404  # type: ignore[index]
    for path in ("@personal/../", "@shared/../personal/x", "@personal/%2e%2e/x"):
        assert bob.upload(path + "y.txt", b"")[0] in (400, 404)
    bob.ask("POST", "/api/remove/@personal/")
    directories = list((service.directory / "sub/personal").iterdir())
    assert all(str(uuid.UUID(directory.name)) == directory.name for directory in directories)


def test_a_client_uploads_what_it_has(client: Client, tmp_path: Path) -> None:
    shared = client["@shared"]
    array = shared.upload(np.arange(1000).reshape(10, 100), "deep/er/array")
    assert isinstance(array, cat2.RemoteArray)
    assert (array.path, array[3, :3].tolist()) == ("deep/er/array.b2nd", [300, 301, 302])
    assert shared.upload(b"bytes", "x.txt").read() == b"bytes"
    steps: list[tuple[int, int]] = []
    data = os.urandom(3 << 20)
    assert shared.upload(io.BytesIO(data), "y.bin", lambda *step: steps.append(step)).read() == data
    assert steps[-1] == (len(data), len(data))
    assert shared.upload(blosc2.ones((3, 4)), "ones")[:].sum() == 12
    assert shared.upload(blosc2.SChunk(data=b"frame"), "f").read() == b"frame"
    assert shared.upload(np.array(["a", "bcd"], dtype=object), "names")[:].tolist() == ["a", "bcd"]
    assert shared.upload([1, 2, 3], "list")[:].tolist() == [1, 2, 3]
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/é.txt").write_text("text")
    blosc2.asarray(np.arange(4), urlpath=str(tmp_path / "d/sparse.b2nd"), contiguous=False)
    assert sorted(client.upload(tmp_path / "d", "@shared/").walk()) == ["e/é.txt", "sparse.b2nd"]
    assert client["@shared/d/sparse"][:].tolist() == [0, 1, 2, 3]
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["group/values"] = np.arange(7)
    assert client.upload(tmp_path / "f.h5", "@shared/")["group/values"][:].tolist() == list(range(7))
    with pytest.raises(cat2.ConflictError):
        shared.upload(b"again", "x.txt")
    assert shared.upload(b"again", "x.txt", overwrite=True).read() == b"again"
    with pytest.raises(cat2.UnsupportedDatasetError):
        shared.upload(np.array([object()]), "object")
    with pytest.raises(cat2.RequestError, match="give a path"):
        shared.upload(b"nameless")
    with pytest.raises(OSError, match=r"nothing\.here"):
        shared.upload("nothing.here")


def test_objects_of_areas_move_are_copied_and_go(client: Client) -> None:
    array = client["@shared"].upload(np.arange(5), "a.b2nd")
    copy = array.copy("@public/dir/")
    assert (copy.root, copy.path) == ("@public", "dir/a.b2nd")
    moved = copy.move("@personal/b.b2nd")
    assert moved[:].tolist() == [0, 1, 2, 3, 4]
    assert client["@public"].upload(moved, "again")[:].tolist() == [0, 1, 2, 3, 4]
    group = client.mkdir("@shared/x/y")
    assert len(group) == 0
    array.move("@shared/x/y/")
    assert list(client["@shared/x"].copy("@public/x").walk()) == ["y/a.b2nd"]
    client["@shared/x"].remove()
    assert "@shared/x" not in client
    client.remove("@public/dir")
    with pytest.raises(cat2.NotFoundError):
        client.remove("@public/dir")
    with pytest.raises(cat2.AccessDeniedError):
        client["@public"].remove()
    with pytest.raises(cat2.AccessDeniedError):
        client["@public"].copy("foo/x")


def test_changes_are_told_and_those_by_hand_are_found(client: Client, service: Service) -> None:
    transport = client["@public"]._session.service.transport

    def catalog(since: str = "") -> dict[str, object]:
        params = {"since": since} if since else {}
        with transport.request("GET", "/api/v1/roots/@public/catalog", params=params) as answer:
            form = answer.json()
            assert isinstance(form, dict)
            return form

    before = catalog()
    cursor = f"{before['epoch']}:{before['seq']}"
    client["@public"].upload(b"1", "dir/told.txt")
    assert [item["path"] for item in catalog(cursor)["items"]] == ["dir", "dir/told.txt"]  # type: ignore[attr-defined]
    (service.directory / "sub/public/by hand.txt").write_bytes(b"by hand")
    wait_for(lambda: "@public/by hand.txt" in client, message="what was put there by hand")
    assert client["@public/by hand.txt"].read() == b"by hand"
    client.remove("@public/dir")
    assert set(catalog(cursor)["deleted"]) >= {"dir", "dir/told.txt"}  # type: ignore[call-overload]


def test_the_quota_is_checked_before_and_while_bytes_come(small: Service) -> None:
    ada = Old(small.url, ADA)
    text = "Upload failed because quota limit has been exceeded."
    noise = os.urandom(5 << 20)
    assert ada.upload("@public/a.bin", noise)[0] == 200
    assert ada.upload("@public/b.bin", noise) == (400, {"detail": text})
    status, body = ada.ask("PUT", "/api/v1/files/@public/b.b2nd", body=noise)
    assert (status, body["detail"]) == (413, text)  # type: ignore[index]
    assert ada.ask("GET", "/api/list/@public") == (200, ["a.bin"])
    assert ada.upload("@public/zeros.bin", bytes(20 << 20))[0] == 200, "what counts is what is stored"
    with cat2.connect(small.url, username=ADA, password=PASSWORD) as client:
        with pytest.raises(cat2.TooLargeError, match="quota limit"):
            client["@shared"].upload(noise, "c.bin")
        client.remove("@public/a.bin")
        client["@shared"].upload(noise, "c.bin")
        usage = client._areas.status()
    assert 5 << 20 <= usage["usage_nbytes"] <= usage["quota_nbytes"] == QUOTA


def begin_put(service: Service, old: Old, route: str, nbytes: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    connection.putrequest("PUT", route)
    connection.putheader("Content-Length", str(nbytes))
    connection.putheader("Cookie", old.cookie)
    connection.endheaders()
    return connection


def test_an_upload_that_breaks_off_leaves_nothing(service: Service, ada: Old) -> None:
    ada.upload("@public/x.bin", b"before")
    public = service.directory / "sub/public"
    connection = begin_put(service, ada, "/api/v1/files/@public/x.bin", 10 << 20)
    connection.send(os.urandom(6 << 20))
    wait_for(lambda: any(p.stat().st_size > 1 << 20 for p in (public / ".caterva2-incoming").rglob("*")))
    assert ada.ask("GET", "/api/download/@public/x.bin") == (200, b"before")
    connection.close()
    wait_for(lambda: {p.name for p in (public / ".caterva2-incoming").rglob("*") if p.is_file()} == {"lock"})
    assert ada.ask("GET", "/api/download/@public/x.bin") == (200, b"before")


def test_a_service_that_is_killed_in_the_midst_of_uploads_starts_with_what_was_complete(
    service: Service, ada: Old
) -> None:
    ada.upload("@public/x.bin", b"before")
    public = service.directory / "sub/public"
    connections = [begin_put(service, ada, f"/api/v1/files/@public/{n}", 10 << 20) for n in ("x.bin", "new/y.b2nd")]
    for connection in connections:
        connection.send(os.urandom(6 << 20))
    big = lambda: [p for p in (public / ".caterva2-incoming").rglob("*") if p.stat().st_size > 1 << 20]  # noqa: E731
    wait_for(lambda: len(big()) == 2)
    service.kill()
    service.restart()
    for connection in connections:
        connection.close()
    again = Old(service.url, ADA)
    assert again.ask("GET", "/api/list/@public") == (200, ["x.bin"])
    assert again.ask("GET", "/api/download/@public/x.bin") == (200, b"before")
    assert again.upload("@public/z.txt", b"after")[0] == 200
    assert big() == [], "what the killed one left"
    assert sorted(p.name for p in public.rglob("*.b2")) == ["x.bin.b2", "z.txt.b2"]


def test_a_gigabyte_is_taken_and_given_in_bounded_memory(service: Service, client: Client, tmp_path: Path) -> None:
    def peak_nbytes() -> int:
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) << 10

    with (tmp_path / "big").open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    before = peak_nbytes()
    big = client.upload(tmp_path / "big", "@shared/")
    assert (big.nbytes, big[:5], big[-3:]) == ((1 << 30) + 3, b"begin", b"end")
    assert peak_nbytes() - before < 128 << 20
    client.remove("@shared/big")


def test_uploads_at_once_to_one_name_are_one_of_them(service: Service, ada: Old) -> None:
    statuses: list[int] = []

    def put(i: int) -> None:
        old = Old(service.url)
        old.cookie = ada.cookie
        for _ in range(5):
            statuses.append(old.ask("PUT", "/api/v1/files/@public/x.bin", body=b"%d" % i * 200_000)[0])

    threads = [threading.Thread(target=put, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    seen: set[bytes] = set()
    is_last = False
    while not is_last:  # once more when all is written: until then each read may find that the file has changed
        is_last = not any(thread.is_alive() for thread in threads)
        status, body = ada.ask("GET", "/api/download/@public/x.bin")
        if status == 200:
            assert isinstance(body, bytes)
            seen.add(body)
    assert status == 200
    assert set(statuses) == {201}
    assert all(len(body) == 200_000 and len(set(body)) == 1 for body in seen)
    assert ada.ask("GET", "/api/list/@public") == (200, ["x.bin"])


def test_refusals_of_v1_have_their_classes(ada: Old) -> None:
    ada.upload("@public/x.txt", b"1")

    def put(route: str, **headers: str) -> tuple[int, object]:
        sent = {"Cookie": ada.cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = ada.pool.request("PUT", f"{ada.url}/api/v1/files/{route}", headers=sent, body=b"2")
        return answer.status, json.loads(answer.data).get("error")

    assert put("@public/x.txt", If_None_Match="*") == (409, "ConflictError")
    assert put("@public/x.txt/below") == (409, "ConflictError")
    assert put("@public/a%2f..%2f..%2fb") == (404, "InvalidPathError")
    assert put("@public/.caterva2-incoming/b") == (404, "InvalidPathError")
    assert put("foo/x")[0] == 403
    assert put("@public/x.txt", If_None_Match='"tag"') == (400, "RequestError")
    assert ada.ask("DELETE", "/api/v1/files/@public/absent")[0] == 404
    assert ada.ask("POST", "/api/v1/areas/move", json={"src": "@public/x.txt"})[0] == 400
    assert ada.ask("POST", "/api/v1/areas/copy", json={"src": "@public", "dst": "@public/y"})[0] == 409
    assert put("@public/x.txt") == (201, None)
    assert ada.ask("GET", "/api/v1/files/@public/x.txt") == (200, b"2")


def test_the_command_line_writes_to_areas(
    service: Service, ada: Old, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.txt").write_text("hello")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/y.txt").write_text("y")
    options = ["--subscriber", service.url, "--username", ADA, "--password", PASSWORD]

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cat2cli([*options, *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out.strip(), err.strip()

    assert run("upload", tmp_path / "x.txt", "@public/a.txt") == (0, "Dataset stored in @public/a.txt", "")
    assert run("upload", tmp_path / "x.txt", "@public/dir/") == (0, "Dataset stored in @public/dir/x.txt", "")
    assert run("upload", "--json", tmp_path / "x.txt", "@public/dir") == (0, '"@public/dir/x.txt"', "")
    assert run("cp", "@public/a.txt", "@shared") == (0, "Dataset @public/a.txt copied to @shared/a.txt", "")
    assert run("mv", "@shared/a.txt", "@shared/b.txt") == (0, "Dataset @shared/a.txt moved to @shared/b.txt", "")
    assert run("addcontents", tmp_path / "d", "@shared/c") == (0, "Dataset stored in @shared/c/y.txt", "")
    assert run("rm", "@shared/b.txt") == (0, "Dataset (or directory contents) removed: @shared/b.txt", "")
    for arguments in (
        ("rm", "@shared/b.txt"),
        ("upload", tmp_path / "x.txt", "foo/x"),
        ("upload", tmp_path / "absent", "@public/"),
        ("upload", "--no-overwrite", tmp_path / "x.txt", "@public/a.txt"),
    ):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 0), err
        assert err.startswith("cat2cli: ")


def test_a_slow_client_that_goes_away_holds_nothing(service: Service, ada: Old) -> None:
    connections = [begin_put(service, ada, "/api/v1/files/@public/slow", 1 << 30) for _ in range(20)]
    for connection in connections:
        connection.send(b"x" * 100)
    assert ada.upload("@public/quick.txt", b"quick")[0] == 200
    for connection in connections:
        with suppress(OSError):
            connection.close()
    assert ada.ask("GET", "/api/list/@public") == (200, ["quick.txt"])

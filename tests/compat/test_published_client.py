"""The API of the published client, unmodified, against our services: what every function gives, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from tests.compat.conftest import PASSWORD, SUPERUSER, USER
from tests.compat.published import Deployment, Published, PublishedError

LISTED = [
    "README.md",
    "dir1/ds-2d.b2nd",
    "dir1/ds-3d.b2nd",
    "dir2/ds-4d.b2nd",
    "ds-1d-b.b2nd",
    "ds-1d-fields.b2nd",
    "ds-1d.b2nd",
    "ds-2d-fields.b2nd",
    "ds-hello.b2frame",
    "ds-sc-attr.b2nd",
]


@pytest.fixture(scope="module")
def root(published: Published, deployment: Deployment) -> Any:
    return published.run("cat2.Root('foo', u)", u=deployment.plain)


def stored(deployment: Deployment, path: str) -> np.ndarray:
    return blosc2.open(str(deployment.root / path), mode="r")[()]


def login(published: Published, deployment: Deployment, email: str) -> str:
    user = {"username": email, "password": PASSWORD}
    return str(published.run("cat2.get_auth_cookie(u, user)", u=deployment.users, user=user))


@pytest.fixture(scope="module")
def cookie(published: Published, deployment: Deployment) -> str:
    return login(published, deployment, USER)


@pytest.fixture(scope="module")
def boss(published: Published, deployment: Deployment) -> str:
    return login(published, deployment, SUPERUSER)


def refused(reason: str) -> Any:
    return pytest.raises(PublishedError, match=f"HTTPStatusError.*{reason}")


# Roots of publishers, without users


def test_roots_are_told_with_their_publishers_and_the_areas_after_them(
    published: Published, deployment: Deployment, root: Any
) -> None:
    roots = published.run("cat2.get_roots(u)", u=deployment.plain)
    assert list(roots) == ["foo", "@public"]
    assert roots["foo"]["subscribed"] is True
    assert roots["foo"]["http"].startswith("127.0.0.1:")
    assert roots["@public"] == {"name": "@public", "http": "", "subscribed": True}


def test_a_root_is_a_listing_that_can_be_asked(published: Published, root: Any) -> None:
    assert root["repr"] == "<Root: foo>"
    assert published.run("(str(r), r.name, len(r), list(r), r.file_list)", r=root) == ["foo", "foo", 10, LISTED, LISTED]
    assert published.run("('README.md' in r, 'nope' in r)", r=root) == [True, False]
    kinds = published.run("[type(r[n]).__name__ for n in r]", r=root)
    assert kinds == ["File"] + ["Dataset"] * 9


@pytest.mark.parametrize("path", [p for p in LISTED if p.endswith(".b2nd")])
def test_a_whole_array_is_what_is_stored(
    published: Published, deployment: Deployment, root: Any, path: str, tmp_path: Path
) -> None:
    expected = stored(deployment, path)
    value, vlmeta, saved = published.run(
        "(r[p][()], dict(r[p].vlmeta), str(r[p].download(out)))", r=root, p=path, out=str(tmp_path / "saved.b2nd")
    )
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value, expected)
    assert vlmeta == ({"a": 1, "b": "foo", "c": 123.456} if path == "ds-sc-attr.b2nd" else {})
    np.testing.assert_array_equal(blosc2.open(saved, mode="r")[()], expected)


@pytest.mark.parametrize(
    "key", ["0", "10", "-1", "slice(10, 20)", "slice(5, None)", "slice(None, 7)", "slice(990, 2000)"]
)
def test_a_slice_is_numpys(published: Published, deployment: Deployment, root: Any, key: str) -> None:
    expected = stored(deployment, "ds-1d.b2nd")[eval(key)]
    value = published.run(f"r['ds-1d.b2nd'][{key}]", r=root)
    assert value.dtype == expected.dtype
    assert value.shape == expected.shape
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("key", ["1, 2, 3", "1, 2, 3, 4", "1, slice(0, 2), 1", "slice(None), 0, slice(1, 3)"])
def test_a_slice_of_several_dimensions_is_numpys(
    published: Published, deployment: Deployment, root: Any, key: str
) -> None:
    value = published.run(f"r['dir2/ds-4d.b2nd'][{key}]", r=root)
    expected = stored(deployment, "dir2/ds-4d.b2nd")[eval(key)]
    assert value.shape == expected.shape
    np.testing.assert_array_equal(value, expected)


def test_files_and_frames_are_bytes(published: Published, deployment: Deployment, root: Any, tmp_path: Path) -> None:
    text = (deployment.root / "README.md").read_bytes()
    values = published.run("(lambda f: (f[:], f[0], f[2:9], f.fetch(), f.get_download_url()))(r['README.md'])", r=root)
    assert values == [text, text[:1], text[2:9], text, f"{deployment.plain}/api/fetch/foo/README.md"]
    saved = published.run("r['README.md'].download(out)", r=root, out=str(tmp_path / "x.md"))
    assert saved == tmp_path / "x.md"
    assert saved.read_bytes() == text
    assert [p.name for p in tmp_path.iterdir()] == ["x.md"]  # unpacked, and the packed one removed
    hello = published.run("(lambda f: (f[:12], f[5], len(f[:])))(r['ds-hello.b2frame'])", r=root)
    assert hello == [b"Hello world!", b" ", 1200]


def test_functions_take_addresses(published: Published, deployment: Deployment, root: Any, tmp_path: Path) -> None:
    u = deployment.plain
    assert published.run("cat2.subscribe('foo', u)", u=u) == "Ok"
    assert published.run("cat2.get_list('foo', u)", u=u) == LISTED
    assert published.run("cat2.get_list('foo/dir1/', u)", u=u) == ["ds-2d.b2nd", "ds-3d.b2nd"]
    assert published.run("cat2.get_list('foo/README.md', u)", u=u) == ["README.md"]
    assert published.run("cat2.get_list('foo/nope', u)", u=u) == []
    np.testing.assert_array_equal(published.run("cat2.fetch('foo/ds-1d.b2nd', u, '0:3')", u=u), [0, 1, 2])
    out = published.run("cat2.download(Path('foo/ds-1d.b2nd'), d, u)", u=u, d=str(tmp_path))
    assert out == tmp_path / "ds-1d.b2nd"
    chunk = published.run("cat2.get_chunk('foo/ds-1d.b2nd', 0, u)", u=u)
    array = blosc2.open(str(deployment.root / "ds-1d.b2nd"), mode="r")  # has to outlive its super-chunk
    assert blosc2.decompress2(chunk) == array.schunk.decompress_chunk(0)


def test_metadata_has_all_keys_of_the_older_system(published: Published, deployment: Deployment, root: Any) -> None:
    info = published.run("cat2.get_info('foo/dir2/ds-4d.b2nd', u)", u=deployment.plain)
    assert list(info) == ["shape", "chunks", "blocks", "dtype", "schunk", "mtime"]
    assert info["shape"] == [2, 3, 4, 5]
    assert info["dtype"] == "complex128"
    schunk = ["cbytes", "chunkshape", "chunksize", "contiguous", "cparams", "cratio", "nbytes", "urlpath", "vlmeta"]
    assert list(info["schunk"]) == [*schunk, "nchunks", "mtime"]
    assert info["schunk"]["urlpath"] == "foo/dir2/ds-4d.b2nd"
    cparams = ["codec", "codec_meta", "clevel", "filters", "filters_meta", "typesize", "blocksize", "nthreads"]
    assert list(info["schunk"]["cparams"]) == [*cparams, "splitmode", "tuner", "use_dict", "filters, meta"]
    plain = published.run("cat2.get_info('foo/README.md', u)", u=deployment.plain)
    assert list(plain) == [*schunk, "nchunks", "mtime"]
    assert published.run("(lambda f: f.vlmeta is f.meta['schunk']['vlmeta'])(r['ds-1d.b2nd'])", r=root)
    assert published.run("(lambda f: f.vlmeta is f.meta['vlmeta'])(r['README.md'])", r=root)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("cat2.subscribe('nope', u)", "Not Found"),
        ("cat2.subscribe('@shared', u)", "Unauthorized"),
        ("cat2.get_list('nope', u)", "Not Found"),
        ("cat2.get_list('@shared', u)", "Not Found"),
        ("cat2.get_info('foo/nope', u)", "Not Found"),
        ("cat2.get_info('foo/dir1', u)", "Not Found"),
        ("cat2.get_info('foo/../../db.json', u)", "(Not Found|Bad Request)"),
        ("cat2.fetch('foo/ds-1d.b2nd', u, 'x')", "Bad Request"),
        ("cat2.fetch('foo/ds-1d.b2nd', u, '5000')", "Bad Request"),
        ("cat2.fetch('foo/dir1', u)", "Not Found"),
        ("cat2.get_chunk('foo/ds-1d.b2nd', 99, u)", "Bad Request"),
        ("cat2.get_chunk('foo/nope', 0, u)", "Not Found"),
        ("cat2.upload(p, '@public/x.md', u)", "Unauthorized"),
        ("cat2.remove('@public/x', u)", "Unauthorized"),
        ("cat2.move('@public/x', '@public/y', u)", "Unauthorized"),
        ("cat2.copy('foo', '@public/y', u)", "Unauthorized"),
        ("cat2.lazyexpr('a', 'b + 1', {'b': 'foo/ds-1d.b2nd'}, u)", "Unauthorized"),
        ("cat2.adduser('a@example.com', 'foobar11', False, u)", "Not Found"),
        ("cat2.deluser('a@example.com', u)", "Not Found"),
        ("cat2.listusers(None, u)", "Not Found"),
        ("cat2.get_auth_cookie(u, {'username': 'a', 'password': 'b'})", "Not Found"),
    ],
)
def test_refusals_have_the_reasons_of_the_older_system(
    published: Published, deployment: Deployment, root: Any, code: str, reason: str
) -> None:
    with refused(reason):
        published.run(code, u=deployment.plain, p=str(deployment.root / "README.md"))


# Users and areas


def test_strangers_see_the_public_area_alone(published: Published, deployment: Deployment) -> None:
    u = deployment.users
    assert list(published.run("cat2.get_roots(u)", u=u)) == ["@public"]
    for code, reason in (
        ("cat2.get_list('@shared', u)", "Not Found"),
        ("cat2.get_info('@personal/x', u)", "Not Found"),
        ("cat2.subscribe('@personal', u)", "Unauthorized"),
        ("cat2.upload(p, '@public/x.md', u)", "Unauthorized"),
        ("cat2.listusers(None, u)", "Unauthorized"),
        ("cat2.get_auth_cookie(u, {'username': 'user@example.com', 'password': 'wrong'})", "Bad Request"),
    ):
        with refused(reason):
            published.run(code, u=u, p=str(deployment.root / "README.md"))


@pytest.mark.parametrize("area", ["@public", "@shared", "@personal"])
def test_areas_take_copies_moves_and_removals(
    published: Published, deployment: Deployment, cookie: str, area: str
) -> None:
    def run(code: str) -> Any:
        return published.run(code, u=deployment.users, c=cookie, a=area, r=str(deployment.root))

    text = (deployment.root / "README.md").read_bytes()
    assert run("cat2.upload(r + '/README.md', a + '/t/x.md', u, c)") == Path(area, "t/x.md")
    assert run("cat2.upload(r + '/ds-1d.b2nd', a + '/t/dir/ds.b2nd', u, c)") == Path(area, "t/dir/ds.b2nd")
    assert run("cat2.upload(r + '/ds-hello.b2frame', a + '/t/', u, c)") == Path(area, "t/ds-hello.b2frame")
    assert run("cat2.get_list(a + '/t', u, c)") == ["dir/ds.b2nd", "ds-hello.b2frame", "x.md"]
    assert run("cat2.fetch(a + '/t/x.md', u, None, c)") == text
    assert run("cat2.fetch(a + '/t/x.md', u, '2:9', c)") == text[2:9]
    assert run("cat2.fetch(a + '/t/dir/ds.b2nd', u, '0:3', c)").tolist() == [0, 1, 2]
    assert len(run("cat2.get_chunk(a + '/t/dir/ds.b2nd', 0, u, c)")) > 16
    assert run("cat2.get_info(a + '/t/x.md', u, c)")["nbytes"] == len(text)
    for goal in ("t/made", "t/made/two/three"):
        copied = run(f"cat2.copy(a + '/t/x.md', a + '/{goal}', u, c)")
        assert copied == Path(area, goal, "x.md")
    assert run("cat2.copy(a + '/t/dir', a + '/t/again', u, c)") == Path(area, "t/again/dir")
    assert run("cat2.move(a + '/t/x.md', a + '/t/moved/y.md', u, c)") == Path(area, "t/moved/y.md")
    assert run("cat2.remove(a + '/t/moved/y.md', u, c)") == f"{area}/t/moved/y.md"
    for goal in ("..", ".", "foo", "foo/bar"):
        with refused("Bad Request"):
            run(f"cat2.copy(a + '/t/dir/ds.b2nd', '{goal}', u, c)")
        with refused("Bad Request"):
            run(f"cat2.move(a + '/t/dir/ds.b2nd', '{goal}', u, c)")
    for code in ("cat2.move(a + '/nope', a + '/y', u, c)", "cat2.remove(a + '/nope', u, c)"):
        with refused("Not Found"):
            run(code)
    left = ["again/dir/ds.b2nd", "dir/ds.b2nd", "ds-hello.b2frame", "made/two/three/x.md", "made/x.md"]
    assert run("cat2.get_list(a + '/t', u, c)") == left
    assert run("cat2.remove(a + '/t', u, c)") == f"{area}/t"
    assert run("cat2.get_list(a + '/t', u, c)") == []


def test_a_followed_root_is_copied_with_its_data(published: Published, deployment: Deployment, cookie: str) -> None:
    u = deployment.users
    assert published.run("cat2.subscribe('foo', u, c)", u=u, c=cookie) == "Ok"
    assert published.run("cat2.copy('foo', '@shared/all', u, c)", u=u, c=cookie) == Path("@shared/all/foo")
    assert published.run("cat2.get_list('@shared/all/foo', u, c)", u=u, c=cookie) == LISTED
    copied = published.run("cat2.fetch('@shared/all/foo/ds-1d.b2nd', u, None, c)", u=u, c=cookie)
    np.testing.assert_array_equal(copied, stored(deployment, "ds-1d.b2nd"))
    # The older system refused single datasets.
    one = published.run("cat2.copy('foo/ds-1d.b2nd', '@shared/all/', u, c)", u=u, c=cookie)
    assert one == Path("@shared/all/ds-1d.b2nd")


def test_lazy_expressions_are_arrays(published: Published, deployment: Deployment, cookie: str, tmp_path: Path) -> None:
    def run(code: str, **names: Any) -> Any:
        return published.run(code, u=deployment.users, c=cookie, **names)

    run("cat2.subscribe('foo', u, c)")
    made = run("cat2.lazyexpr('le', 'a + 1', {'a': 'foo/ds-1d.b2nd'}, u, c)")
    assert made == Path("@personal/le.b2nd")
    info = run("cat2.get_info('@personal/le.b2nd', u, c)")
    assert list(info) == ["shape", "dtype", "expression", "operands", "mtime"]
    assert info["expression"] == "a + 1"
    assert info["operands"] == {"a": "foo/ds-1d.b2nd"}
    expected = stored(deployment, "ds-1d.b2nd") + 1
    np.testing.assert_array_equal(run("cat2.fetch('@personal/le.b2nd', u, None, c)"), expected)
    np.testing.assert_array_equal(run("cat2.fetch('@personal/le.b2nd', u, '3:5', c)"), expected[3:5])
    assert len(run("cat2.get_chunk('@personal/le.b2nd', 0, u, c)")) > 16
    saved = run("cat2.download(Path('@personal/le.b2nd'), d, u, c)", d=str(tmp_path / "le.b2nd"))
    np.testing.assert_array_equal(blosc2.open(str(saved), mode="r")[()], expected)
    assert run("cat2.lazyexpr('le2', 'b * 2', {'b': '@personal/le.b2nd'}, u, c)") == Path("@personal/le2.b2nd")
    np.testing.assert_array_equal(run("cat2.fetch('@personal/le2.b2nd', u, '3:5', c)"), expected[3:5] * 2)
    for code, reason in (
        ("cat2.lazyexpr('le', 'a +', {'a': 'foo/ds-1d.b2nd'}, u, c)", "Bad Request"),
        ("cat2.lazyexpr('le', 'a + b', {'a': 'foo/ds-1d.b2nd'}, u, c)", "Bad Request"),
        ("cat2.lazyexpr('le', 'a + 1', {'a': 'foo/nope'}, u, c)", "Not Found"),
    ):
        with refused(reason):
            run(code)


def test_objects_of_the_client_upload_copy_and_move(
    published: Published, deployment: Deployment, tmp_path: Path
) -> None:
    user = {"username": USER, "password": PASSWORD}
    shared = published.run("cat2.Root('@shared', u, user)", u=deployment.users, user=user)
    local = str(deployment.root / "ds-1d.b2nd")
    made = published.run("r.upload(p, 'objects/ds.b2nd')", r=shared, p=local)
    assert made["repr"] == "<Dataset: @shared/objects/ds.b2nd>"
    assert published.run("f.copy('@personal/objects/')", f=made) == Path("@personal/objects/ds.b2nd")
    assert published.run("f[:3]", f=made).tolist() == [0, 1, 2]
    assert published.run("f.move('@shared/objects/moved.b2nd')", f=made) == Path("@shared/objects/moved.b2nd")
    moved = published.run("r['objects/moved.b2nd']", r=shared)
    assert published.run("f.download(d)", f=moved, d=str(tmp_path)) == tmp_path / "moved.b2nd"
    assert published.run("str(f.remove())", f=moved) == "@shared/objects/moved.b2nd"
    assert published.run("'objects/moved.b2nd' in r", r=shared) is False


def test_a_context_logs_in(published: Published, deployment: Deployment) -> None:
    code = (
        "(lambda c: (c.__enter__(), list(cat2.get_roots()), c.__exit__(None, None, None))[1])"
        "(cat2.c2context(urlbase=u, username=n, password=p))"
    )
    roots = published.run(code, u=deployment.users, n=USER, p=PASSWORD)
    assert roots == ["foo", "@personal", "@public", "@shared"]


def test_superusers_add_list_and_delete_users(
    published: Published, deployment: Deployment, cookie: str, boss: str
) -> None:
    def run(code: str, c: str = boss) -> Any:
        return published.run(code, u=deployment.users, c=c)

    told = run("cat2.adduser('new@example.com', 'foobar12', False, u, c)")
    assert told.startswith("User added: username='new@example.com'")
    assert run("cat2.get_auth_cookie(u, {'username': 'new@example.com', 'password': 'foobar12'})")
    listed = run("cat2.listusers('new@example.com', u, c)")
    assert [user["email"] for user in listed] == ["new@example.com"]
    assert list(listed[0]) == ["id", "email", "is_active", "is_superuser", "is_verified", "hashed_password"]
    assert not listed[0]["hashed_password"]  # told to everybody by the older system
    assert {USER, SUPERUSER} <= {user["email"] for user in run("cat2.listusers(None, u, c)")}
    for code in ("cat2.adduser('x@example.com', 'foobar12', False, u, c)", "cat2.deluser('new@example.com', u, c)"):
        with refused("Unauthorized"):
            run(code, cookie)
    for code in ("cat2.adduser('bad', 'foobar12', False, u, c)", "cat2.adduser('x@example.com', 'no', False, u, c)"):
        with refused("Bad Request"):
            run(code)
    assert run("cat2.deluser('new@example.com', u, c)") == "User deleted: new@example.com"
    with refused("Bad Request"):
        run("cat2.deluser('new@example.com', u, c)")

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caterva2_jupyter.core.paths import join, matches, name, parent, parse_path, parse_root_name, split_address
from caterva2_jupyter.errors import InvalidPathError, NotFoundError

# A1: what tries to leave a root, or cannot be the name of anything.
TRAVERSALS = [
    "..", "../", "../etc/passwd", "a/../b", "a/..", "a/../../b", "./a", "a/./b", ".", "a/.", "/", "//", "/etc/passwd",
    "/a", "//a", "a//b", "a///", "a//", "\\..\\x", "a\\..\\b", "..\\x", "a/..\\b", "\0", "a\0b", "a/\0", "\ud800",
    "a/\udcff",
    "x" * 4097, "é" * 2049,
]  # fmt: skip

# I6: names that are odd, and fine. "%2e%2e" is a name: it was decoded once already.
NAMES = [
    "a", "a.b2nd", "é", "e\u0301", "🙂", "שלום", "a b", " a", "a ", "%2f", "%2e%2e", "%252e", "?#", "a\nb", "x" * 255,
    "CON", "con", "NUL.txt", ".hidden", "...", "..a", "a..", "__proto__", "constructor", "-", "--help", "~", "~root",
    "a:b", "C:", "a\\b", "'", '"', "<script>alert(1)</script>", "$(id)", "`id`", ";", "&", "|", "*", "\x1b[31m",
    "\u202e",
    "\ufeff", "\t",
]  # fmt: skip


@pytest.mark.parametrize("text", TRAVERSALS, ids=ascii)
def test_what_cannot_be_a_path_is_not_found(text):
    with pytest.raises(InvalidPathError, match="not a dataset path") as caught:
        parse_path(text)
    assert isinstance(caught.value, NotFoundError)
    assert caught.value.status == 404
    with pytest.raises(InvalidPathError):
        split_address(f"foo/{text}")


@pytest.mark.parametrize("segment", NAMES, ids=ascii)
def test_odd_names_are_kept_as_they_are(segment):
    for path in (segment, f"dir/{segment}", f"{segment}/x"):
        assert parse_path(path) == path
        assert split_address(f"foo/{path}") == ("foo", path)
    assert parse_path(f"{segment}/") == segment


def test_names_that_look_alike_stay_apart():
    assert len({parse_path(n) for n in NAMES}) == len(NAMES)


@given(st.text())
@example("a/b/")
@example("a\\..\\..")
def test_a_path_never_leaves_its_root(text):
    try:
        path = parse_path(text)
    except InvalidPathError:
        return
    assert not path.startswith("/")
    assert not path.endswith("/") or path == ""
    for separator in "/\\":
        assert ".." not in path.split(separator)
    assert "\0" not in path
    assert parse_path(path) == path
    if path:
        assert join(parent(path), name(path)) == path


def test_the_root_itself_has_the_empty_path():
    assert (parse_path(""), parent("a"), name("a"), join("", "a")) == ("", "", "a", "a")


@pytest.mark.parametrize("text", ["foo", "my root", "climate-2024_v1.2", "@public", "@shared", "été", "7", "a+b=c,~"])
def test_names_of_roots(text):
    assert parse_root_name(text) == text
    assert split_address(text) == (text, "")
    assert split_address(f"{text}/") == (text, "")


@pytest.mark.parametrize(
    "text",
    ["", "-", "--x", ".", "..", ".hidden", " foo", "foo ", "foo/bar", "foo\\bar", "a\0", "a\nb", "foo\n",
    "x" * 256, "@",
     "@@", "a?b", "a#b", "a%2f", "_", "a:b", "é" * 128],
    ids=ascii,
)  # fmt: skip
def test_what_cannot_name_a_root(text):
    with pytest.raises(InvalidPathError):
        parse_root_name(text)


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a.nc", "*.nc", True), ("d/a.nc", "*.nc", False), ("d/a.nc", "*/*.nc", True), ("d/e/a.nc", "**/*.nc", True),
        ("a.nc", "**", True), ("d/e", "d/**", True), ("d", "d/**", True), ("x/d", "d/**", False), ("a1", "a[0-9]",
        True),
        ("A.nc", "a.nc", False), ("d/e/f/a", "d/**/a", True), ("d/a", "d/**/a", True), ("é.nc", "?.nc", True),
    ],
)  # fmt: skip
def test_patterns(path, pattern, expected):
    assert matches(path, pattern) is expected

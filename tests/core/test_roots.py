import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.core.catalog import Cursor
from caterva2_jupyter.core.roots import AnnouncedRoot, host_and_port, owner_tag, parse_service_url
from caterva2_jupyter.errors import IntegrityError

ROOT = AnnouncedRoot("foo", "http://localhost:8001", "tag", True, "e", 7)


def test_an_announcement_survives_the_wire():
    assert AnnouncedRoot.from_json(json.loads(json.dumps(ROOT.to_json()))) == ROOT
    assert ROOT.cursor == Cursor("e", 7)
    assert AnnouncedRoot("foo", "http://x").cursor is None


@pytest.mark.parametrize(
    "change",
    [{"name": "../x"}, {"name": None, "http": None}, {"http": ""}, {"http": "file:///etc/passwd"}, {"seq": "x"},
    {"seq": [1]},
     {"seq": float("inf")}],
    ids=repr,
)  # fmt: skip
def test_a_malformed_announcement_is_refused(change):
    with pytest.raises(IntegrityError):
        AnnouncedRoot.from_json(ROOT.to_json() | change)


@pytest.mark.parametrize(
    ("url", "short"),
    [("http://localhost:8001", "localhost:8001"), ("http://[::1]:80", "[::1]:80"), ("https://lab.org/pub", "https://lab.org/pub"),
     ("http+unix://%2Frun%2Fpub.sock", "/run/pub.sock")],
)  # fmt: skip
def test_urls_of_services(url, short):
    assert parse_service_url(url + "/") == url
    assert host_and_port(url) == short


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8001", "ftp://x", "file:///x", "http://", "http:///x", "http://user:pw@host", "http://x?y=1", "http://x#y",
     "http://x:99999", "http://x:y", "http://x\n", "http://x\r\nHost: y", "gopher://x", "javascript:alert(1)", "http://[::1",
     "http://" + "x" * 3000],
    ids=lambda url: ascii(url)[:40],
)  # fmt: skip
def test_what_is_no_url_of_a_service_is_refused(url):
    """A10."""
    with pytest.raises(IntegrityError):
        parse_service_url(url)


@given(st.text())
def test_any_text_is_a_url_or_refused(text):
    try:
        assert parse_service_url(text).startswith(("http", "HTTP"))
    except IntegrityError:
        return


def test_the_tag_of_an_owner_does_not_tell_the_id():
    assert owner_tag("secret") == owner_tag("secret") != owner_tag("other")
    assert "secret" not in owner_tag("secret")

"""Texts that people paste as addresses, and texts that are none."""

from __future__ import annotations

import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.address import DatasetAddress, parse_address, parse_service_url
from tests.client.memory_service import MemoryService


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo", ("", "foo", "")),
        ("foo/dir/x.b2nd", ("", "foo", "dir/x.b2nd")),
        ("@public/x%20y", ("", "@public", "x%20y")),
        ("cat2://foo/a%20b", ("", "foo", "a b")),
        ("cat2http://localhost:8002/-/foo/x", ("http://localhost:8002", "foo", "x")),
        ("cat2https://lab.org/user/me/caterva2/-/foo/-/x", ("https://lab.org/user/me/caterva2", "foo", "-/x")),
        ("cat2http+unix://%2Ftmp%2Fs/-/foo", ("http+unix://%2Ftmp%2Fs", "foo", "")),
    ],
)
def test_addresses_are_parsed_and_written_alike(text: str, expected: tuple[str, str, str]) -> None:
    address = parse_address(text)
    assert (address.url, address.root, address.path) == expected
    if "%20y" not in text:
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "/foo", "foo//x", "foo/../x", "../foo", "cat2://", "cat2http://host/foo", "cat2http:///-/foo", "-/x",
     "cat2://foo/%2e%2e/x", "cat2://foo/a%00b", "foo/a\0b", "foo\\..\\x/y"],
)  # fmt: skip
def test_what_is_no_address_is_refused(client: cat2.Client, text: str) -> None:
    with pytest.raises(cat2.InvalidPathError):
        parse_address(text)
    with pytest.raises(cat2.InvalidPathError):
        client[text]
    assert text not in client


@pytest.mark.parametrize(
    ("text", "url", "token"),
    [
        ("localhost:8002", "http://localhost:8002", ""),
        ("http://localhost:8002/", "http://localhost:8002", ""),
        ("https://lab.org/base/", "https://lab.org/base", ""),
        ("http://[::1]:8002", "http://[::1]:8002", ""),
        ("unix:/tmp/a b.sock", "http+unix://%2Ftmp%2Fa%20b.sock", ""),
        ("/tmp/c2.sock", "http+unix://%2Ftmp%2Fc2.sock", ""),
        ("http://localhost:8888/?token=abc", "http://localhost:8888/caterva2", "abc"),
        ("http://localhost:8888/lab", "http://localhost:8888/caterva2", ""),
        ("http://localhost:8888/pre/lab/tree/x.ipynb?token=abc", "http://localhost:8888/pre/caterva2", "abc"),
        ("http://localhost:8888/caterva2?token=abc", "http://localhost:8888/caterva2", "abc"),
        ("http://localhost:8888/laboratory", "http://localhost:8888/laboratory", ""),
    ],
)
def test_urls_that_people_paste(text: str, url: str, token: str) -> None:
    service = parse_service_url(text)
    assert (service.url, service.token) == (url, token)


@pytest.mark.parametrize("text", ["ftp://x", "http://", "http://host:99999", "http://me:pw@host", "file:///etc/passwd"])
def test_what_is_no_url_of_a_service_is_a_setting_that_is_wrong(text: str) -> None:
    with pytest.raises(cat2.ConfigError) as raised:
        cat2.connect(text)
    assert "pw@" not in str(raised.value)


def test_a_dataset_is_opened_by_its_address_alone(
    client: cat2.Client, memory_service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = client["foo/dir1/dir2/deep"]
    assert array.address == client.address("foo/dir1/dir2/deep.b2nd")
    assert cat2.open_address(array.address)[1, 2] == 5
    monkeypatch.setenv("CATERVA2_URL", memory_service.url)
    assert cat2.open_address("cat2://foo/dir1/dir2/deep")[1, 2] == 5
    assert cat2.open_address("cat2://foo").name == "foo"
    with pytest.raises(cat2.AccessDeniedError, match="open_address"):
        client["cat2http://elsewhere/-/foo/x"]
    assert str(DatasetAddress("", "foo", "a b")) == "cat2://foo/a%20b"

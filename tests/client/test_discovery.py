"""The subscriber is found where users were told, and no token goes to another address."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from caterva2_jupyter.client.discovery import find_credentials, find_service
from caterva2_jupyter.client.transport import Credentials
from caterva2_jupyter.errors import ConfigError


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("CATERVA2_", "JUPYTER_", "JPY_")):
            monkeypatch.delenv(name)


@pytest.fixture
def everywhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which every place names a service."""
    (tmp_path / "caterva2.toml").write_text('[client]\nurl = "http://config:8002"\ntoken = "of-config"\n')
    (tmp_path / "connection.json").write_text(json.dumps({"url": "http://extension:1/caterva2", "token": "of-file"}))
    server = {"url": "http://jupyter:8888/pre/", "base_url": "/pre/", "token": "of-jupyter", "pid": 77, "sock": ""}
    (tmp_path / "jpserver-77.json").write_text(json.dumps(server))
    return {
        "CATERVA2_URL": "http://environ:8002/",
        "CATERVA2_TOKEN": "of-environ",
        "CATERVA2_CONNECTION_FILE": str(tmp_path / "connection.json"),
        "JPY_PARENT_PID": "77",
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
    }


def test_places_are_tried_in_the_order_of_the_document(everywhere: dict[str, str], tmp_path: Path) -> None:
    def found() -> tuple[str, str]:
        service = find_service(environ=everywhere)
        return service.url, service.credentials.token

    assert find_service("http://argument:1", "given", environ=everywhere).credentials.token == "given"
    assert found() == ("http://environ:8002", "of-environ")
    del everywhere["CATERVA2_URL"], everywhere["CATERVA2_TOKEN"]
    assert found() == ("http://extension:1/caterva2", "of-file")
    del everywhere["CATERVA2_CONNECTION_FILE"]
    assert found() == ("http://jupyter:8888/pre/caterva2", "of-jupyter")
    del everywhere["JPY_PARENT_PID"]
    assert found() == ("http://config:8002", "of-config")
    (tmp_path / "caterva2.toml").unlink()
    assert found() == ("http://localhost:8002", "")


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://environ:8002", "of-environ"),
        ("http://extension:1/caterva2/", "of-file"),
        ("http://jupyter:8888/pre/caterva2", "of-jupyter"),
        ("http://config:8002", "of-config"),
        ("https://config:8002", ""),
        ("http://config:8003", ""),
        ("http://config:8002/other", ""),
        ("http://elsewhere:8002", ""),
    ],
)
def test_a_token_is_given_to_the_address_that_it_was_found_with_only(
    everywhere: dict[str, str], url: str, token: str
) -> None:
    assert find_credentials(url, everywhere).token == token
    assert find_service(url, environ=everywhere).credentials.token == token


def test_a_token_in_the_environment_with_no_address_is_for_the_address_given() -> None:
    assert find_credentials("http://any:1", {"CATERVA2_TOKEN": "t"}).token == "t"


def test_a_token_in_the_url_is_taken_out_of_it() -> None:
    found = find_service("http://localhost:8888/lab?token=abc", environ={})
    assert (found.url, found.credentials.token) == ("http://localhost:8888/caterva2", "abc")


def test_credentials_that_are_given_replace_those_found(everywhere: dict[str, str]) -> None:
    found = find_service(username="me", password="pw", environ=everywhere)
    assert (found.url, found.credentials) == ("http://environ:8002", Credentials("", "me", "pw"))


def test_a_jupyter_server_on_a_socket(everywhere: dict[str, str], tmp_path: Path) -> None:
    server = {"url": "http+unix://x/", "base_url": "/", "token": "t", "sock": "/tmp/jupyter.sock"}
    (tmp_path / "jpserver-77.json").write_text(json.dumps(server))
    environ = {k: everywhere[k] for k in ("JPY_PARENT_PID", "JUPYTER_RUNTIME_DIR")}
    assert find_service(environ=environ).url == "http+unix://%2Ftmp%2Fjupyter.sock/caterva2"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"url": 7}', '{"url": "ftp://x"}'])
def test_a_broken_connection_file_says_what_to_do(tmp_path: Path, text: str) -> None:
    file = tmp_path / "connection.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        find_service(environ={"CATERVA2_CONNECTION_FILE": str(file)})
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="restart the kernel"):
        find_service(environ={"CATERVA2_CONNECTION_FILE": str(tmp_path / "none.json")})


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"url": 7}'])
def test_a_broken_file_of_a_jupyter_server_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "jpserver-5.json").write_text(text)
    environ = {"JPY_PARENT_PID": "5", "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    assert find_service(environ=environ).url == "http://localhost:8002"

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import RequestHandler

from caterva2_jupyter.config import Address, NetworkConfig
from caterva2_jupyter.errors import AccessDeniedError
from caterva2_jupyter.web.access import Open, RequestGuard, network_policy

LOOPBACK = RequestGuard.for_service(Address("localhost", 8001), "https://data.example.org/pub")


def request(**headers: str) -> HTTPServerRequest:
    made = HTTPHeaders({"Host": "localhost:8001"})
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    return cast("HTTPServerRequest", SimpleNamespace(headers=made))


def handler(**headers: str) -> RequestHandler:
    return cast("RequestHandler", SimpleNamespace(request=request(**headers)))


@pytest.mark.parametrize(
    "host", ["localhost:8001", "LOCALHOST:1", "127.0.0.1:8001", "[::1]:8001", "data.example.org", "localhost."]
)
def test_the_names_of_a_loopback_service_are_let_in(host: str) -> None:
    LOOPBACK.check(request(Host=host), changes_state=True)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[",
        "evil.example:8001@localhost",
        "xlocalhost",
    ],
)
def test_a_page_whose_name_was_bound_to_this_machine_is_refused(host: str) -> None:
    with pytest.raises(AccessDeniedError):
        LOOPBACK.check(request(Host=host), changes_state=False)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://localhost:8001.evil.example",
        "http://localhost:80011",
        "http://localhost",
        "https://data.example.org.evil.example",
        "http://data.example.org",
        "https://xdata.example.org",
        "http://user@evil.example",
    ],
)
@pytest.mark.parametrize("changes_state", [True, False])
def test_a_foreign_origin_is_refused(origin: str, changes_state: bool) -> None:
    with pytest.raises(AccessDeniedError):
        LOOPBACK.check(request(Origin=origin), changes_state=changes_state)


@pytest.mark.parametrize("origin", ["http://localhost:8001", "HTTP://Localhost:8001", "https://data.example.org"])
def test_its_own_origin_is_let_in(origin: str) -> None:
    LOOPBACK.check(request(Origin=origin), changes_state=True)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "whatever"])
def test_another_site_without_an_origin_may_read_but_not_write(site: str) -> None:
    LOOPBACK.check(request(Sec_Fetch_Site=site), changes_state=False)
    with pytest.raises(AccessDeniedError):
        LOOPBACK.check(request(Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors"), changes_state=True)


def test_services_on_every_interface_or_a_socket_are_known_under_any_name() -> None:
    for address in (Address("", 8001), Address("0.0.0.0", 8001), Address(socket_path="/tmp/pub")):
        guard = RequestGuard.for_service(address)
        guard.check(request(Host="whatever"), changes_state=True)
        with pytest.raises(AccessDeniedError):
            guard.check(request(Host="whatever", Origin="http://evil.example"), changes_state=True)


def test_without_tokens_everybody_may() -> None:
    assert isinstance(network_policy(NetworkConfig(), "read"), Open)
    assert isinstance(network_policy(NetworkConfig(publish_token="p"), "read"), Open)


NETWORK = NetworkConfig(publish_token="pub-token", read_token="read-token")


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "token"])
def test_the_right_token_opens_its_scope(kind: str) -> None:
    assert network_policy(NETWORK, "read").user(handler(Authorization=f"{kind} read-token")) == "network"
    assert network_policy(NETWORK, "publish").user(handler(Authorization=f"{kind} pub-token")) == "network"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer read-toke"},
        {"Authorization": "Bearer read-tokenx"},
        {"Authorization": "Basic read-token"},
        {"Authorization": "read-token"},
        {"Authorization": "Bearer r\xe9ad"},
        {"Cookie": "token=read-token"},
    ],
)
def test_without_the_token_nobody_is_known(headers: dict[str, Any]) -> None:
    assert network_policy(NETWORK, "read").user(handler(**headers)) is None
    assert network_policy(NETWORK, "publish").user(handler(**headers)) is None


def test_the_token_of_another_scope_is_denied() -> None:
    with pytest.raises(AccessDeniedError):
        network_policy(NETWORK, "publish").user(handler(Authorization="Bearer read-token"))
    with pytest.raises(AccessDeniedError):
        network_policy(NETWORK, "read").user(handler(Authorization="Bearer pub-token"))

"""The page inside Jupyter: behind its login, with a policy of its own, its files open as Jupyter's static ones are."""

from __future__ import annotations

import json

import pytest

from caterva2_jupyter.subscriber.pages import PAGE_POLICY


@pytest.fixture
def jp_server_config(jp_server_config, tmp_path):
    return {**jp_server_config, "SubscriberApp": {"cachedir": str(tmp_path / "cache")}}


async def test_the_page_is_served_with_its_own_policy(jp_fetch):
    answer = await jp_fetch("caterva2/")
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"static/viewer.js?v=" in answer.body


async def test_what_the_page_loads_needs_no_token(jp_fetch, jp_base_url, http_server_client):
    listing = json.loads((await jp_fetch("caterva2/api/v1/displays")).body)
    for path in (listing["viewer"], listing["displays"][0]["module"]):
        answer = await http_server_client.fetch(f"{jp_base_url}caterva2/{path}")
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert "immutable" in answer.headers["Cache-Control"]


async def test_an_old_address_leads_to_the_page(jp_fetch, jp_base_url, http_server_client, jp_auth_header):
    answer = await http_server_client.fetch(
        f"{jp_base_url}caterva2/roots/foo/x", headers=jp_auth_header, follow_redirects=False, raise_error=False
    )
    assert (answer.code, answer.headers["Location"]) == (302, f"{jp_base_url}caterva2/#/foo/x")

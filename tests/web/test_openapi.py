"""The description of what services answer, compared with what they mount."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from tornado.routing import PathMatches
from tornado.web import Application

from caterva2_jupyter.broker.app import BrokerService
from caterva2_jupyter.config import load_config
from caterva2_jupyter.publisher.app import PublisherService
from caterva2_jupyter.subscriber.app import StandaloneSubscriber
from caterva2_jupyter.web.openapi import OPERATIONS, describe, mounted
from caterva2_jupyter.web.service import Route


def routes_of(application: Application) -> list[Route]:
    found: list[Route] = []
    for rule in application.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        found.append((rule.matcher.regex.pattern, rule.target, {}))
    return found


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Route]]:
    """Routes of every service, with and without users."""
    directory = tmp_path_factory.mktemp("openapi")
    (directory / "data").mkdir()
    file = directory / "c.toml"
    file.write_text(
        f'[broker]\nstatedir = "{directory}/bro"\n[publisher]\nstatedir = "{directory}/pub"\n'
        f'[subscriber]\nstatedir = "{directory}/sub"\nregister = true\n'
    )
    plain, users = load_config(file, {}), load_config(file, {"CATERVA2_SECRET": "a secret of many characters"})

    async def make() -> dict[str, list[Route]]:
        made = {
            "broker": BrokerService(plain.broker()),
            "publisher": PublisherService(plain.publisher(name="foo", root=str(directory / "data"))),
            "subscriber": StandaloneSubscriber(plain.subscriber()),
            "subscriber with users": StandaloneSubscriber(users.subscriber()),
        }
        return {name: routes_of(service.application()) for name, service in made.items()}

    return asyncio.run(make())


def test_every_mounted_verb_is_described_and_nothing_else(applications: dict[str, list[Route]]) -> None:
    found = {f"{verb} {route}" for routes in applications.values() for verb, route in mounted(routes)}
    described = {re.sub(r"\{[^}]*\}", "{}", row[0]) for row in OPERATIONS}
    assert found - described == set(), "describe them in web/openapi.py"
    assert described - found == set(), "they are not mounted any more"
    assert len(described) == len(OPERATIONS)


@pytest.mark.parametrize("name", ["broker", "publisher", "subscriber", "subscriber with users"])
def test_documents_are_sound(applications: dict[str, list[Route]], name: str) -> None:
    document = describe(name, applications[name])
    assert json.loads(json.dumps(document)) == document
    operations = [o for verbs in document["paths"].values() for o in verbs.values()]
    assert len({o["operationId"] for o in operations}) == len(operations)
    assert len(operations) == len(mounted(applications[name]))
    for operation in operations:
        assert operation["summary"].endswith(".")
        assert any(status < "400" for status in operation["responses"])
    for route, verbs in document["paths"].items():
        for operation in verbs.values():
            in_path = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert all(f"{{{parameter}}}" in route for parameter in in_path)
    assert ("/api/adduser/" in document["paths"]) == (name == "subscriber with users")

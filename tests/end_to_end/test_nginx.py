"""The configuration of nginx in the documentation, as it stands but for ports and directories."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from pathlib import Path

import numpy as np
import pytest

from caterva2_jupyter.core.wire import RecordParser
from tests.processes import Network, wait_for

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin")
TOKEN = "a-network-token-0123456789"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, token: str = TOKEN) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture
def proxied(tmp_path: Path, repository: Path) -> Iterator[tuple[Network, str]]:
    assert NGINX is not None
    (tmp_path / "root").mkdir()
    np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8).tofile(tmp_path / "root" / "noise.bin")
    network = Network(tmp_path)
    port = free_port()
    publisher = network.start_publisher("foo", tmp_path / "root", CATERVA2_NETWORK_TOKEN=TOKEN)
    text = (repository / "docs" / "http-caches.md").read_text()
    (server,) = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    for theirs, ours in (
        ("127.0.0.1:8001", publisher.address),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("server_name data.example.org", "server_name localhost"),
        ("/var/cache/nginx/caterva2", str(tmp_path / "cache")),
    ):
        assert theirs in server
        server = server.replace(theirs, ours)
    temporary = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # others may not enter the test's directory
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{server}\n}}\n"
    )
    command = [NGINX, "-e", f"{tmp_path}/error.log", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    nginx = subprocess.Popen(command)
    try:
        url = f"http://localhost:{port}"
        wait_for(lambda: ask(f"{url}/api/v1/meta?path=foo/noise.bin")[0] == 200)
        yield network, url
    finally:
        nginx.terminate()
        nginx.wait(20)
        network.close()


def test_nginx_keeps_chunks_for_those_who_may_read(proxied: tuple[Network, str]) -> None:
    network, url = proxied
    entry = json.loads(ask(f"{url}/api/v1/meta?path=foo/noise.bin")[2])
    chunk = f"{url}/api/v1/chunks/{entry['id']}/{entry['version']}/0"
    status, headers, body = ask(chunk)
    assert (status, headers["X-Cache-Status"]) == (200, "MISS")
    parser = RecordParser()
    parser.feed(body)
    parser.close()
    for _ in range(2):
        status, headers, again = ask(chunk)
        assert (status, headers["X-Cache-Status"], again) == (200, "HIT", body)
    assert [ask(chunk, token)[0] for token in ("", "wrong")] == [401, 401]
    absent = f"{chunk[:-1]}7"
    assert [ask(absent)[0], ask(absent)[0]] == [404, 404]
    # It asks the publisher who may read: without it nobody may.
    network.services[0].kill()
    assert ask(chunk)[0] >= 500

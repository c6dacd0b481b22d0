from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tornado.web import Application

from caterva2_jupyter.config import Address, NetworkConfig
from caterva2_jupyter.errors import ConfigError
from caterva2_jupyter.web.access import RequestGuard
from caterva2_jupyter.web.serve import Listener, listen, run_service
from caterva2_jupyter.web.service import HealthHandler, make_application


def application() -> Application:
    return make_application([(r"/api/v1/health", HealthHandler, {"service": "test"})], RequestGuard())


def listening(address: Address, network: NetworkConfig | None = None) -> Listener:
    """Listen and stop at once; what is asserted about it is known then."""

    async def main() -> Listener:
        listener = listen(application(), address, network or NetworkConfig())
        await listener.close()
        return listener

    return asyncio.run(main())


def test_port_0_is_told_as_the_real_port() -> None:
    listener = listening(Address("127.0.0.1", 0))
    assert listener.address.port > 0
    assert listener.url == f"http://127.0.0.1:{listener.address.port}"


def test_a_service_on_every_interface_is_reached_as_localhost_from_here() -> None:
    listener = listening(Address("0.0.0.0", 0))
    assert listener.url == f"http://localhost:{listener.address.port}"


def test_a_port_in_use_is_told_with_the_cure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"127.0.0.1:\d+ is in use: .*--http"):
            listening(Address("127.0.0.1", taken.getsockname()[1]))


def test_an_address_of_another_machine_is_told_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen at 192.0.2.1:1234 .*--http"):
        listening(Address("192.0.2.1", 1234))


def test_a_name_without_an_address_is_told_with_the_cure() -> None:
    with pytest.raises(ConfigError, match="--http"):
        listening(Address("no-such-host.invalid", 1234))


def test_a_socket_file_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pub.sock"

    async def main() -> int:
        listener = listen(application(), Address(socket_path=str(path)), NetworkConfig())
        mode = path.stat().st_mode & 0o777
        await listener.close()
        return mode

    assert asyncio.run(main()) == 0o600
    assert not path.exists()


def test_the_socket_file_of_a_dead_service_is_replaced_but_not_that_of_a_living_one(tmp_path: Path) -> None:
    path = tmp_path / "pub.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening(Address(socket_path=str(path)))
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(ConfigError, match="is in use"):
            listening(Address(socket_path=str(path)))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="--http"):
        listening(Address(socket_path=str(path)))
    assert path.read_text() == "mine"


def test_a_certificate_that_is_not_there_is_told_with_the_cure(tmp_path: Path) -> None:
    network = NetworkConfig(tls_cert=str(tmp_path / "cert.pem"))
    with pytest.raises(ConfigError, match="tls_cert"):
        listening(Address("127.0.0.1", 0), network)


@pytest.fixture
def certificate(tmp_path: Path) -> NetworkConfig:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no openssl program to make a certificate with")
    return NetworkConfig(tls_cert=str(cert), tls_key=str(key))


def test_with_a_certificate_it_serves_https(certificate: NetworkConfig) -> None:
    def ask(port: int) -> int:
        trusted = ssl.create_default_context(cafile=certificate.tls_cert)
        connection = http.client.HTTPSConnection("localhost", port, context=trusted, timeout=60)
        connection.request("GET", "/api/v1/health")
        status = connection.getresponse().status
        connection.close()
        return status

    async def main() -> tuple[str, int]:
        listener = listen(application(), Address("localhost", 0), certificate)
        status = await asyncio.to_thread(ask, listener.address.port)
        await listener.close()
        return listener.url, status

    url, status = asyncio.run(main())
    assert url.startswith("https://localhost:")
    assert status == 200


class Quitter:
    """A service that asks to be stopped as soon as it runs."""

    def __init__(self) -> None:
        self.stopped = False

    def application(self) -> Application:
        return application()

    async def start(self, listener: Listener) -> None:
        self.url = listener.url
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop(self) -> None:
        self.stopped = True


def test_a_service_says_one_line_and_stops_cleanly_on_sigterm(capsys: pytest.CaptureFixture[str]) -> None:
    service = Quitter()
    address = Address("127.0.0.1", 0)
    assert run_service("cat2test", "test", address, NetworkConfig(), lambda: service) == 0
    assert service.stopped
    assert capsys.readouterr().out == f"test listening on {service.url}\n"


def test_a_setting_that_cannot_be_used_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        service = Quitter()
        assert run_service("cat2test", "test", address, NetworkConfig(), lambda: service) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cat2test: ")
    assert captured.err.count("\n") == 1
    assert service.stopped


def test_no_thread_outlives_it() -> None:
    before = threading.active_count()
    run_service("cat2test", "test", Address("127.0.0.1", 0), NetworkConfig(), Quitter)
    assert threading.active_count() == before
    assert sys.exc_info() == (None, None, None)

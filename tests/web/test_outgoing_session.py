"""What services open connections to one another with."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from caterva2_jupyter.web.outgoing_session import base_of, open_session, peer_of, tls_error


def test_a_socket_has_no_host_and_is_called_by_its_path() -> None:
    assert (base_of("http+unix://%2Frun%2Fpub.sock"), peer_of("http+unix://%2Frun%2Fpub.sock")) == (
        "http://localhost",
        "/run/pub.sock",
    )
    assert (base_of("https://far:8001/"), peer_of("https://far:8001/")) == ("https://far:8001", "https://far:8001")


def test_who_speaks_no_tls_is_not_called_untrusted() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def ask() -> aiohttp.ClientSSLError:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, open_session(url) as session, asyncio.timeout(60):
            with pytest.raises(aiohttp.ClientSSLError) as failed:
                await session.get(url)
        return failed.value

    assert str(tls_error("the service", asyncio.run(ask()))).startswith("cannot speak TLS with the service: ")

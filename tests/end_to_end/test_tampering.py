"""A13: a proxy on the path that changes data and makes the checksums right again."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.core.blocks import BlockRecord, _checksum, checksum_seed
from caterva2_jupyter.core.wire import End, Preamble, RecordParser, encode_end, encode_record
from caterva2_jupyter.errors import Caterva2Error
from tests.fault_proxy import tampering_proxy
from tests.processes import Network, wait_for

TOKEN = "a-network-token"
ARRAY = np.arange(4000, dtype="i4").reshape(40, 100)


def unframed(data: bytes) -> tuple[bytes, list[tuple[bytes, int, bytes]]]:
    """The bytes in the frames of ``core.link_mac``, and the frames: length, number of bytes, code."""
    frames, pieces, at = [], [], 0
    while at < len(data):
        nbytes = struct.unpack_from(">I", data, at)[0] & ~(1 << 31)
        pieces.append(data[at + 4 : at + 4 + nbytes])
        frames.append((data[at : at + 4], nbytes, data[at + 4 + nbytes : at + 20 + nbytes]))
        at += 20 + nbytes
    return b"".join(pieces), frames


def framed(data: bytes, frames: list[tuple[bytes, int, bytes]]) -> bytes:
    out, at = [], 0
    for length, nbytes, code in frames:
        out += [length, data[at : at + nbytes], code]
        at += nbytes
    return b"".join(out)


def with_other_values(answer: bytes) -> bytes:
    """Other values in a read's answer, and checksums that are right."""
    items = RecordParser().feed(answer)
    about = items[0]
    assert isinstance(about, Preamble)
    out = [answer[: 12 + struct.unpack_from("<4sII", answer)[1]]]
    seed = checksum_seed(about.id, about.version)
    for item in items[1:]:
        if isinstance(item, BlockRecord):
            body = bytearray(item.body)
            body[-1] ^= 0x40
            start = 0
            crcs = item.crcs.copy()
            for i, (block, size) in enumerate(zip(item.ids.tolist(), item.sizes.tolist(), strict=True)):
                crcs[i] = _checksum(about.seed, item.nchunk, block, item.head, bytes(body[start : start + size]))
                start += size
            out += map(bytes, encode_record(replace(item, crcs=crcs, body=bytes(body)), seed, about.answer))
        elif isinstance(item, End):
            out.append(encode_end(item.nrecords, seed))
    forged = b"".join(out)
    assert len(forged) == len(answer)
    return forged


def with_other_attributes(page: bytes) -> bytes:
    return page.replace(b'"honest"', b'"forged"')


class Liar:
    """Changes what comes after a path; frames, where there are any, keep the codes they had."""

    def __init__(self, path: str, change: Callable[[bytes], bytes]) -> None:
        self.path, self.change, self.is_lying, self.nlies = path, change, True, 0

    def __call__(self, path: str, body: bytes) -> bytes:
        if not self.is_lying or not re.search(self.path, path):
            return body
        is_framed = not body.startswith((b"C2R1", b"{"))
        plain, frames = unframed(body) if is_framed else (body, [])
        if plain.startswith(b'{"detail'):
            return body
        changed = self.change(plain)
        self.nlies += changed != plain
        return framed(changed, frames) if is_framed else changed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    array = blosc2.asarray(
        ARRAY,
        urlpath=str(tmp_path / "root/x.b2nd"),
        mode="w",
        chunks=(10, 100),
        blocks=(5, 50),
        cparams=blosc2.CParams(clevel=0),
    )
    array.vlmeta["who"] = "honest"
    return tmp_path / "root"


def configure(network: Network, *, mac: bool) -> None:
    (network.directory / "empty.toml").write_text(f"[network]\nmac = {str(mac).lower()}\n")


def is_listed(url: str) -> bool:
    with cat2.connect(url, token=TOKEN) as client:
        return "x.b2nd" in client["foo"]


def read(url: str) -> np.ndarray:
    with cat2.connect(url, token=TOKEN) as client:
        return client["foo"]["x.b2nd"][12:20]


@pytest.mark.timeout(120)
def test_checksums_alone_do_not_stop_who_makes_new_ones(network: Network, root: Path) -> None:
    """Why codes are there, and that the proxy of these tests does what it is for."""
    configure(network, mac=False)
    publisher = network.start_publisher("foo", root, CATERVA2_NETWORK_TOKEN=TOKEN)
    liar = Liar("/read$", with_other_values)
    with tampering_proxy(publisher.url, liar) as url:
        subscriber = network.start_subscriber("--publisher", url, CATERVA2_NETWORK_TOKEN=TOKEN)
        wait_for(lambda: is_listed(subscriber.url), message="listed")
        assert not np.array_equal(read(subscriber.url), ARRAY[12:20])
        assert liar.nlies


@pytest.mark.timeout(120)
def test_values_that_were_changed_on_the_way_are_never_data(network: Network, root: Path) -> None:
    configure(network, mac=True)
    publisher = network.start_publisher("foo", root, CATERVA2_NETWORK_TOKEN=TOKEN)
    liar = Liar("/read$", with_other_values)
    with tampering_proxy(publisher.url, liar) as url:
        subscriber = network.start_subscriber("--publisher", url, CATERVA2_NETWORK_TOKEN=TOKEN)
        wait_for(lambda: is_listed(subscriber.url), message="listed")
        with pytest.raises(Caterva2Error, match="without proof"):
            read(subscriber.url)
        assert liar.nlies
        # Nothing of it was kept: once the proxy is honest, so is what is read.
        liar.is_lying = False
        assert np.array_equal(read(subscriber.url), ARRAY[12:20])


@pytest.mark.timeout(120)
def test_a_catalog_that_was_changed_on_the_way_is_not_taken(network: Network, root: Path) -> None:
    configure(network, mac=True)
    publisher = network.start_publisher("foo", root, CATERVA2_NETWORK_TOKEN=TOKEN)
    liar = Liar("/catalog", with_other_attributes)
    with tampering_proxy(publisher.url, liar) as url:
        subscriber = network.start_subscriber("--publisher", url, CATERVA2_NETWORK_TOKEN=TOKEN)
        with cat2.connect(subscriber.url, token=TOKEN) as client:
            with pytest.raises(Caterva2Error, match="without proof"):
                list(client["foo"])
            assert liar.nlies
            liar.is_lying = False
            wait_for(lambda: is_listed(subscriber.url), message="listed")
            assert client["foo"]["x.b2nd"].attrs["who"] == "honest"


@pytest.mark.timeout(120)
def test_one_that_proves_nothing_is_not_believed_and_is_not_told_the_token(network: Network, root: Path) -> None:
    configure(network, mac=False)
    publisher = network.start_publisher("foo", root)
    configure(network, mac=True)
    headers: list[str] = []
    with tampering_proxy(publisher.url, lambda path, body: body, headers) as url:
        subscriber = network.start_subscriber("--publisher", url, CATERVA2_NETWORK_TOKEN=TOKEN)
        wait_for(lambda: "answers without proof" in subscriber.log.read_text(), message="it says so")
        with cat2.connect(subscriber.url, token=TOKEN) as client:
            assert list(client.roots) == ["@public"]
    assert any("Authorization" in text for text in headers)
    assert not any(TOKEN in text for text in headers)


@pytest.mark.timeout(120)
def test_a_whole_network_works_with_codes(network: Network, root: Path) -> None:
    """Broker, two subscribers, listings, blocks, stored bytes and changes, with two different tokens."""
    configure(network, mac=True)
    tokens = f"publish=to-publish,read={TOKEN}"
    (root / "readme.md").write_text("hello " * 50_000)
    network.start_broker(CATERVA2_NETWORK_TOKEN=tokens)
    network.start_publisher("foo", root, CATERVA2_NETWORK_TOKEN=tokens)
    near = network.start_subscriber(name="near", CATERVA2_NETWORK_TOKEN=tokens)
    far = network.start_subscriber("--broker", "", "--upstream", near.url, name="far", CATERVA2_NETWORK_TOKEN=TOKEN)
    for url in (near.url, far.url):
        wait_for(lambda url=url: is_listed(url), message="listed")
        assert np.array_equal(read(url), ARRAY[12:20])
        with cat2.connect(url, token=TOKEN) as client:
            assert client["foo"]["readme.md"].read() == (root / "readme.md").read_bytes()
    (root / "new.txt").write_text("new")

    def is_told() -> bool:
        with cat2.connect(far.url, token=TOKEN) as client:
            return "new.txt" in client["foo"]

    wait_for(is_told, message="a change passes")
    body = json.dumps({"path": "new.txt"}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with urlopen(Request(f"{far.url}/api/v1/roots/foo/announce", body, headers), timeout=20) as answer:
        assert answer.status == 200, "it is passed on to the publisher"

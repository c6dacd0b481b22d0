"""Who is measured: how each one's services start, on which side of the link, and who reads from them.

A peer's origin starts once per link; what keeps data for its readers (a subscriber, a reader's own memory) starts
anew, empty, for each run. Published packages are black boxes in environments of their own (``environments``).
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .datasets import NAMES
from .emulated_link import EmulatedLink
from .processes import Process, Reader, free_port, wait_for_port

__all__ = ["PEERS", "Peer", "Site"]

ISOLATED = Path(__file__).parent / "isolated"
REPOSITORY = Path(__file__).parents[1]
FIELDS = frozenset(NAMES)
LISTING_DEADLINE_S = 60.0


@dataclass
class Site:
    """Where a link's benchmark runs.

    Attributes
    ----------
    data : Path
        What ``datasets`` made.
    work : Path
        For state; emptied by the caller.
    link : EmulatedLink or None
        None: everything on this machine's loopback.
    """

    data: Path
    work: Path
    environments: Path
    link: EmulatedLink | None
    number: int = field(default=0)

    @property
    def near(self) -> str:
        return self.link.near_host if self.link else "127.0.0.1"

    @property
    def far(self) -> str:
        return self.link.far_host if self.link else "127.0.0.1"

    def python(self, environment: str) -> Path:
        return self.environments / environment / "bin" / "python"

    def start(self, command: Sequence[object], name: str, is_far: bool = False, **environ: str) -> Process:
        if is_far and self.link is not None:
            command = self.link.far([str(part) for part in command])
        return Process(command, self.work / name, environ)

    def fresh_directory(self, name: str) -> Path:
        """One that nothing was in."""
        self.number += 1
        path = self.work / f"{name}-{self.number}"
        path.mkdir(parents=True)
        return path


class Peer(ABC):
    """One way to read the data.

    Attributes
    ----------
    datasets : set of str
        Which it can read.
    has_listing : bool
        Can it list the small arrays with their metadata?
    is_local : bool
        Reads files, over no network.
    """

    name: str
    environment: str = ""
    datasets: frozenset[str] = FIELDS
    has_listing = False
    is_local = False
    script: str

    def __init__(self) -> None:
        self.origin: list[Process] = []
        self.fresh: list[Process] = []

    def start_origin(self, site: Site) -> None:
        """Start what serves the data, on the far side (nothing: a file is there)."""
        self.origin = []

    def start_fresh(self, site: Site) -> None:
        """Start, empty, what stands between it and readers (nothing, for most)."""
        self.fresh = []

    @property
    def environ(self) -> dict[str, str]:
        """Of its Python processes: this checkout for those of this project, nothing of it for others."""
        return {"PYTHONPATH": "" if self.environment else str(REPOSITORY)}

    @abstractmethod
    def arguments(self, site: Site) -> list[object]:
        """Of the reader."""

    def reader(self, site: Site) -> Reader:
        python = site.python(self.environment) if self.environment else Path(sys.executable)
        log = site.work / "readers" / f"{self.name.replace(' ', '-')}.log"
        return Reader([python, ISOLATED / self.script, *self.arguments(site)], log, self.environ)

    def stop_fresh(self) -> None:
        for process in reversed(self.fresh):
            process.stop()
        self.fresh = []

    def stop(self) -> None:
        self.stop_fresh()
        for process in reversed(self.origin):
            process.stop()
        self.origin = []

    @property
    def processes(self) -> list[Process]:
        return [*self.origin, *self.fresh]


class LocalBlosc2(Peer):
    name, script, is_local, has_listing = "local blosc2", "read_local_blosc2.py", True, True

    def arguments(self, site: Site) -> list[object]:
        return [site.data / "root"]


class LocalHdf5(LocalBlosc2):
    name, script, has_listing = "local h5py", "read_local_hdf5.py", False
    datasets = frozenset({"hdf5"})


class This(Peer):
    """Publisher far; broker and subscriber near."""

    name, script, has_listing = "caterva2-jupyter", "read_this.py", True
    datasets = FIELDS | {"hdf5"}
    listed: tuple[str, ...] = ("table.b2nd", "field.h5/field.b2nd")
    """What a subscriber has heard of before a reader begins, as one that is in use has."""

    def root(self, site: Site) -> Path:
        """What is published."""
        return site.data / "root"

    def state(self, site: Site) -> Path:
        """Of the publisher: its index survives, as a publisher's does."""
        return site.data / "this-publisher"

    def start_origin(self, site: Site) -> None:
        self._conf = site.work / "this" / "caterva2.toml"
        self._conf.parent.mkdir(parents=True, exist_ok=True)
        self._conf.write_text("[network]\ninsecure = true\n")
        self._broker, port = f"{site.near}:{free_port()}", free_port()
        broker = site.start(
            self._command("broker", self._broker, site.fresh_directory("broker")), "this", **self.environ
        )
        self.origin = [broker]
        wait_for_port(site.near, int(self._broker.rpartition(":")[2]), broker)
        command = [*self._command("publisher", f"{site.far}:{port}", self.state(site)), "--broker", self._broker]
        publisher = site.start([*command, "data", self.root(site)], "this", is_far=True, **self.environ)
        self.origin = [publisher, broker]
        wait_for_port(site.far, port, publisher)
        self.publisher = (site.far, port)

    def _command(self, service: str, http: str, statedir: object) -> list[object]:
        module = f"caterva2_jupyter.{service}.app"
        return [sys.executable, "-m", module, "--conf", self._conf, "--http", http, "--statedir", statedir]

    def start_fresh(self, site: Site) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        state = site.fresh_directory("this-subscriber")
        command = [*self._command("subscriber", f"127.0.0.1:{port}", state), "--broker", self._broker]
        self.fresh = [site.start(command, "this", **self.environ)]
        wait_for_port("127.0.0.1", port, self.fresh[0])
        self.wait_until_listed(*self.listed)

    def wait_until_listed(self, *paths: str) -> None:
        """Until the subscriber has heard of these."""
        import caterva2_jupyter as cat2

        with cat2.connect(self.url) as client:
            end = time.monotonic() + LISTING_DEADLINE_S
            while True:
                try:
                    for path in paths:
                        client[f"data/{path}"]
                    return
                except cat2.Caterva2Error:
                    if time.monotonic() > end:
                        raise
                time.sleep(0.1)

    def arguments(self, site: Site) -> list[object]:
        return [self.url]


class ThisDirectly(This):
    """The client straight at the publisher: one hop, and no cache but the memory of the reader."""

    name = "caterva2-jupyter, no subscriber"

    def state(self, site: Site) -> Path:
        return site.data / "this-publisher-directly"

    def start_fresh(self, site: Site) -> None:
        host, port = self.publisher
        self.url = f"http://{host}:{port}"
        self.wait_until_listed(*self.listed)


class Static(Peer):
    """Files on nginx."""

    def start_origin(self, site: Site) -> None:
        self._port = free_port()
        directory = site.fresh_directory("nginx")
        (directory / "nginx.conf").write_text(
            f"""
daemon off; worker_processes 2; pid {directory}/pid; error_log {directory}/error.log;
user root;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush off; tcp_nodelay on; keepalive_requests 1000000;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{ listen {site.far}:{self._port}; root {site.data}; }}
}}
"""
        )
        command = ["nginx", "-p", directory, "-c", directory / "nginx.conf"]
        self.origin = [site.start(command, "nginx", is_far=True)]
        wait_for_port(site.far, self._port, self.origin[0])

    def url(self, site: Site) -> str:
        return f"http://{site.far}:{self._port}"


class RawBlocks(Static):
    name, script = "exact blocks (limit)", "read_blocks.py"

    def arguments(self, site: Site) -> list[object]:
        return [self.url(site), site.data / "index"]


class Blosc2Lazy(Static):
    name, script, environment = "blosc2 lazy, static", "read_blosc2_lazy.py", "static"

    def arguments(self, site: Site) -> list[object]:
        return ["static", self.url(site)]


class ZarrChunked(Static):
    name, script, environment, has_listing = "zarr", "read_zarr.py", "static", True

    def arguments(self, site: Site) -> list[object]:
        return ["chunked", self.url(site)]


class ZarrSharded(Static):
    name, script, environment = "zarr sharded", "read_zarr.py", "static"
    datasets = frozenset({"field", "table"})

    def arguments(self, site: Site) -> list[object]:
        return ["sharded", self.url(site)]


class Caterva2of2026(Peer):
    """One server, far."""

    name, script, environment = "caterva2 2026, slices", "read_caterva2_2026.py", "caterva2-2026"
    has_listing = True

    def start_origin(self, site: Site) -> None:
        directory = site.fresh_directory("caterva2-2026")
        public = directory / "state" / "public"
        shutil.copytree(site.data / "plain", public, copy_function=os.link)
        (directory / "caterva2.toml").write_text("[server]\nlogin = false\n[subscriber]\nlogin = false\n")
        self._port = free_port()
        program = site.environments / "caterva2-2026" / "bin" / "cat2-server"
        command = [program, "--conf", directory / "caterva2.toml", "--listen", f"{site.far}:{self._port}"]
        command += ["--statedir", directory / "state"]
        self.origin = [site.start(command, directory.name, is_far=True)]
        wait_for_port(site.far, self._port, self.origin[0])

    def arguments(self, site: Site) -> list[object]:
        return [f"http://{site.far}:{self._port}"]


class Caterva2Lazy(Caterva2of2026):
    name, script, has_listing = "caterva2 2026, lazy", "read_blosc2_lazy.py", False

    def arguments(self, site: Site) -> list[object]:
        return ["server", *super().arguments(site)]


class Caterva2of2025(Peer):
    """Broker and subscriber near, publisher far."""

    name, script, environment = "caterva2 2025", "read_caterva2_2025.py", "caterva2-2025"

    @property
    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ISOLATED / "no_timeouts")}

    def _command(self, site: Site, program: str, http: str, statedir: Path) -> list[object]:
        path = site.environments / "caterva2-2025" / "bin" / program
        return [path, "--conf", self._conf, "--http", http, "--statedir", statedir]

    def start_origin(self, site: Site) -> None:
        directory = site.fresh_directory("caterva2-2025")
        root = directory / "root"
        root.mkdir()
        for (
            name
        ) in FIELDS:  # it asks for each dataset of a root by itself: 10,000 more would take it a quarter of an hour
            os.link(site.data / "plain" / f"{name}.b2nd", root / f"{name}.b2nd")
        self._broker, port = f"{site.near}:{free_port()}", free_port()
        self._conf = directory / "caterva2.toml"
        self._conf.write_text(f'[broker]\nhttp = "{self._broker}"\n[subscriber]\nlogin = false\n')
        broker = site.start(self._command(site, "cat2bro", self._broker, directory / "bro"), directory.name)
        self.origin = [broker]
        wait_for_port(site.near, int(self._broker.rpartition(":")[2]), broker)
        command = self._command(site, "cat2pub", f"{site.far}:{port}", directory / "pub")
        command += ["--broker", self._broker, "data", root]
        publisher = site.start(command, directory.name, is_far=True)
        self.origin = [publisher, broker]
        wait_for_port(site.far, port, publisher)
        time.sleep(3)  # it announces its datasets a while after it listens, and says nowhere when it has

    def start_fresh(self, site: Site) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        directory = site.fresh_directory("caterva2-2025-subscriber")
        command = [*self._command(site, "cat2sub", f"127.0.0.1:{port}", directory), "--broker", self._broker]
        self.fresh = [site.start(command, directory.name, **self.environ)]
        wait_for_port("127.0.0.1", port, self.fresh[0])

    def arguments(self, site: Site) -> list[object]:
        return [self._url]


PEERS: dict[str, type[Peer]] = {
    "local": LocalBlosc2,
    "local-hdf5": LocalHdf5,
    "blocks": RawBlocks,
    "this": This,
    "this-directly": ThisDirectly,
    "blosc2-lazy": Blosc2Lazy,
    "zarr": ZarrChunked,
    "zarr-sharded": ZarrSharded,
    "caterva2-2026": Caterva2of2026,
    "caterva2-2026-lazy": Caterva2Lazy,
    "caterva2-2025": Caterva2of2025,
}

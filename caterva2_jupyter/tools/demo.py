"""``make demo``: a broker, two publishers and JupyterLab with the subscriber inside, all on this machine.

Everything is a process of its own, as in real life, on a free port of the loopback interface; state and
example roots are under ``.demo`` (or ``--directory``). It is a tour, not a way to run services for others.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ..client.client import connect
from ..client.remote_array import RemoteArray
from ..errors import Caterva2Error
from .children import START_DEADLINE_S, Child, ChildError, find_example_root, started

__all__ = ["main"]


_ABOUT = (
    "A broker, two publishers and JupyterLab with the subscriber inside, all on this machine: what `make demo` runs."
)
_EXAMPLE = "example: make demo ARGS='--no-browser --directory /tmp/tour'"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _roots(directory: Path) -> tuple[Path, Path]:
    """The example roots: the one of the quick start, and an HDF5 file of one of each."""
    from .example_hdf5 import make_example

    example = directory / "root-example"
    if not example.exists():
        shutil.copytree(find_example_root(), example)
    hdf5 = directory / "example.h5"
    if not hdf5.exists():
        make_example(hdf5)
    return example, hdf5


def _wait_for_slice(url: str, token: str, children: list[Child]) -> None:
    """Wait until a slice has really come through every hop, and is right."""
    expected = np.arange(115, 120) * (1 + 1j)
    deadline = time.monotonic() + START_DEADLINE_S
    problem: object = "no answer yet"
    while time.monotonic() < deadline:
        for child in children:
            child.check()
        try:
            with connect(url, token=token) as client:
                array = client["foo/dir2/ds-4d.b2nd"]
                here = isinstance(array, RemoteArray) and np.array_equal(array[1, 2, 3], expected)
                if here and "hdf5" in client.roots:
                    return
                problem = "wrong values, or a root is missing"
        except Caterva2Error as error:
            problem = error
        time.sleep(0.1)
    raise ChildError(f"no slice came through within {START_DEADLINE_S:.0f} s: {problem}")


@contextmanager
def _only_one(directory: Path) -> Iterator[Callable[[str], None]]:
    """Claims a directory for as long as it lasts; gives a function that leaves our URL there for a second demo.

    Raises
    ------
    ChildError
        When another demo runs there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(directory / "running", os.O_RDWR | os.O_CREAT, 0o600), "r+") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            there = claim.read().strip() or "it is just starting"
            raise ChildError(
                f"a demo runs here already ({there}): use that one, stop it by Ctrl+C, or give this one a place of its "
                "own (make demo ARGS='--directory DIR')"
            ) from None

        def write(url: str) -> None:
            claim.seek(0)
            claim.truncate()
            claim.write(url)
            claim.flush()

        write("")
        yield write


def _run(directory: Path, browser: bool) -> None:
    with _only_one(directory) as tell_url:
        _run_alone(directory, browser, tell_url)


def _run_alone(directory: Path, browser: bool, tell_url: Callable[[str], None]) -> None:
    print("starting a broker, two publishers and JupyterLab ...", flush=True)
    example, hdf5 = _roots(directory / "roots")
    logs, work = directory / "logs", directory / "work"
    for path in (logs, work):
        path.mkdir(parents=True, exist_ok=True)
    notebooks = Path(__file__).resolve().parents[2] / "notebooks"
    for notebook in sorted(notebooks.glob("*.ipynb")):
        if not (work / notebook.name).exists():
            shutil.copy(notebook, work)
    token = secrets.token_urlsafe(24)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CATERVA2_")}
    environment |= {"PYTHONUNBUFFERED": "1", "JUPYTER_TOKEN": token}
    config = directory / "empty.toml"
    config.write_text("# The demo takes nothing from a caterva2.toml that happens to be here.\n")
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> Child:
            return stack.enter_context(started(name, list(arguments), logs, environment))

        state = [f"--conf={config}", "--http=127.0.0.1:0"]
        broker = start("broker", "caterva2_jupyter.broker.app", *state, f"--statedir={directory / 'bro'}")
        publish = ["caterva2_jupyter.publisher.app", *state, f"--broker={broker.url()}"]
        publishers = [
            start("publisher-foo", *publish, f"--statedir={directory / 'pub.foo'}", "foo", str(example)),
            start("publisher-hdf5", *publish, f"--statedir={directory / 'pub.hdf5'}", "hdf5", str(hdf5)),
        ]
        port = _free_port()
        lab = start(
            "jupyterlab",
            "jupyterlab",
            "--no-browser",
            *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={work}",
            f"--SubscriberApp.broker={broker.url()}",
            f"--SubscriberApp.cachedir={directory / 'cache'}",
        )
        base = f"http://127.0.0.1:{port}/"
        _wait_for_slice(f"{base}caterva2", token, [broker, *publishers, lab])
        url = f"{base}lab?token={token}"
        tell_url(url)
        print(f"ready: {url}", flush=True)
        cli = Path(sys.executable).with_name("cat2cli")
        print(
            "Open it and run 01-first-array.ipynb, or try the command line in another shell:\n"
            f"  export CATERVA2_URL={base}caterva2 CATERVA2_TOKEN={token}\n"
            f"  {cli} roots\n"
            f"  {cli} show 'foo/dir2/ds-4d.b2nd[1,2,3]'\n"
            "Ctrl+C stops everything.",
            flush=True,
        )
        if browser:
            webbrowser.open(url)
        try:
            while True:
                for child in [broker, *publishers, lab]:
                    child.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            print("\nstopping ...", flush=True)
            raise


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Returns
    -------
    int
        0 after Ctrl+C, 1 when a service did not start.
    """
    parser = argparse.ArgumentParser(prog="python -m caterva2_jupyter.tools.demo", description=_ABOUT, epilog=_EXAMPLE)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="where state, logs and roots go (default: .demo, or temporary)"
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    # Ctrl+C has to stop us even where a shell started us in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, _interrupt)
    here = Path.cwd() if os.access(".", os.W_OK) else Path(tempfile.mkdtemp())
    directory: Path = options.directory or here / ".demo"
    try:
        _run(directory.absolute(), browser=not options.no_browser)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0
    except OSError as error:
        print(
            f"error: {error.filename or directory}: {error.strerror or error}; --directory DIR names another place",
            file=sys.stderr,
        )
        return 1
    except ChildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The published package ``caterva2==2025.1.30`` as a black box: its environment, and its client in a process."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.environments import make_environments

ENVIRONMENT = "caterva2-2025"
DRIVER = Path(__file__).with_name("published_driver.py")


class PublishedError(Exception):
    """What the published client raised; ``kind`` is its class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


def find_environment() -> Path:
    """The ``bin`` directory of the environment, made by pip where it is not there; shared with the benchmarks."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caterva2-bench" / "venvs"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{ENVIRONMENT}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            make_environments(cache, [ENVIRONMENT])
        except subprocess.CalledProcessError as error:
            reason = f"caterva2 2025.1.30 cannot be installed ({error}): is the package index reachable?"
            print(reason)
            pytest.skip(reason)
    return cache / ENVIRONMENT / "bin"


@dataclass(frozen=True)
class Deployment:
    """Services of ours.

    Attributes
    ----------
    root : Path
        What the publisher serves as ``foo``.
    directory : Path
        Where their state is.
    broker, plain, users : str
        URLs of the broker, of a subscriber without users and of one with users.
    """

    root: Path
    directory: Path
    broker: str
    plain: str
    users: str

    def knows(self, url: str, root: str, broker: str) -> bool:
        """Would a subscriber find a root? (One with users tells strangers nothing: its broker knows it.)"""
        listing = f"{url if url == self.plain else broker}/api/roots"
        with urllib.request.urlopen(listing) as answer:
            return root in json.load(answer)


def run_program(programs: Path, directory: Path, *command: str, **environ: str) -> tuple[int, str]:
    """Exit code and standard output of a published program, as a process."""
    done = subprocess.run(
        [programs / command[0], *command[1:]],
        cwd=directory,
        env=clean_environ() | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def clean_environ() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("CATERVA2_", "PYTHON"))}


def _decode(form: Any) -> Any:
    """What the driver encoded; objects that it holds stay dicts with their number."""
    if isinstance(form, list):
        return [_decode(item) for item in form]
    if not isinstance(form, dict):
        return form
    if set(form) == {"npy"}:
        return np.load(io.BytesIO(base64.b64decode(form["npy"])), allow_pickle=False)
    if set(form) == {"bytes"}:
        return base64.b64decode(form["bytes"])
    if set(form) == {"path"}:
        return Path(form["path"])
    return {name: _decode(item) for name, item in form.items()}


class Published:
    """The published client in a process: its API by ``run``, its programs by ``command``."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs, self.directory = programs, directory
        self._process = subprocess.Popen(
            [programs / "python", DRIVER],
            cwd=directory,
            env=clean_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        if "error" in reply:
            raise PublishedError(reply["error"], reply["text"])
        return _decode(reply["value"])

    def run(self, code: str, **names: Any) -> Any:
        """The value of an expression over ``cat2``, ``Path``, ``np``, and the given names."""
        objects = {k: v["object"] for k, v in names.items() if isinstance(v, dict) and "object" in v}
        return self._ask(code=code, names={k: v for k, v in names.items() if k not in objects}, objects=objects)

    def change_directory(self, directory: Path) -> None:
        self._ask(chdir=str(directory))

    def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of one of its programs."""
        done = self._ask(command=list(arguments))
        return done["code"], done["out"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

"""Install each extra alone in an empty environment and start what it promises: ``python .ci/try_extras.py [EXTRA...]``.

Prints the table that docs/installation.md has. ``--lowest`` installs the lowest versions that pyproject.toml allows
instead, and runs the tests that need no browser, network of services or notebook.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORT = "import caterva2_jupyter as cat2; cat2.connect; "
EXAMPLE = "from caterva2_jupyter.tools.example_hdf5 import make_example; from pathlib import Path; "
MAKE_EXAMPLE = ("python", "-c", EXAMPLE + "make_example(Path('e.h5'))")
ENGINE = IMPORT + "import xarray; assert 'caterva2' in xarray.backends.list_engines()"
# What has to work with nothing else: programs end with 0, services are those that say where they listen.
PROMISES: dict[str, list[tuple[str, ...]]] = {
    "": [("python", "-c", IMPORT)],
    "base-services": [("serve", "cat2bro"), ("serve", "cat2pub", "foo", "data")],
    "subscriber": [("serve", "cat2sub")],
    "services": [("serve", "cat2bro"), ("serve", "cat2pub", "foo", "data"), ("serve", "cat2sub")],
    "clients": [("cat2cli", "--help"), ("cat2tui", "--help"), ("cat2tbrowser", "--help")],
    "hdf5": [MAKE_EXAMPLE, ("python", "-c", "from caterva2_jupyter.storage.hdf5_root import Hdf5Root; "
             "from pathlib import Path; assert len(Hdf5Root(Path('e.h5'), 'x').entries()) > 40")],
    "blosc2-plugins": [("python", "-c", "import blosc2, blosc2_btune, blosc2_grok, blosc2_j2k")],
    "plugins": [("python", "-c", IMPORT)],
    "tools": [MAKE_EXAMPLE, ("cat2import", "e.h5", "root"), ("cat2export", "root", "back.h5")],
    "xarray": [("python", "-c", ENGINE)],
    "dask": [("python", "-c", IMPORT + "import dask.array")],
    "widgets": [("python", "-c", IMPORT + "import ipywidgets, caterva2_jupyter.widgets")],
    "lab": [("jupyter", "server", "extension", "list"), ("jupyter", "labextension", "list")],
    "all": [MAKE_EXAMPLE, ("cat2import", "e.h5", "root"), ("python", "-c", ENGINE), ("cat2cli", "--help"),
            ("serve", "cat2sub"), ("jupyter", "server", "extension", "list")],
    "tests": [("python", "-m", "caterva2_jupyter.tests")],
}  # fmt: skip
CORE_TESTS = [
    *("tests/core", "tests/storage", "tests/compute", "tests/client", "tests/web", "tests/tools", "tests/broker"),
    *("tests/xarray_backend/test_writing.py", "tests/xarray_backend/test_fidelity.py"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="(default: all of them)")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions, and the core of the test suite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        work = Path(text)
        if given.lowest:
            return try_lowest(work)
        wheel = build(work)
        print("| extra | packages | MB | what was started | result |\n|---|---|---|---|---|")
        results = [try_extra(extra, wheel, work) for extra in given.extras or PROMISES]
    return 0 if all(results) else 1


def build(work: Path) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(work), str(REPOSITORY)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(work.glob("*.whl"))


def environment(where: Path, *requirements: str) -> Path:
    """A new environment with these in it; its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", str(where)], check=True)
    command = [str(where / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *requirements], check=False, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, "pip", stderr=done.stderr)
    return where / "bin"


def try_extra(extra: str, wheel: Path, work: Path) -> bool:
    where, started, problem = work / f"venv-{extra or 'none'}", [], ""
    try:
        bin_directory = environment(where, f"{wheel}[{extra}]" if extra else str(wheel))
        count = len(list(where.glob("lib/python*/site-packages/*.dist-info"))) - 2  # pip and setuptools
        nbytes = sum(f.lstat().st_size for f in where.rglob("*") if f.is_file())
        run_in = work / f"run-{extra or 'none'}"
        (run_in / "data").mkdir(parents=True)
        for promise in PROMISES[extra]:
            words = " ".join(promise if promise[0] != "python" else promise[:2]).removeprefix("serve ")
            started.append(words)
            problem = problem or start(bin_directory, promise, run_in)
        print(
            f"| {extra or '(none)'} | {count} | {nbytes >> 20} | {', '.join(started)} | {problem or 'ok'} |", flush=True
        )
    except subprocess.CalledProcessError as error:
        problem = f"cannot be installed: {(error.stderr or str(error)).strip().splitlines()[-1]}"
        print(f"| {extra or '(none)'} | | | | {problem} |", flush=True)
    shutil.rmtree(where, ignore_errors=True)
    return not problem


def start(bin_directory: Path, promise: tuple[str, ...], run_in: Path) -> str:
    """Run a program to its end, or a service until it listens; what went wrong."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CATERVA2_", "PYTHON", "VIRTUAL_ENV"))}
    clean["PATH"] = f"{bin_directory}{os.pathsep}{clean['PATH']}"
    if promise[0] != "serve":
        done = subprocess.run([str(bin_directory / promise[0]), *promise[1:]], cwd=run_in, env=clean, check=False,
                              capture_output=True, text=True, timeout=300)  # fmt: skip
        return "" if done.returncode == 0 else f"`{promise[0]}` ended with {done.returncode}: {done.stderr[-300:]!r}"
    command = [str(bin_directory / promise[1]), "--http=127.0.0.1:0", *promise[2:]]
    service = subprocess.Popen(
        command, cwd=run_in, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert service.stdout is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and service.poll() is None:
            if " listening on " in service.stdout.readline():
                return ""
        service.kill()
        return f"`{promise[1]}` does not listen: {service.communicate()[1][-300:]!r}"
    finally:
        service.kill()
        service.communicate()


def try_lowest(work: Path) -> int:
    """The core of the test suite with the lowest versions."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for name in ("base-services", "hdf5", "subscriber", "clients", "xarray", "dask"):
        wanted += [r for r in extras[name] if not r.startswith("caterva2-jupyter")]
    tested = ("pytest", "hypothesis", "h5netcdf", "netCDF4", "fsspec", "zarr")
    wanted += [r for r in extras["tests"] if re.split(r"[>=\[ ]", r)[0].startswith(tested)]
    lowest = [re.sub(r"\s*#.*", "", r).replace(">=", "==") for r in wanted]
    lowest = [r + (".*" if r.count(".") < 2 else "") for r in lowest]  # the last fix of that version
    print("\n".join(sorted(lowest)), flush=True)
    bin_directory = environment(work / "lowest", *lowest)
    # What it registers (the engine of xarray) is found by the installed package.
    subprocess.run([str(bin_directory / "pip"), "install", "--quiet", "--no-deps", str(build(work))], check=True)
    command = [str(bin_directory / "python"), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *CORE_TESTS]
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

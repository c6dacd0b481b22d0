"""What browsers load is the build of the sources beside it; no Node is needed to tell."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import caterva2_jupyter

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "server_extension"
STATIC = Path(caterva2_jupyter.__file__).parent / "static"
LABEXTENSION = STATIC.parent / "labextension"

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="not a checkout")


def digest_of_the_sources() -> str:
    listed = re.search(r"const SOURCES = \[(.*?)\];", (SOURCES / "scripts" / "stamp.mjs").read_text(), re.DOTALL)
    assert listed is not None
    places = [SOURCES / name for name in re.findall(r"'([^']+)'", listed.group(1))]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.relative_to(SOURCES).as_posix()):
        name = file.relative_to(SOURCES).as_posix()
        digest.update(name.encode() + b"\0" + file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def test_what_was_built_is_of_these_sources() -> None:
    stamp = (STATIC / "sources.sha256").read_text().strip()
    assert digest_of_the_sources() == stamp, "run `make assets` and commit what it builds"


def test_everything_that_the_page_and_jupyterlab_load_is_there() -> None:
    for name in ("index.html", "page.js", "page.css", "viewer.js", "displays/tomography.js", "THIRD-PARTY.txt"):
        assert (STATIC / name).stat().st_size > 100, name
    package = json.loads((LABEXTENSION / "package.json").read_text())
    assert (LABEXTENSION / package["jupyterlab"]["_build"]["load"]).is_file()


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?!static/|data:,)', page) == []
    for script in [*STATIC.rglob("*.js"), *LABEXTENSION.rglob("*.js")]:
        assert re.findall(r"\bimport\s*\(?\s*[\"']https?:|\bfrom\s*[\"']https?:", script.read_text()) == [], script


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (SOURCES / "package-lock.json").read_text()


def test_what_the_viewer_contains_is_named_with_its_licence() -> None:
    notices = (STATIC / "THIRD-PARTY.txt").read_text()
    for work in ("@h5web/app", "@h5web/lib", "@react-three/fiber", "react", "react-dom", "three", "zustand"):
        assert re.search(rf"^{re.escape(work)} \d[\d.]* \(MIT\)$", notices, re.MULTILINE), work
    assert notices.count("(no text in the package)") < 10


def test_versions_agree() -> None:
    assert json.loads((SOURCES / "package.json").read_text())["version"] == caterva2_jupyter.__version__


def test_the_viewer_is_pinned() -> None:
    assert json.loads((SOURCES / "package.json").read_text())["devDependencies"]["@h5web/app"] == "17.0.0"

"""A real JupyterLab with the subscriber inside, under a prefix, as a process; and what it was asked for.

Everything that it writes is below one directory, and it asks nobody outside for anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.processes import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-tests"
PREFIX = "/pre/fix/"

# Jupyter's own log has no sizes, and says nothing of what went well.
_CONFIG = """
import json, os
def log_function(handler, record=None):
    line = [handler.get_status(), handler.request.method, handler.request.uri,
            int(handler._headers.get("Content-Length", -1))]
    os.write(FD, (json.dumps(line) + "\\n").encode())
FD = os.open(REQUESTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
c.ServerApp.tornado_settings = {"log_function": log_function}
"""


@dataclass(frozen=True)
class Asked:
    """One request, as the server saw it; ``nbytes`` is -1 where an answer was streamed."""

    status: int
    method: str
    path: str
    nbytes: int


class Lab:
    """JupyterLab as a process."""

    def __init__(self, directory: Path, *arguments: str, application: str = "jupyterlab") -> None:
        self.directory = directory
        self.work = directory / "work"
        self.requests = directory / "requests.log"
        self.log = directory / "lab.log"
        for folder in (self.work, directory / "config", directory / "labextensions"):
            folder.mkdir(parents=True, exist_ok=True)
        # The build that is committed, whatever was installed.
        (directory / "labextensions" / "caterva2-jupyter").symlink_to(REPOSITORY / "caterva2_jupyter" / "labextension")
        config = f"REQUESTS = {str(self.requests)!r}\n{_CONFIG}"
        (directory / "config" / "jupyter_server_config.py").write_text(config)
        news = directory / "settings" / "@jupyterlab" / "apputils-extension"
        news.mkdir(parents=True)
        (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        names = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("CATERVA2_", "JUPYTER"))}
        self.environ = environ | {name: str(directory / folder) for name, folder in names.items()}
        self.command = [
            sys.executable,
            "-m",
            application,
            "--no-browser",
            *(["--allow-root"] if os.geteuid() == 0 else []),
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0",
            f"--ServerApp.base_url={PREFIX}",
            f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.root_dir={self.work}",
            f"--LabApp.extra_labextensions_path={directory / 'labextensions'}",
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
            f"--SubscriberApp.cachedir={directory / 'cache'}",
            *arguments,
        ]
        self.start()

    def start(self, port: int = 0) -> None:
        """Start it (again)."""
        command = [f"--ServerApp.port={port}" if a.startswith("--ServerApp.port=") else a for a in self.command]
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                command, cwd=self.work, env=self.environ, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        self.port = wait_for(self._port, 90, f"JupyterLab ({self.log})")
        self.base = f"http://127.0.0.1:{self.port}{PREFIX}"

    def _port(self) -> int:
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text()[-3000:])
        for info in (self.directory / "runtime").glob("jpserver-*.json"):
            form = json.loads(info.read_text())
            if form["pid"] == self.process.pid:
                urllib.request.urlopen(f"http://127.0.0.1:{form['port']}{PREFIX}api", timeout=2).read()
                return int(form["port"])
        return 0

    @property
    def url(self) -> str:
        """Where a browser begins."""
        return f"{self.base}lab?token={TOKEN}&reset"

    def asked(self, part: str = "/caterva2/") -> list[Asked]:
        """Requests whose URL has ``part`` in it, so far."""
        lines = self.requests.read_text().splitlines() if self.requests.exists() else []
        found = [Asked(*json.loads(line)) for line in lines]
        return [request for request in found if part in request.path]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:  # an idle thread of AnyIO can keep a stopped server from exiting
                self.process.kill()
                self.process.wait()

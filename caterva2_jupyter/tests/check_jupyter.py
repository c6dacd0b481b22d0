"""The subscriber inside a Jupyter server."""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.request
from typing import Any

from ..tools.children import started
from .case import Case, needs


@needs("jupyter_server", "lab")
class CheckJupyter(Case):
    """A server that is started for it, with nothing of the user's configuration."""

    needs_own_services = True

    def test_the_extension_loads_and_asks_who_one_is(self) -> None:
        directory = self.own.directory / "jupyter"
        token = secrets.token_hex(16)
        names = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CATERVA2_", "JUPYTER_"))},
            **{f"JUPYTER_{name}": str(directory / name.lower()) for name in names},
            "XDG_CACHE_HOME": str(directory / "cache"),
            "JUPYTER_TOKEN": token,
        }
        (directory / "work").mkdir(parents=True)
        arguments = ["jupyter_server", "--no-browser", "--allow-root", f"--ServerApp.root_dir={directory / 'work'}"]
        arguments += ["--ServerApp.jpserver_extensions={'caterva2_jupyter': True}", "--ServerApp.ip=127.0.0.1"]
        with started("jupyter", arguments, self.own.directory / "logs", environment) as server:

            def running() -> dict[str, Any] | None:
                server.check()
                for file in (directory / "runtime_dir").glob("jpserver-*.json"):
                    try:
                        told: dict[str, Any] = json.loads(file.read_text())
                    except ValueError:
                        continue  # being written
                    return told
                return None

            url = self.wait_for(running, 60.0)["url"]  # type: ignore[index]
            with urllib.request.urlopen(f"{url}caterva2/api/v1/health?token={token}", timeout=30) as answer:
                self.assertEqual(json.loads(answer.read())["status"], "ok")
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}caterva2/api/v1/roots", timeout=30)
            self.assertIn(refused.exception.code, (401, 403))
            refused.exception.close()

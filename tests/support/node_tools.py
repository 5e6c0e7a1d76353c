"""Tools that come as Node packages: installed once into the user's cache, outside the repository.

They need a newer Node than most systems have, which is a package too.
"""

from __future__ import annotations

import fcntl
import os
import platform
import pwd
import shutil
import subprocess
from pathlib import Path

CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
_NODE = "24"
_INSTALL_WITHIN_S = 300.0
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class NodeTools:
    """Where they are."""

    def __init__(self, home: Path) -> None:
        self._modules = home / "node_modules"
        self._node_package = f"node-{platform.system().lower()}-{_MACHINES[platform.machine().lower()]}"
        self.packages = (f"{self._node_package}@{_NODE}", CONFORMANCE, INSPECTOR)

    @property
    def node(self) -> Path:
        return self._modules / self._node_package / "bin" / "node"

    @property
    def conformance(self) -> list[str]:
        return [str(self.node), str(self._modules / "@modelcontextprotocol/conformance/dist/index.js")]

    @property
    def inspector(self) -> list[str]:
        return [str(self.node), str(self._modules / ".bin/mcp-inspector"), "--cli"]

    @property
    def there(self) -> bool:
        return self.node.exists() and all(Path(command[1]).exists() for command in (self.conformance, self.inspector))

    @property
    def environment(self) -> dict[str, str]:
        """That of a process among whose own children are some of Node's."""
        return {**os.environ, "PATH": f"{self.node.parent}{os.pathsep}{os.environ['PATH']}"}


def installed() -> NodeTools:
    """The tools, installed by npm if they are not there yet.

    Raises:
        AssertionError: they are not there, and cannot be had.
    """
    # tests have a home of their own, and would install it all each time
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache")
    versions = "-".join(one.rpartition("@")[2] for one in (CONFORMANCE, INSPECTOR))
    home = cache / "jobnimbus-mcp-tests" / f"node-{_NODE}-{versions}"  # another version of any is another directory
    home.mkdir(parents=True, exist_ok=True)
    tools = NodeTools(home)
    with (home / ".lock").open("w") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tools.there:
            npm = shutil.which("npm")
            assert npm is not None, "npm is needed on PATH, to install the conformance suite and the Inspector"
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--prefix", str(home), *tools.packages],
                cwd=home,
                capture_output=True,
                text=True,
                timeout=_INSTALL_WITHIN_S,
                check=False,
            )
            assert tools.there, f"npm could not install {', '.join(tools.packages)}:\n{done.stdout}\n{done.stderr}"
    return tools

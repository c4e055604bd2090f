"""``python -m extbuild``: puts the extension beside the Python code of this checkout."""

from __future__ import annotations

import sys

from .extension import FILENAME, build, install
from .patch import PatchError
from .toolchain import ROOT, BuildError


def main() -> int:
    destination = ROOT / "python" / "natslease" / FILENAME
    try:
        install(build(), destination)
    except (BuildError, PatchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{destination.relative_to(ROOT)}: {destination.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

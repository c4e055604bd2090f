"""The command line: ``natslease``, also ``python -m natslease``.

Exit codes: 0 done; 1 some of it failed, or it was interrupted; 2 a wrong option; 3 an outage, try
again later; 4 not found; 5 not allowed.
"""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Runs the command line of this process."""
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in ("click", "rich"):
            sys.exit("natslease's command line needs click and rich: pip install 'natslease[cli]'")
        raise
    # A command says itself what went wrong.
    logging.getLogger("natslease").addHandler(logging.NullHandler())
    app(prog_name="natslease")

"""The site with a probe around it."""

import os
from pathlib import Path

from antenna.asgi import application as site

from .probe import Probe

application = Probe(site, Path(os.environ["ANTENNA_DATA"]))

"""The example's settings, but for what differs from process to process.

ROLLING_HTTP  the setting NATSLEASE_HTTP, as JSON
ROLLING_CODE  "before": web processes send Celery the messages of before, and Celery's processes
              work on them as before
"""

from __future__ import annotations

import json
import os

from antenna import settings as example

globals().update({name: value for name, value in vars(example).items() if name.isupper()})
NATSLEASE_HTTP = json.loads(os.environ["ROLLING_HTTP"])
CELERY_IMPORTS = [*example.CELERY_IMPORTS, "rollingsite.tasks"]
if os.environ["ROLLING_CODE"] == "before":
    ROOT_URLCONF = "rollingsite.urls"

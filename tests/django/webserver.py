"""The site under gunicorn, by WSGI and by ASGI, with one worker process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from children import children_of, descriptors
from program import PATIENCE, Program

HERE = Path(__file__).parent
THREADS = 8
KINDS = {
    "WSGI": ["--worker-class=gthread", f"--threads={THREADS}", "testsite.wsgi:app"],
    "ASGI": ["--worker-class=uvicorn_worker.UvicornWorker", "testsite.asgi:app"],
}
TASKS = "/api/queues/images/tasks/"
NATS_TIMEOUT = 2.0


class Answer(NamedTuple):
    """An HTTP answer, and how many seconds it took."""

    status: int
    headers: Any
    json: Any
    seconds: float


class Site:
    """The site under a web server."""

    def __init__(self, url: str, master: Program, database: Path) -> None:
        self.url = url
        self.master = master
        self.database = str(database)

    def get(self, path: str, timeout: float = PATIENCE) -> Answer:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
                body, status, headers = response.read(), response.status, response.headers
        except urllib.error.HTTPError as error:
            with error:
                body, status, headers = error.read(), error.code, error.headers
        return Answer(status, headers, json.loads(body), time.monotonic() - began)

    def held(self) -> int:
        """Connections to SQLite: open descriptors of the database's file."""
        (worker,) = children_of(self.master.pid)
        return list(descriptors(worker).values()).count(self.database)


@contextmanager
def serving(kind: str, folder: Path, nats_url: str, **more: str) -> Iterator[Site]:
    """The site, when it answers.

    Args:
        kind: of ``KINDS``.
        folder: for the database, if it is SQLite.
        more: variables of the environment.
    """
    database = folder / "site.sqlite3"
    environment = {
        "DJANGO_SETTINGS_MODULE": "testsite.settings",
        "PYTHONPATH": f"{HERE}:{HERE.parents[1] / 'python'}",
        "SITE_DATABASE": str(database),
        "SITE_NATS_URL": nats_url,
        "SITE_HTTP": json.dumps({} if kind == "WSGI" else {"THREADS": THREADS}),
        **more,
    }
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity=0"],
        env={**os.environ, **environment},
        check=True,
        timeout=PATIENCE,
    )
    command = ["gunicorn", "--bind=127.0.0.1:0", "--workers=1", "--timeout=60", *KINDS[kind]]
    with Program(*command, env=environment) as master:
        found = re.search(r"Listening at: (http://[\d.:]+)", master.await_output("Booting worker"))
        assert found
        site = Site(found[1], master, database)
        assert site.get("/unrelated/").status == 200
        yield site

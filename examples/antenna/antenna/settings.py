"""Settings. SQLite and a file-system broker by default; Postgres and Redis by the environment.

ANTENNA_DATA          folder for the database, the broker and logs; left out: ./data
ANTENNA_DATABASE_URL  postgres://user:password@host:port/name; left out: SQLite
ANTENNA_BROKER_URL    redis://host:port/0; left out: the file system
NATS_URL              left out: nats://localhost:4222
NATS_TASK_TTR, NATS_MAX_DELIVER, NATS_MAX_ACK_PENDING
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ANTENNA_DATA") or BASE_DIR / "data")
DATA.mkdir(parents=True, exist_ok=True)

SECRET_KEY = os.environ.get("ANTENNA_SECRET_KEY", "only-for-this-example-" + "x" * 40)
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "antenna.urls"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "rest_framework.authtoken",
    "natslease.contrib.django",
    "main",
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]


def database(url: str) -> dict[str, object]:
    """The options of Django for a database URL."""
    if not url:
        # Several processes write: wait for each other, and do not start as a reader.
        engine, options = "antenna.sqlite", {"timeout": 20}
        if django.VERSION >= (5, 1):
            engine = "django.db.backends.sqlite3"
            options["transaction_mode"] = "IMMEDIATE"
            options["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        return {
            "ENGINE": engine,
            "NAME": DATA / "antenna.sqlite3",
            "TEST": {"NAME": DATA / "test.sqlite3"},  # in memory threads cannot wait for each other
            "OPTIONS": options,
        }
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        "CONN_MAX_AGE": 0,
    }


DATABASES = {
    "default": {**database(os.environ.get("ANTENNA_DATABASE_URL", "")), "ATOMIC_REQUESTS": True}
}

NATS_URL = os.environ.get("NATS_URL", "nats://localhost:4222")
NATS_TASK_TTR = int(os.environ.get("NATS_TASK_TTR", "300"))
NATS_MAX_DELIVER = int(os.environ.get("NATS_MAX_DELIVER", "2"))
NATS_MAX_ACK_PENDING = int(os.environ.get("NATS_MAX_ACK_PENDING", "1000"))
NATSLEASE = {
    "default": {"TIMEOUT": 5.0, "CONNECT_TIMEOUT": 5.0, "DEAD_LETTERS": "job_dead_letters"}
}
# Workers of before hold raw reply subjects; new ones get signed strings.
NATSLEASE_HTTP = {"ACCEPT_LEASES": ["raw", "signed"], "EMIT_LEASES": "signed"}
NATSLEASE_ANTENNA = {"JOB_MODEL": "main.Job"}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 100,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

if broker := os.environ.get("ANTENNA_BROKER_URL"):
    CELERY_BROKER_URL = broker
else:
    CELERY_BROKER_URL = "filesystem://"
    CELERY_BROKER_TRANSPORT = "antenna.broker:Transport"
    _FOLDERS = {name: str(DATA / "broker" / name) for name in ("messages", "control")}
    for _folder in _FOLDERS.values():
        Path(_folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": _FOLDERS["messages"],
        "data_folder_out": _FOLDERS["messages"],
        "control_folder": _FOLDERS["control"],
        "store_processed": False,
    }
CELERY_IMPORTS = ["natslease.contrib.celery", "natslease.contrib.antenna.tasks"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 4
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    "acks of results that are saved": {
        "task": "natslease.settle_inbox",
        "schedule": 30.0,
    },
    "jobs that are stale": {"task": "natslease.contrib.antenna.reap_stale_jobs", "schedule": 900.0},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": os.environ.get("ANTENNA_LOG_LEVEL", "INFO")},
}

"""Settings. What differs between the ways the project is run comes from the environment."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parents[1]
DEBUG = False
SECRET_KEY = os.environ.get("SITE_SECRET_KEY", "only for tests")
SECRET_KEY_FALLBACKS: list[str] = json.loads(os.environ.get("SITE_SECRET_KEY_FALLBACKS", "[]"))
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "testsite.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "rest_framework",
    "natslease.contrib.django",
    "testsite",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
]
LOGIN_URL = "/login/"
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", ":memory:"),
        # A file, so that the threads of a test have connections of their own.
        "TEST": {"NAME": str(Path(tempfile.gettempdir(), f"natslease-{os.getpid()}.sqlite3"))},
        "ATOMIC_REQUESTS": True,
        "CONN_MAX_AGE": 600,
        "OPTIONS": {"timeout": 30},
        **json.loads(os.environ.get("SITE_DATABASE_OPTIONS", "{}")),
    }
}
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
}
NATS_URL = os.environ.get("SITE_NATS_URL", "nats://127.0.0.1:1")
NATSLEASE: dict[str, Any] = {
    "default": {
        "URL": NATS_URL,
        "TIMEOUT": 2.0,
        **json.loads(os.environ.get("SITE_NATSLEASE", "{}")),
    }
}
if letters := os.environ.get("SITE_DEAD_LETTERS"):
    NATSLEASE["default"]["DEAD_LETTERS"] = letters
NATSLEASE_HTTP: dict[str, Any] = json.loads(os.environ.get("SITE_HTTP", "{}"))

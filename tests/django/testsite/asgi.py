"""For ASGI servers."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from natslease.contrib.django.asgi import notice_disconnects

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testsite.settings")
app = notice_disconnects(get_asgi_application())

"""For uvicorn workers."""

import os

from django.core.asgi import get_asgi_application

from natslease.contrib.django.asgi import notice_disconnects

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "antenna.settings")

# Tasks that were fetched for a client which has left meanwhile are given back.
application = notice_disconnects(get_asgi_application())

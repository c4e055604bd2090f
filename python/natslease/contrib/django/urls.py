"""The page for staff.

>>> urlpatterns = [path("queues/", include("natslease.contrib.django.urls"))]
"""

from __future__ import annotations

from django.urls import path

from . import page

app_name = "natslease"
urlpatterns = [
    path("", page.show, name="page"),
    path("data/", page.data, name="data"),
    path("act/", page.act, name="act"),
    path("<str:name>", page.asset, name="asset"),
]

"""The site as it is, and a view that answers what an outage answers without doing anything."""

from antenna.settings import *  # noqa: F403

ROOT_URLCONF = "replay.urls_after"

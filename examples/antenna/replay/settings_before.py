"""The site, with tasks as they were served before."""

from antenna.settings import *  # noqa: F403

ROOT_URLCONF = "replay.urls_before"

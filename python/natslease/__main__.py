"""``python -m natslease``."""

from __future__ import annotations

from natslease.cli import main

main()

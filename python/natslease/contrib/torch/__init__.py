"""A dataset whose items are tasks: one feeder reserves for all subprocesses of a DataLoader.

Without torch it can be imported and iterated all the same, also by another loader's subprocesses.
"""

from __future__ import annotations

from ._dataset import TaskDataset

__all__ = ["TaskDataset"]

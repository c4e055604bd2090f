"""natslease beside others that do the same job, each with its own broker.

PYTHONPATH=tests/bench:examples/antenna python -m peers
"""

"""Giving database connections back before a wait."""

from __future__ import annotations

from django.db import connections, transaction


def give_back_database() -> None:
    """Ends this thread's transactions and closes its database connections.

    With ``CONN_MAX_AGE`` that ends a persistent connection, and the next query opens another; with
    a connection pool (Django 5.1 and later on PostgreSQL) it goes back to the pool.

    Raises:
        RuntimeError: the code is inside ``atomic``: the transaction would last as long as the wait.
            (In a ``TestCase`` the connections stay as they are.)
    """
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            _refuse_atomic(connection.alias)
            continue
        if connection.connection is None:
            continue
        if not connection.autocommit:
            connection.commit()
        connection.close()


def _refuse_atomic(alias: str) -> None:
    try:
        # Only the block of a TestCase lets a durable one in.
        with transaction.atomic(using=alias, savepoint=False, durable=True):
            pass
    except RuntimeError:
        raise RuntimeError(
            f"a view waits for NATS inside a transaction of the database {alias!r}, which would "
            "last as long: make it non-atomic (queue_view, QueueViewMixin with queue_action), or "
            "wait outside the atomic block"
        ) from None

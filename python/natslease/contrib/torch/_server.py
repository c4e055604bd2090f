"""The feeder's end of the socket: a thread for each subprocess that takes."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from multiprocessing.connection import Client, Connection
from typing import Any

from . import _wire
from ._feeder import Ask, Feeder

log = logging.getLogger("natslease.worker")


class Server:
    """Lets subprocesses take from a feeder."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._listener, self._folder = _wire.listen()
        self.address = str(self._listener.address)
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="natslease-accept", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Nobody else is let in. Those that are there end with the feeder."""
        self._closed = True
        with contextlib.suppress(OSError):
            Client(self.address, "AF_UNIX").close()  # accept() does not notice a close
        self._thread.join(5.0)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                log.exception("a subprocess was not let in")
                continue
            if self._closed:
                connection.close()
                return
            threading.Thread(
                target=self._serve, args=(connection,), name="natslease-taker", daemon=True
            ).start()

    def _serve(self, connection: Connection) -> None:
        taker = object()
        said_bye = False
        self._feeder.joined()
        with contextlib.suppress(EOFError, OSError), connection:
            while not said_bye:
                message: tuple[Any, ...] = connection.recv()
                if message[0] == _wire.TAKE:
                    _, iteration, order, n = message
                    ask = Ask(n, taker=taker, iteration=iteration, order=order)
                    connection.send(self._feeder.take(ask))
                elif message[0] == _wire.FAILED:
                    self._feeder.fail(message[1], message[2], True)
                else:
                    said_bye = True
        self._feeder.left(taker, early=not said_bye)

"""For ASGI servers: who has hung up gets no tasks.

>>> application = notice_disconnects(get_asgi_application())    # asgi.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
# Loosely: frameworks type the same thing in several ways.
Application = Callable[[Any, Any, Any], Awaitable[None]]

HUNG_UP = "natslease.hung_up"


def notice_disconnects(application: Application) -> Application:
    """Wraps an ASGI application so that views can know whether their HTTP client is still there.

    Tasks that were reserved for one that is not are then released, see ``reserve``. A view that is
    not asynchronous cannot find out otherwise.
    """

    async def noticing(scope: MutableMapping[str, Any], receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        scope[HUNG_UP] = False
        listener: asyncio.Task[Message] | None = None

        async def listen() -> Message:
            message = await receive()
            scope[HUNG_UP] = True  # after the request's body nothing else can come
            return message

        async def receive_and_notice() -> Message:
            nonlocal listener
            if listener is None:
                message = await receive()
                if message["type"] == "http.disconnect":
                    scope[HUNG_UP] = True
                elif not message.get("more_body", False):
                    listener = asyncio.ensure_future(listen())
                return message
            # Django, from 5.0, listens too, and gives that up when the view is done.
            return await asyncio.shield(listener)

        try:
            await application(scope, receive_and_notice, send)
        finally:
            if listener is not None:
                listener.cancel()

    return noticing

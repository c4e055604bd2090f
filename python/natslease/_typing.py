"""What of typing is needed at run time: importing the real one takes longer than the rest."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic as Generic
    from typing import TypeVar as TypeVar
else:

    class Generic:
        """A base class that can be subscripted."""

        __slots__ = ()

        def __class_getitem__(cls, _: object) -> type:
            return cls

    def TypeVar(name: str, **_: object) -> str:
        """A name for the type checker."""
        return name

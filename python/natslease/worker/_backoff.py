"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Exponential backoff with full jitter: anything from 0 up to a bound that doubles.

    With full jitter many workers that were sent away together do not come back together. The mean
    of what it settles at is half the cap.
    """

    def __init__(self, base: float = 0.5, cap: float = 12.0) -> None:
        self.base = base
        self.cap = cap
        self.failures = 0

    def reset(self) -> None:
        self.failures = 0

    def next(self, retry_after: float = 0.0) -> float:
        """Seconds to wait after one more try in vain.

        Args:
            retry_after: what the server has asked for: never less than that.
        """
        bound = min(self.cap, self.base * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return retry_after + random.uniform(0.0, bound)

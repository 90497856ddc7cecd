"""How much of the audit log one address can fill by being refused.

Everything else that the log holds takes an account or a room's password. A refusal takes nothing: a
client that is turned away a thousand times a second would write as many lines.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from roomserver.store.records import AuditEvent

#: Events that anybody can cause.
REFUSALS = frozenset(
    {
        AuditEvent.LOGIN_FAILURE,
        AuditEvent.RATE_LIMIT_EXCEEDED,
        AuditEvent.INVALID_TOKEN,
        AuditEvent.ROOM_ACCESS_DENIED,
        AuditEvent.REQUEST_REFUSED,
    }
)
#: Lines at once, and how fast an address may write more: 86,400 a day.
BURST = 100
LINES_PER_S = 1.0
MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class _Share:
    left: float
    at: float
    suppressed: int = 0


class RefusalLimit:
    """Counts lines by address; an address not heard of for long is forgotten first."""

    def __init__(self) -> None:
        self._shares: OrderedDict[str, _Share] = OrderedDict()

    def admit(self, limit_key: str, now: float) -> int | None:
        """Whether a line may be written at `now`, in monotonic seconds.

        Returns:
            None if not; else how many lines of this address were left out before it.
        """
        share = self._shares.get(limit_key)
        if share is None:
            share = self._shares[limit_key] = _Share(BURST, now)
            if len(self._shares) > MAX_ADDRESSES:
                self._shares.popitem(last=False)
        else:
            self._shares.move_to_end(limit_key)
        share.left = min(BURST, share.left + (now - share.at) * LINES_PER_S)
        share.at = now
        if share.left < 1:
            share.suppressed += 1
            return None
        share.left -= 1
        suppressed, share.suppressed = share.suppressed, 0
        return suppressed

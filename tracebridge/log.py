"""`log`: what tracebridge tells the agent's log, whatever that is set up to do."""

from __future__ import annotations

import logging
from typing import Any

from tracebridge.interruption import is_interruption


class _QuietLogger(logging.LoggerAdapter[logging.Logger]):
    """Never raises: a filter or handler of the agent may, e.g. outside of a web request.

    Here that would be the end of delivery, or would reach the agent from a call that must not raise.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, from the place of the caller of `warning` and the like."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception as error:
            if is_interruption(error):
                raise


log = _QuietLogger(logging.getLogger("tracebridge"))

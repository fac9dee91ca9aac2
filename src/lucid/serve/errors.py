"""What a client is told when a request is not answered."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is refused. `status`: of HTTP. `retry_after`: seconds after which it may be
    tried again, where that makes sense."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def require(condition: bool, message: str) -> None:
    """Raises RequestError with status 400 where the condition does not hold."""
    if not condition:
        raise RequestError(400, message)

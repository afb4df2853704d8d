"""Errors of a request, as OpenAI's API writes them."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["ApiError", "ErrorType", "bad_request", "unavailable"]

ErrorType = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]


class ApiError(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        type: kind of error, for programs.
        message: what is wrong and what to do, for people; it quotes nothing but names of fields and tools.
        code: the error's own name, for programs.
        param: the field of the request that is wrong.
        retry_after: seconds after which the same request may be answered.
    """

    def __init__(
        self,
        status: int,
        type: ErrorType,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.code, self.param = status, type, code, param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The body of the reply."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers of the reply."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def bad_request(
    message: str, *, code: str = "invalid_request", param: str | None = None, status: int = 400
) -> ApiError:
    """An error that the client must correct."""
    return ApiError(status, "invalid_request_error", message, code=code, param=param)


def unavailable(message: str, code: str, retry_after: int = 1) -> ApiError:
    """An error of the server that may pass."""
    return ApiError(503, "server_error", message, code=code, retry_after=retry_after)

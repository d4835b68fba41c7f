"""The errors of Twilio's REST API as a client sees them (reference/twilio section 2)."""

from __future__ import annotations

from starlette.responses import JSONResponse

from careflow.errors import CareflowError


class Refusal(CareflowError):
    """The request is refused: an HTTP status, Twilio's code, and a message that names the parameter."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> dict[str, object]:
        """The JSON body as user reports quote it."""
        return {
            "code": self.code,
            "message": str(self),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status)


def not_found(path: str) -> Refusal:
    """20404: there is no such resource, or no longer."""
    return Refusal(404, 20404, f"The requested resource {path} was not found")

"""What both of our A2A agents have in common: their tasks are views of the store, nobody is pushed to, failures tell nothing.

Imported where an agent is served, and not before: the SDK's server takes long to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NoReturn

import structlog
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import (
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    Message,
    SendMessageRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import (
    A2AError,
    ExtendedAgentCardNotConfiguredError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
)
from a2a.utils.proto_utils import validate_proto_required_fields
from starlette.exceptions import HTTPException

from careflow.errors import StoreUnavailable

MAX_PAGE = 100
DEFAULT_PAGE = 50


class StoredTasks(RequestHandler):
    """Refuses what neither agent offers; the rest is left to the agent, which answers each request inside `answered`."""

    def __init__(self, *, retry_after_seconds: int) -> None:
        self._retry_after_seconds = retry_after_seconds

    @contextmanager
    def answered(self) -> Iterator[Callable[[], None]]:
        """Turn our failures into answers that tell nothing of the inside. Call the given function once the stream has begun.

        When the store is down the HTTP answer is 503 with Retry-After; in the middle of a stream it is a JSON-RPC error.
        """
        begun: list[Literal[True]] = []
        try:
            yield lambda: begun.append(True)
        except (A2AError, HTTPException):
            raise
        except StoreUnavailable as error:
            if begun:
                raise InternalError(message="the store is not available") from error
            headers = {"Retry-After": str(self._retry_after_seconds)}
            raise HTTPException(503, "the store is not available", headers=headers) from error
        except Exception as error:
            structlog.get_logger(__name__).error("An A2A request failed", exc_info=error)
            raise InternalError(message="the request could not be carried out") from error

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> NoReturn:
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> NoReturn:
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        raise PushNotificationNotSupportedError

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> NoReturn:
        raise ExtendedAgentCardNotConfiguredError


def message_of(params: SendMessageRequest) -> Message:
    """The message that was sent. Raises InvalidParamsError for an incomplete one, and when a push is asked for."""
    validate_proto_required_fields(params)
    if params.configuration.HasField("task_push_notification_config"):
        raise PushNotificationNotSupportedError
    return params.message


def page_size(params: ListTasksRequest) -> int:
    """How many tasks a page shall hold. Raises InvalidParamsError."""
    size = params.page_size if params.HasField("page_size") else DEFAULT_PAGE
    if not 1 <= size <= MAX_PAGE:
        raise InvalidParamsError(message=f"pageSize: must be from 1 to {MAX_PAGE}")
    return size

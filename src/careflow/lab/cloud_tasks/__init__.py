"""Cloud Tasks v2 to practise on: queues, tasks and their delivery, over REST and gRPC on one port (docs/cloud-tasks.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from careflow.google_api.port import GrpcBackend, rest_and_grpc
from careflow.lab.cloud_tasks.api import CloudTasksApi
from careflow.lab.cloud_tasks.delivery import HttpDelivery
from careflow.lab.cloud_tasks.dispatcher import Dispatcher
from careflow.lab.cloud_tasks.ledger import SCHEMA
from careflow.lab.cloud_tasks.rest import create_app
from careflow.ports import Clock, Tokens
from careflow.store.database import Database

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette

ROLE = "tasks"

_NEEDS = {
    "grpc": "grpcio",
    "google.cloud.tasks_v2": "google-cloud-tasks",
    "google.cloud.location": "googleapis-common-protos",
}


@dataclass(frozen=True, slots=True)
class CloudTasks:
    """The service: its app, what reads its socket (`http`), and the loop that delivers (`run`)."""

    app: Starlette
    http: type[asyncio.Protocol]
    api: CloudTasksApi
    dispatcher: Dispatcher
    database: Database

    async def run(self) -> None:
        """Deliver until cancelled."""
        await self.dispatcher.run()

    @property
    def in_flight(self) -> int:
        """Deliveries that are under way."""
        return self.dispatcher.in_flight

    async def ensure(self, queues: Mapping[str, Mapping[str, Any]]) -> None:
        """Make or change these queues: by full name, what a patch of each would say (`tasks.limits.cloud_tasks_settings`)."""
        for name, settings in queues.items():
            await self.api.update_queue(name, dict(settings), (), camel_case=True)

    async def close(self) -> None:
        """Finish what was asked for, then close the database."""
        await asyncio.to_thread(self.database.close)


async def open_cloud_tasks(
    data_dir: Path,
    clock: Clock,
    transport: httpx.AsyncBaseTransport,
    tokens_for: Callable[[str], Tokens],
    *,
    location: str,
    new_id: Callable[[], str],
) -> CloudTasks:
    """The service on its own database in `data_dir`, which it holds until `close`. Raises StoreInUse, StoreUnavailable.

    Deliveries go over `transport`, whose connections bound them, with tokens of the account that a task names, from
    `tokens_for`. `location` is what is answered to who asks for locations; `new_id` names tasks that have no name.
    """
    database = await asyncio.to_thread(lambda: Database.open(data_dir, exclusive=ROLE, schema=SCHEMA))
    dispatcher = Dispatcher(database, clock, HttpDelivery(transport, tokens_for, clock))
    api = CloudTasksApi(database, clock, location=location, new_id=new_id, changed=dispatcher.changed)
    grpc = GrpcBackend("careflow.lab.cloud_tasks.grpc_api:create_grpc_server", api, _NEEDS)
    return CloudTasks(create_app(api, grpc.close), rest_and_grpc(grpc), api, dispatcher, database)

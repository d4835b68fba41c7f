"""What the commands that look at a data directory share: settings, the open store, the right hospital."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from careflow.errors import CareflowError
from careflow.settings import Settings, load_settings

if TYPE_CHECKING:
    from careflow.core.hospitals import Hospital as Profile
    from careflow.ports import Clock, Store

DataDir = Annotated[
    Path | None, Parameter(help="Data directory (default: CAREFLOW_DATA_DIR or ./careflow-data).")
]
Hospital = Annotated[str | None, Parameter(help="Hospital id (default: CAREFLOW_HOSPITAL_ID).")]
Json = Annotated[bool, Parameter(name="--json", help="Print one JSON document.")]


class NotFound(CareflowError):
    """There is no such record."""


class Refused(CareflowError):
    """The command could not do its work. `details` are what else the JSON document tells."""

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class Interrupted(CareflowError):
    """Ctrl-C. The message says what is left behind, and how to go on."""

    status = 130


@dataclass(frozen=True, slots=True)
class Context:
    """An open store and what to look for in it."""

    settings: Settings
    store: Store
    hospital_id: str


def settings_for(data_dir: Path | None, hospital: str | None = None) -> Settings:
    """The settings from the environment, with the command's own words first."""
    words: dict[str, object] = {}
    if data_dir is not None:
        words["data_dir"] = data_dir
    if hospital is not None:
        words["hospital_id"] = hospital
    return load_settings(**words)


def settings_at(data_dir: Path | None, hospital: str | None = None) -> Settings:
    """`settings_for` a command about one hospital: with that hospital's own clock and hours. Raises NotFound for another one."""
    settings = settings_for(data_dir, hospital)
    this = hospital_of(settings)
    return settings.model_copy(update={"time_zone": this.time_zone, "round_hours": this.round_hours})


def hospital_of(settings: Settings) -> Profile:
    """The hospital that the settings mean. Raises NotFound when it is not one of those that are served."""
    served = settings.served
    this = served.get(settings.hospital_id)
    if this is None:
        raise NotFound(
            f"hospital {settings.hospital_id!r} is not in the file of hospitals; name one with --hospital: "
            + ", ".join(one.id for one in served)
        )
    return this


def same_place(data_dir: Path | None, hospital: str | None) -> str:
    """What the next command has to be given to look at the same records; begins with a space, or is empty."""
    place = f" --data-dir {data_dir}" if data_dir else ""
    return place + (f" --hospital {hospital}" if hospital else "")


def clock_of(settings: Settings) -> Clock:
    """The clock a running deployment lives by, as far as a command can tell: the machine's, or the virtual one it publishes.

    A virtual clock that is behind the machine's has stopped, and is not the one.
    """
    from careflow.clock import SystemClock, VirtualClock, published_time

    published = published_time(settings.clock_file or settings.data_dir / "clock")
    system = SystemClock()
    return VirtualClock(published) if published and published > system.now() else system


def must_be_there(settings: Settings) -> None:
    """A command that only looks makes no data directory. Raises NotFound where that is the store and holds nothing of ours."""
    if settings.store != "sqlite":
        return
    from careflow.store.database import FILE

    directory = settings.data_dir
    if not (directory / FILE).is_file():
        what = "there is no data directory" if not directory.exists() else "there is no CareFlow data in"
        raise NotFound(
            f"{what} {directory}: `careflow up` or `careflow roster import` make it; --data-dir or "
            "CAREFLOW_DATA_DIR name another one"
        )


@asynccontextmanager
async def opened(
    data_dir: Path | None, hospital: str | None = None, *, create: bool = False
) -> AsyncIterator[Context]:
    """The context of a command, on the store that the settings name. Without `create` a database on disk must be there."""
    from careflow.backends import open_store, store_named

    settings = settings_at(data_dir, hospital)
    if not create:
        must_be_there(settings)
    with store_named(settings):
        store = await open_store(settings)
        try:
            yield Context(settings, store, settings.hospital_id)
        finally:
            await store.close()

"""`careflow export` and `careflow import`: all records from one store to another (docs/moving.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from careflow.cli.context import DataDir, Json, clock_of, must_be_there, settings_for
from careflow.cli.output import count, print_json, print_table
from careflow.cli.progress import Progress
from careflow.settings import Settings

if TYPE_CHECKING:
    from careflow.moving.archive import Manifest
    from careflow.ports import Store

Directory = Annotated[Path, Parameter(help="The archive's directory. It holds names, numbers and answers.")]


async def export(
    directory: Directory,
    /,
    *,
    hospital: Annotated[str | None, Parameter(help="Only this hospital's records (default: all).")] = None,
    mid_round: Annotated[
        bool,
        Parameter(help="Also while calls are under way, whose services are stopped for good."),
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write all records into a new directory, to move them to another store. Cut short, the same command goes on."""
    from careflow.moving.archive import ArchiveDirectory, Heading
    from careflow.moving.export import export as write

    settings = settings_for(data_dir)
    must_be_there(settings)
    with Progress(quiet=json) as progress, nobody_at_work(settings, mid_round):
        async with _store(settings) as store:
            manifest = await write(
                store,
                ArchiveDirectory(directory),
                Heading(careflow=_version(), source=_place(settings), hospital=hospital),
                mid_round=mid_round,
                now=clock_of(settings).now(),
                told=progress.stands,
            )
    if json:
        print_json({"directory": str(directory), **_document(manifest)})
        return
    _print(f"Exported from {manifest.source}", manifest)
    print(
        f"{directory} holds names, numbers and answers: keep it as you keep the records, and remove it after."
    )
    print("Next: careflow import DIR, with the settings of the other store")


async def import_(
    directory: Directory,
    /,
    *,
    check: Annotated[
        bool, Parameter(help="Write nothing: only say whether the store holds just what the archive does.")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Store all records of an archive, every field as it was. Cut short, the same command goes on."""
    from careflow.moving.archive import ArchiveDirectory
    from careflow.moving.restore import restore, verify

    settings = settings_for(data_dir)
    archive, new = ArchiveDirectory(directory), 0
    with Progress(quiet=json) as progress:
        manifest = archive.manifest()
        for hospital in sorted(manifest.hospitals):
            if settings.served.get(hospital) is None:
                progress.happened(f"note: hospital {hospital!r} is not in the file of CAREFLOW_HOSPITALS")
        if check:
            must_be_there(settings)
            manifest = archive.checked()
            async with _store(settings) as store:
                await verify(store, manifest, progress.stands)
        else:
            with nobody_at_work(settings, True):
                async with _store(settings) as store:
                    manifest, new = await restore(store, archive, told=progress.stands)
    if json:
        print_json({"directory": str(directory), "new": new, **_document(manifest)})
        return
    _print(f"{'Found in' if check else 'Imported into'} {_place(settings)}", manifest)
    print("The store holds what the archive does, by count and digest" + (f"; {new:,} new" if new else ""))
    if unfinished := sum(one.unfinished for one in manifest.summaries.values()):
        print(
            f"{count(unfinished, 'record')} of work under way: Pulse and the Caller go on with it when they start."
        )


@contextmanager
def nobody_at_work(settings: Settings, wanted: bool) -> Iterator[None]:
    """If `wanted`, no Pulse and no Caller runs on the data directory, where it is the store. Raises StoreInUse.

    Who runs on a Firestore database cannot be seen from here; docs/moving.md says to stop them.
    """
    from careflow.store.locks import hold_role

    with ExitStack() as stack:
        if wanted and settings.store == "sqlite":
            for role in ("pulse", "caller"):
                stack.enter_context(hold_role(settings.data_dir, role))
        yield


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[Store]:
    from careflow.backends import open_store, store_named

    with store_named(settings):
        store = await open_store(settings)
        try:
            yield store
        finally:
            await store.close()


def _place(settings: Settings) -> str:
    """Which store it is, for a person."""
    if settings.store == "sqlite":
        return f"sqlite {settings.data_dir.resolve()}"
    return f"{settings.store} {settings.project}/{settings.firestore_database}"


def _version() -> str:
    from importlib.metadata import version

    return version("careflow-pulse")


def _document(manifest: Manifest) -> dict[str, object]:
    return manifest.model_dump(mode="json", by_alias=True)


def _print(title: str, manifest: Manifest) -> None:
    print_table(
        title,
        ("kind", "records", "under way", "digest"),
        [
            (name, f"{one.count:,}", one.unfinished or "", one.digest[:16])
            for name, one in manifest.summaries.items()
        ],
    )
    print(f"Digest of all: {manifest.digest}")

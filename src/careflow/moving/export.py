"""Out of a store, into an archive."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import aclosing
from datetime import datetime

from careflow.core.attempts import Attempt
from careflow.core.calls import CallState
from careflow.moving.archive import ArchiveDirectory, ArchiveUnusable, FileEntry, Heading, Manifest
from careflow.moving.contents import (
    KINDS,
    NotMoved,
    Told,
    counted,
    digest_of,
    pages,
    survey,
    unlike,
)
from careflow.ports import Store

ROUNDS_OF_READING = (
    3  # a store that is at rest takes one; one that changed since an export was cut short takes two
)


async def export(
    store: Store, directory: ArchiveDirectory, heading: Heading, *, mid_round: bool, now: datetime, told: Told
) -> Manifest:
    """Write everything the store holds (of the heading's hospital, if it names one) into the directory.

    Cut short, it goes on where it was when it is asked for again. Everything is read twice, first to write it, then to compare.
    When that agrees, the archive is the store as it was at one instant, the one between; that needs no lock. What does not agree
    is written again, and a store that does not come to rest is given up with NotMoved.

    Without `mid_round` NotMoved is also raised while calls are under way: whoever imports them goes on with them, and
    that must be nobody else at the same time. Raises ArchiveUnusable when the directory holds something else.
    """
    hospitals = None if heading.hospital is None else {heading.hospital}
    if directory.is_whole:
        return await _again(store, directory, heading, hospitals, told)
    if hospitals and not await _holds_any(store, hospitals):
        raise NotMoved(f"there are no records of hospital {heading.hospital!r}")
    if not mid_round:
        await _refuse_unfinished(store, hospitals)
    directory.begin(heading)
    for _ in range(ROUNDS_OF_READING):
        for name in KINDS:
            await _append(store, directory, name, hospitals, told)
        written = await _scanned(directory)
        stored = await survey(store, hospitals, told)
        changed = unlike({name: entry.holds for name, entry in written.items()}, stored)
        if not changed:
            break
        for name in changed:
            directory.discard(name)
    else:
        raise NotMoved(
            f"the store is being changed ({', '.join(changed)}), so what was read is of no one instant: stop what runs on it and"
            " give the same command again"
        )
    if not mid_round:
        _refuse({name: one.unfinished for name, one in stored.items()})
    return directory.finish(heading, written, now)


async def _holds_any(store: Store, hospitals: Collection[str]) -> bool:
    for kind in KINDS.values():
        async with aclosing(pages(store, kind, hospitals)) as found:
            async for page in found:
                if page:
                    return True
    return False


async def _append(
    store: Store, directory: ArchiveDirectory, name: str, hospitals: Collection[str] | None, told: Told
) -> None:
    """Write what is not yet in the file: what comes after its last record."""
    last = directory.last_whole(name)
    written = 0
    directory.append(name, [])
    async for page in pages(store, KINDS[name], hospitals, last):
        directory.append(name, page)
        written += len(page)
        told(f"wrote {written:,} {name}")


async def _scanned(directory: ArchiveDirectory) -> dict[str, FileEntry]:
    """What is on disk. A file that an accident has damaged is missing from it."""
    found = {}
    for name in KINDS:
        try:
            found[name] = await asyncio.to_thread(directory.scan, name)
        except ArchiveUnusable:
            continue
    return found


async def _again(
    store: Store, directory: ArchiveDirectory, heading: Heading, hospitals: Collection[str] | None, told: Told
) -> Manifest:
    """The finished archive, if it still is what the store holds."""
    manifest = await asyncio.to_thread(directory.checked)
    if Heading(**manifest.model_dump(include=set(Heading.model_fields))) != heading:
        raise NotMoved(f"{directory.path} holds another export, of {manifest.source}: name another directory")
    stored = await survey(store, hospitals, told)
    if digest_of(stored) != manifest.digest:
        raise NotMoved(
            f"{directory.path} holds an export of {manifest.exported_at:%Y-%m-%d %H:%M} UTC, and the store has changed since"
            f" ({', '.join(unlike(stored, manifest.summaries))}): name another directory"
        )
    return manifest


async def _refuse_unfinished(store: Store, hospitals: Collection[str] | None) -> None:
    """As the end of the export does, before anything is written. Looks at open rounds only."""
    attempts: list[Attempt] = [
        one for one in await store.open_attempts() if hospitals is None or one.hospital_id in hospitals
    ]
    calls = rounds = 0
    for round_ in await store.unclosed_rounds():
        if hospitals is None or round_.hospital_id in hospitals:
            counts = await store.count_calls(round_.hospital_id, round_.id)
            calls += sum(number for (state, _, _), number in counts.items() if state != CallState.ENDED)
            rounds += round_.planned_at is None
    _refuse({"rounds": rounds, "calls": calls, "attempts": len(attempts)})


def _refuse(unfinished: Mapping[str, int]) -> None:
    if any(unfinished.values()):
        raise NotMoved(
            f"work is under way ({counted(unfinished)}): wait until it is done; or stop Pulse and the Caller for good, and add"
            " --mid-round to have it gone on with wherever this is imported"
        )

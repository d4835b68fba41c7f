"""Out of an archive, into a store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from careflow.errors import StoreError, StoreUnavailable
from careflow.moving.archive import ArchiveDirectory, Manifest
from careflow.moving.contents import KINDS, NotMoved, Summary, Told, counted, survey, unlike
from careflow.ports import Archive


async def restore(store: Archive, directory: ArchiveDirectory, *, told: Told) -> tuple[Manifest, int]:
    """Store everything the archive holds; how many records were new.

    1. Every file of the archive is checked. Raises ArchiveUnusable.
    2. Of the archive's hospitals the store may hold nothing but records of the archive, exactly so: those of an import that was
       cut short. Else NotMoved is raised, and nothing was written.
    3. What is missing is stored. Cut short, it goes on when it is asked for again.
    4. The store is read again and compared with the manifest. Raises NotMoved when it is not the same.
    """
    manifest = await asyncio.to_thread(directory.checked)
    there = await survey(store, manifest.hospitals, told)
    if any(one.count for one in there.values()):
        await _refuse_others(store, directory, there, told)
    new = 0
    for name, kind in KINDS.items():
        stored = 0
        for page in directory.pages(name):
            try:
                new += await store.restore(kind, page)
            except StoreUnavailable:
                raise
            except StoreError as error:
                raise NotMoved(
                    f"{name}.ndjson, lines {stored + 1:,} to {stored + len(page):,}: {error}"
                ) from error
            stored += len(page)
            told(f"stored {stored:,} of {manifest.files[name].holds.count:,} {name}")
    await verify(store, manifest, told)
    return manifest, new


async def verify(store: Archive, manifest: Manifest, told: Told) -> None:
    """Raises NotMoved unless the store holds of the archive's hospitals exactly what the manifest says."""
    there = await survey(store, manifest.hospitals, told)
    if wrong := unlike(there, manifest.summaries):
        raise NotMoved(
            "the store does not hold what the archive does: "
            + ", ".join(
                f"{there[name].count:,} {name} for {manifest.files[name].holds.count:,}"
                + (" (other ones)" if there[name].count == manifest.files[name].holds.count else "")
                for name in wrong
            )
        )


async def _refuse_others(
    store: Archive, directory: ArchiveDirectory, there: Mapping[str, Summary], told: Told
) -> None:
    changed, strange = {}, {}
    for name, kind in KINDS.items():
        same = other = 0
        for page in directory.pages(name) if there[name].count else ():
            found = await store.compare(kind, page)
            same, other = same + found.same, other + found.other
            told(f"compared {same + other:,} {name} that are there")
        changed[name], strange[name] = other, there[name].count - same - other
    if any(changed.values()) or any(strange.values()):
        reasons = [
            f"{what}: {counted(numbers)}"
            for what, numbers in (("differ", changed), ("are not in the archive", strange))
            if any(numbers.values())
        ]
        raise NotMoved(
            f"the store has records of these hospitals already that {' and that '.join(reasons)}. Nothing was written:"
            " import into a store without them"
        )

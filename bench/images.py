"""The agents' images: how large they are, and how long a cold start and the end of one take.

A cold start is from runc's own start to the first 200 of /readyz: a new container each time, its /tmp empty, its files in the
page cache. `careflow serve` in it is what Cloud Run starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bench.figures import Figure
from bench.processes import free_port
from bench.rehearsal import AGENTS, Workshop, workshop
from careflow.lab.firestore_emulator import EmulatorMissing, running_emulator

MB = 1_000_000
# As deployed, but for the tokens: Google's would be refused beside an address of this machine.
CLOUD = {
    "CAREFLOW_STORE": "firestore",
    "CAREFLOW_QUEUE": "cloud-tasks",
    "CAREFLOW_PROJECT": "careflow-rehearsal",
}


def measure(folder: Path, repeat: int) -> list[Figure]:
    """Both images, on SQLite and, where its emulator is, on Firestore."""
    with workshop(folder / "images") as place:
        return asyncio.run(_on_both_stores(place, repeat))


async def _on_both_stores(place: Workshop, repeat: int) -> list[Figure]:
    try:
        async with running_emulator() as emulator:
            # Nobody answers at the queue's address: a start asks nothing of it.
            cloud = CLOUD | {
                "FIRESTORE_EMULATOR_HOST": emulator,
                "CAREFLOW_CLOUD_TASKS_URL": f"http://127.0.0.1:{free_port()}",
            }
            return [
                one for role in AGENTS for one in await asyncio.to_thread(_of, place, role, repeat, cloud)
            ]
    except EmulatorMissing:
        return [one for role in AGENTS for one in _of(place, role, repeat, {})]


def _of(place: Workshop, role: str, repeat: int, cloud: Mapping[str, str]) -> list[Figure]:
    image = place.build(role)
    figures = [
        Figure("images", f"{role}: what is added to the base", "MB", (image.ours_bytes / MB,)),
        Figure("images", f"{role}: the same, compressed", "MB", (image.ours_compressed_bytes / MB,)),
        Figure("images", f"{role}: the base of the rehearsal", "MB", (image.base_bytes / MB,)),
    ]
    kinds: dict[str, Mapping[str, str]] = {"SQLite": {}}
    if cloud:
        kinds["Firestore"] = cloud
    for store, settings in kinds.items():
        ready, ended = [], []
        for _ in range(repeat):
            with place.running(image, settings) as container:
                ready.append(container.seconds_to_ready)
                ended.append(container.stop()[0])
        figures += [
            Figure("images", f"{role} on {store}: cold start to the first 200", "s", tuple(ready), "under 1"),
            Figure("images", f"{role} on {store}: SIGTERM to the end", "s", tuple(ended), "under 10"),
        ]
    return figures

"""The floor: COUNT bare requests, no scheduler: `python -m bench.scheduler_bare fire DIRECTORY COUNT URL`.

The connections are those of the others. Prints the Unix time at which it begins; whoever fires COUNT jobs from one Python process
cannot be less late.
"""

from __future__ import annotations

import asyncio
import sys
import time

from bench.scheduler_minute import open_files, sender


async def main(count: int, url: str) -> None:
    open_files()
    send = sender()
    print(time.time(), flush=True)
    await asyncio.gather(*(send(f"{url}/{number}") for number in range(count)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[3]), sys.argv[4]))

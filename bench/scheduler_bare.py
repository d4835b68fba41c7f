"""The floor: COUNT bare requests by the same client, no scheduler: `python -m bench.scheduler_bare fire DIRECTORY COUNT URL`.

Prints the Unix time at which it begins; whoever fires COUNT jobs from one Python process cannot be less late.
"""

from __future__ import annotations

import asyncio
import sys
import time

from bench.scheduler_minute import IN_FLIGHT, client


async def main(count: int, url: str) -> None:
    places = asyncio.Semaphore(IN_FLIGHT)
    async with client() as http:

        async def send(number: int) -> None:
            async with places:
                await http.post(f"{url}/{number}")

        print(time.time(), flush=True)
        await asyncio.gather(*(send(number) for number in range(count)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[3]), sys.argv[4]))

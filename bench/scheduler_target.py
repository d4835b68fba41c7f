"""A target for jobs, as cheap as Python makes it: `python -m bench.scheduler_target COUNT`.

Prints its port; when COUNT requests have come and have been answered, one JSON list of (path, Unix time of arrival), and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Request(asyncio.Protocol):
    """One connection, one request. It has arrived when the last of its bytes has; its body is small and comes with its head."""

    def __init__(self, arrivals: list[tuple[str, float]], last: asyncio.Event, count: int) -> None:
        self._arrivals, self._last, self._count = arrivals, last, count
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" not in self._received:
            return
        self._arrivals.append((self._received.split(b" ", 2)[1].decode("ascii"), time.time()))
        self._transport.write(_ANSWER)
        self._transport.close()
        if len(self._arrivals) >= self._count:
            self._last.set()


async def main(count: int) -> None:
    arrivals: list[tuple[str, float]] = []
    last = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Request(arrivals, last, count), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await last.wait()
    await asyncio.sleep(0.2)  # the last answers leave
    print(json.dumps(arrivals), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

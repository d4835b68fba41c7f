"""REST and gRPC on one TCP port: who is sent where, and how both end."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from google.api_core import exceptions
from google.cloud import scheduler_v1
from google.cloud.scheduler_v1.services.cloud_scheduler import transports

from careflow.scheduler import port
from scheduler_api_kit import PARENT, Served, serving


async def connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(served.url)
    return await asyncio.open_connection(url.hostname, url.port)


def grpc_client(served: Served) -> scheduler_v1.CloudSchedulerAsyncClient:
    channel = grpc.aio.insecure_channel(served.address)
    return scheduler_v1.CloudSchedulerAsyncClient(
        transport=transports.CloudSchedulerGrpcAsyncIOTransport(channel=channel)
    )


async def test_what_one_protocol_makes_the_other_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, httpx.AsyncClient(base_url=served.url) as rest:
        client = grpc_client(served)
        job = {"name": served.name("j"), "schedule": "* * * * *", "http_target": {"uri": served.target.url}}
        await client.create_job(parent=PARENT, job=job)

        shown = (await rest.get(f"/v1/{served.name('j')}")).json()
        await rest.post(f"/v1/{served.name('j')}:pause", json={})
        found = await client.get_job(name=served.name("j"))
        await client.transport.close()

    assert shown["name"] == served.name("j")
    assert found.state is scheduler_v1.Job.State.PAUSED


async def test_a_request_that_comes_byte_by_byte_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        reader, writer = await connect(served)
        for byte in f"PATCH /v1/{served.name('j')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode():
            writer.write(bytes([byte]))
            await writer.drain()
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 404")  # as a PATCH of a missing job, and no preface


async def test_a_preface_that_comes_in_pieces_is_a_grpc_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        reader, writer = await connect(served)
        for piece in (b"P", b"R", b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"):
            await (await connect(served))[1].drain()  # a round trip, so that the pieces are read one by one
            writer.write(piece)
            await writer.drain()
        first_frame = await reader.readexactly(9)
        writer.close()

    assert first_frame[3] == 4  # SETTINGS (RFC 9113 section 3.4)


async def test_large_jobs_are_listed_in_pages_that_a_grpc_client_takes(tmp_path: Path) -> None:
    """Clients refuse answers of more than 4 MiB unless told otherwise."""
    async with serving(tmp_path) as served:
        client = grpc_client(served)
        body = bytes(range(256)) * 4000
        job = {"schedule": "* * * * *", "http_target": {"uri": served.target.url, "body": body}}
        for number in range(6):
            await client.create_job(parent=PARENT, job={"name": served.name(f"j{number}"), **job})

        pages = [page async for page in (await client.list_jobs(request={"parent": PARENT})).pages]
        await client.transport.close()

    assert len(pages) > 1
    assert [one.http_target.body for page in pages for one in page.jobs] == [body] * 6


async def test_the_end_does_not_wait_for_connections_that_say_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        async with serving(tmp_path) as served:
            silent = await connect(served)
            client = grpc_client(served)
            await client.list_locations(request={"name": "projects/p"})
            began = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - began
        assert await silent[0].read() == b""
        silent[1].close()
        with pytest.raises(exceptions.ServiceUnavailable):
            await client.get_job(name=served.name("j"), timeout=5, retry=None)
        await client.transport.close()

    assert took < 2.5


async def test_nothing_of_grpc_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    async with serving(tmp_path / "data") as served:
        assert list(temporary.iterdir()) == []  # nobody has spoken gRPC yet
        client = grpc_client(served)
        await client.list_locations(request={"name": "projects/p"})
        sockets = [path.stat().st_mode & 0o777 for path in temporary.iterdir()]
        await client.transport.close()

    assert sockets == [0o700]
    assert list(temporary.iterdir()) == []


async def test_rest_is_served_without_googles_package_and_the_log_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(port, "_NEEDS", {"google.cloud.no_such_module": "google-cloud-scheduler"})
    with caplog.at_level(logging.WARNING):
        async with serving(tmp_path) as served, httpx.AsyncClient(base_url=served.url) as rest:
            assert (await rest.get(f"/v1/{PARENT}/jobs")).status_code == 200
            reader, writer = await connect(served)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()

    assert "gRPC is not served: google-cloud-scheduler" in caplog.text

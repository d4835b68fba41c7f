"""Firestore's RPCs by Google's generated client: a time limit on each, the errors told apart, everything counted.

The client above it (`google.cloud.firestore.AsyncClient`) takes the emulator's address from the environment alone and makes
an object of every value. This one takes a channel, and plain protobuf messages in its own thin wrappers (`_plain`).

Reads are tried again here, for they change nothing. A commit is not: after an error nobody knows whether it was done,
and only who planned it can find out (`firestore_changes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from careflow.errors import StoreError, StoreUnavailable
from careflow.store.firestore_kinds import Document
from careflow.store.firestore_places import Place
from careflow.store.firestore_usage import Usage
from careflow.store.firestore_values import read_fields

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

POINT_SECONDS = 8.0  # for what names its documents
SCAN_SECONDS = 60.0  # for a query, whose answer may be long
READ_TRIES = 5
NAMES_PER_GET = 1000
LARGEST_COMMIT_BYTES = 4_000_000  # the emulator takes 4 MiB in a request, Google 10 MiB

_MiB_ANY = -1
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", _MiB_ANY),
    ("grpc.max_receive_message_length", _MiB_ANY),
    ("grpc.keepalive_time_ms", 30_000),
    # A server that is back is found again within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
]

_Code = grpc.StatusCode
# After these, trying again can help.
_PASSING = frozenset(
    {
        *(_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED, _Code.INTERNAL, _Code.UNKNOWN, _Code.CANCELLED),
        *(_Code.ABORTED, _Code.RESOURCE_EXHAUSTED),
    }
)
_REFUSED = frozenset({_Code.ABORTED, _Code.ALREADY_EXISTS, _Code.FAILED_PRECONDITION, _Code.NOT_FOUND})


class NotCommitted(Exception):
    """A commit was refused, since something changed in the meantime; or, if `doubtful`, nobody knows."""

    def __init__(self, code: str, *, doubtful: bool) -> None:
        super().__init__(code)
        self.code = code
        self.doubtful = doubtful


@dataclass(frozen=True, slots=True)
class Found:
    """A stored document. `update_time` is what a conditional write compares."""

    document: Document
    update_time: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave, all as of `read_time`."""

    documents: Sequence[Document]
    read_time: Any


def backoff(number: int, random: Callable[[], float]) -> float:
    """Seconds to wait before try `number` + 1: about 50 ms, doubled each time up to 1 s, half of it by chance."""
    return min(1.0, 0.05 * (1 << number)) * (0.5 + random() / 2)


class Connection:
    """One database. `sleep` and `random` serve the pauses between tries.

    `secret` is what document ids are made with; nothing can be named before it is set (`firestore_secret`).
    """

    def __init__(
        self,
        channel: Any,
        database: str,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        sleep: Sleep,
        random: Callable[[], float],
    ) -> None:
        """Use `Connection.open`."""
        self.usage = Usage()
        self.database = database
        self.sleep, self.random = sleep, random
        self.secret: bytes | None = None
        self._documents = f"{database}/documents"
        self._metadata = (*metadata, ("google-cloud-resource-prefix", database))
        self._channel = channel
        self._closed = False
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        client = FirestoreAsyncClient(transport=FirestoreGrpcAsyncIOTransport(channel=channel))
        self._commit = _plain(client.commit, types.CommitRequest)
        self._rollback = _plain(client.rollback, types.RollbackRequest)
        self._get = _plain(client.batch_get_documents, types.BatchGetDocumentsRequest)
        self._query = _plain(client.run_query, types.RunQueryRequest)
        self._count = _plain(client.run_aggregation_query, types.RunAggregationQueryRequest)

    @classmethod
    async def open(
        cls, project: str, database: str, emulator: str, *, sleep: Sleep, random: Callable[[], float]
    ) -> Connection:
        """Connect, to the emulator at host:port if one is named, else to Google with the account this process runs as.

        Raises StoreUnavailable when there are no credentials. The network is first used by the first request.
        """
        name = f"projects/{project}/databases/{database}"
        if emulator:
            channel = grpc.aio.insecure_channel(emulator, options=_CHANNEL_OPTIONS)
            owner = ("authorization", "Bearer owner")  # whom the emulator's rules do not apply to
            return cls(channel, name, metadata=(owner,), sleep=sleep, random=random)
        return cls(await _google_channel(), name, sleep=sleep, random=random)

    def name(self, place: Place) -> str:
        """The full resource name of the document at the place."""
        if self.secret is None and not place.name:
            raise RuntimeError(f"{place.collection}: the secret of the ids was not asked for")
        return f"{self._documents}/{place.path(self.secret or b'')}"

    @contextmanager
    def working(self) -> Iterator[None]:
        """Something the store was asked for: `close` waits for it. Raises StoreUnavailable when the store is closed."""
        if self._closed:
            raise StoreUnavailable("the Firestore store is closed")
        self._in_flight += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._quiet.set()

    async def close(self) -> None:
        """Refuse everything new, wait for what is under way, close the channel. Does nothing the second time."""
        self._closed = True
        await self._quiet.wait()
        await self._channel.close()

    # reading

    async def get(self, places: Iterable[Place], *, select: Sequence[str] = ()) -> dict[Place, Found]:
        """The documents that are there, by place. With `select` only these keys of them."""
        names = self._names(places)
        return _by_place(names, await self.get_named(list(names), select=select))

    async def get_named(self, names: Sequence[str], *, select: Sequence[str] = ()) -> dict[str, Found]:
        """`get` by full resource names."""
        found: dict[str, Found] = {}
        for start in range(0, len(names), NAMES_PER_GET):
            request = self._get_request(names[start : start + NAMES_PER_GET])
            if select:  # an empty mask is a mask, too
                request.mask.field_paths.extend(select)
            found |= (await self._reading(lambda request=request: self._collect(request)))[0]  # type: ignore[misc]
        return found

    async def get_locked(
        self, places: Iterable[Place], after: bytes = b""
    ) -> tuple[dict[Place, Found], bytes]:
        """The documents, held unchanged by a new transaction until its commit or roll-back; and the transaction.

        `after` is the transaction that was tried before. Raises NotCommitted when another holds one of them for too long.
        """
        names = self._names(places)
        request = self._get_request(names)
        request.new_transaction.read_write.retry_transaction = after
        asking = asyncio.ensure_future(self._locking(request))
        try:
            found, transaction = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Who asked is gone; but only the answer names the transaction, whose locks would keep others out for a minute.
            with suppress(NotCommitted, StoreError):
                await self.roll_back((await asking)[1])
            raise
        return _by_place(names, found), transaction

    async def get_held(self, places: Iterable[Place], transaction: bytes) -> dict[Place, Found]:
        """More documents for a transaction to hold."""
        names = self._names(places)
        request = self._get_request(names)
        request.transaction = transaction
        return _by_place(names, (await self._locking(request))[0]) if names else {}

    async def query(self, parent: Place | None, query: Any, *, read_time: Any = None) -> Answer:
        """What a StructuredQuery finds under the document at `parent`, or in all of the database."""
        within = self._documents if parent is None else self.name(parent)
        request = types.RunQueryRequest.pb()(parent=within, structured_query=query)
        if read_time is not None:
            request.read_time.CopyFrom(read_time)

        async def run() -> Answer:
            documents, seen_at = [], None
            async for one in await self._query(request, timeout=SCAN_SECONDS, metadata=self._metadata):
                response = types.RunQueryResponse.pb(one)
                seen_at = response.read_time
                if response.HasField("document"):
                    documents.append(read_fields(response.document.fields))
            self.usage.queried(len(documents))
            return Answer(documents, seen_at)

        return await self._reading(run)

    async def count(self, query: Any, *, read_time: Any) -> int:
        """How many documents the query finds as of `read_time`."""
        request = types.RunAggregationQueryRequest.pb()(parent=self._documents)
        request.structured_aggregation_query.structured_query.CopyFrom(query)
        request.structured_aggregation_query.aggregations.add(alias="n").count.SetInParent()
        request.read_time.CopyFrom(read_time)

        async def run() -> int:
            number = 0
            async for one in await self._count(request, timeout=SCAN_SECONDS, metadata=self._metadata):
                response = types.RunAggregationQueryResponse.pb(one)
                if response.HasField("result"):
                    number = response.result.aggregate_fields["n"].integer_value
            self.usage.counted(number)
            return number

        return await self._reading(run)

    # writing

    async def commit(self, writes: Sequence[Any], transaction: bytes = b"") -> None:
        """Do all of the writes or none. Raises NotCommitted, which says whether that is certain, and StoreError."""
        request = types.CommitRequest.pb()(database=self.database, writes=writes, transaction=transaction)
        if request.ByteSize() > LARGEST_COMMIT_BYTES:
            raise ValueError(
                f"{len(writes)} records are {request.ByteSize()} bytes; one write to Firestore, which is done whole or"
                f" not at all, takes at most {LARGEST_COMMIT_BYTES}: write fewer at a time"
            )
        try:
            await self._commit(request, timeout=POINT_SECONDS + len(writes) / 100, metadata=self._metadata)
        except GoogleAPICallError as error:
            code = _code(error)
            if code in _REFUSED or code in _PASSING:
                raise NotCommitted(code.name, doubtful=code not in _REFUSED) from error
            raise _translated(error) from error
        self.usage.committed(list(writes))

    async def roll_back(self, transaction: bytes) -> None:
        """Let the transaction's documents go. A failure is none: the server does it after a while."""
        request = types.RollbackRequest.pb()(database=self.database, transaction=transaction)
        with suppress(GoogleAPICallError):
            await self._rollback(request, timeout=POINT_SECONDS, metadata=self._metadata)

    # what they share

    def _names(self, places: Iterable[Place]) -> dict[str, Place]:
        return {self.name(place): place for place in places}

    def _get_request(self, names: Iterable[str]) -> Any:
        return types.BatchGetDocumentsRequest.pb()(database=self.database, documents=names)

    async def _collect(self, request: Any) -> tuple[dict[str, Found], bytes]:
        found, transaction = {}, b""
        async for one in await self._get(request, timeout=POINT_SECONDS, metadata=self._metadata):
            response = types.BatchGetDocumentsResponse.pb(one)
            transaction = response.transaction or transaction
            if response.HasField("found"):
                document = response.found
                found[document.name] = Found(read_fields(document.fields), document.update_time)
        self.usage.got(len(request.documents))
        return found, transaction

    async def _locking(self, request: Any) -> tuple[dict[str, Found], bytes]:
        try:
            return await self._collect(request)
        except GoogleAPICallError as error:
            if _code(error) in _PASSING:
                raise NotCommitted(_code(error).name, doubtful=False) from error
            raise _translated(error) from error

    async def _reading(self, read: Callable[[], Awaitable[T]]) -> T:
        number = 0
        while True:
            try:
                return await read()
            except GoogleAPICallError as error:
                number += 1
                if _code(error) not in _PASSING or number == READ_TRIES:
                    raise _translated(error) from error
            await self.sleep(backoff(number, self.random))


def _by_place(names: Mapping[str, Place], found: Mapping[str, Found]) -> dict[Place, Found]:
    return {names[name]: one for name, one in found.items()}


def _plain(method: Callable[..., Any], kind: Any) -> Callable[..., Any]:
    """The client's method for a plain protobuf request. Trying again is ours, so it is told not to."""

    def call(request: Any, *, timeout: float, metadata: Sequence[tuple[str, str]]) -> Any:
        return method(kind.wrap(request), retry=None, timeout=timeout, metadata=metadata)

    return call


async def _google_channel() -> grpc.aio.Channel:
    # Imported here: the emulator needs no credentials.
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    scopes = FirestoreGrpcAsyncIOTransport.AUTH_SCOPES
    try:
        credentials, _ = await asyncio.to_thread(google.auth.default, scopes=scopes)
    except GoogleAuthError as error:
        raise StoreUnavailable("there are no Google credentials for Firestore") from error
    return FirestoreGrpcAsyncIOTransport.create_channel(credentials=credentials, options=_CHANNEL_OPTIONS)


def _code(error: GoogleAPICallError) -> grpc.StatusCode:
    return error.grpc_status_code or _Code.UNKNOWN


def _translated(error: GoogleAPICallError) -> StoreError:
    """The error in our words. The server's are left out: they name documents and values."""
    code = _code(error)
    if code is _Code.FAILED_PRECONDITION:
        return StoreError(
            "Firestore lacks an index for this query: deploy infra/firestore (docs/firestore.md)"
        )
    if code is _Code.INVALID_ARGUMENT:
        return StoreError("Firestore does not take this record or query; a document may have at most 1 MiB")
    return StoreUnavailable(f"Firestore cannot be used now: {code.name}")

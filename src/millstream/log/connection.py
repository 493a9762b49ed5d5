"""One client's connection: frames in, replies out in the order of the requests.

Requests are started as they arrive, so that one fsync can cover several of a producer's batches, and answered in
order: a fetch that waits for records holds back later replies, and nothing overtakes it. What can't be read as a
request closes this connection and no other. Sizes, pipelining and every wait are bounded by `Limits`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from kio.schema.errors import ErrorCode

from millstream.log import data_apis, group_apis, topic_apis
from millstream.log.apis import API_VERSIONS, APIS, FETCH, PRODUCE, codec, read_request
from millstream.log.node import Node
from millstream.log.topic_apis import NO_THROTTLE
from millstream.log.wire import Malformed, Request

__all__ = ["Connection"]

Reply: TypeAlias = list[bytes] | None
Handler: TypeAlias = Callable[[Node, Request], Awaitable[Reply]]

_REPLY_HEADER = struct.Struct(">ii")


async def api_versions(node: Node, request: Request) -> list[bytes]:
    """The ranges of `APIS`; a version that isn't spoken is answered in version 0 with error 35."""
    api = APIS[API_VERSIONS]
    known = api.oldest <= request.version <= api.newest
    c = codec(API_VERSIONS, request.version if known else 0)
    keys = tuple(
        c.build("ApiVersion", api_key=a.key, min_version=a.oldest, max_version=a.newest)
        for a in APIS.values()
    )
    error = ErrorCode.none if known else ErrorCode.unsupported_version
    return [c.reply(throttle_time=NO_THROTTLE, error_code=error, api_keys=keys)]


HANDLERS: dict[int, Handler] = {
    PRODUCE: data_apis.produce,
    FETCH: data_apis.fetch,
    2: topic_apis.list_offsets,
    3: topic_apis.metadata,
    8: group_apis.offset_commit,
    9: group_apis.offset_fetch,
    10: group_apis.find_coordinator,
    11: group_apis.join_group,
    12: group_apis.heartbeat,
    13: group_apis.leave_group,
    14: group_apis.sync_group,
    API_VERSIONS: api_versions,
    19: topic_apis.create_topics,
    20: topic_apis.delete_topics,
    22: data_apis.init_producer_id,
}


class Connection:
    """Serves one socket until its client leaves, errs or stays idle too long."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._node = node
        self._reader = reader
        self._writer = writer
        self._replies: asyncio.Queue[tuple[Request, asyncio.Future[Reply]]] = asyncio.Queue(
            node.limits.pipelined_requests
        )

    async def serve(self) -> None:
        """Return when the connection is over, with its socket closed and its waits cancelled."""
        tasks = [asyncio.create_task(self._answer()), asyncio.create_task(self._read())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.close()
            await self._drop_pending()
            _raise_bugs(outcomes)

    async def _read(self) -> None:
        while True:
            request = read_request(memoryview(await self._frame()))
            task = asyncio.ensure_future(HANDLERS[request.api_key](self._node, request))
            try:
                await self._replies.put((request, task))
            except asyncio.CancelledError:
                task.cancel()
                raise

    async def _frame(self) -> bytes:
        limits = self._node.limits
        async with asyncio.timeout(limits.idle_time.total_seconds()):
            head = await self._reader.readexactly(4)
        length = int.from_bytes(head, "big", signed=True)
        if not 0 < length <= limits.request_bytes:
            raise Malformed(f"a request of {length} bytes; at most {limits.request_bytes} are taken")
        async with asyncio.timeout(limits.frame_time.total_seconds()):
            return await self._reader.readexactly(length)

    async def _answer(self) -> None:
        while True:
            request, task = await self._replies.get()
            body = await task
            if body is None:
                continue
            flexible = request.version >= APIS[request.api_key].flexible and request.api_key != API_VERSIONS
            tags = b"\0" if flexible else b""
            length = 4 + len(tags) + sum(map(len, body))
            header = _REPLY_HEADER.pack(length, request.correlation_id) + tags
            self._writer.writelines([header, *body])
            async with asyncio.timeout(self._node.limits.frame_time.total_seconds()):
                await self._writer.drain()

    async def _drop_pending(self) -> None:
        pending = [self._replies.get_nowait()[1] for _ in range(self._replies.qsize())]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _raise_bugs(outcomes: Sequence[BaseException | None]) -> None:
    """Everything a client can cause ends its connection in silence; anything else is ours to see."""
    expected = (Malformed, ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, expected):
            raise outcome

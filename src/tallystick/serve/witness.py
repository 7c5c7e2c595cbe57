"""The witness as a small HTTP service: `POST /add-checkpoint`, and `GET /` for people.

The call itself is `tallystick.evidence.others.witness`; here it is bounded and given its statuses.
"""

from __future__ import annotations

import asyncio
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tallystick.core import timestamp
from tallystick.errors import TallystickError
from tallystick.evidence.others.witness import REQUEST_BYTES_MAX, Witness

_IDLE_SECONDS: Final = 15
_BODY_SECONDS: Final = 10


def witness_app(witness: Witness) -> Starlette:
    """The ASGI application of one witness."""

    async def add_checkpoint(request: Request) -> Response:
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > REQUEST_BYTES_MAX:
                        return PlainTextResponse(f"more than {REQUEST_BYTES_MAX} bytes\n", 413)
        except (ClientDisconnect, TimeoutError):
            return PlainTextResponse("the request did not come whole in time\n", 408)
        try:
            reply = await run_in_threadpool(witness.add_checkpoint, bytes(body))
        except TallystickError:
            return PlainTextResponse("the witness could not remember this: try again later\n", 503)
        return Response(reply.body, reply.status, {"Content-Type": reply.content_type})

    async def front(_: Request) -> Response:
        watched = await run_in_threadpool(witness.watched)
        lines = [f"{witness.signer.witness_key.render()}", ""]
        lines += [
            f"{timestamp.render(one.at)}  {one.checkpoint.origin}  {one.checkpoint.size} records" for one in watched
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    routes = [
        Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
        Route("/", front, methods=["GET"]),
    ]
    return Starlette(routes=routes)


def serve_witness(witness: Witness, *, host: str, port: int) -> None:
    """Answer until the process is told to stop; what is under way is answered first."""
    config = uvicorn.Config(
        witness_app(witness),
        host=host,
        port=port,
        log_level="warning",
        timeout_keep_alive=_IDLE_SECONDS,
        limit_concurrency=256,
        server_header=False,
    )
    uvicorn.Server(config).run()

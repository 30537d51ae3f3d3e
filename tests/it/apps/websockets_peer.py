"""Both ends of WebSockets in a library of its own, with permessage-deflate: serve PORT, or visit PORT CA."""

import asyncio
import http
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MEGABYTE = 1 << 20
last_farewell = ""
still_open = 0


async def answer(socket):
    global last_farewell, still_open
    if socket.request.path.endswith("/last"):
        # A client knows of its close a moment earlier.
        async with asyncio.timeout(30):
            while still_open:
                await asyncio.sleep(0.01)
        await socket.send(last_farewell)
        return
    is_echo = socket.request.path.endswith("/echo")
    still_open += is_echo
    try:
        await converse(socket)
        await socket.wait_closed()
        last_farewell = f"{socket.close_code} {socket.close_reason}"
    finally:
        still_open -= is_echo


async def converse(socket):
    match socket.request.path.removeprefix("/public/"):
        case "headers":
            headers = {name.lower(): value for name, value in socket.request.headers.raw_items()}
            await socket.send(json.dumps(headers))
        case "close":
            await socket.close(4001, "see you \u2026")
        case "pieces":
            await socket.send(["one ", "two ", "three"])
        case "ping":
            pong = await socket.ping("are you there")
            await pong
            await socket.send("ponged")
        case _:
            try:
                async for message in socket:
                    await socket.send(message)
            except ConnectionClosed:
                pass


def page(connection, request):
    """What is no handshake gets a page to open WebSockets from."""
    return None if "Upgrade" in request.headers else connection.respond(http.HTTPStatus.OK, "page")


async def run_server(port):
    async with serve(answer, "127.0.0.1", port, process_request=page, subprotocols=["chat"], max_size=None) as server:
        await server.serve_forever()


async def visit(port, authority):
    context = ssl.create_default_context(cafile=authority)

    def at(path, **more):
        where = {"host": "127.0.0.1", "port": port, "ssl": context, "origin": "https://app.test"}
        return connect(f"wss://app.test/public/{path}", **where, subprotocols=["chat"], max_size=None, **more)

    for compression in ["deflate", None]:
        async with at("echo", compression=compression) as socket:
            assert bool(socket.protocol.extensions) == bool(compression)
            assert socket.subprotocol == "chat"
            for message in ["", "\u00e9\U0001f30d", b"", b"\x00\xff", "x" * MEGABYTE, bytes(range(256)) * (MEGABYTE // 256)]:
                await socket.send(message)
                assert await socket.recv() == message, len(message)
            await socket.send(["in ", "three ", "pieces"])
            assert await socket.recv() == "in three pieces"
            await (await socket.ping("hello"))
            await socket.close(4002, "enough \u2026")
        async with at("last") as socket:
            assert await socket.recv() == "4002 enough \u2026"
    async with at("headers", additional_headers={"X-Forwarded-User": "admin"}) as socket:
        headers = json.loads(await socket.recv())
        assert "permessage-deflate" in headers["sec-websocket-extensions"], headers
        assert headers["via"] == "1.1 vestibule" and "x-forwarded-user" not in headers, headers
    async with at("pieces") as socket:
        pieces = [piece async for piece in socket.recv_streaming()]
        assert [piece for piece in pieces if piece] == ["one ", "two ", "three"], pieces
    async with at("ping") as socket:
        assert await socket.recv() == "ponged"
    async with at("close") as socket:
        try:
            await socket.recv()
            raise AssertionError("not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "see you \u2026"), closed


asyncio.run(run_server(int(sys.argv[2])) if sys.argv[1] == "serve" else visit(int(sys.argv[2]), sys.argv[3]))

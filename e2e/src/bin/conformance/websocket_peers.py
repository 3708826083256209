"""A WebSocket server, or a client that checks what a proxy does between the two.

`websocket_peers.py serve` prints its port and serves until its standard input ends.
`websocket_peers.py check PORT` talks through PORT, and prints `pass NAME` or `fail NAME: WHY` for each check.
"""

import sys
import threading
import traceback

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.datastructures import Headers
from websockets.sync.client import connect
from websockets.sync.server import serve as websocket_server

WAIT_S = 30
LARGE = 1024 * 1024


def handler(socket):
    if socket.request.path == "/bye":
        socket.close(4321, "enough")
        return
    for message in socket:
        socket.send(message)


def refuse(connection, request):
    if request.path == "/refused":
        return Response(418, "No", Headers({"x-why": "tea", "content-length": "3"}), b"no\n")
    return None


def serve():
    server = websocket_server(
        handler,
        "127.0.0.1",
        0,
        process_request=refuse,
        select_subprotocol=lambda connection, offered: "chat" if "chat" in offered else None,
        max_size=4 * LARGE,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.socket.getsockname()[1], flush=True)
    sys.stdin.read()
    server.shutdown()


def equal(seen, wanted):
    assert seen == wanted, f"{seen!r} instead of {wanted!r}"


class Checks:
    def __init__(self, port):
        self.open = lambda path="/echo", **options: connect(
            f"ws://127.0.0.1:{port}{path}",
            open_timeout=WAIT_S,
            close_timeout=WAIT_S,
            max_size=4 * LARGE,
            proxy=None,
            **options,
        )

    def text_and_bytes(self):
        with self.open() as socket:
            for message in ["hello", b"\x00\xff", ""]:
                socket.send(message)
                equal(socket.recv(WAIT_S), message)

    def a_thousand_messages(self):
        with self.open() as socket:
            for number in range(1000):
                socket.send(str(number))
            equal([socket.recv(WAIT_S) for _ in range(1000)], [str(n) for n in range(1000)])

    def large_message_both_ways(self):
        large = bytes(range(256)) * (LARGE // 256)
        with self.open(compression=None) as socket:
            socket.send(large)
            assert socket.recv(WAIT_S) == large, "other bytes came back"

    def ping_is_answered(self):
        with self.open() as socket:
            assert socket.ping().wait(WAIT_S), "no pong"

    def subprotocol(self):
        with self.open(subprotocols=["other", "chat"]) as socket:
            equal(socket.subprotocol, "chat")

    def close_by_the_server(self):
        with self.open("/bye") as socket:
            try:
                socket.recv(WAIT_S)
                raise AssertionError("no close")
            except ConnectionClosed as closed:
                equal((closed.rcvd.code, closed.rcvd.reason), (4321, "enough"))

    def close_by_the_client(self):
        socket = self.open()
        socket.close(4000, "done")
        equal((socket.close_code, socket.close_reason), (4000, "done"))

    def refusal_is_passed_on(self):
        try:
            self.open("/refused").close()
            raise AssertionError("not refused")
        except InvalidStatus as error:
            equal((error.response.status_code, error.response.headers.get("x-why")), (418, "tea"))

    def twenty_at_once(self):
        sockets = [self.open() for _ in range(20)]
        for number, socket in enumerate(sockets):
            socket.send(str(number))
        equal([socket.recv(WAIT_S) for socket in sockets], [str(n) for n in range(20)])
        for socket in sockets:
            socket.close()


def check(port):
    checks = Checks(port)
    for name, run in Checks.__dict__.items():
        if name.startswith("_"):
            continue
        try:
            run(checks)
            print(f"pass {name}", flush=True)
        except Exception as error:
            traceback.print_exc()
            print(f"fail {name}: {' '.join(str(error).split())}", flush=True)


if sys.argv[1] == "serve":
    serve()
else:
    check(int(sys.argv[2]))

"""A gRPC server, or a client that checks what a proxy does between the two.

`grpc_peers.py serve` prints its port and serves until its standard input ends.
`grpc_peers.py check PORT` calls through PORT, and prints `pass NAME` or `fail NAME: WHY` for each check.
"""

import queue
import sys
import threading
import traceback
from concurrent import futures

import grpc

SERVICE = "/conformance.Test/"
WAIT_S = 30
# What the server says of a method that it does not have.
UNKNOWN = "Method not found!"
LARGE = 4 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", 4 * LARGE),
    ("grpc.max_send_message_length", 4 * LARGE),
]
# What the server saw, for the calls that the client cannot see the end of.
cancelled = threading.Event()


def identity(request, context):
    return request


def items(request, context):
    for number in range(int(request)):
        yield b"item %d" % number


def join(requests, context):
    return b",".join(requests)


def ping(requests, context):
    for request in requests:
        yield b"re: " + request


def metadata(request, context):
    received = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", received.get("x-asked", "nothing")),))
    context.set_trailing_metadata((("x-trailing", "late"), ("x-some-bin", b"\x00\xff")))
    return b"done"


def fail_late(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "late: \u00e4 100%")


def fail_early(request, context):
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")


def wait(request, context):
    cancelled.clear()
    ended = threading.Event()
    context.add_callback(lambda: (cancelled.set(), ended.set()))
    context.send_initial_metadata((("x-waiting", "yes"),))
    ended.wait(WAIT_S)
    yield b"never read"


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(WAIT_S) else b"no"


def remaining(request, context):
    return b"%d" % int((context.time_remaining() or 0) * 1000)


def method(name):
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return {
        "Echo": unary(identity),
        "Items": stream(items),
        "Join": grpc.stream_unary_rpc_method_handler(join),
        "Ping": grpc.stream_stream_rpc_method_handler(ping),
        "Metadata": unary(metadata),
        "FailLate": stream(fail_late),
        "FailEarly": unary(fail_early),
        "Wait": stream(wait),
        "WasCancelled": unary(was_cancelled),
        "Remaining": unary(remaining),
    }.get(name)


class Handler(grpc.GenericRpcHandler):
    def service(self, call_details):
        return method(call_details.method.removeprefix(SERVICE))


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=OPTIONS)
    server.add_generic_rpc_handlers([Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


def equal(seen, wanted):
    assert seen == wanted, f"{seen!r} instead of {wanted!r}"


def error_of(call):
    try:
        result = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"no error but {result!r}")


class Checks:
    def __init__(self, channel):
        self.unary = lambda name: channel.unary_unary(SERVICE + name)
        self.stream = lambda name: channel.unary_stream(SERVICE + name)
        self.upload = channel.stream_unary(SERVICE + "Join")
        self.both = channel.stream_stream(SERVICE + "Ping")

    def unary_call(self):
        equal(self.unary("Echo")(b"hello", timeout=WAIT_S), b"hello")

    def empty_message(self):
        equal(self.unary("Echo")(b"", timeout=WAIT_S), b"")

    def large_message_both_ways(self):
        large = bytes(range(256)) * (LARGE // 256)
        assert self.unary("Echo")(large, timeout=WAIT_S) == large, "other bytes came back"

    def server_stream(self):
        got = list(self.stream("Items")(b"1000", timeout=WAIT_S))
        equal(got, [b"item %d" % number for number in range(1000)])

    def client_stream(self):
        parts = [b"%d" % number for number in range(1000)]
        equal(self.upload(iter(parts), timeout=WAIT_S), b",".join(parts))

    def ping_pong(self):
        # The next ping is sent only when the last was answered: nothing may wait for more.
        pings = queue.SimpleQueue()
        call = self.both(iter(pings.get, None), timeout=WAIT_S)
        for number in range(100):
            pings.put(b"%d" % number)
            equal(next(call), b"re: %d" % number)
        pings.put(None)
        equal(list(call), [])
        equal(call.code(), grpc.StatusCode.OK)

    def metadata_both_ways(self):
        result, call = self.unary("Metadata").with_call(
            b"", timeout=WAIT_S, metadata=(("x-asked", "this"),)
        )
        equal(result, b"done")
        equal(dict(call.initial_metadata()).get("x-initial"), "this")
        trailing = dict(call.trailing_metadata())
        equal((trailing.get("x-trailing"), trailing.get("x-some-bin")), ("late", b"\x00\xff"))

    def error_in_trailers(self):
        call = self.stream("FailLate")(b"", timeout=WAIT_S)
        equal(next(call), b"one")
        error = error_of(lambda: next(call))
        equal((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, "late: \u00e4 100%"))

    def error_without_a_message(self):
        error = error_of(lambda: self.unary("FailEarly")(b"", timeout=WAIT_S))
        equal((error.code(), error.details()), (grpc.StatusCode.PERMISSION_DENIED, "not you"))

    def unknown_method(self):
        error = error_of(lambda: self.unary("NoSuchMethod")(b"", timeout=WAIT_S))
        equal((error.code(), error.details()), (grpc.StatusCode.UNIMPLEMENTED, UNKNOWN))

    def no_route_is_a_grpc_status(self):
        # Nobody but the proxy answers this.
        error = error_of(lambda: self.unary("NoRoute")(b"", timeout=WAIT_S))
        equal(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        assert error.details() != UNKNOWN, "the server answered"

    def dead_upstream_is_unavailable(self):
        error = error_of(lambda: self.unary("Dead")(b"", timeout=WAIT_S))
        equal(error.code(), grpc.StatusCode.UNAVAILABLE)

    def deadline_is_told_to_the_server(self):
        left = int(self.unary("Remaining")(b"", timeout=WAIT_S))
        assert 0 < left <= (WAIT_S + 1) * 1000, f"{left} ms"

    def deadline_exceeded(self):
        error = error_of(lambda: list(self.stream("Wait")(b"", timeout=0.3)))
        equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        equal(self.unary("WasCancelled")(b"", timeout=WAIT_S), b"yes")

    def cancellation_reaches_the_server(self):
        call = self.stream("Wait")(b"", timeout=WAIT_S)
        equal(dict(call.initial_metadata()).get("x-waiting"), "yes")
        call.cancel()
        equal(call.code(), grpc.StatusCode.CANCELLED)
        equal(self.unary("WasCancelled")(b"", timeout=WAIT_S), b"yes")

    def fifty_calls_at_once(self):
        parts = [b"%d " % number * 1000 for number in range(50)]
        calls = [self.unary("Echo").future(part, timeout=WAIT_S) for part in parts]
        assert [call.result() for call in calls] == parts, "answers were mixed up"


def check(port):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        checks = Checks(channel)
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
    check(sys.argv[2])

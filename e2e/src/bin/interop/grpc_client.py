"""Two gRPC backends and one client that finds them through xds:///greeter.

Prints the backends' addresses; for each line on standard input calls until that backend answers.
"""

import sys
import time
from concurrent import futures

import grpc

METHOD = "/interop.Greeter/Name"
DEADLINE_S = 30


def backend(name):
    def handler(call_details):
        if call_details.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
        return None

    class Handler(grpc.GenericRpcHandler):
        def service(self, call_details):
            return handler(call_details)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers([Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    return server


servers = [backend("first"), backend("second")]
channel = grpc.insecure_channel("xds:///greeter")
call = channel.unary_unary(METHOD)
for line in sys.stdin:
    wanted = line.strip()
    until = time.monotonic() + DEADLINE_S
    answer = "nobody"
    while answer != wanted and time.monotonic() < until:
        try:
            answer = call(b"", timeout=DEADLINE_S, wait_for_ready=True).decode()
        except grpc.RpcError as error:
            answer = f"{error.code()}: {error.details()}"
    print(f"answered by {answer}", flush=True)

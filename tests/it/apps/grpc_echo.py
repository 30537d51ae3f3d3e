"""A gRPC application and its client, by the library that everybody uses, with plain bytes as messages.

serve PORT             the application
call HOST:PORT CA      the client: one line for each kind of call, with what came of it
"""

import concurrent.futures
import sys
import threading

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-end", "trailer"), ("x-forwarded-user", "admin")))
    return request + b" for " + metadata.get("x-forwarded-user", "nobody").encode()


def down(request, context):
    for index in range(int(request)):
        yield b"%d" % index


def up(requests, context):
    return b",".join(requests)


def both(requests, context):
    for request in requests:
        yield b"echo " + request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this")


def fail_late(request, context):
    yield b"something"
    context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")


gone = threading.Event()


def slow(request, context):
    gone.clear()
    # It may be over already.
    if not context.add_callback(gone.set):
        gone.set()
    while context.is_active():
        gone.wait(0.01)
    return b"late"


def was_cancelled(request, context):
    return b"yes" if gone.wait(5) else b"no"


def serve(port):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    if not server.add_insecure_port(f"127.0.0.1:{port}"):
        sys.exit(1)
    server.start()
    server.wait_for_termination()


def call(address, ca):
    credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
    options = [("grpc.ssl_target_name_override", "app.test"), ("grpc.default_authority", "app.test")]
    with grpc.secure_channel(address, credentials, options) as channel:
        answer, done = channel.unary_unary("/test.Echo/Unary").with_call(
            b"hello", metadata=(("x-forwarded-user", "admin"),)
        )
        names = [name for name, _ in done.trailing_metadata()]
        print("unary", answer, done.code(), "x-end" in names, "x-forwarded-user" in names)
        print("down", list(channel.unary_stream("/test.Echo/Down")(b"1000"))[-1])
        print("up", channel.stream_unary("/test.Echo/Up")(iter([b"a", b"b", b"c"])))
        converse(channel)
        status("fail", lambda: channel.unary_unary("/test.Echo/Fail")(b""))
        status("fail-late", lambda: list(channel.unary_stream("/test.Echo/FailLate")(b"")))
        status("unknown", lambda: channel.unary_unary("/test.Echo/Unknown")(b""))
        status("deadline", lambda: channel.unary_unary("/test.Echo/Slow")(b"", timeout=3))
        print("cancelled", channel.unary_unary("/test.Echo/WasCancelled")(b""))
        print("large", len(channel.unary_unary("/test.Echo/Unary")(b"x" * 3_000_000)))


def converse(channel):
    """Sends the next message only when the answer to the one before has come."""
    answered = threading.Semaphore(1)

    def requests():
        for word in (b"one", b"two", b"three"):
            answered.acquire()
            yield word

    got = []
    for answer in channel.stream_stream("/test.Echo/Both")(requests(), timeout=10):
        got.append(answer)
        answered.release()
    print("both", got)


def status(what, calls):
    try:
        calls()
        print(what, "no error")
    except grpc.RpcError as error:
        print(what, error.code(), error.details())


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    call(sys.argv[2], sys.argv[3])

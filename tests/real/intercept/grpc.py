# A gRPC server and client without any generated code. Usage: grpc.py server NAME PORT
#                                                             grpc.py client HOST:PORT COUNT [NAME: VALUE]
# The server prints its port. The client prints who answered each kind of call as JSON, then who answered
# each of COUNT calls on one connection; it fails where an answer is not as it should be.
import concurrent.futures, json, sys, threading, time

import grpc

# Calls in a second.
RATE = 200


def one(request, context):
    return NAME + b" " + request


def from_one(request, context):
    for n in range(int(request)):
        yield NAME + b" %d" % n


def into_one(requests, context):
    return NAME + b" %d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield NAME + b" " + request


def fails(request, context):
    context.set_trailing_metadata((("who", NAME.decode()),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")


def slow(request, context):
    time.sleep(3)
    return NAME


def server(port):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
    handlers = {"One": grpc.unary_unary_rpc_method_handler(one), "FromOne": grpc.unary_stream_rpc_method_handler(from_one),
                "IntoOne": grpc.stream_unary_rpc_method_handler(into_one), "Both": grpc.stream_stream_rpc_method_handler(both),
                "Fails": grpc.unary_unary_rpc_method_handler(fails), "Slow": grpc.unary_unary_rpc_method_handler(slow)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Kinds", handlers),))
    port = server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    print(port, 0, flush=True)
    server.wait_for_termination()


def client(address, count, metadata):
    channel = grpc.insecure_channel(address)
    by = {"metadata": metadata, "timeout": 10}
    who = {}

    def note(kind, answers):
        names = {answer.split(b" ")[0].decode() for answer in answers}
        assert len(names) == 1, (kind, names)
        who[kind] = names.pop()

    data = b"x" * (1 << 20)
    answer = channel.unary_unary("/lab.Kinds/One")(data, **by)
    assert answer.endswith(b" " + data)
    note("one", [answer])
    answers = list(channel.unary_stream("/lab.Kinds/FromOne")(b"50", **by))
    assert [answer.split(b" ")[1] for answer in answers] == [b"%d" % n for n in range(50)]
    note("from one", answers)
    answer = channel.stream_unary("/lab.Kinds/IntoOne")((b"y" * 1000 for _ in range(50)), **by)
    assert answer.endswith(b" 50000")
    note("into one", [answer])

    # Each message is sent only once the one before it was answered.
    answered = threading.Semaphore(1)

    def turns():
        for n in range(20):
            assert answered.acquire(timeout=5)
            yield b"%d" % n

    answers = []
    for answer in channel.stream_stream("/lab.Kinds/Both")(turns(), **by):
        answers.append(answer)
        answered.release()
    assert [answer.split(b" ")[1] for answer in answers] == [b"%d" % n for n in range(20)]
    note("both", answers)

    try:
        channel.unary_unary("/lab.Kinds/Fails")(b"", **by)
        raise AssertionError("it did not fail")
    except grpc.RpcError as error:
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today"), error
        who["fails"] = dict(error.trailing_metadata())["who"]
    try:
        channel.unary_unary("/lab.Kinds/Slow")(b"", metadata=metadata, timeout=0.5)
        raise AssertionError("it met no deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    endless = channel.stream_stream("/lab.Kinds/Both")(iter(lambda: time.sleep(0.05) or b"more", None), **by)
    note("cancelled", [next(endless)])
    endless.cancel()

    call = channel.unary_unary("/lab.Kinds/One")
    many, begun = [], time.time()
    for n in range(count):
        time.sleep(max(0, begun + n / RATE - time.time()))
        many.append(call(b"", **by).split(b" ")[0].decode())
    print(json.dumps([who, many]))


if sys.argv[1] == "server":
    NAME = sys.argv[2].encode()
    server(int(sys.argv[3]))
else:
    client(sys.argv[2], int(sys.argv[3]), [tuple(one.split(": ")) for one in sys.argv[4:]])

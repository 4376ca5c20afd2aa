# HTTP/2 frames by hand, sent to an intercepted Service by prior knowledge. Prints a line of JSON for each
# trick: [name, what may come of it, what came of it], then what became of floods: [name, sent, cut off].
# Usage: frames.py HOST PORT
#
# What may come of a trick: `two` (the app behind the header x-user: two answered) or `refused` (another
# status, a reset or the end of the connection).
import json, socket, struct, sys

HOST, PORT = sys.argv[1], int(sys.argv[2])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
SILENCE = 3
# Streams that are opened and reset in all, on some connections, and how many of anything else.
RESETS, CONNECTIONS, OTHERS = 20_000, 10, 10_000


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(data):
    size, length = len(data), bytearray()
    if size < 127:
        return bytes([size]) + data
    size -= 127
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    return b"\x7f" + bytes(length) + bytes([size]) + data


def block(fields):
    return b"".join(b"\0" + text(name.encode("latin-1")) + text(value.encode("latin-1")) for name, value in fields)


def headers(fields, stream=1, end=True):
    return frame(HEADERS, END_HEADERS | end * END_STREAM, stream, block(fields))


def head(path, *more, method="GET"):
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x"), ("x-user", "two"), *more]


def bad(*more, without=(), **pseudo):
    fields = [(name, pseudo.get(name[1:], value)) for name, value in head("/bad") if name not in without]
    return headers(fields + list(more))


tricks = [
    ("as it is", "two", headers(head("/ok"))),
    ("te: trailers", "two", headers(head("/ok", ("te", "trailers")))),
    ("a body", "two", headers(head("/ok", ("content-length", "3"), method="POST"), end=False) + frame(DATA, 1, 1, b"abc")),
    ("a second :path", "refused", bad((":path", "/ok"))),
    ("a second :method", "refused", bad((":method", "POST"))),
    ("a second :authority", "refused", bad((":authority", "y"))),
    ("a pseudo-header after others", "refused", bad(("x-a", "1"), (":late", "1"))),
    ("a pseudo-header of answers", "refused", headers([(":status", "200"), *head("/bad")])),
    ("a pseudo-header of nobody's", "refused", headers([(":user", "two"), *head("/bad")])),
    ("no :path", "refused", bad(without=[":path"])),
    ("an empty :path", "refused", bad(path="")),
    ("a :path without a slash", "refused", bad(path="bad")),
    ("a :path with a host", "refused", bad(path="http://y/bad")),
    ("a :path with a space", "refused", bad(path="/bad HTTP/1.1")),
    ("a :path with a line", "refused", bad(path="/bad HTTP/1.1\r\nx-a: 1")),
    ("no :method", "refused", bad(without=[":method"])),
    ("a :method with a space", "refused", bad(method="GET /ok HTTP/1.1\r\nx")),
    ("no :scheme", "refused", bad(without=[":scheme"])),
    ("CONNECT", "refused", headers([(":method", "CONNECT"), (":authority", "x:1"), ("x-user", "two")])),
    ("a CONNECT of today", "refused", headers([(":protocol", "websocket"), *head("/bad", method="CONNECT")])),
    ("another host", "refused", bad(("host", "y"))),
    ("two hosts", "refused", bad(("host", "x"), ("host", "x"))),
    ("an authority with a space", "refused", bad(authority="x y")),
    ("connection", "refused", bad(("connection", "close"))),
    ("transfer-encoding", "refused", bad(("transfer-encoding", "chunked"))),
    ("keep-alive", "refused", bad(("keep-alive", "1"))),
    ("proxy-connection", "refused", bad(("proxy-connection", "close"))),
    ("upgrade", "refused", bad(("upgrade", "websocket"))),
    ("te: gzip", "refused", bad(("te", "gzip"))),
    ("a capital", "refused", bad(("X-Upper", "1"))),
    ("a line in a value", "refused", bad(("x-a", "1\r\nx-b: 2"))),
    ("NUL in a value", "refused", bad(("x-a", "1\0"))),
    ("a line in a name", "refused", bad(("x-a: 1\r\nx-b", "2"))),
    ("an empty name", "refused", bad(("", "1"))),
    ("a colon in a name", "refused", bad(("x:a", "1"))),
    ("x-user twice", "refused", bad(("x-user", "two"))),
    ("x-user and another", "refused", bad(("x-user", "ann"))),
    ("x-user in trailers", "refused", headers([f for f in head("/bad", method="POST") if f[0] != "x-user"], end=False)
     + frame(DATA, 0, 1, b"abc") + headers([("x-user", "two")])),
    ("a length without a body", "refused", bad(("content-length", "5"))),
    ("a body shorter than it says", "refused", headers(head("/late", ("content-length", "9"), method="POST"), end=False) + frame(DATA, 1, 1, b"abc")),
    ("a body longer than it says", "refused/two", headers(head("/late", ("content-length", "1"), method="POST"), end=False) + frame(DATA, 1, 1, b"abc")),
    ("a stream of the other side's", "refused", headers(head("/bad"), stream=2)),
    ("stream 0", "refused", headers(head("/bad"), stream=0)),
    ("a table that is not there", "refused", frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\x0f")),
    ("a continuation of nothing", "refused", frame(CONTINUATION, 4, 1, block(head("/bad")))),
    ("data of nothing", "refused", frame(DATA, 1, 1, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    ("a push", "refused", frame(5, 4, 1, b"\0\0\0\2" + block(head("/bad")))),
    ("HTTP/1 behind the preface", "refused", b"GET /bad HTTP/1.1\r\nHost: x\r\nx-user: two\r\n\r\n"),
]
# As many bytes in one head as in the trick of HTTP/1, in frames of the usual size.
big = block(head("/bad", *[(f"x-{n}", "a" * 10_000) for n in range(10)]))
parts = [big[at:at + 16_384] for at in range(0, len(big), 16_384)]
tricks += [
    ("100 KB of headers", "refused", frame(HEADERS, 1, 1, parts[0])
     + b"".join(frame(CONTINUATION, 4 * (part is parts[-1]), 1, part) for part in parts[1:])),
    ("10,000 headers", "refused", frame(HEADERS, 1, 1, block(head("/bad"))) + b"".join(
        frame(CONTINUATION, 4 * (n == 9), 1, block([(f"x-{n}-{m}", "1") for m in range(1000)])) for n in range(10))),
]


def answer(data):
    """Who answered on the first stream, if anybody did."""
    with socket.create_connection((HOST, PORT), 10) as stream:
        stream.settimeout(SILENCE)
        status, body = None, b""
        try:
            stream.sendall(PREFACE + frame(SETTINGS, 0, 0) + data)
            frames = stream.makefile("rb")
            while len(start := frames.read(9)) == 9:
                size, kind, flags = int.from_bytes(start[:3], "big"), start[3], start[4]
                payload, number = frames.read(size), int.from_bytes(start[5:], "big")
                if kind == SETTINGS and not flags:
                    stream.sendall(frame(SETTINGS, 1, 0))
                if kind == HEADERS and number == 1:
                    status = 200 if payload[:1] == b"\x88" else 0
                if kind == DATA:
                    body += payload
                if kind in (GOAWAY, RST) or number == 1 and kind in (DATA, HEADERS) and flags & END_STREAM:
                    break
        except TimeoutError:
            return "silent"
        except OSError:
            pass
    return body.decode() if status == 200 else "refused"


def flood(name, batches, reads=False):
    """Sends all of it, or until it is cut off; gives how many batches went out."""
    with socket.create_connection((HOST, PORT), 10) as stream:
        stream.settimeout(5)
        sent, cut = 0, False
        try:
            stream.sendall(PREFACE + frame(SETTINGS, 0, 0))
            for batch in batches:
                stream.sendall(batch)
                sent += 1
            stream.settimeout(1)
            while reads and stream.recv(65536):
                pass
            cut = reads
        except TimeoutError:
            pass
        except OSError:
            cut = True
    return name, sent, cut


for name, allowed, data in tricks:
    print(json.dumps([name, allowed, answer(data)]), flush=True)

each = RESETS // CONNECTIONS
for n in range(CONNECTIONS):
    fields = head("/reset") if n % 2 else [f for f in head("/reset") if f[0] != "x-user"]
    resets = (headers(fields, stream=2 * m + 1) + frame(RST, 0, 2 * m + 1, b"\0\0\0\x08") for m in range(each))
    print(json.dumps(flood("requests reset at once", resets, reads=True)), flush=True)
print(json.dumps(flood("pings, answers unread", (frame(PING, 0, 0, b"12345678") for _ in range(OTHERS)))), flush=True)
print(json.dumps(flood("settings, answers unread", (frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") for _ in range(OTHERS)))), flush=True)
opened = headers(head("/flood", method="POST"), end=False)
print(json.dumps(flood("empty data", [opened, *[frame(DATA, 0, 1)] * OTHERS], reads=True)), flush=True)
endless = [frame(HEADERS, 0, 1, block(head("/bad")))] + [frame(CONTINUATION, 0, 1, b"\0" * 16_384)] * 500
print(json.dumps(flood("headers without an end", endless, reads=True)), flush=True)
windows = [frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff")] * 3
print(json.dumps(flood("a window beyond all", windows, reads=True)), flush=True)
priorities = (frame(2, 0, 2 * n + 1, b"\0\0\0\0\x10") for n in range(OTHERS))
print(json.dumps(flood("priorities", priorities)), flush=True)

# Sends what is out to be misunderstood to an intercepted Service, each on a connection of its own, and
# prints a line of JSON for each: [name, what may come of it, what came of it].
# Usage: hostile.py HOST PORT
#
# What may come of a request, its answers in their order: `ann`, `bob` or `pods` (who answered), or
# `refused` (a status of 4xx or 5xx, or the end of the connection without any), which is the last one. Several
# possibilities stand side by side, as do several answers: "refused/pods", "pods refused".
import concurrent.futures, json, re, socket, sys

HOST, PORT = sys.argv[1], int(sys.argv[2])
# How long no answer may come until it counts as none.
SILENCE = 3
ANN, END = "x-user: ann\r\n", "\r\n"
HIDDEN = {
    "ann": "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
    "pods": "GET /hidden HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n",
}
cases = []


def case(name, allowed, *parts):
    data = "".join(parts)
    cases.append((name, allowed, data.encode("latin-1")))


def get(headers="", path="/", version="HTTP/1.1", method="GET", host="Host: x\r\n"):
    return f"{method} {path} {version}\r\n{host}{headers}\r\n"


# Where a body ends, of whom is allowed to get it, with something behind that is for the other side.
for side, own in [("ann", ANN), ("pods", "")]:
    other = "pods" if side == "ann" else "ann"

    def ends(name, allowed, lines, body):
        allowed = allowed.replace("SIDE", side).replace("OTHER", other)
        case(f"{side}: {name}", allowed, get(own + lines, method="POST"), body, HIDDEN[side])

    size = len(HIDDEN[side]) + 3
    for length in (f"3\r\nContent-Length: {size}", f"{size}\r\nContent-Length: 3", f"3, {size}", "+3", "-3", "0x3",
                   "3a", "3 3", "3;", "", "99999999999999999999999", "\v3", "3\x0c", "3\0", "٣".encode().decode("latin-1")):
        ends(f"length {length!r}", "refused", f"Content-Length: {length}\r\n", "abc")
    ends("length said twice", "refused/SIDE OTHER", "Content-Length: 3\r\nContent-Length: 3\r\n", "abc")
    ends("length with zeros", "refused/SIDE OTHER", "Content-Length: 0003\r\n", "abc")
    ends("length named by Connection", "SIDE OTHER", "Connection: content-length\r\nContent-Length: 3\r\n", "abc")
    ends("name with a space", "refused", "Content-Length : 3\r\n", "abc")
    ends("name with a space before", "refused", " Content-Length: 3\r\n", "abc")
    ends("no length", "SIDE refused", "", "abc\r\n\r\n")
    chunked = "3\r\nabc\r\n0\r\n\r\n"
    # As RFC 9112 (6.3) allows: it is chunked, goes on without the length, and is the connection's last.
    ends("CL.TE", "refused/SIDE", f"Content-Length: {len(chunked) + size}\r\nTransfer-Encoding: chunked\r\n", chunked)
    ends("TE.CL", "refused/SIDE", f"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", chunked)
    for coding in ("chunked\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: identity", "identity",
                   "identity\r\nTransfer-Encoding: chunked", "chunked, identity", "identity, chunked", "gzip, chunked",
                   "xchunked", "chunked;q=1", "\vchunked", "chunked\v", '"chunked"', "chunked,", "", "chunked chunked",
                   "chu\r\n nked", "\r\n chunked", "chunked\0", "cow"):
        ends(f"coding {coding!r}", "refused", f"Transfer-Encoding: {coding}\r\n", chunked)
    for name in ("Transfer-Encoding ", "Transfer-Encoding\t", " Transfer-Encoding", "\tTransfer-Encoding",
                 "X: y\r\n Transfer-Encoding", "X: y\rTransfer-Encoding", "Transfer\0-Encoding", "Transfer-Encoding\x0b"):
        ends(f"coding by {name!r}", "refused", f"{name}: chunked\r\n", chunked)
    ends("coding of another name", "SIDE refused", "Transfer_Encoding: chunked\r\n", chunked)
    ends("coding after a bare LF", "refused/SIDE OTHER", "X: y\nTransfer-Encoding: chunked\r\n", chunked)
    for coding in ("Chunked", "\tchunked", "chunked  "):
        ends(f"coding {coding!r}", "refused/SIDE OTHER", f"Transfer-Encoding: {coding}\r\n", chunked)
    ends("coding named by Connection", "SIDE OTHER", "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", chunked)
    for chunks in ("3;ext=1\r\nabc\r\n0\r\n\r\n", '3;ext="a;b"\r\nabc\r\n0;last\r\n\r\n', "003\r\nabc\r\n0\r\n\r\n", "3;\0\r\nabc\r\n0\r\n\r\n",
                   "3\r\nabc\r\n0\r\nx-user: ann\r\nContent-Length: 9\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n"):
        ends(f"chunks {chunks!r}", "refused/SIDE OTHER", "Transfer-Encoding: chunked\r\n", chunks)
    for chunks in ("3\nabc\n0\n\n", '3;e="\r\n";\r\nabc\r\n0\r\n\r\n', "+3\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n",
                   "-3\r\nabc\r\n0\r\n\r\n", "g\r\nabc\r\n0\r\n\r\n", "\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n",
                   "3\r\nab\r\n0\r\n\r\n", "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "3\rabc\r\n0\r\n\r\n",
                   "3;" + "e" * 100_000 + "\r\nabc\r\n0\r\n\r\n", "3;a\nb\r\nabc\r\n0\r\n\r\n"):
        # It may have heard of the request by then, and answered what it understood.
        ends(f"chunks {chunks[:40]!r}", "refused/SIDE refused", "Transfer-Encoding: chunked\r\n", chunks)
    ends("HTTP/1.0 and chunked", "refused", "Transfer-Encoding: chunked\r\n", chunked)
    cases[-1] = (*cases[-1][:2], cases[-1][2].replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    ends("100-continue", "SIDE OTHER", "Expect: 100-continue\r\nContent-Length: 3\r\n", "abc")
    ends("h2c", "SIDE/SIDE refused", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    ends("an upgrade that nobody makes", "SIDE OTHER", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "")
    ends("GET with a body", "SIDE OTHER", "Content-Length: 3\r\n", "abc")
    cases[-1] = (*cases[-1][:2], cases[-1][2].replace(b"POST", b"GET", 1))

# Heads.
for name, data in [
    ("NUL in a name", get("X\0Y: 1\r\n")), ("NUL in a value", get("X: a\0b\r\n")), ("NUL in the path", get(path="/\0")),
    ("bare CR in a value", get("X: a\rb\r\n")), ("bare CR as an end", get("X: a\r" + ANN)),
    ("folding", get("X: a\r\n b\r\n")), ("folding by a tab", get("X: a\r\n\tb\r\n")), ("folding first", get(" X: a\r\n")),
    ("a line without a colon", get("X\r\n")), ("an empty name", get(": a\r\n")), ("a space in a name", get("X Y: a\r\n")),
    ("100 KB in a header", get(f"X: {'a' * 100_000}\r\n")), ("10,000 headers", get("".join(f"X{n}: 1\r\n" for n in range(10_000)))),
    ("a name of 100 KB", get(f"{'X' * 100_000}: 1\r\n")),
    ("no host", get(host="")), ("two hosts", get(host="Host: x\r\nHost: y\r\n")), ("the same host twice", get(host="Host: x\r\nHost: x\r\n")),
    ("CONNECT", get(method="CONNECT", path="x:1")), ("CONNECT of a path", get(method="CONNECT")), ("no path", get(path="x")),
    ("an empty target", get(path="")), ("asterisk for GET", get(path="*")), ("an empty authority", get(path="http://")),
    ("a method with odd letters", get(method="GE{T")), ("a method in a string", get(method='"GET"')),
    ("spaces in the path", get(path="/a b")), ("a space before", " " + get()), ("a colon for a path", get(path=":80")),
]:
    case(name, "refused", data)
# What does not begin as HTTP does is none: all of the connection is the pods', who know what to make of it.
for name, data in [
    ("HTTP/1.2", get(ANN, version="HTTP/1.2")), ("HTTP/2.0", get(ANN, version="HTTP/2.0")), ("HTTP/0.9", "GET /bob\r\n\r\n"),
    ("small letters", get(ANN, version="http/1.1")), ("four words", get(ANN, version="HTTP/1.1 x")), ("garbage", "\0\1\2\3\r\n\r\n"),
    ("TLS", "\x16\x03\x01\x00\x05hello\r\n\r\n"), ("a path of 100 KB", get(ANN, path="/" + "a" * 100_000)),
]:
    case(name, "pods", data)
for name, data in [("two spaces", get(path=" /")), ("bare LF", get().replace("\r\n", "\n")), ("a host with a space", get(host="Host: a b\r\n")),
                   ("an address for a host", get(host="Host: [::1\r\n")), ("an empty host", get(host="Host:\r\n")),
                   ("a fragment", get(path="/#a")), ("letters beyond ASCII", get(path="/\xe4")), ("a quote", get(path='/"')),
                   ("a scheme that is none", get(path="x-y://other/")), ("CR before", "\r" + get()), ("a tab between", get().replace("GET ", "GET\t"))]:
    case(name, "refused/pods", data)
case("an empty line before", "pods", "\r\n", get())
case("HTTP/1.0", "pods", get(version="HTTP/1.0", host=""))
case("OPTIONS", "pods", get(path="*", method="OPTIONS"))
case("letters beyond ASCII in a value", "pods", get("X: \xe4\xff\r\n"))
case("another method", "pods", get(method="M-SEARCH"))

# Whose it is.
for name, whose, data in [
    ("as it is", "ann", ANN), ("in capitals", "ann", "X-USER: ann\r\n"), ("without a space", "ann", "x-user:ann\r\n"),
    ("with spaces", "ann", "x-user: \t ann \t \r\n"), ("in another case", "pods", "x-user: Ann\r\n"), ("longer", "pods", "x-user: ann2\r\n"),
    ("twice", "pods", ANN + ANN), ("and another", "pods", ANN + "x-user: bob\r\n"), ("another first", "pods", "x-user: bob\r\n" + ANN),
    ("in both cases", "pods", ANN + "X-User: bob\r\n"), ("and an empty one", "pods", ANN + "x-user:\r\n"), ("in a list", "pods", "x-user: ann, bob\r\n"),
    ("quoted", "pods", 'x-user: "ann"\r\n'), ("encoded", "pods", "x-user: %61nn\r\n"), ("with an underscore", "pods", "x_user: ann\r\n"),
    ("as a trailer's name", "pods", "Trailer: x-user\r\n"), ("of the hop", "refused/pods", "Connection: x-user\r\n" + ANN),
    ("of the hop, in capitals", "refused/pods", "Connection: close, X-USER\r\n" + ANN), ("with a space in its name", "refused", "x-user : ann\r\n"),
    ("folded", "refused", "x-user:\r\n ann\r\n"), ("after a fold", "refused", "X: 1\r\n x-user: ann\r\n"),
    ("with NUL", "refused", "x-user: ann\0\r\n"), ("with a form feed", "refused/pods", "x-user: ann\x0c\r\n"),
    ("with a no-break space", "pods", "x-user:\xa0ann\r\n"), ("in many lines", "pods", "x-user:\r\n" * 90 + ANN),
]:
    case(f"x-user {name}", whose, get(data))
for path, whose in [
    ("/bob", "bob"), ("/bob/", "bob"), ("/bob/x", "bob"), ("/bob?x", "bob"), ("/bob/../x", "bob"), ("/bobby", "pods"), ("/Bob", "pods"), ("//bob", "pods"),
    ("/./bob", "pods"), ("/x/../bob", "pods"), ("/%62ob", "pods"), ("/bob%2fx", "pods"), ("/bob;x", "pods"), ("/bob%00", "pods"), ("/x?/bob", "pods"),
    ("http://other/bob", "bob"), ("http://u:p@other:99/bob/x", "bob"), ("http://bob/", "pods"), ("http://other/?/bob", "pods"), ("http://other", "pods"),
    ("HTTP://other/bob", "bob"), ("https://other/bob", "bob/refused"), ("http:///bob", "refused"), ("http:/bob", "refused"), ("http://a b/bob", "refused"),
    ("http://[::1]/bob", "bob"), ("http://x/\\bob", "pods/refused"), ("\\bob", "refused"), ("/\\bob", "pods/refused"),
]:
    case(f"path {path!r}", whose, get(path=path))
case("both", "ann", get(ANN, path="/bob"))
case("many on one connection", " ".join(["ann", "pods", "bob"] * 10), (get(ANN) + get() + get(path="/bob")) * 10)
case("many and a wrong one", "pods ann refused", get() + get(ANN), get("X: a\0\r\n"), get(ANN))


def answers(data):
    """What came back, until nothing more does."""
    with socket.create_connection((HOST, PORT), 10) as stream:
        stream.settimeout(SILENCE)
        heard, ended = b"", False
        try:
            stream.sendall(data)
            while not ended:
                part = stream.recv(65536)
                ended, heard = not part, heard + part
                # All that is wanted is there, and a bit of time for what is not.
                stream.settimeout(SILENCE if not heard else 0.7)
        except TimeoutError:
            pass
        except OSError:
            ended = True
    found, at = [], 0
    while match := re.compile(rb"HTTP/1\.[01] (\d\d\d)[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n").match(heard, at):
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", match[0])
        at = match.end() + int(length[1] if length else 0)
        body, status = heard[match.end():at], int(match[1])
        if status == 100:
            continue
        name = re.fullmatch(rb"(?:laptop-of-)?([a-z]+)(?:-[a-z0-9-]+)?", body)
        who = name[1].decode() if status == 200 and name else "odd" if status < 400 else "refused"
        found.append("pods" if who == "raw" else who)
    if at < len(heard):
        found.append(f"odd {heard[at:at + 60]!r}")
    if not found:
        found.append("refused" if ended else "silent")
    return " ".join(found)


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for (name, allowed, _), came in zip(cases, pool.map(answers, [data for _, _, data in cases])):
        print(json.dumps([name, allowed, came]), flush=True)

# One caller in the cluster that does something special, and prints what it was told.
# Usage: caller.py websocket|uploads|greeting|crowd|lines|raw|posts HOST PORT [NAME: VALUE]
#
# websocket  prints who echoed its frames          uploads  13 at a time, prints who got each of them whole
# greeting   prints SECONDS until the first line, and that line; sends a line, and wants it back
# crowd      100 fresh connections at once, each second one with the header; prints a line for each in their
#            order: SECONDS, STATUS (0 without an answer) and the answer
# lines      GETs on one connection, of targets long and short; prints who answered each of them
# raw        sends its input as it is, and prints all that it hears until nothing more comes
# posts      500 POSTs, each on a connection of its own and about as many milliseconds after the one before as
#            the header x-gap says; prints STATUS: HOW OFTEN of each
import base64, collections, hashlib, http.client, os, random, socket, sys, threading, time

kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
headers = dict(one.split(": ") for one in sys.argv[4:])
UPLOADS, BYTES = 13, 20 << 20
CROWD = 100


def websocket():
    key = base64.b64encode(os.urandom(16)).decode()
    stream = socket.create_connection((host, port), 10)
    lines = ["GET /socket HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answers = stream.makefile("rb")
    status = answers.readline()
    assert status.split()[1] == b"101", status
    told = {}
    while line := answers.readline().strip():
        name, value = line.decode().split(": ", 1)
        told[name.lower()] = value
    want = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    assert told["sec-websocket-accept"] == want.decode(), told
    for size in (5, 200, 60000, 5):
        data, mask = os.urandom(size), os.urandom(4)
        length = bytes([128 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        stream.sendall(b"\x82" + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
        head = answers.read(2)
        length = head[1] if head[1] < 126 else int.from_bytes(answers.read(2), "big")
        assert answers.read(length) == data, size
    stream.sendall(b"\x88\x80" + b"\0" * 4)
    assert answers.read() == b"\x88\x00"
    print(told["x-name"])


def uploads():
    said = []

    def one():
        data = os.urandom(BYTES)
        connection = http.client.HTTPConnection(host, port, timeout=120)
        connection.request("POST", "/", body=data, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode().strip()
        whole = text.endswith(f" {BYTES} {hashlib.sha256(data).hexdigest()}")
        said.append(text.split()[0] if answer.status == 200 and whole else f"{answer.status} {text}")

    threads = [threading.Thread(target=one) for _ in range(UPLOADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(said))


def greeting():
    begun = time.time()
    stream = socket.create_connection((host, port), 10)
    lines = stream.makefile("rb")
    line = lines.readline().decode().strip()
    print(time.time() - begun, line)
    stream.sendall(b"and back\n")
    assert lines.readline() == b"and back\n"


def crowd():
    said = [None] * CROWD
    ready = threading.Barrier(CROWD)

    def one(n):
        ready.wait()
        begun = time.time()
        try:
            connection = http.client.HTTPConnection(host, port, timeout=20)
            connection.connect()
            connection.request("GET", "/", headers=headers if n % 2 else {})
            answer = connection.getresponse()
            status, text = answer.status, answer.read().decode().strip()
        except Exception as error:
            status, text = 0, repr(error)
        said[n] = f"{time.time() - begun:.3f} {status} {text}"
        # All of them stay open until the last one was answered.
        ready.wait()

    threads = [threading.Thread(target=one, args=(n,)) for n in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(said))


def lines():
    connection = http.client.HTTPConnection(host, port, timeout=20)
    for length in (17000, 1, 60000, 1, 16384, 1):
        connection.request("GET", "/" + "u" * length, headers=headers)
        answer = connection.getresponse()
        print(answer.read().decode().strip())


def raw():
    stream = socket.create_connection((host, port), 10)
    stream.sendall(sys.stdin.buffer.read())
    stream.settimeout(2)
    try:
        while data := stream.recv(65536):
            sys.stdout.buffer.write(data)
    except (TimeoutError, ConnectionResetError):
        pass


def posts():
    gap, statuses = int(headers["x-gap"]) / 1000, collections.Counter()
    for n in range(500):
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.request("POST", "/", body=b"x" * 100, headers=headers | {"x-id": str(n)})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        statuses[answer.status] += 1
        time.sleep(gap - 0.002 + random.random() * 0.003)
    print(", ".join(f"{status}: {times}" for status, times in statuses.items()))


{"websocket": websocket, "uploads": uploads, "greeting": greeting, "crowd": crowd, "lines": lines,
 "raw": raw, "posts": posts}[kind]()

# Callers that mean harm, of all kinds at a time, until SECONDS are over; then prints how many there were of each, and
# what became of them, as a line of JSON. Usage: mixed.py HOST PORT SECONDS
import asyncio, collections, json, resource, socket, sys, time

host, port, end = sys.argv[1], int(sys.argv[2]), time.time() + float(sys.argv[3])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
came = collections.Counter()
# Fewer sockets than the limit, which holds for all kinds together.
places = asyncio.Semaphore(min(most - 500, 14_000))


def head(path, *headers):
    lines = [f"GET {path} HTTP/1.1", "Host: web", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def one(kind, hold, work):
    loop = asyncio.get_running_loop()
    async with places:
        if time.time() > end:
            return
        sock = socket.socket()
        sock.setblocking(False)
        # It takes as little as it may without reading.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        try:
            async with asyncio.timeout(10):
                await loop.sock_connect(sock, (host, port))
            await work(loop, sock)
            await asyncio.sleep(min(hold, max(0, end - time.time())))
            came[kind] += 1
        except (OSError, TimeoutError) as error:
            came[f"{kind}: {type(error).__name__}"] += 1
        finally:
            sock.close()


async def stalled(loop, sock):
    await loop.sock_sendall(sock, head("/much"))


async def matched(loop, sock):
    await loop.sock_sendall(sock, head("/much", "x-user: ann"))


async def waits(loop, sock):
    await loop.sock_sendall(sock, head("/never", "x-user: ann"))


async def idle(loop, sock):
    await loop.sock_sendall(sock, head("/"))
    async with asyncio.timeout(10):
        await loop.sock_recv(sock, 1024)


async def silent(loop, sock):
    pass


async def slow_head(loop, sock):
    for byte in head("/")[:8]:
        await loop.sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(1)


async def slow_body(loop, sock):
    await loop.sock_sendall(sock, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(8):
        await loop.sock_sendall(sock, b"x" * 100)
        await asyncio.sleep(1)


async def large_head(loop, sock):
    await loop.sock_sendall(sock, head("/")[:-2] + b"x-large: " + b"x" * 60_000)


async def pattern(loop, sock):
    await loop.sock_sendall(sock, head("/", "x-pattern: " + "a" * 4000 + "!"))
    async with asyncio.timeout(10):
        await loop.sock_recv(sock, 1024)


async def flood(loop, sock):
    await loop.sock_sendall(sock, head("/") * 8)


# How many begin a second, and how long each stays.
KINDS = [
    ("stalled", 60, 30, stalled),
    ("stalled, matched", 20, 30, matched),
    ("waits for an answer, matched", 20, 30, waits),
    ("idle", 200, 40, idle),
    ("silent", 40, 20, silent),
    ("slow head", 20, 10, slow_head),
    ("slow body", 20, 10, slow_body),
    ("large head", 20, 10, large_head),
    ("pattern", 20, 0, pattern),
    ("flood", 50, 0, flood),
]


async def kind(name, rate, hold, work):
    async with asyncio.TaskGroup() as group:
        while time.time() < end:
            group.create_task(one(name, hold, work))
            await asyncio.sleep(1 / rate)


async def main():
    async with asyncio.TaskGroup() as group:
        for each in KINDS:
            group.create_task(kind(*each))
    print(json.dumps(dict(came)))


asyncio.run(main())

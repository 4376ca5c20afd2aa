# An HTTP/1.1 server that holds little for its callers: NAME at /, 10 MB at /much, nothing at all at /never.
# Usage: plain.py NAME PORT; port 0 is any. Prints the port, and 0.
import asyncio, sys

name, port = sys.argv[1], int(sys.argv[2])
MUCH = bytes(10 << 20)
# What waits for a caller who does not read.
PIECE = 64 << 10


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            length = [int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:")]
            if length:
                await reader.readexactly(length[0])
            if path == b"/never":
                await reader.read()
                return
            body = MUCH if path == b"/much" else name.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), PIECE):
                writer.write(body[at : at + PIECE])
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError, ValueError):
        pass
    finally:
        writer.close()


async def main():
    host = "127.0.0.1" if port == 0 else "0.0.0.0"
    server = await asyncio.start_server(serve, host, port, limit=1 << 20, backlog=1024)
    print(server.sockets[0].getsockname()[1], 0, flush=True)
    await server.serve_forever()


asyncio.run(main())

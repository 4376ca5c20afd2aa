# A server that closes connections which are idle for a short time, without a word about it. Stands in a
# pod and on a laptop. Prints its port twice. Usage: idle.py NAME MILLISECONDS [PORT]
#
# GET /served   how many POSTs there were, and how many of them came twice, by their header x-id
# POST          NAME
import socket, sys, threading

NAME, IDLE, PORT = sys.argv[1], float(sys.argv[2]) / 1000, int((sys.argv + ["0"])[3])
served, lock = {}, threading.Lock()


def serve(connection):
    patience = 10
    while True:
        connection.settimeout(patience)
        data = b""
        try:
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return connection.close()
                data += more
                connection.settimeout(10)
            head, _, body = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            while len(body) < int(headers.get("content-length", 0)):
                body += connection.recv(65536)
            with lock:
                if first.startswith("POST"):
                    served[headers["x-id"]] = served.get(headers["x-id"], 0) + 1
                twice = sum(times > 1 for times in served.values())
                text = f"{len(served)} {twice}" if first.startswith("GET /served") else NAME
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        except OSError:
            return connection.close()
        patience = IDLE


listener = socket.create_server(("", PORT), backlog=64)
print(listener.getsockname()[1], listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

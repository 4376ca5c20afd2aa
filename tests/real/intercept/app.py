# What stands in a pod, and on a laptop: an HTTP server that says who it is, and a server of which one
# hears first. Prints both ports. Usage: app.py NAME [HTTP-PORT [GREETING-PORT]]
#
# GET /         NAME
# GET /request  the request as it arrived: line and headers
# POST, PUT     NAME, the body's length and its SHA-256
# an upgrade to a WebSocket: echoes what frames hold, with NAME in the header X-Name of the answer
import base64, hashlib, http.server, socket, socketserver, sys, threading

NAME, PORTS = sys.argv[1], [int(p) for p in sys.argv[2:]] + [0, 0]
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CHUNK = 256 << 10


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.websocket()
        if self.path == "/request":
            return self.answer(self.requestline + "\n" + str(self.headers))
        self.answer(NAME + "\n")

    def do_POST(self):
        count, digest = 0, hashlib.sha256()
        for data in self.body():
            count += len(data)
            digest.update(data)
        self.answer(f"{NAME} {count} {digest.hexdigest()}\n")

    do_PUT = do_POST

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (data := self.rfile.read(min(left, CHUNK))):
            left -= len(data)
            yield data

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + MAGIC).digest()).decode())
        self.send_header("X-Name", NAME)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        while head := self.rfile.read(2):
            size = head[1] & 127
            if size > 125:
                size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
            length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            self.wfile.write(head[:1] + length + data)
            self.wfile.flush()
            if head[0] & 15 == 8:
                return


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_):
        pass  # Callers and their kdev may go at any time.


class Greeting(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(NAME.encode() + b" greets\n")
        for line in self.rfile:
            self.wfile.write(line)


class Greeter(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


web, greeter = Server(("", PORTS[0]), Handler), Greeter(("", PORTS[1]), Greeting)
print(web.server_port, greeter.server_address[1], flush=True)
threading.Thread(target=greeter.serve_forever, daemon=True).start()
web.serve_forever()

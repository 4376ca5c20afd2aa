# An HTTP server that writes down what it is sent, byte by byte. Prints both ports.
# Usage: raw.py NAME [HTTP-PORT [RECORD-PORT]]
#
# HTTP port    answers each request, as far as it can make one out, with NAME
# record port  tells whoever connects all that came since the last time: a line of base64 per connection
import base64, socketserver, sys, threading

NAME, PORTS = sys.argv[1], [int(p) for p in sys.argv[2:]] + [0, 0]
ANSWER = f"HTTP/1.1 200 OK\r\nContent-Length: {len(NAME)}\r\n\r\n{NAME}".encode()
lock, records = threading.Lock(), []


class Broken(Exception):
    pass


class Web(socketserver.BaseRequestHandler):
    def handle(self):
        self.buffer, self.record = b"", bytearray()
        with lock:
            records.append(self.record)
        try:
            while self.one():
                self.request.sendall(ANSWER)
        except (Broken, ValueError, OSError):
            pass

    def more(self):
        data = self.request.recv(65536)
        with lock:
            if not any(record is self.record for record in records):
                # What there was of it was told.
                self.record = bytearray()
                records.append(self.record)
            self.record += data
        self.buffer += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                raise Broken
        part, self.buffer = self.buffer.split(mark, 1)
        return part

    def take(self, count):
        while len(self.buffer) < count:
            if not self.more():
                raise Broken
        self.buffer = self.buffer[count:]

    def one(self):
        lines = self.until(b"\r\n\r\n").split(b"\r\n")
        fields = [line.split(b":", 1) for line in lines[1:] if b":" in line]
        fields = {name.strip().lower(): value.strip() for name, value in fields}
        if lines[0].startswith(b"PRI * HTTP/2"):
            raise Broken  # It speaks no HTTP/2.
        if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                self.take(size + 2)
            while self.until(b"\r\n"):
                pass
        else:
            self.take(int(fields.get(b"content-length", 0)))
        return True


class Record(socketserver.BaseRequestHandler):
    def handle(self):
        with lock:
            told = [bytes(record) for record in records if record]
            records.clear()
        self.request.sendall(b"".join(base64.b64encode(one) + b"\n" for one in told))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 512


web, record = Server(("", PORTS[0]), Web), Server(("", PORTS[1]), Record)
print(web.server_address[1], record.server_address[1], flush=True)
threading.Thread(target=record.serve_forever, daemon=True).start()
web.serve_forever()

"""What a pod serves for the scenarios of what a relay reaches.

7000/udp  echo.
5300      DNS, by UDP and TCP: every name has the address 10.20.30.40.
8081/tcp  on the pod's own address alone, so that port-forward, which comes from loopback, does not
          reach it: says who its caller is, and ends.
"""
import socket, struct, threading


def answer(question):
    end = question.index(b"\0", 12) + 5
    head = question[:2] + b"\x84\x00" + struct.pack("!4H", 1, 1, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + bytes([10, 20, 30, 40])
    return head + question[12:end] + record


def datagrams(port, reply):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", port))
    while True:
        datagram, peer = server.recvfrom(65535)
        server.sendto(reply(datagram), peer)


def connections(address, port, serve):
    server = socket.create_server((address, port), backlog=64)
    while True:
        connection, peer = server.accept()
        with connection:
            try:
                serve(connection, peer)
            except (OSError, ValueError, IndexError):
                pass


def question(connection, peer):
    length = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))[0]
    said = answer(connection.recv(length, socket.MSG_WAITALL))
    connection.sendall(struct.pack("!H", len(said)) + said)


def whoever(connection, peer):
    connection.sendall(f"only pods, {peer[0]}".encode())


for serve in [
    lambda: datagrams(7000, lambda datagram: datagram),
    lambda: datagrams(5300, answer),
    lambda: connections("", 5300, question),
]:
    threading.Thread(target=serve, daemon=True).start()
connections(socket.gethostbyname(socket.gethostname()), 8081, whoever)

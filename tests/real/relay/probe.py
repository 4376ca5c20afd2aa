"""What a pod serves for the scenarios of what a relay reaches.

7000/udp  echo.
5300      DNS, by UDP and TCP: every name has the address 10.20.30.40, but of corp.example there is
          db.corp.example alone, with the pod's own.
8081/tcp  on the pod's own address alone, so that port-forward, which comes from loopback, does not
          reach it: says who its caller is, and ends.
"""
import socket, struct, threading


OWN = socket.gethostbyname(socket.gethostname())
CORP = b"\x04corp\x07example\0"


def answer(question):
    end = question.index(b"\0", 12) + 5
    name, kind = question[12 : end - 4], question[end - 4 : end]
    there = not name.endswith(CORP) or name == b"\x02db" + CORP
    # A records alone; NXDOMAIN is 3.
    addresses = 1 if there and kind == b"\0\1\0\1" else 0
    head = question[:2] + bytes([0x84, 0 if there else 3]) + struct.pack("!4H", 1, addresses, 0, 0)
    address = socket.inet_aton(OWN if name.endswith(CORP) else "10.20.30.40")
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + address
    return head + question[12:end] + record * addresses


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
connections(OWN, 8081, whoever)

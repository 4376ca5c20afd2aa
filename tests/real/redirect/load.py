# Calls http://HOST:PORT/ with fresh and with kept connections until its input ends, then prints what
# came of it as JSON. Usage: load.py HOST PORT
import collections, http.client, json, sys, threading, time

host, port = sys.argv[1], int(sys.argv[2])
FRESH, KEPT, PAUSE = 6, 4, 0.05
stop = threading.Event()
lock = threading.Lock()
counts, pods, errors, slow = collections.Counter(), collections.Counter(), [], []


def call(connection, kind, headers):
    begun = time.time()
    try:
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode().strip()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}")
    except Exception as error:
        with lock:
            errors.append(f"{kind} at {begun:.3f} after {time.time() - begun:.3f} s: {error!r}")
        return False
    with lock:
        counts[kind] += 1
        pods[body] += 1
        if time.time() - begun > 0.5:
            slow.append(f"{kind} at {begun:.3f} took {time.time() - begun:.3f} s")
    return True


def fresh():
    while not stop.wait(PAUSE):
        connection = http.client.HTTPConnection(host, port, timeout=5)
        call(connection, "fresh", {"Connection": "close"})
        connection.close()


def kept():
    connection = http.client.HTTPConnection(host, port, timeout=5)
    while not stop.wait(PAUSE):
        if not call(connection, "kept", {}):
            connection.close()
            connection = http.client.HTTPConnection(host, port, timeout=5)


threads = [threading.Thread(target=fresh) for _ in range(FRESH)]
threads += [threading.Thread(target=kept) for _ in range(KEPT)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"fresh": counts["fresh"], "kept": counts["kept"], "pods": pods,
                  "errors": errors, "slow": slow}))

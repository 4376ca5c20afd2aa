# Calls http://HOST:PORT/ in several manners until its input ends, then prints each call as a line of JSON:
# [manner, begun, seconds, status, answer]; the status is 0 where there is no answer, and the rest says why.
# Usage: callers.py HOST PORT [{"name", "headers", "threads", "pause", "kept", "looks", "patience"}, ...]
import http.client, json, select, sys, threading, time

host, port, manners = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
stop = threading.Event()
calls = []


def call(connection, manner, headers):
    begun = time.time()
    try:
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode().strip()
    except Exception as error:
        status, text = 0, repr(error)
    # Appending is atomic.
    calls.append([manner["name"], begun, time.time() - begun, status, text])
    return status == 200


def work(manner):
    kept, headers = manner["kept"], dict(manner["headers"])
    if not kept:
        headers["Connection"] = "close"
    connection = None
    while not stop.wait(manner["pause"]):
        if manner["looks"] and connection and connection.sock and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
            connection = None
        connection = connection or http.client.HTTPConnection(host, port, timeout=manner["patience"])
        if not call(connection, manner, headers) or not kept:
            connection.close()
            connection = None


threads = [threading.Thread(target=work, args=(m,)) for m in manners for _ in range(m["threads"])]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
for one in calls:
    print(json.dumps(one))

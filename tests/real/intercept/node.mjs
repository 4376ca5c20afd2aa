// A server and a client of Node, with nothing but what comes with it.
// Usage: node.mjs server NAME [HTTP-PORT [HTTP2-PORT]]      prints both ports
//        node.mjs client HOST [NAME: VALUE]                 of ports 80 and 81; prints who answered what as JSON
import assert from "node:assert";
import crypto from "node:crypto";
import http from "node:http";
import http2 from "node:http2";

const [role, name, ...rest] = process.argv.slice(2);
const EVENTS = 4, GAP = 200, BULK = 3 << 20;
const digest = (data) => crypto.createHash("sha256").update(data).digest("hex");

async function whole(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function answer(request, response) {
  const path = request.url;
  if (path === "/events") {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let n = 0; n < EVENTS; n++) {
      response.write(`data: ${name} ${n}\n\n`);
      await new Promise((done) => setTimeout(done, GAP));
    }
    return response.end();
  }
  if (path === "/early") {
    // The rest of the body is of no interest.
    response.writeHead(413, { "x-name": name });
    return response.end();
  }
  const body = await whole(request);
  response.writeHead(200, { "x-name": name, trailer: "x-digest" });
  response.write(`${name} ${body.length} `);
  response.addTrailers({ "x-digest": digest(body) });
  response.end();
}

function server(ports) {
  const one = http.createServer(answer);
  one.on("checkContinue", (request, response) => {
    if (request.headers["x-refuse"]) {
      response.writeHead(417, { "x-name": name });
      return response.end();
    }
    response.writeContinue();
    answer(request, response);
  });
  one.on("upgrade", (request, socket) => {
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Name: ${name}\r\n\r\n`);
    socket.pipe(socket);
    socket.on("error", () => {});
  });
  const two = http2.createServer(answer);
  const [first, second] = [ports[0] ?? 0, ports[1] ?? 0].map(Number);
  one.listen(first, "0.0.0.0", () => two.listen(second, "0.0.0.0", () => {
    console.log(`${one.address().port} ${two.address().port}`);
  }));
}

// A request of HTTP/1.1 with its whole answer.
function ask(options, body) {
  return new Promise((done, fail) => {
    const request = http.request(options, async (answer) => {
      const data = await whole(answer).catch(fail);
      done({ status: answer.statusCode, headers: answer.headers, trailers: answer.trailers, data });
    });
    request.on("error", fail);
    request.end(body);
  });
}

// The same of HTTP/2.
function ask2(session, headers, body) {
  return new Promise((done, fail) => {
    const stream = session.request(headers);
    let head, trailers = {};
    stream.on("response", (got) => { head = got; });
    stream.on("trailers", (got) => { trailers = got; });
    stream.on("error", fail);
    whole(stream).then((data) => done({ status: head[":status"], headers: head, trailers, data }), fail);
    stream.end(body);
  });
}

async function client(host, headers) {
  const who = {}, agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  // Trailers are for those who ask for them (RFC 9110, 6.5.1).
  const asks = { ...headers, te: "trailers" };
  const to = (more) => ({ host, port: 80, agent, headers: { ...asks, ...more.headers }, timeout: 10000, ...more.rest });
  const bulk = crypto.randomBytes(BULK);
  const sound = ({ status, headers, trailers, data }, sent) => {
    assert.equal(status, 200);
    assert.equal(trailers["x-digest"], digest(sent));
    assert.equal(data.toString(), `${headers["x-name"]} ${sent.length} `);
    return headers["x-name"];
  };
  const none = Buffer.alloc(0);

  const gets = Array.from({ length: 40 }, () => ask(to({})).then((answer) => sound(answer, none)));
  who.gets = [...new Set(await Promise.all(gets))];
  who.post = [sound(await ask(to({ rest: { method: "POST" } }), bulk), bulk)];
  who.continued = [sound(await ask(to({ headers: { expect: "100-continue" }, rest: { method: "POST" } }), bulk), bulk)];
  const refused = await ask(to({ headers: { expect: "100-continue", "x-refuse": "1" }, rest: { method: "POST" } }));
  assert.equal(refused.status, 417);
  who.refused = [refused.headers["x-name"]];

  const fetched = await fetch(`http://${host}/`, { method: "PUT", headers, duplex: "half", body: new ReadableStream({
    start(to) { for (let n = 0; n < 64; n++) to.enqueue(bulk.subarray(n << 14, (n + 1) << 14)); to.close(); },
  }) });
  assert.equal(await fetched.text(), `${fetched.headers.get("x-name")} ${1 << 20} `);
  who.fetched = [fetched.headers.get("x-name")];

  const early = await ask(to({ rest: { method: "POST", path: "/early" } }), "a little").catch(String);
  assert.equal(early.status, 413, early);
  who.early = [early.headers["x-name"]];

  // Each event is heard when it is sent, not when there are more.
  const events = await fetch(`http://${host}/events`, { headers });
  const heard = [];
  let text = "";
  for await (const piece of events.body) {
    heard.push(Date.now());
    text += Buffer.from(piece).toString();
  }
  const lines = text.trim().split("\n\n");
  assert.equal(lines.length, EVENTS);
  assert.equal(heard.length, EVENTS, "events that came together");
  for (let n = 1; n < EVENTS; n++) assert.ok(heard[n] - heard[n - 1] > GAP / 2, `${heard}`);
  who.events = [...new Set(lines.map((line) => line.split(" ")[1]))];

  who.upgraded = [await new Promise((done, fail) => {
    const request = http.request({ host, port: 80, headers: { ...headers, connection: "Upgrade", upgrade: "echo" } });
    request.on("error", fail);
    request.on("upgrade", (answer, socket) => {
      let back = Buffer.alloc(0);
      socket.on("data", (data) => {
        back = Buffer.concat([back, data]);
        if (back.length < BULK) return;
        assert.ok(back.equals(bulk));
        socket.destroy();
        done(answer.headers["x-name"]);
      });
      socket.write(bulk);
    });
    request.end();
  })];

  const session = http2.connect(`http://${host}:81`);
  const pseudo = { ":path": "/", ":method": "POST", ...asks };
  const posts = Array.from({ length: 20 }, (_, n) => {
    const data = bulk.subarray(n << 10, (n + 60) << 10);
    return ask2(session, pseudo, data).then((answer) => sound(answer, data));
  });
  who.streams = [...new Set(await Promise.all(posts))];
  session.close();
  agent.destroy();
  console.log(JSON.stringify(who));
}

if (role === "server") server(rest);
else await client(name, Object.fromEntries(rest.map((one) => one.split(": "))));

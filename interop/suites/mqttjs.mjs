// MQTT.js against a broker: its cases in v3.1.1 and v5, and its part of the matrix (see matrix.py).
//
// Owns: the cases of MQTT.js. Does not own: its installation (.test-tools/npm, see install). Start reading at CASES.
// Invariant: every wait has a deadline; a case uses only topics and client ids of its own.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const tools = fileURLToPath(new URL("../../.test-tools/npm/", import.meta.url));
const mqtt = createRequire(tools)("mqtt");
const HOST = process.env.INTEROP_HOST ?? "127.0.0.1";
const PORT = Number(process.env.INTEROP_PORT ?? 1883);
// The roots of a port with TLS.
const CAFILE = process.env.INTEROP_CAFILE;
const [PLAIN, SECURE] = process.env.INTEROP_WEBSOCKET ? ["ws", "wss"] : ["mqtt", "mqtts"];
// What a client shows there, where it is asked.
const [CERTIFICATE, KEY] = [process.env.INTEROP_CERTIFICATE, process.env.INTEROP_KEY];
const SHOWN = CERTIFICATE ? { cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) } : {};
const SECURITY = CAFILE ? { protocol: SECURE, ca: readFileSync(CAFILE), ...SHOWN } : { protocol: PLAIN };
const DEADLINE_MS = 10_000;

let numbers = 0;
const unique = (name) => `${name}-${process.pid}-${numbers++}`;

function expect(seen, expected) {
  const [left, right] = [JSON.stringify(seen), JSON.stringify(expected)];
  if (left !== right) throw new Error(`expected ${right?.slice(0, 400)}, saw ${left?.slice(0, 400)}`);
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A connected client whose messages can be waited for. */
class Peer {
  static async connect(version, options = {}) {
    const peer = new Peer();
    peer.messages = [];
    peer.closed = new Promise((resolve) => (peer.onClosed = resolve));
    const kept = options.clean === false && version === 5 ? { sessionExpiryInterval: 60 } : {};
    peer.client = mqtt.connect({
      host: HOST,
      port: PORT,
      ...SECURITY,
      path: "/mqtt",
      protocolVersion: version,
      clientId: unique("js"),
      reconnectPeriod: 0,
      ...options,
      ...(version === 5 ? { properties: { ...kept, ...options.properties } } : { properties: undefined }),
    });
    peer.client.on("message", (topic, payload, packet) => {
      peer.messages.push({ topic, payload, packet });
      peer.wake?.();
    });
    peer.client.on("close", () => peer.onClosed());
    peer.connack = await within(
      new Promise((resolve, reject) => {
        peer.client.once("connect", resolve);
        peer.client.once("error", reject);
      }),
      "CONNACK",
    );
    peer.client.on("error", (error) => (peer.error = error));
    return peer;
  }

  subscribe(filter, options) {
    return within(this.client.subscribeAsync(filter, options), "SUBACK");
  }

  publish(topic, payload, options) {
    return within(this.client.publishAsync(topic, payload, options), "PUBACK or PUBCOMP");
  }

  async take(count) {
    const enough = (async () => {
      while (this.messages.length < count) await new Promise((resolve) => (this.wake = resolve));
    })();
    await within(enough, `${count} messages, ${this.messages.length} came,`);
    return this.messages.splice(0, count);
  }

  async nothingMore() {
    await this.subscribe(unique("fence"), { qos: 0 });
    expect(this.messages.map((message) => message.topic), []);
  }

  /** Ends the connection without DISCONNECT. */
  async abandon() {
    this.client.stream.destroy();
    await within(this.closed, "end");
    this.client.end(true);
  }

  end() {
    return within(this.client.endAsync(), "end");
  }
}

const text = (messages) => messages.map((message) => message.payload.toString());
const upTo = (count, from = 0, step = 1) => Array.from({ length: count }, (_, n) => String(from + n * step));

const CASES = [
  ["every QoS arrives once in order", [4, 5], async (version) => {
    const room = unique("js-qos");
    const [subscriber, publisher] = [await Peer.connect(version), await Peer.connect(version)];
    await subscriber.subscribe(`${room}/#`, { qos: 2 });
    for (const qos of [0, 1, 2]) {
      await Promise.all(upTo(50).map((n) => publisher.publish(`${room}/q${qos}`, n, { qos })));
      const got = await subscriber.take(50);
      expect(text(got), upTo(50));
      expect(got.every(({ topic, packet }) => topic === `${room}/q${qos}` && packet.qos === qos && !packet.retain), true);
    }
    await subscriber.nothingMore();
    await publisher.end();
    await subscriber.end();
  }],
  ["retained: set, replace, clear", [4, 5], async (version) => {
    const room = unique("js-kept");
    const publisher = await Peer.connect(version);
    for (const payload of ["first", "second", ""]) {
      await publisher.publish(room, payload, { qos: 1, retain: true });
      const late = await Peer.connect(version);
      await late.subscribe(room, { qos: 1 });
      if (payload) {
        const [message] = await late.take(1);
        expect([message.payload.toString(), message.packet.retain], [payload, true]);
      }
      await late.nothingMore();
      await late.end();
    }
    await publisher.end();
  }],
  ["will after an ungraceful close, none after DISCONNECT", [4, 5], async (version) => {
    const room = unique("js-will");
    const watcher = await Peer.connect(version);
    await watcher.subscribe(`${room}/#`, { qos: 1 });
    const will = { topic: `${room}/gone`, payload: Buffer.from("gone"), qos: 1, retain: false };
    await (await Peer.connect(version, { will })).end();
    await watcher.publish(`${room}/between`, "between", { qos: 1 });
    await (await Peer.connect(version, { will })).abandon();
    expect(text(await watcher.take(2)), ["between", "gone"]);
    await watcher.end();
  }],
  ["session resume with offline messages in order", [4, 5], async (version) => {
    const room = unique("js-resume");
    const kept = { clientId: `${room}-c`, clean: false };
    const first = await Peer.connect(version, kept);
    expect(first.connack.sessionPresent, false);
    await first.subscribe(`${room}/#`, { qos: 2 });
    await first.end();
    const publisher = await Peer.connect(version);
    for (let n = 0; n < 60; n++) await publisher.publish(`${room}/q${1 + (n % 2)}`, String(n), { qos: 1 + (n % 2) });
    await publisher.end();
    const again = await Peer.connect(version, kept);
    expect(again.connack.sessionPresent, true);
    const got = await again.take(60);
    expect(text(got.filter(({ packet }) => packet.qos === 1)), upTo(30, 0, 2));
    expect(text(got.filter(({ packet }) => packet.qos === 2)), upTo(30, 1, 2));
    await again.nothingMore();
    await again.end();
    await (await Peer.connect(version, { clientId: `${room}-c` })).end();
  }],
  ["shared subscription: each message once", [4, 5], async (version) => {
    const room = unique("js-shared");
    const members = [];
    for (let n = 0; n < 3; n++) {
      members.push(await Peer.connect(version));
      await members[n].subscribe(`$share/g/${room}/#`, { qos: 1 });
    }
    const publisher = await Peer.connect(version);
    await Promise.all(upTo(90).map((n) => publisher.publish(`${room}/x`, n, { qos: 1 })));
    const seen = () => members.flatMap((member) => text(member.messages)).map(Number).sort((a, b) => a - b);
    const deadline = Date.now() + DEADLINE_MS;
    do {
      for (const member of members) await member.subscribe(unique("fence"), { qos: 0 });
    } while (seen().length < 90 && Date.now() < deadline);
    expect(seen(), upTo(90).map(Number));
    for (const peer of [...members, publisher]) await peer.end();
  }],
  ["300 kB and 5 MB", [4, 5], async (version) => {
    const room = unique("js-large");
    const [subscriber, publisher] = [await Peer.connect(version), await Peer.connect(version)];
    await subscriber.subscribe(`${room}/#`, { qos: 2 });
    for (const size of [300_000, 5_000_000]) {
      for (const qos of [0, 1, 2]) {
        const payload = Buffer.alloc(size, `${qos} abc`);
        await publisher.publish(`${room}/x`, payload, { qos });
        const [message] = await subscriber.take(1);
        expect([message.packet.qos, message.payload.equals(payload)], [qos, true]);
      }
    }
    await subscriber.end();
    await publisher.end();
  }],
  ["take-over ends the old connection", [4, 5], async (version) => {
    const clientId = unique("js-takeover");
    const old = await Peer.connect(version, { clientId });
    const next = await Peer.connect(version, { clientId });
    await within(old.closed, "end of the old connection");
    await next.publish(clientId, "x", { qos: 1 });
    await next.end();
  }],
  ["properties pass through", [5], async (version) => {
    const room = unique("js-prop");
    const [subscriber, publisher] = [await Peer.connect(version), await Peer.connect(version)];
    await subscriber.subscribe(`${room}/#`, { qos: 1, properties: { subscriptionIdentifier: 77 } });
    const sent = {
      payloadFormatIndicator: true,
      contentType: "text/plain",
      responseTopic: `${room}/answer`,
      correlationData: Buffer.from([0, 255]),
      messageExpiryInterval: 1000,
      userProperties: { b: ["2", "0"], a: "1" },
    };
    await publisher.publish(`${room}/x`, "x", { qos: 1, properties: sent });
    const [{ packet }] = await subscriber.take(1);
    const { messageExpiryInterval, subscriptionIdentifier, ...rest } = packet.properties;
    expect(messageExpiryInterval > 990 && messageExpiryInterval <= 1000, true);
    expect([subscriptionIdentifier].flat(), [77]);
    for (const name of ["payloadFormatIndicator", "contentType", "responseTopic", "correlationData", "userProperties"]) {
      expect([name, rest[name]], [name, sent[name]]);
    }
    await subscriber.end();
    await publisher.end();
  }],
  ["topic aliases both ways", [5], async (version) => {
    const room = unique("js-alias");
    const properties = { topicAliasMaximum: 3 };
    const subscriber = await Peer.connect(version, { properties });
    const publisher = await Peer.connect(version, { properties, autoAssignTopicAlias: true });
    await subscriber.subscribe(`${room}/#`, { qos: 1 });
    for (let n = 0; n < 40; n++) await publisher.publish(`${room}/${n % 7}`, String(n), { qos: n % 2 });
    const got = await subscriber.take(40);
    const wrong = got.filter(({ topic, payload }) => topic !== `${room}/${Number(payload) % 7}`);
    expect([wrong.length, got.length], [0, 40]);
    await subscriber.end();
    await publisher.end();
  }],
  ["receive maximum of the client is respected", [5], async (version) => {
    const room = unique("js-recv");
    let open = 0;
    let most = 0;
    const waiting = [];
    const subscriber = await Peer.connect(version, {
      properties: { receiveMaximum: 4 },
      customHandleAcks: (_topic, _payload, _packet, done) => {
        most = Math.max(most, ++open);
        waiting.push(done);
      },
    });
    const publisher = await Peer.connect(version);
    await subscriber.subscribe(`${room}/#`, { qos: 1 });
    await Promise.all(upTo(20).map((n) => publisher.publish(`${room}/x`, n, { qos: 1 })));
    const deadline = Date.now() + DEADLINE_MS;
    while (subscriber.messages.length < 20 && Date.now() < deadline) {
      await publisher.publish(unique("turn"), "", { qos: 1 }); // lets the broker and the sockets go on
      for (const done of waiting.splice(0)) {
        open--;
        done(0);
      }
    }
    expect([text(subscriber.messages), most <= 4], [upTo(20), true]);
    await subscriber.end();
    await publisher.end();
  }, "2.0.11 sends all that waits on the first PUBACK"],
  ["request and response", [5], async (version) => {
    const room = unique("js-rpc");
    const [asker, answerer] = [await Peer.connect(version), await Peer.connect(version)];
    await answerer.subscribe(`${room}/question`, { qos: 1 });
    await asker.subscribe(`${room}/answer`, { qos: 1 });
    const asked = { responseTopic: `${room}/answer`, correlationData: Buffer.from("c7") };
    await asker.publish(`${room}/question`, "6*7", { qos: 1, properties: asked });
    const [{ packet }] = await answerer.take(1);
    const { responseTopic, correlationData } = packet.properties;
    await answerer.publish(responseTopic, "42", { qos: 1, properties: { correlationData } });
    const [answer] = await asker.take(1);
    expect([answer.payload.toString(), answer.packet.properties.correlationData.toString()], ["42", "c7"]);
    await asker.end();
    await answerer.end();
  }],
];

async function suite() {
  let [count, failed] = [0, 0];
  for (const [name, versions, body, notMosquitto] of CASES) {
    for (const version of versions) {
      if (notMosquitto && process.env.INTEROP_BROKER === "mosquitto") continue;
      count++;
      try {
        await body(version);
      } catch (error) {
        failed++;
        console.error(`${name} (${version === 5 ? "v5" : "v3.1.1"}): ${error.message}`);
      }
    }
  }
  console.log(`${count} cases`);
  process.exit(failed ? 1 : 0);
}

async function main([what, version, qos, topic, count]) {
  if (what === "suite") return suite();
  const peer = await Peer.connect(Number(version));
  if (what === "pub") {
    for (const n of upTo(Number(count))) await peer.publish(topic, n, { qos: Number(qos) });
  } else {
    await peer.subscribe(topic, { qos: Number(qos) });
    console.log("ready");
    for (const { topic, payload, packet } of await peer.take(Number(count))) {
      console.log(`message ${packet.qos} ${Number(packet.retain)} ${topic} ${payload}`);
    }
  }
  await peer.end();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});

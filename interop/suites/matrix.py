"""Every client publishes to every client: 5 kinds x 2 versions on either side, at QoS 0, 1 and 2.

Ten subscribers, one of each kind and version, wait on ROOM/# at QoS 2. Then each kind and version publishes COUNT messages
at each QoS to ROOM/KIND/VERSION/QOS. Every subscriber must print every message once, in order, with its QoS.

Owns: what a client of the matrix is asked for. `KIND sub VERSION QOS FILTER COUNT` prints "ready" after its SUBACK, then
"message QOS RETAIN TOPIC PAYLOAD" a line, and ends after COUNT; `KIND pub VERSION QOS TOPIC COUNT` publishes "0" to COUNT-1.
Start reading at every_client_to_every_client(). Invariant: the same words for every kind; only mosquitto's are translated.
"""

import collections
import pathlib
import subprocess
import sys
import threading
import time

from common import DEADLINE_SECONDS, HOST, PORT, Peer, case, expect, run, unique

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent.parent / ".test-tools"
COUNT = 5
VERSIONS = ("4", "5")


def mosquitto(what, version, qos, topic, count):
    base = ["stdbuf", "-oL", f"mosquitto_{what}", "-h", HOST, "-p", PORT, "-V", {"4": "mqttv311", "5": "mqttv5"}[version], "-q", qos, "-t", topic]
    if what == "sub":
        return [*base, "-d", "-C", count, "-F", "message %q %r %t %p"]
    return [*base, "-l"]


KINDS = {
    "mosquitto": mosquitto,
    "paho": lambda *words: [sys.executable, __file__, "paho", *words],
    "aiomqtt": lambda *words: [sys.executable, __file__, "aiomqtt", *words],
    "mqttjs": lambda *words: ["node", HERE / "mqttjs.mjs", *words],
    "rumqttc": lambda *words: [TOOLS / "rumqttc/debug/interop-rumqttc", HOST, PORT, *words],
}


class Process:
    def __init__(self, kind, what, version, qos, topic, count):
        self.name = f"{kind} {what} {version} {qos}"
        words = [str(word) for word in KINDS[kind](what, version, str(qos), topic, str(count))]
        lines = "".join(f"{n}\n" for n in range(count)) if (kind, what) == ("mosquitto", "pub") else ""
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.process.stdin.write(lines)
        self.process.stdin.close()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def wait_ready(self):
        with self.changed:
            ready = self.changed.wait_for(
                lambda: any(line.startswith(("ready", "Subscribed ")) for line in self.lines), DEADLINE_SECONDS
            )
        expect((self.name, ready or self.lines), (self.name, True))

    def end(self, deadline):
        try:
            code = self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "too late"
        self.reader.join(DEADLINE_SECONDS)
        expect((self.name, code, self.lines[-8:] if code else None), (self.name, 0, None))


@case((None,))
def every_client_to_every_client():
    room = unique("matrix")
    total = len(KINDS) * len(VERSIONS) * 3 * COUNT
    sides = [(kind, version) for kind in KINDS for version in VERSIONS]
    subscribers = [Process(kind, "sub", version, 2, f"{room}/#", total) for kind, version in sides]
    for subscriber in subscribers:
        subscriber.wait_ready()
    for qos in (0, 1, 2):
        publishers = [Process(kind, "pub", version, qos, f"{room}/{kind}/{version}/{qos}", COUNT) for kind, version in sides]
        deadline = time.monotonic() + 2 * DEADLINE_SECONDS
        for publisher in publishers:
            publisher.end(deadline)
    deadline = time.monotonic() + DEADLINE_SECONDS
    problems = []
    expected = {f"{room}/{kind}/{version}/{qos}": [f"{qos} 0 {n}" for n in range(COUNT)] for kind, version in sides for qos in (0, 1, 2)}
    for subscriber in subscribers:
        try:
            subscriber.end(deadline)
        except AssertionError as error:
            problems.append(str(error))
        seen = collections.defaultdict(list)
        for line in subscriber.lines:
            if line.startswith("message "):
                _, qos, retain, topic, payload = line.split(" ", 4)
                seen[topic].append(f"{qos} {retain} {payload}")
        problems += [f"{subscriber.name} from {t}: {seen[t]}" for t in expected if seen[t] != expected[t]]
        expect(set(seen) <= set(expected), True)
    expect(problems, [])


def paho_client(what, version, qos, topic, count):
    peer = Peer({"4": "v3.1.1", "5": "v5"}[version])
    if what == "pub":
        for number in range(count):
            peer.publish(topic, str(number), qos)
    else:
        peer.subscribe(topic, qos)
        print("ready", flush=True)
        for message in peer.take(count):
            print(f"message {message.qos} {int(message.retain)} {message.topic} {message.payload.decode()}")
    peer.disconnect()


async def aiomqtt_client(what, version, qos, topic, count):
    from aiomqtt_python import client, take

    async with client({"4": "v3.1.1", "5": "v5"}[version]) as peer:
        if what == "pub":
            for number in range(count):
                await peer.publish(topic, str(number), qos)
        else:
            await peer.subscribe(topic, qos)
            print("ready", flush=True)
            for message in await take(peer, count):
                print(f"message {message.qos} {int(message.retain)} {message.topic} {message.payload.decode()}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        run()
    kind, what, version, qos, topic, count = sys.argv[1:]
    if kind == "paho":
        paho_client(what, version, int(qos), topic, int(count))
    else:
        import asyncio

        asyncio.run(aiomqtt_client(what, version, int(qos), topic, int(count)))

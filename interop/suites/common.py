"""What the Python suites share: cases, deadlines, and a Paho client that can be waited on.

Owns: the list of cases, Peer. Does not own: any case.
Start reading at run() and Peer. Invariant: every wait has a condition and a deadline; nothing sleeps.
"""

import itertools
import os
import socket
import sys
import threading

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST = os.environ.get("INTEROP_HOST", "127.0.0.1")
PORT = int(os.environ.get("INTEROP_PORT", "1883"))
# The roots of a port with TLS.
CAFILE = os.environ.get("INTEROP_CAFILE")
# What a client shows there, where it is asked.
CERTIFICATE, KEY = os.environ.get("INTEROP_CERTIFICATE"), os.environ.get("INTEROP_KEY")
# What carries packets, in the words of Paho.
TRANSPORT = "websockets" if os.environ.get("INTEROP_WEBSOCKET") else "tcp"
# Paho 2.1 forgets the rest of a packet of which a WebSocket without TLS took only a part (_send_impl returns 0, and
# _packet_write drops the packet): it can send what fits its socket's buffer. And a packet that came in a multiple of a
# hundred reads waits for the next byte (_packet_read counts them, and leaves before it looks): over TLS a read is 16 KiB.
PAYLOAD_SIZES = (300_000,) if TRANSPORT == "websockets" or CAFILE else (300_000, 5_000_000)
DEADLINE_SECONDS = 10
VERSIONS = {"v3.1.1": paho.MQTTv311, "v5": paho.MQTTv5}

CASES = []
_numbers = itertools.count()


def case(versions=("v3.1.1", "v5"), not_mosquitto=None):
    """Marks a function of one argument, the version, as a case; versions=(None,) for one that has none.
    `not_mosquitto` says why Debian's mosquitto cannot pass it; `run --mosquitto` leaves it out."""

    def mark(function):
        if not_mosquitto and os.environ.get("INTEROP_BROKER") == "mosquitto":
            return function
        CASES.extend((function, version) for version in versions)
        return function

    return mark


def run(broker=None, folder=None, stop=None):
    """Runs the cases whose name holds the first argument (all without one), prints their count, exits 1 on failure.

    A `broker` that the suite has started ends with it, by `stop` where there is more to be ended, and so does the `folder`
    it was in; what is wrong with its end is a failure, and after one its last lines are shown."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    count = failed = 0
    for function, version in CASES:
        if wanted not in function.__name__:
            continue
        count += 1
        try:
            function(*([] if version is None else [version]))
        except Exception as error:  # any failure is this case's, and the next one still runs
            failed += 1
            where = error.__traceback__
            while where.tb_next and where.tb_next.tb_frame.f_code.co_filename != __file__:
                where = where.tb_next
            print(f"{function.__name__} ({version}), line {where.tb_lineno}: {error!r}", file=sys.stderr)
    print(f"{count} cases")
    if broker is not None:
        wrong = (stop or broker.stop)()
        if wrong or any("panicked" in line for line in broker.lines):
            print(wrong or "the broker panicked", file=sys.stderr)
            failed += 1
        if failed:
            print("".join(broker.lines[-30:]), file=sys.stderr)
    if folder is not None:
        folder.cleanup()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed else 0)  # a failed case may leave clients' threads behind


def unique(name):
    """A name that no other case, run or process uses."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def expect(seen, expected):
    if seen != expected:
        text = f"expected {expected!r}, saw {seen!r}"
        raise AssertionError(text if len(text) < 800 else text[:800] + "...")


def tcp_socket(client):
    """The socket of a Paho client, without what it wraps around it for WebSocket."""
    found = client.socket()
    return getattr(found, "_socket", found)


def properties(packet, **values):
    """Paho's property object for a packet type, e.g. properties("PUBLISH", TopicAlias=1)."""
    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Peer:
    """A Paho client whose every answer can be waited for."""

    def __init__(self, version, name="peer", clean=True, will=None, expiry_seconds=300, manual_ack=False, connect=True, **connect_properties):
        self.version = VERSIONS.get(version, version)
        self.is_v5 = self.version == paho.MQTTv5
        self.client_id = unique(name) if clean else name
        self.clean = clean
        self.changed = threading.Condition()
        self.messages, self.published, self.subacks, self.unsubacks = [], set(), {}, {}
        self.connack = None
        self.ended = []
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            self.client_id,
            clean_session=None if self.is_v5 else clean,
            protocol=self.version,
            reconnect_on_failure=False,
            manual_ack=manual_ack,
            transport=TRANSPORT,
        )
        self.client.on_connect = self._on_connect
        self.client.on_message = lambda _client, _data, message: self._note(self.messages.append, message)
        self.client.on_publish = lambda _client, _data, mid, _reason, _properties: self._note(self.published.add, mid)
        self.client.on_subscribe = lambda _c, _d, mid, codes, _p: self._note(self.subacks.__setitem__, mid, codes)
        self.client.on_unsubscribe = lambda _c, _d, mid, codes, _p: self._note(self.unsubacks.__setitem__, mid, codes)
        self.client.on_disconnect = lambda _c, _d, flags, code, _p: self._note(self.ended.append, (flags, code))
        if CAFILE:
            self.client.tls_set(ca_certs=CAFILE, certfile=CERTIFICATE, keyfile=KEY)
        if will:
            self.client.will_set(*will)
        self.connect_properties = None
        if self.is_v5:
            if not clean:
                connect_properties["SessionExpiryInterval"] = expiry_seconds
            self.connect_properties = properties("CONNECT", **connect_properties)
        if connect:
            self.connect()

    def _note(self, method, *arguments):
        with self.changed:
            method(*arguments)
            self.changed.notify_all()

    def _on_connect(self, _client, _data, flags, reason, received):
        with self.changed:
            self.connack = (flags, reason, received)
            self.changed.notify_all()

    def wait(self, condition, what):
        with self.changed:
            if not self.changed.wait_for(condition, DEADLINE_SECONDS):
                raise AssertionError(f"{self.client_id}: no {what} within {DEADLINE_SECONDS} s; {len(self.messages)} messages; ended {self.ended}")

    def connect(self):
        """Connects, or connects again with the same session object, and waits for the CONNACK."""
        self.connack = None
        extra = {"clean_start": self.clean, "properties": self.connect_properties} if self.is_v5 else {}
        self.client.connect(HOST, PORT, **extra)
        tcp_socket(self.client).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.loop_start()
        self.wait(lambda: self.connack, "CONNACK")
        return self

    @property
    def session_present(self):
        return self.connack[0].session_present

    def subscribe(self, topic_filter, qos=0, **more):
        """Waits for the SUBACK and returns its codes as numbers."""
        mid = self.client.subscribe(topic_filter, qos, **more)[1]
        self.wait(lambda: mid in self.subacks, "SUBACK")
        return [code.value for code in self.subacks[mid]]

    def unsubscribe(self, topic_filter):
        mid = self.client.unsubscribe(topic_filter)[1]
        self.wait(lambda: mid in self.unsubacks, "UNSUBACK")

    def publish(self, topic, payload=b"", qos=0, retain=False, wait=True, **more):
        """Publishes; waits for the acknowledgement (QoS 0: until it is written)."""
        info = self.client.publish(topic, payload, qos, retain, **more)
        expect(info.rc, paho.MQTT_ERR_SUCCESS)
        if wait:
            self.wait(lambda: info.mid in self.published, "PUBACK or PUBCOMP")
        return info.mid

    def take(self, count):
        """The next `count` messages."""
        self.wait(lambda: len(self.messages) >= count, f"{count} messages")
        with self.changed:
            taken, self.messages[:] = self.messages[:count], self.messages[count:]
        return taken

    def fence(self):
        """What the broker sent before the answer to this SUBSCRIBE is in `messages` when it returns."""
        self.subscribe(unique("fence"), 0)

    def nothing_more(self):
        self.fence()
        expect([(message.topic, message.payload[:40]) for message in self.messages], [])

    def abandon(self):
        """Ends the connection without DISCONNECT."""
        # Not the method of ssl.SSLSocket: that one gives up TLS first, and Paho's thread reads its records as packets.
        socket.socket.shutdown(tcp_socket(self.client), socket.SHUT_RDWR)
        self._join()

    def disconnect(self):
        self.client.disconnect()
        self._join()

    def _join(self):
        thread = self.client._thread
        if thread:
            thread.join(DEADLINE_SECONDS)
            expect(thread.is_alive(), False)
        self.client.loop_stop()


def payloads(messages):
    return [message.payload for message in messages]

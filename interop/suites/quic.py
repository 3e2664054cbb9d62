"""QUIC without the relay: the tools of our own, and what aioquic, a stack that is not ours, can ask of a connection.

Owns: a broker of its own with a port of QUIC. Does not own: MQTT over QUIC by other clients (see ../quic_relay.py).
Start reading at the cases. Invariant: every wait has a condition and a deadline.
"""

import asyncio
import os
import pathlib
import subprocess

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

from common import DEADLINE_SECONDS, case, expect, run, unique
from own import PROGRAM
import own

FOLDER = own.folder("quic")
BROKER, PORTS = own.brokers.start_vencejo_secured(PROGRAM, FOLDER.name, shards=2)
VERSION_FLAG = {"v3.1": "mqttv31", "v3.1.1": "mqttv311", "v5": "mqttv5"}
CONNACK = b"\x20\x02\x00\x00"
SECONDS_LONG = 60


def tool(name, version, *arguments, scheme="quic"):
    """A tool of ours, with what it needs to get there."""
    port = PORTS[{"quic": "udp", "mqtt": "tcp"}[scheme]]
    secured = ["--cafile", PORTS["cafile"]] if scheme == "quic" else []
    url = f"{scheme}://localhost:{port}"
    command = [PROGRAM, name, "--url", url, *secured, "-V", VERSION_FLAG[version], *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process, code=0, seconds=DEADLINE_SECONDS):
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    expect((process.returncode, err if process.returncode != code else b""), (code, b""))
    return out


def retained(version, topic, *arguments, scheme="quic"):
    """The message retained there: it waits for whoever subscribes, so nobody has to be waited for."""
    return end(tool("sub", version, "-t", topic, "-C", 1, *arguments, scheme=scheme), seconds=SECONDS_LONG)


@case(("v3.1", "v3.1.1", "v5"))
def our_tools_over_quic(version):
    for qos in (0, 1, 2):
        for there, back in (("quic", "quic"), ("quic", "mqtt"), ("mqtt", "quic")):
            topic = unique("tools")
            end(tool("pub", version, "-t", topic, "-q", qos, "-r", "-m", "hello", scheme=there))
            expect(retained(version, topic, "-q", qos, "-F", "%q %t %p", scheme=back), f"{qos} {topic} hello\n".encode())


@case()
def large_payloads_of_our_tools(version):
    for size in (300_000, 5_000_000):
        topic = unique("large")
        payload = os.urandom(size)
        file = pathlib.Path(FOLDER.name) / topic
        file.write_bytes(payload)
        end(tool("pub", version, "-t", topic, "-q", 1, "-r", "-f", file), seconds=SECONDS_LONG)
        expect(retained(version, topic, "-q", 1, "-N") == payload, True)


@case((None,))
def a_server_that_is_not_believed_is_left():
    url = f"quic://localhost:{PORTS['udp']}"
    done = subprocess.run([PROGRAM, "pub", "--url", url, "-t", "a", "-m", "x"], capture_output=True, timeout=DEADLINE_SECONDS)
    expect((done.returncode, b"UnknownIssuer" in done.stderr), (1, True))


def configuration(**more):
    return QuicConfiguration(**{"alpn_protocols": ["mqtt"], "cafile": PORTS["cafile"], "server_name": "localhost", **more})


class Watched(QuicConnectionProtocol):
    """A connection whose events are kept."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.seen = []

    def quic_event_received(self, event):
        self.seen.append(event)
        super().quic_event_received(event)

    def last(self, kind):
        return [event for event in self.seen if isinstance(event, kind)][-1]


def with_connection(**more):
    """Runs a coroutine of a connection within the deadline."""

    def mark(function):
        async def whole():
            async with connect("127.0.0.1", PORTS["udp"], configuration=configuration(**more), create_protocol=Watched) as quic:
                await function(quic)

        def named():
            asyncio.run(asyncio.wait_for(whole(), DEADLINE_SECONDS))

        named.__name__ = function.__name__
        return named

    return mark


def connect_packet(client_id, level=4):
    name = client_id.encode()
    body = b"\x00\x04MQTT" + bytes([level, 2, 0, 0]) + (b"\x00" if level == 5 else b"") + len(name).to_bytes(2, "big") + name
    return bytes([0x10, len(body)]) + body


async def ping(reader, writer):
    writer.write(b"\xc0\x00")
    expect(await reader.readexactly(2), b"\xd0\x00")


@case((None,))
@with_connection()
async def keys_and_addresses_may_change(quic):
    reader, writer = await quic.create_stream()
    writer.write(connect_packet(unique("changes")))
    expect(await reader.readexactly(4), CONNACK)
    for _ in range(5):
        quic.request_key_update()
        await ping(reader, writer)
        quic.change_connection_id()
        await ping(reader, writer)
        await quic.ping()
    writer.write(b"\xe0\x00")
    expect(await reader.read(), b"")
    await quic.wait_closed()
    expect(quic.last(ConnectionTerminated).error_code, 0)


@case((None,))
@with_connection()
async def last_words_arrive(quic):
    reader, writer = await quic.create_stream()
    writer.write(connect_packet(unique("level"), level=9))
    # What 5.0 says to a version that is not known.
    expect(await reader.read(), b"\x20\x03\x00\x84\x00")
    await quic.wait_closed()
    expect(quic.last(ConnectionTerminated).error_code, 0)


@case((None,))
@with_connection()
async def there_is_one_stream(quic):
    reader, writer = await quic.create_stream()
    writer.write(connect_packet(unique("one")))
    expect(await reader.readexactly(4), CONNACK)
    second, second_writer = await quic.create_stream()
    second_writer.write(connect_packet(unique("two")))
    for _ in range(10):
        await ping(reader, writer)
    answer = asyncio.ensure_future(second.read(1))
    await ping(reader, writer)
    expect(answer.done(), False)
    answer.cancel()


@case((None,))
@with_connection()
async def mqtt_is_chosen_and_nothing_may_come_early(quic):
    reader, writer = await quic.create_stream()
    writer.write(connect_packet(unique("alpn")))
    expect(await reader.readexactly(4), CONNACK)
    done = quic.last(HandshakeCompleted)
    expect((done.alpn_protocol, done.early_data_accepted), ("mqtt", False))


@case((None,))
def other_protocols_are_refused():
    async def attempt():
        async with connect("127.0.0.1", PORTS["udp"], configuration=configuration(alpn_protocols=["h3"])):
            pass

    try:
        asyncio.run(asyncio.wait_for(attempt(), DEADLINE_SECONDS))
    except ConnectionError:
        return
    raise AssertionError("h3 was taken")


if __name__ == "__main__":
    run(BROKER, FOLDER)

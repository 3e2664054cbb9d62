"""aiomqtt against a broker: the asyncio way of Paho, with its own context managers, queues and errors.

Owns: the cases of aiomqtt. Does not own: Paho's cases (see paho_python). Start reading at any case.
Invariant: every wait is under asyncio.timeout or wait_for.
"""

import asyncio

import aiomqtt
from common import CAFILE, CERTIFICATE, DEADLINE_SECONDS, HOST, KEY, PAYLOAD_SIZES, PORT, TRANSPORT, case, expect, properties, run, tcp_socket, unique


def client(version, identifier=None, clean=True, **more):
    if version == "v5":
        more["clean_start"] = clean
        if not clean:
            more["properties"] = properties("CONNECT", SessionExpiryInterval=60)
    else:
        more["clean_session"] = clean
    if CAFILE:
        more["tls_params"] = aiomqtt.TLSParameters(ca_certs=CAFILE, certfile=CERTIFICATE, keyfile=KEY)
    protocol = {"v3.1.1": aiomqtt.ProtocolVersion.V311, "v5": aiomqtt.ProtocolVersion.V5}[version]
    return aiomqtt.Client(HOST, PORT, identifier=identifier or unique("aio"), protocol=protocol, transport=TRANSPORT, **more)


def asynchronous(function):
    """Runs an async case under the deadline."""

    def run_it(version):
        asyncio.run(asyncio.wait_for(function(version), 2 * DEADLINE_SECONDS))

    run_it.__name__ = function.__name__
    return run_it


async def take(peer, count):
    """The next messages; aiomqtt has one iterator for each client, so it is kept."""
    if not hasattr(peer, "kept_iterator"):
        peer.kept_iterator = aiter(peer.messages)
    return [await asyncio.wait_for(anext(peer.kept_iterator), DEADLINE_SECONDS) for _ in range(count)]


@case()
@asynchronous
async def every_qos_and_wildcards(version):
    room = unique("aio-qos")
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe(f"{room}/+/x", 2)
        for qos in (0, 1, 2):
            for number in range(20):
                await publisher.publish(f"{room}/{qos}/x", str(number), qos)
            got = await take(subscriber, 20)
            expect([(str(m.topic), int(m.payload), m.qos) for m in got], [(f"{room}/{qos}/x", n, qos) for n in range(20)])


@case()
@asynchronous
async def many_publishes_at_once(version):
    room = unique("aio-many")
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe(f"{room}/#", 1)
        await asyncio.gather(*(publisher.publish(f"{room}/{n}", str(n), 1) for n in range(100)))
        expect(sorted(int(m.payload) for m in await take(subscriber, 100)), list(range(100)))


@case()
@asynchronous
async def retained_set_replace_clear(version):
    room = unique("aio-kept")
    async with client(version) as publisher:
        for payload in (b"first", b"second"):
            await publisher.publish(room, payload, 1, retain=True)
            async with client(version) as late:
                await late.subscribe(room, 1)
                expect([(m.payload, m.retain) for m in await take(late, 1)], [(payload, True)])
        await publisher.publish(room, b"", 1, retain=True)
        async with client(version) as late:
            await late.subscribe(room, 1)
            await publisher.publish(room, b"live", 1)
            expect([(m.payload, m.retain) for m in await take(late, 1)], [(b"live", False)])


@case()
@asynchronous
async def wills(version):
    room = unique("aio-will")
    will = aiomqtt.Will(f"{room}/gone", b"gone", 1, False)
    async with client(version) as watcher:
        await watcher.subscribe(f"{room}/#", 1)
        async with client(version, will=will):
            pass  # ends with DISCONNECT: no will
        await watcher.publish(f"{room}/between", b"between", 1)
        try:
            async with client(version, will=will) as dying:
                tcp_socket(dying._client).shutdown(2)  # aiomqtt has no way to be rude
                await take(dying, 1)
        except aiomqtt.MqttError:
            pass
        expect([m.payload for m in await take(watcher, 2)], [b"between", b"gone"])


@case()
@asynchronous
async def session_resume(version):
    room = unique("aio-resume")
    async with client(version, f"{room}-c", clean=False) as subscriber:
        await subscriber.subscribe(f"{room}/#", 2)
    async with client(version) as publisher:
        for number in range(60):
            await publisher.publish(f"{room}/q{1 + number % 2}", str(number), 1 + number % 2)
    async with client(version, f"{room}-c", clean=False) as subscriber:
        got = await take(subscriber, 60)
        for qos in (1, 2):
            expect([int(m.payload) for m in got if m.qos == qos], list(range(qos - 1, 60, 2)))
    async with client(version, f"{room}-c"):
        pass  # a clean start ends the session


@case()
@asynchronous
async def shared_subscription(version):
    room = unique("aio-shared")
    async with client(version) as one, client(version) as two, client(version) as publisher:
        for member in (one, two):
            await member.subscribe(f"$share/g/{room}/#", 1)
        seen = []

        async def collect(member):
            async for message in member.messages:
                seen.append(int(message.payload))
                if len(seen) >= 100:
                    done.set()

        done = asyncio.Event()
        tasks = [asyncio.create_task(collect(member)) for member in (one, two)]
        for number in range(100):
            await publisher.publish(f"{room}/x", str(number), 1)
        await asyncio.wait_for(done.wait(), DEADLINE_SECONDS)
        for task in tasks:
            task.cancel()
        expect(sorted(seen), list(range(100)))


@case()
@asynchronous
async def large_payloads(version):
    room = unique("aio-large")
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe(f"{room}/#", 2)
        for size in PAYLOAD_SIZES:
            for qos in (0, 1, 2):
                payload = bytes([qos]) * size
                await publisher.publish(f"{room}/x", payload, qos)
                expect((await take(subscriber, 1))[0].payload == payload, True)


@case(("v5",))
@asynchronous
async def properties_pass_through(version):
    room = unique("aio-prop")
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe(f"{room}/#", 1, properties=properties("SUBSCRIBE", SubscriptionIdentifier=9))
        sent = properties("PUBLISH", ResponseTopic=f"{room}/answer", CorrelationData=b"\x00\xff", ContentType="a/b")
        sent.UserProperty = [("b", "2"), ("a", "1"), ("b", "0")]
        await publisher.publish(f"{room}/x", b"x", 1, properties=sent)
        got = (await take(subscriber, 1))[0].properties
        expect((got.ResponseTopic, got.CorrelationData, got.ContentType), (f"{room}/answer", b"\x00\xff", "a/b"))
        expect((got.UserProperty, got.SubscriptionIdentifier), ([("b", "2"), ("a", "1"), ("b", "0")], [9]))


@case()
@asynchronous
async def unsubscribe(version):
    room = unique("aio-unsub")
    async with client(version) as peer:
        await peer.subscribe([(f"{room}/a", 1), (f"{room}/b", 1)])
        await peer.unsubscribe(f"{room}/a")
        await peer.publish(f"{room}/a", b"no", 1)
        await peer.publish(f"{room}/b", b"yes", 1)
        expect([m.payload for m in await take(peer, 1)], [b"yes"])


if __name__ == "__main__":
    run()

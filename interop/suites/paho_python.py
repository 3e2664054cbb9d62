"""Paho Python against a broker: everything its users rely on, in v3.1.1 and v5.

Owns: the cases of Paho Python. Does not own: Peer (see common). Start reading at any case.
Invariant: a case uses only topics and client ids of its own.
"""

import threading

import paho.mqtt.client as paho
from paho.mqtt.subscribeoptions import SubscribeOptions

from common import CAFILE, CERTIFICATE, DEADLINE_SECONDS, HOST, KEY, PAYLOAD_SIZES, PORT, TRANSPORT, VERSIONS, Peer, case, expect, payloads, properties, run, unique


@case()
def every_qos_arrives_once_in_order(version):
    room = unique("qos")
    subscriber, publisher = Peer(version), Peer(version)
    expect(subscriber.subscribe(f"{room}/#", 2), [2])
    for qos in (0, 1, 2):
        for number in range(50):
            publisher.publish(f"{room}/q{qos}", str(number), qos, wait=False)
        got = subscriber.take(50)
        expect([(m.topic, m.qos, m.retain, m.dup) for m in got], [(f"{room}/q{qos}", qos, False, False)] * 50)
        expect([int(m.payload) for m in got], list(range(50)))
    subscriber.nothing_more()
    publisher.disconnect()
    subscriber.disconnect()


@case()
def delivery_qos_is_the_lower_of_the_two(version):
    room = unique("lower")
    publisher = Peer(version)
    subscribers = [Peer(version) for _ in range(3)]
    for granted, subscriber in enumerate(subscribers):
        expect(subscriber.subscribe(f"{room}/#", granted), [granted])
    for qos in (0, 1, 2):
        publisher.publish(f"{room}/{qos}", b"x", qos)
    for granted, subscriber in enumerate(subscribers):
        got = {m.topic: m.qos for m in subscriber.take(3)}
        expect(got, {f"{room}/{qos}": min(qos, granted) for qos in (0, 1, 2)})
        subscriber.disconnect()
    publisher.disconnect()


@case()
def unsubscribe_stops_the_flow(version):
    room = unique("unsub")
    peer, publisher = Peer(version), Peer(version)
    peer.subscribe([(f"{room}/a", 1), (f"{room}/b", 1)])
    peer.unsubscribe(f"{room}/a")
    publisher.publish(f"{room}/a", b"no", 1)
    publisher.publish(f"{room}/b", b"yes", 1)
    expect(payloads(peer.take(1)), [b"yes"])
    peer.nothing_more()
    publisher.disconnect()
    peer.disconnect()


@case()
def retained_set_replace_clear(version):
    room = unique("retained")
    publisher = Peer(version)
    live = Peer(version)
    live.subscribe(f"{room}/+", 1)
    for payload in (b"first", b"second"):
        publisher.publish(f"{room}/state", payload, 1, retain=True)
        expect([(m.payload, m.retain) for m in live.take(1)], [(payload, False)])
        late = Peer(version)
        late.subscribe(f"{room}/#", 1)
        expect([(m.payload, m.retain, m.qos) for m in late.take(1)], [(payload, True, 1)])
        late.nothing_more()
        late.disconnect()
    publisher.publish(f"{room}/state", b"", 1, retain=True)
    expect([(m.payload, m.retain) for m in live.take(1)], [(b"", False)])
    late = Peer(version)
    late.subscribe(f"{room}/#", 1)
    late.nothing_more()
    for peer in (late, live, publisher):
        peer.disconnect()


@case(("v5",), not_mosquitto="2.0.11 keeps the old Retain As Published when a subscription is replaced")
def retain_handling_and_retain_as_published(version):
    room = unique("handling")
    publisher, peer = Peer(version), Peer(version)
    publisher.publish(f"{room}/a", b"kept", 1, retain=True)
    expect(peer.subscribe(f"{room}/a", options=SubscribeOptions(1, retainHandling=2)), [1])
    peer.nothing_more()
    peer.subscribe(f"{room}/a", options=SubscribeOptions(1, retainHandling=1))
    peer.nothing_more()  # not a new subscription
    peer.subscribe(f"{room}/a", options=SubscribeOptions(1, retainHandling=0, retainAsPublished=True))
    expect([(m.payload, m.retain) for m in peer.take(1)], [(b"kept", True)])
    publisher.publish(f"{room}/a", b"live", 1, retain=True)
    expect([(m.payload, m.retain) for m in peer.take(1)], [(b"live", True)])
    publisher.publish(f"{room}/a", b"", 1, retain=True)
    publisher.disconnect()
    peer.disconnect()


@case(("v5",))
def no_local(version):
    room = unique("nolocal")
    peer, other = Peer(version), Peer(version)
    peer.subscribe(f"{room}/#", options=SubscribeOptions(1, noLocal=True))
    peer.publish(f"{room}/x", b"mine", 1)
    other.publish(f"{room}/x", b"theirs", 1)
    expect(payloads(peer.take(1)), [b"theirs"])
    peer.nothing_more()
    peer.disconnect()
    other.disconnect()


@case()
def will_after_an_ungraceful_close(version):
    for qos in (0, 1, 2):
        room = unique("will")
        watcher = Peer(version)
        watcher.subscribe(f"{room}/#", 2)
        Peer(version, will=(f"{room}/gone", b"gone", qos, False)).abandon()
        expect([(m.payload, m.qos, m.retain) for m in watcher.take(1)], [(b"gone", qos, False)])
        watcher.disconnect()


@case()
def retained_will(version):
    room = unique("keptwill")
    watcher = Peer(version)
    watcher.subscribe(f"{room}/#", 1)
    Peer(version, will=(f"{room}/gone", b"gone", 1, True)).abandon()
    watcher.take(1)
    late = Peer(version)
    late.subscribe(f"{room}/#", 1)
    expect([(m.payload, m.retain) for m in late.take(1)], [(b"gone", True)])
    late.publish(f"{room}/gone", b"", 1, retain=True)
    late.disconnect()
    watcher.disconnect()


@case()
def no_will_after_disconnect(version):
    room = unique("nowill")
    watcher, publisher = Peer(version), Peer(version)
    watcher.subscribe(f"{room}/#", 1)
    Peer(version, will=(f"{room}/gone", b"gone", 1, False)).disconnect()
    publisher.publish(f"{room}/after", b"after", 1)
    expect(payloads(watcher.take(1)), [b"after"])
    watcher.nothing_more()
    watcher.disconnect()
    publisher.disconnect()


@case(("v5",))
def will_after_disconnect_with_will(version):
    room = unique("with04")
    watcher = Peer(version)
    watcher.subscribe(f"{room}/#", 1)
    leaving = Peer(version, will=(f"{room}/gone", b"gone", 1, False))
    leaving.client.disconnect(paho.ReasonCode(paho.PacketTypes.DISCONNECT, "Disconnect with will message"))
    expect(payloads(watcher.take(1)), [b"gone"])
    watcher.disconnect()


@case()
def session_resume_with_offline_messages_in_order(version):
    room = unique("resume")
    subscriber = Peer(version, f"{room}-sub", clean=False)
    expect(subscriber.session_present, False)
    subscriber.subscribe(f"{room}/#", 2)
    subscriber.disconnect()
    publisher = Peer(version)
    for number in range(200):
        publisher.publish(f"{room}/q{1 + number % 2}", str(number), 1 + number % 2)
    publisher.disconnect()
    again = Peer(version, f"{room}-sub", clean=False)
    expect(again.session_present, True)
    got = again.take(200)
    for qos in (1, 2):
        expect([int(m.payload) for m in got if m.qos == qos], list(range(qos - 1, 200, 2)))
    again.nothing_more()
    again.disconnect()
    fresh = Peer(version, f"{room}-sub", clean=False)
    expect(fresh.session_present, True)
    fresh.nothing_more()
    fresh.disconnect()
    _forget(version, f"{room}-sub")


def _forget(version, client_id):
    """Clean Start with the same client id ends the session."""
    peer = Peer(version, connect=False)
    peer.client._client_id = client_id.encode()
    peer.connect()
    expect(peer.session_present, False)
    peer.disconnect()


@case()
def clean_start_discards_the_session(version):
    room = unique("discard")
    first = Peer(version, f"{room}-sub", clean=False)
    first.subscribe(f"{room}/#", 1)
    first.disconnect()
    _forget(version, f"{room}-sub")
    again = Peer(version, f"{room}-sub", clean=False)
    expect(again.session_present, False)
    again.publish(f"{room}/x", b"x", 1)
    again.nothing_more()
    again.disconnect()
    _forget(version, f"{room}-sub")


@case(not_mosquitto="2.0.11 closes the old connection without DISCONNECT 0x8E")
def take_over_ends_the_old_connection(version):
    room = unique("takeover")
    old = Peer(version, f"{room}-c", clean=False)
    old.subscribe(f"{room}/#", 1)
    new = Peer(version, f"{room}-c", clean=False)
    expect(new.session_present, True)
    old.wait(lambda: old.ended, "end of the old connection")
    if version == "v5":
        expect(old.ended[0][1].value, 0x8E)
    new.publish(f"{room}/x", b"x", 1)
    expect(payloads(new.take(1)), [b"x"])
    new.disconnect()
    _forget(version, f"{room}-c")


@case()
def shared_subscription_each_message_once(version):
    room = unique("shared")
    members = [Peer(version) for _ in range(4)]
    plain = Peer(version)
    for member in members:
        member.subscribe(f"$share/{room}/{room}/#", 1)
    plain.subscribe(f"{room}/#", 1)
    publisher = Peer(version)
    for number in range(200):
        publisher.publish(f"{room}/{number % 7}", str(number), 1, wait=False)
    expect(sorted(int(m.payload) for m in plain.take(200)), list(range(200)))
    deadline = threading.Event()
    timer = threading.Timer(DEADLINE_SECONDS, deadline.set)
    timer.start()
    while sum(len(member.messages) for member in members) < 200 and not deadline.is_set():
        for member in members:
            member.fence()
    timer.cancel()
    for member in members:
        member.fence()
    expect(sorted(int(m.payload) for member in members for m in member.messages), list(range(200)))
    expect([bool(member.messages) for member in members], [True] * 4)
    for peer in (*members, plain, publisher):
        peer.disconnect()


def _large(version, size):
    room = unique("large")
    payload = bytes(range(256)) * (size // 256) + b"end"
    subscriber, publisher = Peer(version), Peer(version)
    subscriber.subscribe(f"{room}/#", 2)
    for qos in (0, 1, 2):
        publisher.publish(f"{room}/{qos}", payload, qos)
        got = subscriber.take(1)[0]
        expect((got.qos, len(got.payload), got.payload == payload), (qos, len(payload), True))
    publisher.publish(f"{room}/kept", payload, 1, retain=True)
    subscriber.take(1)
    late = Peer(version)
    late.subscribe(f"{room}/kept", 1)
    expect(late.take(1)[0].payload == payload, True)
    publisher.publish(f"{room}/kept", b"", 1, retain=True)
    for peer in (subscriber, publisher, late):
        peer.disconnect()


@case()
def payload_of_300_kb(version):
    _large(version, 300_000)


@case(versions=("v3.1.1", "v5") if 5_000_000 in PAYLOAD_SIZES else ())
def payload_of_5_mb(version):
    _large(version, 5_000_000)


@case(("v5",))
def properties_pass_through(version):
    room = unique("properties")
    subscriber, publisher = Peer(version), Peer(version)
    subscriber.subscribe(f"{room}/#", 1)
    pairs = [("b", "2"), ("a", "1"), ("b", "2"), ("a", ""), ("ñ", "€")]
    sent = properties(
        "PUBLISH",
        PayloadFormatIndicator=1,
        ContentType="text/plain; charset=utf-8",
        ResponseTopic=f"{room}/answer",
        CorrelationData=bytes(range(256)),
        MessageExpiryInterval=1000,
    )
    sent.UserProperty = pairs
    publisher.publish(f"{room}/question", b"?", 1, properties=sent)
    got = subscriber.take(1)[0].properties
    expect(got.PayloadFormatIndicator, 1)
    expect(got.ContentType, "text/plain; charset=utf-8")
    expect(got.ResponseTopic, f"{room}/answer")
    expect(got.CorrelationData, bytes(range(256)))
    expect(got.UserProperty, pairs)
    expect(990 <= got.MessageExpiryInterval <= 1000, True)
    publisher.disconnect()
    subscriber.disconnect()


@case(("v5",))
def request_and_response(version):
    room = unique("rpc")
    asker, answerer = Peer(version), Peer(version)
    answerer.subscribe(f"{room}/question", 1)
    asker.subscribe(f"{room}/answer/{asker.client_id}", 1)
    asked = properties("PUBLISH", ResponseTopic=f"{room}/answer/{asker.client_id}", CorrelationData=b"\x00\x01")
    asker.publish(f"{room}/question", b"6*7", 1, properties=asked)
    question = answerer.take(1)[0].properties
    answered = properties("PUBLISH", CorrelationData=question.CorrelationData)
    answerer.publish(question.ResponseTopic, b"42", 1, properties=answered)
    answer = asker.take(1)[0]
    expect((answer.payload, answer.properties.CorrelationData), (b"42", b"\x00\x01"))
    asker.disconnect()
    answerer.disconnect()


@case(("v5",))
def message_expiry_counts_down_and_expires(version):
    room = unique("expiry")
    subscriber = Peer(version, f"{room}-sub", clean=False)
    subscriber.subscribe(f"{room}/#", 1)
    subscriber.disconnect()
    publisher = Peer(version)
    publisher.publish(f"{room}/short", b"short", 1, properties=properties("PUBLISH", MessageExpiryInterval=1))
    publisher.publish(f"{room}/long", b"long", 1, properties=properties("PUBLISH", MessageExpiryInterval=1000))
    # Time itself is what is waited for: a retained twin of the short message is asked for until it has expired.
    publisher.publish(f"{room}-twin", b"twin", 1, True, properties=properties("PUBLISH", MessageExpiryInterval=2))
    for _ in range(100_000):
        probe = Peer(version)
        probe.subscribe(f"{room}-twin", 1)
        probe.fence()
        gone = not probe.messages
        probe.disconnect()
        if gone:
            break
    subscriber = Peer(version, f"{room}-sub", clean=False)
    got = subscriber.take(1)[0]
    expect((got.payload, 900 <= got.properties.MessageExpiryInterval <= 999), (b"long", True))
    subscriber.nothing_more()
    subscriber.disconnect()
    publisher.disconnect()
    _forget(version, f"{room}-sub")


@case(("v5",))
def subscription_identifiers(version):
    room = unique("subid")
    peer = Peer(version)
    expect(getattr(peer.connack[2], "SubscriptionIdentifierAvailable", 1), 1)
    peer.subscribe(f"{room}/a", 1, properties=properties("SUBSCRIBE", SubscriptionIdentifier=1))
    peer.subscribe(f"{room}/b", 1, properties=properties("SUBSCRIBE", SubscriptionIdentifier=268_435_455))
    peer.publish(f"{room}/a", b"a", 1)
    peer.publish(f"{room}/b", b"b", 1)
    got = {m.payload: m.properties.SubscriptionIdentifier for m in peer.take(2)}
    expect(got, {b"a": [1], b"b": [268_435_455]})
    peer.subscribe(f"{room}/#", 1, properties=properties("SUBSCRIBE", SubscriptionIdentifier=7))
    peer.publish(f"{room}/a", b"both", 1)
    peer.fence()
    # One delivery with both identifiers or one each: the standard allows either [MQTT-3.3.4-2].
    expect(sorted(i for m in peer.messages for i in m.properties.SubscriptionIdentifier), [1, 7])
    peer.disconnect()


@case(("v5",))
def topic_alias_from_the_client(version):
    room = unique("alias")
    subscriber, publisher = Peer(version), Peer(version)
    expect(getattr(publisher.connack[2], "TopicAliasMaximum", 0) >= 2, True)
    subscriber.subscribe(f"{room}/#", 1)
    for alias, name in ((1, "a"), (2, "b"), (1, "c")):
        publisher.publish(f"{room}/{name}", b"named", 1, properties=properties("PUBLISH", TopicAlias=alias))
        publisher.publish("", b"by alias", 1, properties=properties("PUBLISH", TopicAlias=alias))
    expect([m.topic for m in subscriber.take(6)], [f"{room}/{name}" for name in "aabbcc"])
    publisher.disconnect()
    subscriber.disconnect()


@case(("v5",))
def topic_alias_to_the_client(version):
    room = unique("aliasdown")
    subscriber, publisher = Peer(version, TopicAliasMaximum=2), Peer(version)
    subscriber.subscribe(f"{room}/#", 1)
    aliases = {}
    for number in range(12):
        publisher.publish(f"{room}/{number % 4}", str(number), 1)
    for number, message in enumerate(subscriber.take(12)):
        alias = getattr(message.properties, "TopicAlias", None)
        expect(alias in (None, 1, 2), True)
        if message.topic:
            aliases[alias] = message.topic
        expect(message.topic or aliases[alias], f"{room}/{number % 4}")
    publisher.disconnect()
    subscriber.disconnect()


@case(("v5",), not_mosquitto="2.0.11 sends all that waits on the first PUBACK")
def receive_maximum_of_the_client_is_respected(version):
    room = unique("recvmax")
    subscriber, publisher = Peer(version, manual_ack=True, ReceiveMaximum=5), Peer(version)
    subscriber.subscribe(f"{room}/#", 1)
    for number in range(30):
        publisher.publish(f"{room}/x", str(number), 1)
    seen = []
    while len(seen) < 30:
        subscriber.wait(lambda: subscriber.messages, "message")
        subscriber.fence()
        open_now = list(subscriber.messages)
        expect(len(open_now) <= 5, True)
        seen.extend(int(m.payload) for m in subscriber.take(len(open_now)))
        for message in open_now:
            subscriber.client.ack(message.mid, message.qos)
    expect(seen, list(range(30)))
    publisher.disconnect()
    subscriber.disconnect()


@case(("v5",))
def connack_announces_what_holds(version):
    peer = Peer(version, connect=False)
    peer.client._client_id = b""
    peer.connect()
    announced = peer.connack[2]
    expect(len(announced.AssignedClientIdentifier) > 0, True)
    for name in ("RetainAvailable", "WildcardSubscriptionAvailable", "SharedSubscriptionAvailable"):
        expect(getattr(announced, name, 1), 1)
    expect(getattr(announced, "MaximumQoS", 2), 2)
    expect(getattr(announced, "MaximumPacketSize", 2**28) > 5_000_000, True)
    peer.disconnect()


@case()
def every_callback_is_called(version):
    room = unique("callbacks")
    calls, changed = [], threading.Condition()

    def note(name):
        def called(*_arguments):
            with changed:
                calls.append(name)
                changed.notify_all()

        return called

    def wait(name):
        with changed:
            expect(changed.wait_for(lambda: name in calls, DEADLINE_SECONDS) or name, True)

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, room, protocol=VERSIONS[version], transport=TRANSPORT)
    for name in ("connect", "subscribe", "publish", "message", "unsubscribe", "disconnect"):
        setattr(client, f"on_{name}", note(name))
    client.message_callback_add(f"{room}/special/#", note("special"))
    if CAFILE:
        client.tls_set(ca_certs=CAFILE, certfile=CERTIFICATE, keyfile=KEY)
    client.connect_async(HOST, PORT)
    client.loop_start()
    wait("connect")
    client.subscribe(f"{room}/#", 2)
    wait("subscribe")
    client.publish(f"{room}/x", b"x", 2)
    wait("publish")
    wait("message")
    client.publish(f"{room}/special/x", b"x", 1).wait_for_publish(DEADLINE_SECONDS)
    wait("special")
    client.unsubscribe(f"{room}/#")
    wait("unsubscribe")
    client.disconnect()
    wait("disconnect")
    client.loop_stop()


@case()
def several_filters_in_one_subscribe(version):
    room = unique("many")
    peer = Peer(version)
    expect(peer.subscribe([(f"{room}/{n}", n % 3) for n in range(50)]), [n % 3 for n in range(50)])
    peer.disconnect()


if __name__ == "__main__":
    run()

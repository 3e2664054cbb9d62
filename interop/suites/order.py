"""Order: per publisher and topic nothing overtakes, with many publishers, backlogs and lost connections.

Owns: the bookkeeping of sequence numbers. Does not own: Peer (see common). Start reading at check().
Invariant: topics are ROOM/PUBLISHER/QOS and payloads count up from 0, so every loss, repeat and overtaking is seen.
"""

import collections
import threading

from common import DEADLINE_SECONDS, Peer, case, expect, run, unique

PUBLISHERS = 8
MESSAGES = 200  # for each publisher and QoS


def publish_all(version, room, qos_levels, publishers=PUBLISHERS, messages=MESSAGES):
    """Every publisher on a thread of its own; QoS mixed message by message. Returns the threads and their failures."""
    failures = []

    def one(name):
        try:
            publisher = Peer(version)
            for number in range(messages):
                for qos in qos_levels:
                    publisher.publish(f"{room}/{name}/{qos}", str(number), qos, wait=False)
            publisher.wait(lambda: len(publisher.published) == messages * len(qos_levels), "all acknowledgements")
            publisher.disconnect()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=one, args=(name,)) for name in range(publishers)]
    for thread in threads:
        thread.start()
    return threads, failures


def finish(threads, failures):
    for thread in threads:
        thread.join()
    expect(failures, [])


def check(messages, room, qos_levels, publishers=PUBLISHERS, each=MESSAGES, repeats_at_qos_1=False):
    """Complete and in order; QoS 1 may repeat what was sent before, only where a connection was lost."""
    seen = collections.defaultdict(list)
    for message in messages:
        number = int(message.payload)
        numbers = seen[message.topic]
        if repeats_at_qos_1 and message.qos == 1 and number < len(numbers):
            expect(message.dup, True)
            continue
        numbers.append(number)
    expect(sorted(seen), sorted(f"{room}/{name}/{qos}" for name in range(publishers) for qos in qos_levels))
    for topic, numbers in seen.items():
        if numbers != list(range(each)):
            wrong = next((at for at, number in enumerate(numbers) if number != at), len(numbers))
            around = numbers[max(0, wrong - 3) : wrong + 6]
            raise AssertionError(f"{topic}: {len(numbers)} of {each}; at {wrong}: {around}")


@case()
def many_publishers_live(version):
    room = unique("live")
    subscriber = Peer(version)
    subscriber.subscribe(f"{room}/#", 2)
    finish(*publish_all(version, room, (1, 2)))
    check(subscriber.take(PUBLISHERS * 2 * MESSAGES), room, (1, 2))
    subscriber.nothing_more()
    subscriber.disconnect()


@case()
def many_publishers_and_many_subscribers(version):
    room = unique("many")
    subscribers = [Peer(version) for _ in range(6)]
    for number, subscriber in enumerate(subscribers):
        subscriber.subscribe(f"{room}/#" if number % 2 else f"{room}/+/+", 2)
    finish(*publish_all(version, room, (0, 1, 2), publishers=4, messages=100))
    for subscriber in subscribers:
        check(subscriber.take(4 * 3 * 100), room, (0, 1, 2), publishers=4, each=100)
        subscriber.nothing_more()
        subscriber.disconnect()


@case()
def overlapping_filters_keep_order(version):
    room = unique("overlap")
    subscriber = Peer(version)
    subscriber.subscribe([(f"{room}/0/1", 1), (f"{room}/0/2", 2), (f"{room}-not/#", 0)])
    finish(*publish_all(version, room, (1, 2), publishers=1))
    check(subscriber.take(2 * MESSAGES), room, (1, 2), publishers=1)
    subscriber.disconnect()


def _backlog(version, **connect_properties):
    """Far more waits for the subscriber than may be in flight."""
    room = unique("backlog")
    name = f"{room}-sub"
    subscriber = Peer(version, name, clean=False)
    subscriber.subscribe(f"{room}/#", 2)
    subscriber.disconnect()
    finish(*publish_all(version, room, (1, 2), publishers=4, messages=100))
    subscriber = Peer(version, name, clean=False, **connect_properties)
    expect(subscriber.session_present, True)
    # Live messages join the backlog behind it.
    live = Peer(version)
    for qos in (1, 2):
        for number in range(100, 150):
            live.publish(f"{room}/0/{qos}", str(number), qos, wait=False)
    got = subscriber.take(4 * 2 * 100 + 100)
    late = [m for m in got if m.topic.startswith(f"{room}/0/") and int(m.payload) >= 100]
    expect([int(m.payload) for m in late if m.qos == 1], list(range(100, 150)))
    expect([int(m.payload) for m in late if m.qos == 2], list(range(100, 150)))
    for qos in (1, 2):
        numbers = [int(m.payload) for m in got if m.topic == f"{room}/0/{qos}"]
        expect(numbers, list(range(150)))
    rest = [m for m in got if not m.topic.startswith(f"{room}/0/")]
    rest += [m for m in got if m.topic.startswith(f"{room}/0/") and int(m.payload) < 100]
    check(rest, room, (1, 2), publishers=4, each=100)
    subscriber.nothing_more()
    live.disconnect()
    subscriber.disconnect()


@case()
def backlog_then_live(version):
    _backlog(version)


@case(("v5",), not_mosquitto="2.0.11 sends all that waits on the first PUBACK")
def backlog_larger_than_the_receive_maximum(version):
    _backlog(version, ReceiveMaximum=7)


def _reconnect(version, **connect_properties):
    """The subscriber's connection is lost again and again while publishers go on."""
    room = unique("reconnect")
    subscriber = Peer(version, f"{room}-sub", clean=False, **connect_properties)
    subscriber.subscribe(f"{room}/#", 2)
    threads, failures = publish_all(version, room, (1, 2))
    total = PUBLISHERS * 2 * MESSAGES
    for part in range(1, 6):
        subscriber.wait(lambda part=part: len(subscriber.messages) >= part * total // 8, "messages before the loss")
        subscriber.abandon()
        subscriber.connect()
        expect(subscriber.session_present, True)
    finish(threads, failures)
    subscriber.wait(lambda: len(first_times(subscriber.messages)) >= total, "every message")
    check(subscriber.messages, room, (1, 2), repeats_at_qos_1=True)
    subscriber.disconnect()


def first_times(messages):
    return {(message.topic, message.payload) for message in messages}


@case()
def reconnects_under_load(version):
    _reconnect(version)


@case(("v5",), not_mosquitto="2.0.11 sends all that waits on the first PUBACK")
def reconnects_under_load_with_a_small_receive_maximum(version):
    _reconnect(version, ReceiveMaximum=4)


@case()
def publisher_reconnects(version):
    """A publisher that loses its connection sends again; QoS 2 arrives once, QoS 1 at least once, in order."""
    room = unique("republish")
    subscriber = Peer(version)
    subscriber.subscribe(f"{room}/#", 2)
    publisher = Peer(version, f"{room}-pub", clean=False)
    for number in range(MESSAGES):
        for qos in (1, 2):
            publisher.client.publish(f"{room}/0/{qos}", str(number), qos)
        if number % 50 == 25:
            publisher.abandon()
            publisher.connect()
            expect(publisher.session_present, True)
    publisher.wait(lambda: len(publisher.published) == 2 * MESSAGES, "all acknowledgements")
    subscriber.wait(lambda: len(first_times(subscriber.messages)) >= 2 * MESSAGES, "every message")
    subscriber.fence()
    exactly = [int(m.payload) for m in subscriber.messages if m.qos == 2]
    expect(exactly, list(range(MESSAGES)))
    # What the publisher sent again is a new message to the subscriber, with DUP clear [MQTT-3.3.1-3].
    first = list(dict.fromkeys(int(m.payload) for m in subscriber.messages if m.qos == 1))
    expect(first, list(range(MESSAGES)))
    publisher.disconnect()
    subscriber.disconnect()


if __name__ == "__main__":
    run()

"""Many connections at once: take-over storms, connection storms, slow and idle peers. Sockets only, no client library.

Owns: the few bytes of CONNECT and CONNACK it needs. Does not own: any other packet (see conformance/).
Start reading at any case. Invariant: every socket has a deadline.
"""

import selectors
import socket
import struct
import threading
import time

from common import DEADLINE_SECONDS, HOST, PORT, Peer, case, expect, payloads, run, unique


def connect_packet(version, client_id, clean=True, will=None):
    flags = (2 if clean else 0) | (0x0C if will else 0)
    level, properties = (5, b"\x00") if version == "v5" else (4, b"")
    if version == "v5" and not clean:
        properties = b"\x05\x11\x00\x00\x00\x3c"  # Session Expiry Interval 60
    payload = text(client_id.encode())
    if will:
        payload += (b"\x00" if version == "v5" else b"") + text(will[0].encode()) + text(will[1])
    body = text(b"MQTT") + bytes([level, flags, 0, 60]) + properties + payload
    return b"\x10" + remaining_length(len(body)) + body


def text(data):
    return struct.pack("!H", len(data)) + data


def remaining_length(number):
    encoded = b""
    while True:
        number, digit = divmod(number, 128)
        encoded += bytes([digit | (128 if number else 0)])
        if not number:
            return encoded


def dial():
    return socket.create_connection((HOST, PORT), DEADLINE_SECONDS)


class Answers:
    """Reads many sockets until each has sent a whole packet or has ended."""

    def __init__(self, connections):
        self.bytes = {connection: b"" for connection in connections}
        self.ended = set()
        self.selector = selectors.DefaultSelector()
        for connection in connections:
            connection.setblocking(False)
            self.selector.register(connection, selectors.EVENT_READ)

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            ready = self.selector.select(deadline - time.monotonic())
            if not ready and time.monotonic() >= deadline:
                raise AssertionError(f"{sum(map(bool, self.bytes.values()))} of {len(self.bytes)} answered, {len(self.ended)} ended")
            for key, _ in ready:
                try:
                    data = key.fileobj.recv(65536)
                except ConnectionResetError:
                    data = b""
                self.bytes[key.fileobj] += data
                if not data:
                    self.ended.add(key.fileobj)
                    self.selector.unregister(key.fileobj)

    def connacks(self):
        """(session present, reason code) of each CONNACK."""
        return [(data[2], data[3]) for data in self.bytes.values() if len(data) >= 4 and data[0] == 0x20]


def is_connack_complete(data):
    return len(data) >= 2 and data[0] == 0x20 and len(data) >= 2 + data[1]


@case()
def connection_storm_every_one_gets_its_connack(version):
    room = unique("storm")
    connections = [dial() for _ in range(300)]
    for number, connection in enumerate(connections):
        connection.sendall(connect_packet(version, f"{room}-{number}"))
    answers = Answers(connections)
    answers.until(lambda: all(is_connack_complete(data) for data in answers.bytes.values()))
    expect(answers.connacks(), [(0, 0)] * 300)
    expect(answers.ended, set())
    for connection in connections:
        connection.close()


@case()
def connection_storm_from_many_threads(version):
    room = unique("threads")
    failures = []

    def one(number):
        try:
            with dial() as connection:
                connection.sendall(connect_packet(version, f"{room}-{number}"))
                data = b""
                while not is_connack_complete(data):
                    more = connection.recv(4096)
                    assert more, "closed without CONNACK"
                    data += more
                connection.sendall(b"\xe0\x00")
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(failures, [])


def _take_over_storm(version, clean):
    room = unique("takeover")
    connections = [dial() for _ in range(100)]
    for connection in connections:
        connection.sendall(connect_packet(version, room, clean))
    answers = Answers(connections)
    # All but one were ended again. Who shares in a kept Session may be ended before his part in it is on disk, and then
    # gets no CONNACK: it would promise what the disk does not hold.
    survives = lambda: [data for connection, data in answers.bytes.items() if connection not in answers.ended]
    answers.until(lambda: len(answers.ended) >= 99 and all(map(is_connack_complete_or_more, survives())))
    expect(len(answers.ended), 99)
    connacks = answers.connacks()
    expect([reason for _, reason in connacks], [0] * len(connacks))
    if clean:
        expect(len(connacks), 100)
    else:
        expect(sum(not present for present, _ in connacks) <= 1, True)
    survivor = (set(connections) - answers.ended).pop()
    survivor.setblocking(True)
    survivor.settimeout(DEADLINE_SECONDS)
    before = len(answers.bytes[survivor])
    survivor.sendall(b"\xc0\x00")
    expect((before >= 4, survivor.recv(16)), (True, b"\xd0\x00"))
    for connection in connections:
        connection.close()
    with dial() as last:  # ends the session
        last.sendall(connect_packet(version, room, clean=True))
        expect(last.recv(4)[3], 0)


def is_connack_complete_or_more(data):
    return len(data) >= 4 and data[0] == 0x20 and len(data) >= 2 + data[1]


@case()
def take_over_storm_clean(version):
    _take_over_storm(version, True)


@case()
def take_over_storm_kept_session(version):
    _take_over_storm(version, False)


@case(("v5",), not_mosquitto="2.0.11 closes the old connection without DISCONNECT 0x8E")
def take_over_storm_says_why(version):
    room = unique("why")
    connections = [dial() for _ in range(100)]
    for connection in connections:
        connection.sendall(connect_packet(version, room))
    answers = Answers(connections)
    answers.until(lambda: len(answers.ended) >= 99 and all(map(is_connack_complete_or_more, answers.bytes.values())))
    for connection in answers.ended:
        data = answers.bytes[connection]
        rest = data[2 + data[1] :]
        expect((rest[:1], rest[2:3]), (b"\xe0", b"\x8e"))
    for connection in connections:
        connection.close()


@case()
def wills_of_a_hundred_that_die_together(version):
    room = unique("wills")
    watcher = Peer(version)
    watcher.subscribe(f"{room}/#", 0)
    connections = [dial() for _ in range(100)]
    for number, connection in enumerate(connections):
        connection.sendall(connect_packet(version, f"{room}-{number}", will=(f"{room}/{number}", str(number).encode())))
    answers = Answers(connections)
    answers.until(lambda: all(is_connack_complete(data) for data in answers.bytes.values()))
    for connection in connections:
        connection.close()
    expect(sorted(map(int, payloads(watcher.take(100)))), list(range(100)))
    watcher.nothing_more()
    watcher.disconnect()


@case()
def storms_leave_the_others_alone(version):
    room = unique("calm")
    subscriber, publisher = Peer(version), Peer(version)
    subscriber.subscribe(f"{room}/#", 1)
    for number in range(100):
        with dial() as stranger:
            stranger.sendall(b"\x10\xff\xff\xff\xff" if number % 2 else b"GET / HTTP/1.1\r\n\r\n")
        publisher.publish(f"{room}/x", str(number), 1)
    expect([int(m.payload) for m in subscriber.take(100)], list(range(100)))
    subscriber.disconnect()
    publisher.disconnect()


if __name__ == "__main__":
    run()

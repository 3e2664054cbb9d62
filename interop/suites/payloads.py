"""Payloads that other people's encoders have made, shown by `vencejo sub -F cbor` and `-F msgpack`: the values they were made of.

Owns: the values, by a seed. Does not own: the broker (see run), Sparkplug (unit tests).
Start reading at shown_as_they_were(). Invariant: the same seed makes the same payloads; nothing sleeps.
"""

import base64
import json
import os
import random
import subprocess

import cbor2
import msgpack

from common import DEADLINE_SECONDS, HOST, PORT, Peer, case, expect, run, unique

PROGRAM = os.environ.get("INTEROP_PROGRAM", "")
SEED = int(os.environ.get("INTEROP_SEED", "5"))
COUNT = 200
DEPTH_MAX = 3
# Around each size is another way to write a length.
SIZES = (0, 1, 15, 16, 23, 24, 31, 32, 255, 256)


def value(chance, depth=0):
    """A value of any kind; the deeper the fewer in it."""
    kinds = [
        lambda: chance.randrange(-(2**63), 2**63),
        lambda: chance.randrange(-300, 300),
        lambda: chance.randrange(2**64),
        lambda: chance.choice([True, False, None]),
        lambda: chance.uniform(-1e6, 1e6),
        lambda: chance.choice([0.0, 1.5, -2.25, 1e300]),
        lambda: "".join(chance.choice('aé"\\\n漢 ') for _ in range(chance.choice(SIZES))),
        lambda: chance.randbytes(chance.choice(SIZES)),
    ]
    if depth < DEPTH_MAX:
        size = chance.choice(SIZES[: 8 - 2 * depth])
        kinds += 2 * [
            lambda: [value(chance, depth + 1) for _ in range(size)],
            lambda: {f"{number} é": value(chance, depth + 1) for number in range(size)},
        ]
    return chance.choice(kinds)()


def as_json(of):
    """What JSON has for it: bytes are base64url."""
    if isinstance(of, bytes):
        return base64.urlsafe_b64encode(of).rstrip(b"=").decode()
    if isinstance(of, list):
        return [as_json(one) for one in of]
    if isinstance(of, dict):
        return {name: as_json(one) for name, one in of.items()}
    return of


def shown_as_they_were(form, encode):
    chance = random.Random(SEED)
    values = [value(chance) for _ in range(COUNT)]
    topic = unique("payloads")
    sub = subprocess.Popen(
        [PROGRAM, "sub", "-h", HOST, "-p", str(PORT), "-t", topic, "-q", "1", "-F", form, "-C", str(COUNT), "-d"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    for line in sub.stdout:
        if line.startswith(b"Subscribed"):
            break
    peer = Peer("v5")
    for one in values:
        peer.publish(topic, encode(chance, one), 1)
    out, err = sub.communicate(timeout=DEADLINE_SECONDS)
    peer.disconnect()
    expect((sub.returncode, err), (0, b""))
    lines = [line for line in out.decode().split("\n") if line and not line.startswith("Client ")]
    expect(len(lines), COUNT)
    for line, one in zip(lines, values):
        seen = json.loads(line)
        if seen != as_json(one):
            raise AssertionError(f"seed {SEED}, {form}: {one!r} is shown as {line}")


@case((None,))
def cbor_of_another_encoder():
    # Short numbers as short as they can be, or not.
    shown_as_they_were("cbor", lambda chance, one: cbor2.dumps(one, canonical=chance.random() < 0.5))


@case((None,))
def msgpack_of_another_encoder():
    shown_as_they_were("msgpack", lambda _, one: msgpack.packb(one))


if __name__ == "__main__":
    run()

"""Ours and Debian's mosquitto beside one another, with TLS by the same certificate, and what is measured of both.

Owns: Canary, both(). Does not own: starting one broker (see brokers.py), what is done to them. Start reading at both().
Invariant: every wait has a deadline.
"""

import contextlib
import multiprocessing
import os
import pathlib
import socket
import struct
import subprocess
import time

import brokers

SECONDS_MAX = 60
MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
certfile {folder}/server.pem
keyfile {folder}/server.key
"""


def text(data):
    return struct.pack("!H", len(data)) + data


def packet(first, body):
    return bytes([first, len(body)]) + body


def connect(client_id):
    return packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x00" + text(client_id))


def cpu_seconds(process):
    tasks = pathlib.Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Canary:
    """PINGREQ on a plain connection, again and again, in a process of its own."""

    def __init__(self, port):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_sing, args=(port, theirs), daemon=True)
        self.process.start()
        self.ours.recv()

    def stop(self):
        """The seconds that each answer took."""
        self.ours.send(None)
        times = self.ours.recv()
        self.process.join()
        return times


def _sing(port, pipe):
    prefer(20)
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as canary:
        canary.sendall(connect(b"canary"))
        assert canary.recv(4) == b"\x20\x02\x00\x00"
        pipe.send(None)
        times = []
        while not pipe.poll(0.002):
            began = time.monotonic()
            canary.sendall(b"\xc0\x00")
            assert canary.recv(2) == b"\xd0\x00"
            times.append(time.monotonic() - began)
        pipe.send(times)


def prefer(priority):
    """Where this runs by a real-time policy (chrt -r 10), another priority: who floods does not hold up who listens."""
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


def certificate(folder):
    ec = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command = ["openssl", "req", "-x509", "-newkey", *ec, "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.pem"]
    subprocess.run(command, check=True, capture_output=True)
    pathlib.Path(f"{folder}/server.key").chmod(0o644)
    pathlib.Path(folder).chmod(0o755)
    return f"{folder}/server.pem"


@contextlib.contextmanager
def both(program, folder, wrong):
    """name -> (process id, port of TLS, plain port), and the certificate; what is wrong with their ends is added to `wrong`."""
    cafile = certificate(folder)
    listeners = f'[[listeners]]\naddress = "127.0.0.1:0"\n\n[[listeners]]\naddress = "127.0.0.1:0"\ntls = {{ certificate = "{folder}/server.pem", key = "{folder}/server.key" }}\n'
    configuration = pathlib.Path(folder) / "vencejo.toml"
    configuration.write_text(listeners)
    command = [str(program), "serve", "-c", str(configuration), "--shards", "1", "--level", "memory"]
    ours = brokers.Broker(command, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    theirs, plain = brokers.start_mosquitto(folder, more=MOSQUITTO.format(port=port, folder=folder))
    try:
        yield {
            "vencejo": (ours.process.pid, ours.port("mqtts"), ours.port()),
            "mosquitto": (theirs.process.pid, port, plain),
        }, cafile
    finally:
        wrong += [text for text in (ours.stop(), theirs.stop()) if text]

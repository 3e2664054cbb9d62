"""Starts and stops the brokers that the scripts in this folder use.

Owns: Broker, the configurations. Does not own: what is done to a broker. Start reading at Broker.
Invariant: what is started here is stopped by its process id.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 15
CONFIGURATION = "[limits]\nmaximum_packet_size_bytes = 8388608\n"
CONFIGURATION_TLS = """
[[listeners]]
address = "127.0.0.1:0"

[[listeners]]
address = "127.0.0.1:0"
name = "secure"
tls = {{ certificate = "{tls}/server.pem", key = "{tls}/server.key" }}

[[listeners]]
address = "127.0.0.1:0"
name = "machines"
tls = {{ certificate = "{tls}/server.pem", key = "{tls}/server.key", client_ca = "{tls}/ca.pem", client_certificates = "required" }}

[[listeners]]
address = "127.0.0.1:0"
name = "web"
transport = "websocket"

[[listeners]]
address = "127.0.0.1:0"
name = "secure-web"
transport = "websocket"
tls = {{ certificate = "{tls}/server.pem", key = "{tls}/server.key" }}

[[listeners]]
address = "127.0.0.1:0"
name = "quic"
transport = "quic"
tls = {{ certificate = "{tls}/server.pem", key = "{tls}/server.key" }}
"""
CONFIGURATION_MOSQUITTO = """listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
persistence false
set_tcp_nodelay true
max_inflight_messages 0
"""


class Broker:
    """One broker process of ours: started, watched for its port, stopped by its process id."""

    def __init__(self, command, directory, log="broker.log"):
        self.log = pathlib.Path(directory) / log
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self.log.open("w") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                with self.changed:
                    self.lines.append(line)
                    self.changed.notify_all()

    def port(self, scheme="mqtt", place=0):
        """The port on the line that has SCHEME://127.0.0.1:PORT, the first one or another."""
        deadline = time.monotonic() + START_SECONDS_MAX
        with self.changed:
            while True:
                found = re.findall(rf"\b{scheme}://127\.0\.0\.1:(\d+)", "".join(self.lines))
                if len(found) > place:
                    return int(found[place])
                if self.process.poll() is not None or not self.changed.wait(deadline - time.monotonic()):
                    sys.exit(f"interop: the broker said no {scheme}://127.0.0.1:PORT:\n" + "".join(self.lines))

    def stop(self):
        """Returns what was wrong with the broker's end, or None."""
        if self.process.poll() is not None:
            return f"the broker ended by itself with {self.process.returncode}"
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"the broker did not end within {STOP_SECONDS_MAX} s of SIGTERM"
        return None if code == 0 else f"the broker ended with {code} after SIGTERM"


def path(given):
    if given:
        return pathlib.Path(given).resolve()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for profile in ("release", "debug"):
        if (built := target / profile / "vencejo").exists():
            return built
    sys.exit("interop: no vencejo built yet: run `cargo build --release`, or give --broker PATH")


def start_vencejo(program, directory, shards, prefix=(), level="synced", more=""):
    configuration = pathlib.Path(directory) / "vencejo.toml"
    configuration.write_text(CONFIGURATION + more)
    command = [str(program), "serve", "-c", str(configuration), "--listen", "127.0.0.1:0", "--shards", str(shards)]
    command += ["--data", str(pathlib.Path(directory) / "data"), "--level", level]
    broker = Broker([*prefix, *command], directory)
    return broker, broker.port()


def start_vencejo_secured(program, directory, shards):
    """With a port for each carrier; returns the broker, and its ports and the roots of TLS by name."""
    tls = pathlib.Path(directory) / "tls"
    names = ["--name", "127.0.0.1", "--name", "localhost"]
    subprocess.run([str(program), "tls", "init", str(tls), *names], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([str(program), "tls", "client", "machine", str(tls)], check=True, stdout=subprocess.DEVNULL)
    configuration = pathlib.Path(directory) / "vencejo.toml"
    configuration.write_text(CONFIGURATION + CONFIGURATION_TLS.format(tls=tls))
    command = [str(program), "serve", "-c", str(configuration), "--shards", str(shards)]
    broker = Broker([*command, "--data", str(pathlib.Path(directory) / "data")], directory)
    return broker, {"cafile": str(tls / "ca.pem"), "certificate": str(tls / "machine.pem"), "key": str(tls / "machine.key")} | {
        name: broker.port(*scheme)
        for name, scheme in (
            ("tcp", ("mqtt",)), ("tls", ("mqtts",)), ("mtls", ("mqtts", 1)), ("ws", ("ws",)), ("wss", ("wss",)), ("udp", ("quic",))
        )
    }


def start_quic_relay(python, ports, directory):
    """What carries TCP over QUIC to the broker with these ports; `port("tcp")` is where it takes TCP."""
    command = [python, str(pathlib.Path(__file__).resolve().parent / "quic_relay.py"), str(ports["udp"]), ports["cafile"]]
    return Broker(command, directory, "relay.log")


def start_mosquitto(directory, prefix=(), more=""):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = pathlib.Path(directory) / "mosquitto.conf"
    configuration.write_text(CONFIGURATION_MOSQUITTO.format(port=port) + more)
    broker = Broker([*prefix, "/usr/sbin/mosquitto", "-c", str(configuration)], directory)
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:  # mosquitto names no port when it listens: knock until it opens
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return broker, port
        except ConnectionRefusedError:
            if time.monotonic() > deadline or broker.process.poll() is not None:
                sys.exit("interop: mosquitto does not listen:\n" + "".join(broker.lines))
            time.sleep(0.01)

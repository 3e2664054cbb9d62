"""Real clients through Debian's haproxy: PROXY version 1 and 2, and TLS that ends at the proxy.

The suites of Paho, mosquitto's tools, MQTT.js, aiomqtt and rumqttc run through each of the proxy's doors, with their payloads
of 300 kB and 5 MB; then the broker's log has to say from where clients have come and whose certificates the proxy has seen.

Owns: a haproxy and a broker of its own. Does not own: the cases of the other suites.
Start reading at WAYS and Proxied. Invariant: every wait has a condition and a deadline.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import common
from common import DEADLINE_SECONDS, Peer, case, expect, run, unique
import own

HERE = pathlib.Path(__file__).resolve().parent
CONFIGURATION = """
[limits]
maximum_packet_size_bytes = 8388608

[authentication]
certificate_user = "common-name"

[[listeners]]
address = "127.0.0.1:0"
name = "proxied"
proxy = ["127.0.0.1"]

[[listeners]]
address = "127.0.0.1:0"
name = "proxied-web"
transport = "websocket"
proxy = ["127.0.0.1"]
"""
CONFIGURATION_HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
# The door of the proxy, what it binds with, where it goes and what it says there.
WAYS = {
    "v1": ("", "mqtt", "send-proxy"),
    "v2": ("", "mqtt", "send-proxy-v2"),
    "web": ("", "ws", "send-proxy-v2"),
    "tls": ("ssl crt server-all.pem ca-file ca.pem verify optional", "mqtt", "send-proxy-v2-ssl-cn"),
    "careless": ("ssl crt server-all.pem ca-file ca.pem verify optional crt-ignore-err all ca-ignore-err all", "mqtt", "send-proxy-v2-ssl-cn"),
}
SUITES = {
    "mosquitto": [sys.executable, str(HERE / "mosquitto_tools.py")],
    "paho": [sys.executable, str(HERE / "paho_python.py")],
    "mqttjs": ["node", str(HERE / "mqttjs.mjs"), "suite"],
    "aiomqtt": [sys.executable, str(HERE / "aiomqtt_python.py")],
    "rumqttc": [str(HERE.parent.parent / ".test-tools/rumqttc/debug/interop-rumqttc"), "{host}", "{port}", "suite"],
}
THROUGH = [f"{suite} through {way}" for way in ("v1", "v2", "web", "tls") for suite in SUITES if (suite, way) != ("mosquitto", "web")]
SUITE_SECONDS_MAX = 90


class Proxied:
    """A broker, and a haproxy before it with a door for each of WAYS."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.certificates()
        (self.directory / "vencejo.toml").write_text(CONFIGURATION)
        self.broker = own.serve(directory, "--shards", "2")
        ports = {scheme: self.broker.port(scheme) for scheme in ("mqtt", "ws")}
        # The proxy takes sockets that are open already, so that no port has to be guessed.
        self.doors = {way: socket.create_server(("127.0.0.1", 0)) for way in WAYS}
        self.ports = {way: door.getsockname()[1] for way, door in self.doors.items()}
        text = CONFIGURATION_HAPROXY
        for way, (how, scheme, says) in WAYS.items():
            text += f"listen {way}\n    bind fd@{self.doors[way].fileno()} {how}\n    server broker 127.0.0.1:{ports[scheme]} {says}\n"
        (self.directory / "haproxy.cfg").write_text(text)
        self.haproxy = subprocess.Popen(
            ["haproxy", "-db", "-f", "haproxy.cfg"], cwd=directory, pass_fds=[door.fileno() for door in self.doors.values()]
        )
        self.cafile = str(self.directory / "ca.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def certificates(self):
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for authority in ("ca", "foreign"):
            self.openssl("req", "-x509", *new, "-days", "30", "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", f"{authority}.pem")
        for name, authority in (("server", "ca"), ("pump", "ca"), ("stranger", "foreign")):
            self.openssl("req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            (self.directory / "names").write_text("subjectAltName = IP:127.0.0.1,DNS:localhost\n")
            signed = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "names", "-days", "30"]
            self.openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
        both = [(self.directory / f"server.{end}").read_text() for end in ("pem", "key")]
        (self.directory / "server-all.pem").write_text("".join(both))

    def line(self, client_id):
        """What the log says of this client's connection."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self.broker.changed:
            while True:
                for line in self.broker.lines:
                    if "client connects" in line and client_id in line:
                        # Fields may be set off by the terminal's colours.
                        return re.sub(r"\x1b\[[0-9;]*m", "", line)
                if not self.broker.changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"the log has no connection of {client_id}")

    def mosquitto(self, way, *arguments, certificate=None):
        """A message from 127.0.0.9; returns the exit code and the client's line in the log, if it was let in."""
        client_id = unique("through")
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.ports[way]), "-A", "127.0.0.9", "-i", client_id]
        command += ["-t", "t", "-m", "m", "-q", "1", *arguments]
        if WAYS[way][0]:
            command += ["--cafile", self.cafile]
        if certificate:
            command += ["--cert", f"{certificate}.pem", "--key", f"{certificate}.key"]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, timeout=DEADLINE_SECONDS)
        return done.returncode, self.line(client_id) if done.returncode == 0 else ""

    def stop(self):
        self.haproxy.send_signal(signal.SIGTERM)
        self.haproxy.wait(DEADLINE_SECONDS)
        return self.broker.stop()


@case(THROUGH)
def suite_passes_through_the_proxy(which):
    suite, way = which.split(" through ")
    environment = dict(os.environ, INTEROP_PORT=str(PROXIED.ports[way]), INTEROP_HOST="127.0.0.1")
    for name in ("INTEROP_CAFILE", "INTEROP_WEBSOCKET"):
        environment.pop(name, None)
    if way == "tls":
        environment["INTEROP_CAFILE"] = PROXIED.cafile
    if way == "web":
        environment["INTEROP_WEBSOCKET"] = "1"
    command = [part.format(host="127.0.0.1", port=PROXIED.ports[way]) for part in SUITES[suite]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SUITE_SECONDS_MAX)
    expect((done.returncode, done.stderr[-600:] if done.returncode else ""), (0, ""))


@case(("v1", "v2", "tls"))
def log_has_the_address_of_the_client(way):
    code, line = PROXIED.mosquitto(way)
    expect((code, "peer=127.0.0.9:" in line, "user=" in line), (0, True, False))


@case(("v1", "v2"))
def clients_of_both_versions_are_those_behind_the_proxy(way):
    peer = Peer("v5", connect=False)
    common.PORT = PROXIED.ports[way]
    peer.connect()
    local = common.tcp_socket(peer.client).getsockname()
    expect(f"peer={local[0]}:{local[1]} " in PROXIED.line(peer.client_id), True)
    peer.disconnect()


@case((None,))
def certificate_that_the_proxy_has_verified_names_the_user():
    for more in ((), ("-u", "pump")):
        code, line = PROXIED.mosquitto("tls", *more, certificate="pump")
        expect((code, 'user="pump"' in line, "peer=127.0.0.9:" in line), (0, True, True))
    code, _ = PROXIED.mosquitto("tls", "-u", "valve", certificate="pump")
    expect(code != 0, True)


@case((None,))
def certificate_that_the_proxy_lets_through_unverified_names_nobody():
    code, _ = PROXIED.mosquitto("tls", certificate="stranger")
    expect(code != 0, True)
    # A proxy that lets everybody in says so, and then it is the broker that does not believe the name.
    code, line = PROXIED.mosquitto("careless", certificate="stranger")
    expect((code, "user=" in line), (0, False))
    code, _ = PROXIED.mosquitto("careless", "-u", "stranger", certificate="stranger")
    expect(code != 0, True)
    code, line = PROXIED.mosquitto("careless", certificate="pump")
    expect((code, 'user="pump"' in line), (0, True))


if __name__ == "__main__":
    FOLDER = own.folder("haproxy")
    PROXIED = Proxied(FOLDER.name)
    run(PROXIED.broker, FOLDER, PROXIED.stop)

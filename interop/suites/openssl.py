"""Certificates that openssl made, and handshakes that openssl bends: who gets in, and what an abuser gets.

Owns: an authority in openssl's hands, and a broker of its own that asks for client certificates. Does not own: the
cases of TLS that need no other implementation (see crates/server/tests/server/tls.rs).
Start reading at Authority and Guarded. Invariant: every wait has a condition and a deadline.
"""

import hashlib
import os
import pathlib
import signal
import subprocess
import threading
import time

from common import DEADLINE_SECONDS, Peer, case, expect, run, unique
import common
import own

CONFIGURATION = """
[limits]
maximum_packet_size_bytes = 8388608
connect_timeout = "2s"

[authentication]
certificate_user = "common-name"

[[listeners]]
address = "127.0.0.1:0"

[[listeners]]
address = "127.0.0.1:0"
name = "machines"
tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem", client_certificates = "required", crl = "revoked.pem" }

[authorization]
rules = [
  { effect = "allow", actions = ["publish", "subscribe"], topics = ["of/${username}/#"], anonymous = false },
  { effect = "allow", topics = ["canary"] },
]
"""
SECTIONS = """
[ca]
default_ca = own
[own]
dir = .
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 30
[server]
subjectAltName = IP:127.0.0.1,DNS:localhost
extendedKeyUsage = serverAuth
[client]
extendedKeyUsage = clientAuth
[req]
distinguished_name = names
[names]
"""
RSA = ["rsa:2048"]
EC = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
P384 = ["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"]
ED25519 = ["ed25519"]


class Authority:
    """A certificate authority as one is made by hand."""

    def __init__(self, directory, name="ca", kind=RSA):
        self.directory, self.name = directory, name
        (directory / "openssl.cnf").write_text(SECTIONS)
        (directory / "index.txt").touch()
        (directory / "crlnumber").write_text("01\n")
        self.openssl("req", "-x509", "-newkey", *kind, "-nodes", "-days", "30", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True)
        expect((done.returncode, done.stderr if done.returncode else ""), (0, ""))

    def issue(self, name, section="client", kind=EC, days=30):
        """NAME.pem and NAME.key. Below 1 day it has ended already."""
        self.openssl("req", "-newkey", *kind, "-nodes", "-subj", f"/O=Vencejo/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ["-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-extfile", "openssl.cnf", "-extensions", section]
        self.openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-days", str(days), "-out", f"{name}.pem")
        return str(self.directory / f"{name}.pem"), str(self.directory / f"{name}.key")

    def revoke(self, *names):
        for name in names:
            self.openssl("ca", "-config", "openssl.cnf", "-keyfile", f"{self.name}.key", "-cert", f"{self.name}.pem", "-revoke", f"{name}.pem")
        self.openssl("ca", "-config", "openssl.cnf", "-keyfile", f"{self.name}.key", "-cert", f"{self.name}.pem", "-gencrl", "-out", "revoked.pem")


class Guarded:
    """The broker, whose second listener wants a certificate of every client."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.authority = Authority(self.directory)
        self.authority.issue("server", "server", RSA)
        for name, kind in (("rsa", RSA), ("p256", EC), ("p384", P384), ("ed25519", ED25519), ("revoked", EC), ("late", EC)):
            self.authority.issue(name, kind=kind)
        self.authority.issue("expired", days=-1)
        self.authority.issue("as-server", "server")
        self.authority.revoke("revoked")
        Authority(self.directory, "foreign-ca", EC).issue("foreign")
        (self.directory / "vencejo.toml").write_text(CONFIGURATION)
        self.broker = own.serve(directory)
        self.plain, self.port = self.broker.port(), self.broker.port("mqtts")
        self.cafile = str(self.directory / "ca.pem")

    def files(self, name):
        return ["--cert", f"{name}.pem", "--key", f"{name}.key"] if name else []

    def mosquitto(self, tool, name, version, *arguments):
        command = [f"mosquitto_{tool}", "-h", "127.0.0.1", "-p", str(self.port), "-V", version, "--cafile", self.cafile]
        command += [*self.files(name), *arguments]
        return subprocess.run(command, cwd=self.directory, capture_output=True, timeout=DEADLINE_SECONDS)

    def s_client(self, *flags, name="p256", says=b""):
        """The exit code of one handshake by openssl, and what it printed; `says` is typed when the handshake is over. It
        sends no CONNECT, so the broker ends it at the latest when the time for one is over."""
        files = [part.replace("--", "-") for part in self.files(name)]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", self.cafile, *files, *flags]
        client = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        watchdog = threading.Timer(DEADLINE_SECONDS, client.kill)
        watchdog.start()
        heard = b""
        while says and b"Verify return code" not in heard and (line := client.stdout.readline()):
            heard += line
        try:
            client.stdin.write(says)
            client.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: what it printed says why
        heard += client.stdout.read()
        code = client.wait()
        watchdog.cancel()
        client.stdin.close()
        return code, heard.decode(errors="replace")


GUARDED = None


class Canary:
    """A pair beside what is done to the broker; it is over with the block, and was never slow."""

    def __enter__(self):
        common.PORT, common.HOST = GUARDED.plain, "127.0.0.1"
        self.peer = Peer("v3.1.1", "canary")
        self.peer.subscribe("canary")
        return self

    def sing(self):
        self.peer.publish("canary", b"tweet")
        self.peer.take(1)

    def __exit__(self, *_):
        self.sing()
        self.peer.disconnect()


def secured_peer(version, name):
    common.PORT, common.HOST = GUARDED.port, "127.0.0.1"
    peer = Peer(version, connect=False)
    certificate, key = (str(GUARDED.directory / f"{name}.{kind}") for kind in ("pem", "key"))
    peer.client.tls_set(ca_certs=GUARDED.cafile, certfile=certificate, keyfile=key)
    return peer


@case(("mqttv311", "mqttv5"))
def certificate_of_every_kind_of_key_is_its_user(version):
    for name in ("rsa", "p256", "p384", "ed25519"):
        done = GUARDED.mosquitto("pub", name, version, "-q", "1", "-t", f"of/{name}/a", "-m", "x")
        expect((done.returncode, done.stderr), (0, b""))
    done = GUARDED.mosquitto("pub", "rsa", "mqttv5", "-q", "1", "-t", "of/p256/a", "-m", "x", "-d")
    expect(b"RC:135" in done.stdout, True)


@case()
def large_messages_go_both_ways_with_client_certificates(version):
    # Paho leaves more than that unread over TLS (see common.PAYLOAD_SIZES).
    peer = secured_peer(version, "p256").connect()
    peer.subscribe("of/p256/large", 2)
    payload = os.urandom(300_000)
    peer.publish("of/p256/large", payload, 2)
    expect(hashlib.sha256(peer.take(1)[0].payload).digest(), hashlib.sha256(payload).digest())
    peer.disconnect()


@case(("mqttv311", "mqttv5"))
def five_megabytes_with_client_certificates(version):
    topic = f"of/rsa/{unique('large')}"
    sent = GUARDED.directory / "sent"
    sent.write_bytes(os.urandom(5_000_000))
    done = GUARDED.mosquitto("pub", "rsa", version, "-q", "2", "-t", topic, "-r", "-f", "sent")
    expect((done.returncode, done.stderr), (0, b""))
    done = GUARDED.mosquitto("sub", "rsa", version, "-q", "2", "-t", topic, "-C", "1", "-N")
    expect((done.returncode, done.stderr), (0, b""))
    expect(done.stdout == sent.read_bytes(), True)


@case((None,))
def who_shows_no_good_certificate_is_not_let_in():
    with Canary() as canary:
        for name in (None, "revoked", "expired", "foreign", "as-server"):
            done = GUARDED.mosquitto("pub", name, "mqttv5", "-t", "a", "-m", "x")
            expect((name, done.returncode != 0, done.stdout), (name, True, b""))
            canary.sing()
        # And a certificate is worth nothing without its key.
        done = GUARDED.mosquitto("pub", "p256", "mqttv5", "-t", "a", "-m", "x", "--key", "rsa.key")
        expect(done.returncode != 0, True)


@case((None,))
def certificate_that_is_revoked_while_the_broker_runs_is_refused_from_then_on():
    first = GUARDED.mosquitto("pub", "late", "mqttv5", "-t", "of/late/a", "-m", "x")
    expect(first.returncode, 0)
    GUARDED.authority.revoke("late")
    GUARDED.broker.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while GUARDED.mosquitto("pub", "late", "mqttv5", "-t", "of/late/a", "-m", "x").returncode == 0:
        expect(time.monotonic() < deadline, True)
    expect(GUARDED.mosquitto("pub", "rsa", "mqttv5", "-t", "of/rsa/a", "-m", "x").returncode, 0)


@case((None,))
def mqtt_is_the_protocol_agreed_on():
    for flags in (["-tls1_2"], ["-tls1_3"]):
        _, text = GUARDED.s_client(*flags, "-alpn", "h2,mqtt")
        expect("ALPN protocol: mqtt" in text, True)
    _, text = GUARDED.s_client("-alpn", "h2")
    expect("no application protocol" in text, True)


@case((None,))
def versions_before_1_2_are_refused():
    with Canary():
        for flag in ("-tls1", "-tls1_1"):
            code, text = GUARDED.s_client(flag, "-cipher", "ALL:@SECLEVEL=0")
            expect((code != 0, "alert" in text), (True, True))


@case((None,))
def renegotiation_is_refused():
    with Canary():
        code, text = GUARDED.s_client("-tls1_2", says=b"R\n")
        expect("RENEGOTIATING" in text, True)
        expect((code != 0, "no renegotiation" in text), (True, True))


@case((None,))
def an_update_of_keys_is_followed():
    _, text = GUARDED.s_client("-tls1_3", says=b"K\n")
    expect(("KEYUPDATE" in text, "error" in text.lower()), (True, False))


if __name__ == "__main__":
    FOLDER = own.folder("openssl")
    GUARDED = Guarded(FOLDER.name)
    run(GUARDED.broker, FOLDER)

"""Services by HTTP that are written in another language: who gets in, what each may do, keys that change.

Owns: the services (Python's http.server, one of them over TLS), a broker of its own that asks them. Does not own: what a
service can do wrong (see crates/server/tests/server/http_logins.rs, http_rights.rs, key_rotation.rs).
Start reading at Services. Invariant: every wait has a condition and a deadline.
"""

import base64
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import time

from common import DEADLINE_SECONDS, Peer, case, expect, run, unique
import own

CONFIGURATION = """
[authentication]
anonymous = "never"
failures_max = 0

[authentication.tokens]
jwks = "{plain}/keys"
algorithms = ["RS256"]
refresh_min = "100ms"

[authentication.http]
url = "{secure}/login"
ca = "service.pem"
bearer_file = "secret"
cache = {{ allow = "1s", deny = 0 }}
breaker = {{ failures = 3, pause = "100ms" }}

[authorization.http]
url = "{plain}/rights"
cache = {{ allow = "1s", deny = "1s" }}
"""
KEY = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout"]
NAMES = ["-subj", "/CN=service", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]


def openssl(directory, *arguments, text=b""):
    return subprocess.run(["openssl", *arguments], cwd=directory, input=text, capture_output=True, check=True).stdout


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"keys": SERVICES.keys})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if SERVICES.is_away:
            # Whoever kept its connection finds it closed.
            self.close_connection = True
            return
        if self.path == "/login" and self.headers["Authorization"] != "Bearer a secret":
            return self.answer({"result": "allow"}, 500)
        self.answer(SERVICES.login(asked) if self.path == "/login" else SERVICES.rights(asked))

    def answer(self, said, status=200):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Services:
    """Who decides, and the broker that asks."""

    def __init__(self, directory):
        global SERVICES
        SERVICES = self  # the broker asks as soon as it runs
        self.directory = pathlib.Path(directory)
        self.users, self.allowed, self.keys, self.is_away = {}, set(), [], False
        openssl(directory, *KEY, "service.key", "-out", "service.pem", *NAMES)
        (self.directory / "secret").write_text("a secret\n")
        self.plain, self.secure = self.start(), self.start(is_secure=True)
        addresses = {"plain": f"http://127.0.0.1:{self.plain.server_port}", "secure": f"https://localhost:{self.secure.server_port}"}
        (self.directory / "vencejo.toml").write_text(CONFIGURATION.format(**addresses))
        self.broker = own.serve(directory, "--listen", "127.0.0.1:0")
        self.port = self.broker.port()

    def start(self, is_secure=False, port=0):
        server = Server(("127.0.0.1", port), Handler)
        if is_secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.directory / "service.pem", self.directory / "service.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def login(self, asked):
        if asked["user_name"] not in self.users:
            return {"result": "ignore"}
        is_right = asked["password"] == self.users[asked["user_name"]]
        return {"result": "allow", "groups": ["people"]} if is_right else {"result": "deny"}

    def rights(self, asked):
        is_allowed = (asked["user_name"], asked["action"], asked["topic"]) in self.allowed
        return {"result": "allow" if is_allowed else "deny"}

    def new_key(self, name):
        """A key of this name, and it is the only one that is published."""
        openssl(self.directory, "genrsa", "-out", f"{name}.key", "2048")
        modulus = openssl(self.directory, "rsa", "-in", f"{name}.key", "-noout", "-modulus").decode().strip()
        modulus = bytes.fromhex(modulus.partition("=")[2])
        self.keys = [{"kty": "RSA", "use": "sig", "kid": name, "n": part(modulus), "e": "AQAB"}]

    def token(self, key, user):
        claims = {"sub": user, "exp": int(time.time()) + 600}
        signed = f"{part({'alg': 'RS256', 'kid': key})}.{part(claims)}"
        signature = openssl(self.directory, "dgst", "-sha256", "-sign", f"{key}.key", text=signed.encode())
        return f"{signed}.{part(signature)}"

    def publish(self, version, user, password, topic="a", *flags):
        """mosquitto_pub: its exit code is that of the CONNACK, 0 if it got in."""
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-V", version, "-u", user, "-t", topic, "-m", "x"]
        command += ["-P", password, *flags]
        return subprocess.run(command, capture_output=True, timeout=DEADLINE_SECONDS)


SERVICES = None
VERSION_FLAGS = ("mqttv311", "mqttv5")
# The exit code of mosquitto_pub to a wrong password, and to a service that does not answer.
BAD, UNAVAILABLE = {"mqttv311": 4, "mqttv5": 134}, {"mqttv311": 3, "mqttv5": 136}


def until(condition):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        expect(time.monotonic() < deadline, True)


@case(VERSION_FLAGS)
def service_decides_who_gets_in(version):
    name = unique("user")
    expect(SERVICES.publish(version, name, "word").returncode, BAD[version])
    SERVICES.users[name] = "wörd"
    for _ in range(3):
        expect(SERVICES.publish(version, name, "wörd").returncode, 0)
        expect(SERVICES.publish(version, name, "ward").returncode, BAD[version])
    del SERVICES.users[name]
    until(lambda: SERVICES.publish(version, name, "wörd").returncode == BAD[version])


@case()
def service_decides_what_a_client_may_do(version):
    name, topic = unique("user"), unique("topic")
    SERVICES.users[name] = "word"
    SERVICES.allowed |= {(name, "subscribe", topic), (name, "publish", topic)}
    peer = Peer(version, connect=False)
    peer.client.username_pw_set(name, "word")
    peer.connect()
    peer.subscribe(topic, 1)
    for number in range(20):
        peer.publish(topic, str(number).encode(), 1)
    expect([message.payload for message in peer.take(20)], [str(number).encode() for number in range(20)])
    done = SERVICES.publish("mqttv5", name, "word", unique("other"), "-q", "1", "-d")
    expect(b"RC:135" in done.stdout, True)
    SERVICES.allowed.discard((name, "publish", topic))
    until(lambda: b"RC:135" in SERVICES.publish("mqttv5", name, "word", topic, "-q", "1", "-d").stdout)
    peer.disconnect()


@case(VERSION_FLAGS)
def keys_that_change_are_followed(version):
    first, second = unique("key"), unique("key")
    SERVICES.new_key(first)
    old = SERVICES.token(first, "anna")
    until(lambda: SERVICES.publish(version, "anna", old).returncode == 0)
    SERVICES.new_key(second)
    until(lambda: SERVICES.publish(version, "anna", SERVICES.token(second, "anna")).returncode == 0)
    expect(SERVICES.publish(version, "anna", old).returncode != 0, True)


@case(VERSION_FLAGS)
def service_that_is_stopped_lets_nobody_in_until_it_is_back(version):
    name = unique("user")
    SERVICES.users[name] = "word"
    expect(SERVICES.publish(version, name, "word").returncode, 0)
    port, SERVICES.is_away = SERVICES.secure.server_port, True
    SERVICES.secure.shutdown()
    SERVICES.secure.server_close()
    for number in range(5):
        expect(SERVICES.publish(version, name, f"other {number}").returncode, UNAVAILABLE[version])
    SERVICES.secure, SERVICES.is_away = SERVICES.start(is_secure=True, port=port), False
    until(lambda: SERVICES.publish(version, name, unique("other")).returncode == BAD[version])
    expect(SERVICES.publish(version, name, "word").returncode, 0)


if __name__ == "__main__":
    FOLDER = own.folder("service")
    Services(FOLDER.name)
    run(SERVICES.broker, FOLDER)

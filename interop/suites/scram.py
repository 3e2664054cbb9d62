"""SCRAM-SHA-256 by AUTH between ours and an implementation that we did not write: scramp, once on each side.

Owns: the few packets of MQTT 5 that paho cannot say (AUTH), a broker of ours with users, a false broker. Does not own:
the messages of SCRAM (see scramp). Start reading at login(). Invariant: every wait has a deadline.
"""

import pathlib
import socket
import struct
import subprocess
import threading

import scramp

from common import DEADLINE_SECONDS, case, expect, run, unique
import common
from own import PROGRAM
import own

METHOD = "SCRAM-SHA-256"
CONNECT, CONNACK, PUBLISH, DISCONNECT, AUTH = 0x10, 0x20, 0x30, 0xE0, 0xF0
CONTINUE, AGAIN, WRONG, NOT_AUTHORIZED = 0x18, 0x19, 0x86, 0x87


def text(value):
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind, body):
    length, rest = b"", len(body)
    while True:
        length += bytes([rest % 128 | (0x80 if rest > 127 else 0)])
        rest //= 128
        if not rest:
            return bytes([kind]) + length + body


def properties(data):
    both = b"\x15" + text(METHOD)
    if data is not None:
        both += b"\x16" + text(data)
    return packet(0, both)[1:]


class Wire:
    """A socket that says and hears packets of MQTT 5."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(DEADLINE_SECONDS)

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise AssertionError("the other side has closed")
            data += more
        return data

    def hear(self):
        kind, length, shift = self.take(1)[0], 0, 0
        while True:
            byte = self.take(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return kind & 0xF0, self.take(length)

    def say(self, kind, body):
        self.connection.sendall(packet(kind, body))

    def auth(self, reason, data):
        self.say(AUTH, bytes([reason]) + properties(data))


def data_in(body):
    """The Authentication Data in the properties of `body`."""
    at = body.index(b"\x16", body.index(METHOD.encode()))
    length = struct.unpack(">H", body[at + 1:at + 3])[0]
    return body[at + 3:at + 3 + length].decode()


class Login:
    """A client of ours to be, with scramp's side of SCRAM."""

    def __init__(self, user, password, again=None):
        scram = scramp.ScramClient([METHOD], user, password)
        first = scram.get_client_first()
        if again is None:
            self.wire = Wire(socket.create_connection(("127.0.0.1", common.PORT)))
            body = text("MQTT") + b"\x05\x02\x00\x00" + properties(first) + text(unique("scram"))
            self.wire.say(CONNECT, body)
        else:
            self.wire = again.wire
            self.wire.auth(AGAIN, first)
        kind, body = self.wire.hear()
        expect((kind, body[0]), (AUTH, CONTINUE))
        scram.set_server_first(data_in(body))
        self.wire.auth(CONTINUE, scram.get_client_final())
        kind, body = self.wire.hear()
        self.code = body[1] if kind == CONNACK else body[0]
        if self.code == 0:
            # It raises unless the server has proven that it knows the user.
            scram.set_server_final(data_in(body))


class Users:
    """A broker of ours with users."""

    def __init__(self, directory):
        self.directory = directory
        command = ["mosquitto_passwd", "-H", "sha512", "-c", "-b", "passwords", "from-file", "word"]
        subprocess.run(command, cwd=directory, check=True, stderr=subprocess.DEVNULL)
        (pathlib.Path(directory) / "vencejo.toml").write_text('[authentication]\npassword_file = "passwords"\nfailures_max = 0\n')
        self.broker = own.serve(directory, "--listen", "127.0.0.1:0")

    def add(self, name, password):
        command = [PROGRAM, "user", "add", "--data", "data", name]
        subprocess.run(command, cwd=self.directory, input=password + "\n", text=True, check=True, capture_output=True)


@case(("v5",))
def user_proves_its_password_and_hears_a_proof(version):
    # scramp escapes neither `=` nor `,` in a user name.
    for name, password in (("anna", "word"), ("an na", "=,="), ("anne-é", "pässwörd Ⅸ")):
        name = unique(name)
        USERS.add(name, password)
        expect(Login(name, password).code, 0)
        expect(Login(name, password + "x").code, WRONG)
        expect(Login(name + "x", password).code, WRONG)


@case(("v5",))
def user_proves_it_again_while_connected(version):
    USERS.add("again", "word")
    login = Login("again", "word")
    for _ in range(3):
        expect(Login("again", "word", again=login).code, 0)
    expect(Login("again", "ward", again=login).code, NOT_AUTHORIZED)


@case(("v5",))
def user_of_a_password_file_after_its_first_password(version):
    expect(Login("from-file", "word").code, WRONG)
    flags = ["-h", "127.0.0.1", "-p", str(common.PORT), "-t", "a", "-m", "x", "-u", "from-file", "-P", "word"]
    subprocess.run(["mosquitto_pub", *flags], check=True, timeout=DEADLINE_SECONDS)
    expect(Login("from-file", "word").code, 0)
    expect(Login("from-file", "ward").code, WRONG)


def serve_once(listener, password):
    """A broker for one client, with scramp's side of SCRAM, by this password of whoever comes."""
    mechanism = scramp.ScramMechanism(METHOD)
    auth_info = mechanism.make_auth_info(password, iteration_count=8192)
    scram = mechanism.make_server(lambda user: auth_info)
    connection, _ = listener.accept()
    wire = Wire(connection)
    try:
        _, body = wire.hear()
        scram.set_client_first(data_in(body))
        wire.auth(CONTINUE, scram.get_server_first())
        _, body = wire.hear()
        try:
            scram.set_client_final(data_in(body))
            final = scram.get_server_final()
        except scramp.ScramException:
            # A false broker that goes on as if all were well.
            final = "v=" + "A" * 43 + "="
        wire.say(CONNACK, b"\x00\x00" + properties(final))
        kind, _ = wire.hear()
        while connection.recv(4096):
            pass
        return kind
    finally:
        connection.close()


@case(("v5",))
def our_client_logs_in_at_a_server_of_scramp_and_leaves_a_false_one(version):
    for password, kind_after, is_good in (("word", PUBLISH, True), ("ward", DISCONNECT, False)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(DEADLINE_SECONDS)
            seen = []
            thread = threading.Thread(target=lambda: seen.append(serve_once(listener, password)))
            thread.start()
            port = str(listener.getsockname()[1])
            command = [PROGRAM, "pub", "-p", port, "-t", "a", "-m", "x", "--auth-method", METHOD, "-u", "anna", "-P", "word"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
            thread.join(DEADLINE_SECONDS)
            expect((seen, done.returncode == 0), ([kind_after], is_good))
            expect("has not proven" in done.stderr, not is_good)


if __name__ == "__main__":
    FOLDER = own.folder("scram")
    USERS = Users(FOLDER.name)
    run(USERS.broker, FOLDER)

"""Users of every kind, with clients that we did not write: who gets in, who does not, and what a change does.

Owns: a broker of its own with users, and what it is told while it runs. Does not own: what a user may do (see
the rules' own tests). Start reading at Users. Invariant: every wait has a condition and a deadline.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import signal
import subprocess
import time

from common import DEADLINE_SECONDS, Peer, case, expect, run, unique
from own import PROGRAM
import own

SECRET = "a secret that is long enough to be one"
CONFIGURATION = """
[authentication]
anonymous = "never"
password_file = "passwords"
failures_max = 5
tokens = {{ key = "{secret}", algorithms = ["HS256"] }}
"""


class Users:
    """A broker whose users come from mosquitto_passwd, from `vencejo user` and by token."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        for number, form in enumerate(("sha512", "sha512-pbkdf2")):
            create = ["-c"] if number == 0 else []
            command = ["mosquitto_passwd", "-H", form, *create, "-b", "passwords", f"file-{form}", "word"]
            subprocess.run(command, cwd=directory, check=True, stderr=subprocess.DEVNULL)
        (self.directory / "secret").write_text(SECRET + "\n")
        (self.directory / "vencejo.toml").write_text(CONFIGURATION.format(secret="secret"))
        self.user("add", "built-in", "--group", "staff", password="word")
        self.broker = own.serve(directory, "--listen", "127.0.0.1:0")
        self.port = self.broker.port()

    def user(self, *arguments, password=None, code=0):
        command = [PROGRAM, "user", *arguments, "--data", "data"]
        text = None if password is None else password + "\n"
        done = subprocess.run(command, cwd=self.directory, input=text, text=True, capture_output=True)
        expect((done.returncode, done.stderr if done.returncode != code else ""), (code, ""))
        return done.stdout

    def publish(self, version, user=None, password=None):
        """The exit code of mosquitto_pub: that of the CONNACK, 0 if it got in."""
        flags = [] if user is None else ["-u", user]
        flags += [] if password is None else ["-P", password]
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-V", version, "-t", "a", "-m", "x"]
        return subprocess.run([*command, *flags], capture_output=True, timeout=DEADLINE_SECONDS).returncode


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def token(secret=SECRET, **claims):
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    return f"{signed}.{part(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


USERS = None
# The exit code of mosquitto_pub to a wrong password, and to nobody at all.
BAD, NOBODY = {"mqttv311": 4, "mqttv5": 134}, {"mqttv311": 5, "mqttv5": 135}
VERSION_FLAGS = ("mqttv311", "mqttv5")


@case(VERSION_FLAGS)
def hashes_of_mosquitto_passwd(version):
    for form in ("sha512", "sha512-pbkdf2"):
        expect(USERS.publish(version, f"file-{form}", "word"), 0)
        expect(USERS.publish(version, f"file-{form}", "ward"), BAD[version])


@case(VERSION_FLAGS)
def nobody_gets_in_unknown(version):
    expect(USERS.publish(version, unique("nobody"), "word"), BAD[version])
    expect(USERS.publish(version, "built-in"), BAD[version])
    expect(USERS.publish(version), NOBODY[version])


@case(VERSION_FLAGS)
def users_come_and_go_while_it_runs(version):
    name = unique("user")
    expect(USERS.publish(version, name, "one"), BAD[version])
    USERS.user("add", name, password="one")
    expect(name in USERS.user("list").split(), True)
    expect(USERS.publish(version, name, "one"), 0)
    USERS.user("passwd", name, password="two")
    expect(USERS.publish(version, name, "one"), BAD[version])
    expect(USERS.publish(version, name, "two"), 0)
    USERS.user("rm", name)
    expect(USERS.publish(version, name, "two"), BAD[version])


@case()
def client_of_a_removed_user_is_disconnected(version):
    name = unique("removed")
    USERS.user("add", name, password="word")
    peer = Peer(version, connect=False)
    peer.client.username_pw_set(name, "word")
    peer.connect()
    other = Peer(version, connect=False)
    other.client.username_pw_set("built-in", "word")
    other.connect()
    USERS.user("rm", name)
    peer.wait(lambda: peer.ended, "end of the connection")
    other.fence()
    other.disconnect()


@case()
def token_lets_in_until_it_ends(version):
    ends_in_seconds = 3
    peer = Peer(version, connect=False)
    peer.client.username_pw_set("anna", token(sub="anna", exp=time.time() + ends_in_seconds))
    peer.connect()
    peer.fence()
    peer.wait(lambda: peer.ended, "end of the token")


@case(VERSION_FLAGS)
def tokens_that_are_not_good(version):
    hour = time.time() + 3600
    expect(USERS.publish(version, "emil", token(sub="emil", exp=hour)), 0)
    wrong = [token(sub="emil", exp=1), token(sub="emil"), token(sub="otto", exp=hour), token("x" * 40, sub="emil", exp=hour)]
    for one in wrong:
        expect(USERS.publish(version, "emil", one), NOBODY[version])
    subprocess.run([PROGRAM, "ban", "lift", "--data", "data"], cwd=USERS.directory, check=True, stdout=subprocess.DEVNULL)


@case(("mqttv5",))
def who_fails_too_often_is_banned(version):
    name = unique("tried")
    for _ in range(5):
        expect(USERS.publish(version, name, "guess"), BAD[version])
    expect(USERS.publish(version, name, "guess"), 138)
    done = subprocess.run([PROGRAM, "ban", "list", "--data", "data"], cwd=USERS.directory, check=True, text=True, capture_output=True)
    expect(f"user {name}" in done.stdout, True)
    subprocess.run([PROGRAM, "ban", "lift", "127.0.0.1", "--data", "data"], cwd=USERS.directory, check=True, stdout=subprocess.DEVNULL)
    expect(USERS.publish(version, name, "guess"), BAD[version])


@case(("mqttv5",))
def password_file_is_read_again_and_a_wrong_one_is_not_taken(version):
    file = USERS.directory / "passwords"
    before = file.read_text()
    subprocess.run(["mosquitto_passwd", "-b", "passwords", "late", "word"], cwd=USERS.directory, check=True)
    USERS.broker.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while USERS.publish(version, "late", "word") != 0 and time.monotonic() < deadline:
        subprocess.run([PROGRAM, "ban", "lift", "--data", "data"], cwd=USERS.directory, check=True, stdout=subprocess.DEVNULL)
    expect(USERS.publish(version, "late", "word"), 0)
    file.write_text("")
    USERS.broker.process.send_signal(signal.SIGHUP)
    with USERS.broker.changed:
        seen = USERS.broker.changed.wait_for(
            lambda: any("configuration not reloaded" in line for line in USERS.broker.lines), DEADLINE_SECONDS
        )
    expect(seen, True)
    expect(USERS.publish(version, "late", "word"), 0)
    file.write_text(before)


if __name__ == "__main__":
    FOLDER = own.folder("identity")
    USERS = Users(FOLDER.name)
    run(USERS.broker, FOLDER)

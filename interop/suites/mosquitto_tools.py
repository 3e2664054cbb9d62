"""mosquitto_pub, mosquitto_sub and mosquitto_rr from Debian against a broker: flags, output and exit codes.

Owns: processes of these tools, and waiting for what they print. Does not own: the tools of our own (their tests do).
Start reading at Tool. Invariant: a subscriber is waited for until its SUBACK is in its debug output.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading

from common import CAFILE, CERTIFICATE, DEADLINE_SECONDS, HOST, KEY, PORT, case, expect, run, unique

TIMED_OUT = 27  # -W: the exit code of MOSQ_ERR_TIMEOUT
VERSION_FLAG = {"v3.1": "mqttv31", "v3.1.1": "mqttv311", "v5": "mqttv5"}
ALL = ("v3.1", "v3.1.1", "v5")


class Tool:
    """One running tool; its lines can be waited for."""

    def __init__(self, name, version, *arguments, stdin=subprocess.DEVNULL):
        command = ["stdbuf", "-oL", f"mosquitto_{name}", "-h", HOST, "-p", str(PORT), "-V", VERSION_FLAG[version]]
        command += ["--cafile", CAFILE] if CAFILE else []
        command += ["--cert", CERTIFICATE, "--key", KEY] if CERTIFICATE else []
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self.changed.notify_all()

    def wait_line(self, start):
        with self.changed:
            if not self.changed.wait_for(lambda: any(line.startswith(start) for line in self.lines), DEADLINE_SECONDS):
                raise AssertionError(f"no line {start!r}: {self.lines}")

    def end(self, code=0):
        """Waits for the end, checks the exit code, returns what was printed without debug lines and "Timed out"."""
        seen = self.process.wait(DEADLINE_SECONDS)
        self.reader.join(DEADLINE_SECONDS)
        expect((seen, self.lines[-5:] if seen != code else None), (code, None))
        beside = ("Client ", "Subscribed ", "Unsubscribed ", "Timed out")
        return [line for line in self.lines if not line.startswith(beside)]


def subscriber(version, *arguments):
    """A mosquitto_sub that has its SUBACK."""
    tool = Tool("sub", version, "-d", *arguments)
    tool.wait_line("Subscribed ")
    return tool


def publish(version, *arguments, stdin=None, code=0):
    tool = Tool("pub", version, *arguments, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
    if stdin is not None:
        tool.process.stdin.write(stdin)
        tool.process.stdin.close()
    return tool.end(code)


@case(ALL)
def every_qos(version):
    for qos in (0, 1, 2):
        room = unique("m-qos")
        sub = subscriber(version, "-t", f"{room}/#", "-q", qos, "-C", 1, "-F", "%q %r %t %p")
        publish(version, "-t", f"{room}/a", "-q", qos, "-m", "hello")
        expect(sub.end(), [f"{qos} 0 {room}/a hello"])


@case(ALL)
def messages_from_lines(version):
    room = unique("m-lines")
    sub = subscriber(version, "-t", room, "-q", 1, "-C", 100)
    publish(version, "-t", room, "-q", 1, "-l", stdin=b"".join(b"line %d\n" % n for n in range(100)))
    expect(sub.end(), [f"line {n}" for n in range(100)])


@case()
def message_from_standard_input(version):
    room = unique("m-stdin")
    sub = subscriber(version, "-t", room, "-C", 1)
    publish(version, "-t", room, "-s", stdin=b"two\nlines")
    expect(sub.end(), ["two", "lines"])


@case()
def message_from_a_file(version):
    room = unique("m-file")
    for size in (300_000, 5_000_000):
        with tempfile.NamedTemporaryFile() as file:
            file.write(os.urandom(size // 2).hex().encode())
            file.flush()
            sub = subscriber(version, "-t", room, "-q", 2, "-C", 1)
            publish(version, "-t", room, "-q", 2, "-f", file.name)
            file.seek(0)
            expect(sub.end() == [file.read().decode()], True)


@case()
def empty_message(version):
    room = unique("m-null")
    sub = subscriber(version, "-t", room, "-C", 1, "-F", "[%p] %l")
    publish(version, "-t", room, "-n")
    expect(sub.end(), ["[] 0"])


@case(ALL)
def retained_set_replace_clear(version):
    room = unique("m-kept")
    for payload in ("first", "second"):
        publish(version, "-t", room, "-r", "-q", 1, "-m", payload)
        expect(Tool("sub", version, "-t", room, "-C", 1, "-F", "%r %p").end(), [f"1 {payload}"])
    publish(version, "-t", room, "-r", "-q", 1, "-n")
    expect(Tool("sub", version, "-t", room, "-C", 1, "-W", 1).end(TIMED_OUT), [])


@case()
def stale_messages_are_not_printed(version):
    """-R: mosquitto_sub asks for no retained message (v5) or does not print it (v3.1.1)."""
    room = unique("m-stale")
    publish(version, "-t", room, "-r", "-q", 1, "-m", "stale")
    sub = subscriber(version, "-t", room, "-R", "-C", 1)
    publish(version, "-t", room, "-q", 1, "-m", "fresh")
    expect(sub.end(), ["fresh"])
    publish(version, "-t", room, "-r", "-n")


@case()
def retained_only_and_remove_retained(version):
    room = unique("m-remove")
    for name in "ab":
        publish(version, "-t", f"{room}/{name}", "-r", "-q", 1, "-m", name)
    sub = Tool("sub", version, "-t", f"{room}/#", "--retained-only", "--remove-retained", "-q", 1, "-W", 1)
    expect(sorted(sub.end(TIMED_OUT)), ["a", "b"])
    expect(Tool("sub", version, "-t", f"{room}/#", "-W", 1).end(TIMED_OUT), [])


@case()
def filtered_out_topics(version):
    """-T"""
    room = unique("m-filter")
    sub = subscriber(version, "-v", "-t", f"{room}/#", "-T", f"{room}/b/#", "-C", 2)
    for name in ("a", "b/x", "c"):
        publish(version, "-t", f"{room}/{name}", "-m", name)
    expect(sub.end(), [f"{room}/a a", f"{room}/c c"])


@case()
def unsubscribe_on_connect(version):
    """-U: a kept session loses one of its subscriptions."""
    room = unique("m-unsub")
    kept = ("-i", f"{room}-c", "-c", "-q", 1)
    Tool("sub", version, *kept, "-t", f"{room}/a", "-t", f"{room}/b", "-E").end()
    sub = Tool("sub", version, *kept, "-U", f"{room}/a", "-t", f"{room}/c", "-C", 2, "-d")
    sub.wait_line("Subscribed ")
    sub.wait_line(f"Client {room}-c received UNSUBACK")
    for name in "abc":
        publish(version, "-t", f"{room}/{name}", "-q", 1, "-m", name)
    expect(sub.end(), ["b", "c"])
    Tool("sub", version, "-i", f"{room}-c", "-t", room, "-E").end()


@case(("v3.1", "v3.1.1"))
def session_resume(version):
    _session_resume(version)


@case(("v5",), not_mosquitto="2.0.11 with max_inflight_messages 0 sends more than the client's Receive Maximum")
def session_resume_v5(version):
    _session_resume(version)


def _session_resume(version):
    room = unique("m-resume")
    kept = ("-i", f"{room}-c"[:23], "-c", "-q", 2, "-t", room)
    Tool("sub", version, *kept, "-E").end()
    publish(version, "-t", room, "-q", 2, "-l", stdin=b"".join(b"%d\n" % n for n in range(50)))
    expect(Tool("sub", version, *kept, "-C", 50).end(), [str(n) for n in range(50)])
    Tool("sub", version, "-i", f"{room}-c"[:23], "-t", room, "-E").end()


@case(ALL)
def will_after_kill_and_not_after_the_end(version):
    room = unique("m-will")
    watcher = subscriber(version, "-v", "-t", f"{room}/#", "-q", 1, "-C", 2)
    will = ("--will-topic", f"{room}/gone", "--will-payload", "gone", "--will-qos", 1)
    Tool("sub", version, "-t", f"{room}-other", "-E", *will).end()  # ends with DISCONNECT
    publish(version, "-t", f"{room}/between", "-q", 1, "-m", "between")
    dying = subscriber(version, "-t", f"{room}-other", *will)
    dying.process.send_signal(signal.SIGKILL)
    dying.process.wait()
    expect(watcher.end(), [f"{room}/between between", f"{room}/gone gone"])


@case()
def shared_subscription(version):
    room = unique("m-shared")
    members = [subscriber(version, "-t", f"$share/g/{room}/#", "-q", 1) for _ in range(2)]
    plain = subscriber(version, "-t", f"{room}/#", "-q", 1, "-C", 40)
    publish(version, "-t", f"{room}/x", "-q", 1, "-l", stdin=b"".join(b"%d\n" % n for n in range(40)))
    expect(plain.end(), [str(n) for n in range(40)])
    publish(version, "-t", f"{room}/end", "-q", 1, "-l", stdin=b"end\nend\n")  # one for each, in turn
    for member in members:
        with member.changed:
            member.changed.wait_for(lambda member=member: "end" in member.lines, DEADLINE_SECONDS)
        member.process.send_signal(signal.SIGTERM)
    lines = [line for member in members for line in member.end()]
    expect(sorted(int(line) for line in lines if line != "end"), list(range(40)))


@case()
def exit_code_of_a_time_out(version):
    expect(Tool("sub", version, "-t", unique("m-none"), "-W", 1).end(TIMED_OUT), [])


@case()
def exit_code_of_a_refused_connection(version):
    tool = subprocess.run(
        ["mosquitto_pub", "-h", HOST, "-p", "1", "-t", "x", "-m", "x"], capture_output=True, timeout=DEADLINE_SECONDS
    )
    expect(tool.returncode, 1)


@case()
def repeated_messages(version):
    room = unique("m-repeat")
    sub = subscriber(version, "-t", room, "-q", 1, "-C", 5)
    publish(version, "-t", room, "-q", 1, "-m", "again", "--repeat", 5)
    expect(sub.end(), ["again"] * 5)


@case(("v5",))
def properties(version):
    room = unique("m-prop")
    sub = subscriber(version, "-t", room, "-q", 1, "-C", 1, "-F", "%j", "-D", "subscribe", "subscription-identifier", 42)
    given = {
        "payload-format-indicator": 1,
        "message-expiry-interval": 1000,
        "content-type": "text/plain",
        "response-topic": f"{room}/answer",
        "correlation-data": "abc",
    }
    flags = [flag for name, value in given.items() for flag in ("-D", "publish", name, value)]
    publish(version, "-t", room, "-q", 1, "-m", "p", *flags)
    got = json.loads("".join(sub.end()))["properties"]
    expect(990 <= got.pop("message-expiry-interval") <= 1000, True)
    expect(got["response-topic"], f"{room}/answer")
    expect((got["payload-format-indicator"], got["content-type"], got["correlation-data"]), (1, "text/plain", "abc"))


@case(("v5",))
def user_properties_in_order(version):
    room = unique("m-user")
    sub = subscriber(version, "-t", room, "-q", 1, "-C", 1, "-F", "%P")
    users = [flag for key, value in ("b2", "a1", "b0") for flag in ("-D", "publish", "user-property", key, value)]
    publish(version, "-t", room, "-q", 1, "-m", "p", *users)
    expect(sub.end(), ["b:2 a:1 b:0"])


@case(("v5",))
def session_expiry_and_other_connect_properties(version):
    room = unique("m-connect")
    flags = ("-D", "connect", "receive-maximum", 3, "-D", "connect", "user-property", "who", "me")
    kept = ("-i", f"{room}-c", "-c", "-x", 60, "-q", 1, "-t", room, *flags)
    Tool("sub", version, *kept, "-E").end()
    publish(version, "-t", room, "-q", 1, "-m", "kept")
    expect(Tool("sub", version, *kept, "-C", 1).end(), ["kept"])
    Tool("sub", version, "-i", f"{room}-c", "-t", room, "-E").end()


@case(("v5",))
def will_properties(version):
    room = unique("m-wprop")
    watcher = subscriber(version, "-t", room, "-q", 1, "-C", 1, "-F", "%p %C %P")
    dying = subscriber(
        version, "-t", f"{room}-other", "--will-topic", room, "--will-payload", "gone", "--will-qos", 1,
        "-D", "will", "content-type", "text/will", "-D", "will", "user-property", "k", "v",
    )  # fmt: skip
    dying.process.send_signal(signal.SIGKILL)
    dying.process.wait()
    expect(watcher.end(), ["gone text/will k:v"])


@case(("v3.1.1", "v5"))
def request_and_response(version):
    """mosquitto_rr asks; mosquitto_sub and mosquitto_pub answer."""
    room = unique("m-rr")
    answerer = subscriber(version, "-t", f"{room}/question", "-q", 1, "-C", 1, "-F", "%R|%D|%p")
    flags = ("-D", "publish", "correlation-data", "c7") if version == "v5" else ()
    asker = Tool("rr", version, "-t", f"{room}/question", "-e", f"{room}/answer", "-q", 1, "-m", "6*7", "-W", 10, *flags)
    topic, data, question = answerer.end()[0].split("|")
    expect((topic, data, question), (f"{room}/answer", "c7", "6*7") if version == "v5" else ("", "", "6*7"))
    publish(version, "-t", f"{room}/answer", "-q", 1, "-m", "42", *flags)
    expect(asker.end(), ["42"])


@case(("v5",))
def alias_maximum_allows_an_alias(version):
    room = unique("m-alias")
    sub = subscriber(version, "-t", room, "-C", 1)
    publish(version, "-t", room, "-m", "x", "-D", "publish", "topic-alias", 1)
    expect(sub.end(), ["x"])


if __name__ == "__main__":
    run()

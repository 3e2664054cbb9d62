"""Every flag of mosquitto's tools, through these tools and through ours, at the same broker: output and exit code alike.

Owns: the table CASES, what differs on purpose. Does not own: the broker (see run).
Start reading at CASES. Invariant: ours are called as `mosquitto_pub` and so on, by links, as a script would that was
written for mosquitto's.
"""

import os
import pathlib
import re
import subprocess
import tempfile

import common
from common import DEADLINE_SECONDS, HOST, PORT, case, expect, unique

PROGRAM = os.environ.get("INTEROP_PROGRAM", "")
THEIRS = {tool: f"/usr/bin/mosquitto_{tool}" for tool in ("pub", "sub", "rr")}
# What is another one at each run.
CHANGING = [
    (re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z?[+-]\d{4}"), b"TIME"),
    (re.compile(rb"\b\d{10}\.\d+"), b"SECONDS"),
    (re.compile(rb"room-[0-9a-z-]+"), b"ROOM"),
]


class Links:
    """A folder with our program under the names of mosquitto's."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        for tool in THEIRS:
            os.symlink(pathlib.Path(PROGRAM).resolve(), self.path(tool))

    def path(self, tool):
        return os.path.join(self.folder.name, f"mosquitto_{tool}")


LINKS = Links()
DIFFERENT = []


def ended(program, arguments, stdin=b""):
    """Exit code, standard output, standard error."""
    done = subprocess.run(
        [program, "-h", HOST, "-p", str(PORT), *arguments],
        input=stdin, capture_output=True, timeout=DEADLINE_SECONDS, env=dict(os.environ, TZ="UTC"),
    )
    return done.returncode, plain(done.stdout), plain(done.stderr)


def plain(output):
    for pattern, word in CHANGING:
        output = pattern.sub(word, output)
    return output


def retain(room, *messages):
    for topic, *rest in messages:
        code, _, err = ended(THEIRS["pub"], ["-V", "5", "-t", f"{room}/{topic}", "-r", "-q", "1", *rest])
        expect((code, err), (0, b""))


def both(tool, arguments, stdin=b""):
    """What both print; it has to be the same."""
    seen = [ended(program, arguments, stdin) for program in (THEIRS[tool], LINKS.path(tool))]
    # A usage text of a hundred lines is each tool's own.
    theirs, ours = [one[: 1 if b"Usage:" in seen[0][1] else 2] for one in seen]
    if theirs != ours:
        DIFFERENT.append(f"mosquitto_{tool} {arguments}: theirs {seen[0]}, ours {seen[1]}")


def all_alike():
    """Says all that was not, at once."""
    different = DIFFERENT[:]
    DIFFERENT.clear()
    if different:
        raise AssertionError("\n  ".join(["", *different]))


# Flags of sub; {room} is where messages are retained.
SUB = [
    "-t {room}/a -C 1",
    "-t {room}/a -C 1 -v",
    "-t {room}/a -C 1 -N",
    "-t {room}/a -C 1 -q 1 -v",
    "-t {room}/a -C 1 -q 2 -V mqttv311",
    "-t {room}/a -C 1 -V mqttv31",
    "-t {room}/a -C 1 -V 5",
    "-t {room}/a -C 1 --protocol-version 311",
    "-t {room}/a -t {room}/b -C 2 -v",
    "--topic {room}/a -C 1 --qos 1 --verbose",
    "-t {room}/+ -T {room}/b -C 1 -v",
    "-t {room}/+ --filter-out {room}/b -C 1 -v",
    "-t {room}/a -C 1 -F %t",
    "-t {room}/a -C 1 -F %q-%r-%l-%m-%p-%t",
    "-t {room}/a -C 1 -F %%-@@-\\\\-\\t-\\n",
    "-t {room}/a -C 1 -F %x-%X",
    "-t {room}/a -C 1 -F %j",
    "-t {room}/a -C 1 -F %j --pretty",
    "-t {room}/json -C 1 -F %J",
    "-t {room}/json -C 1 -F %J --pretty",
    "-t {room}/full -C 1 -F %j -V 5",
    "-t {room}/full -C 1 -F %j -V 5 --pretty",
    "-t {room}/full -C 1 -F %A-%C-%D-%E-%F-%P-%R-%S -V 5",
    "-t {room}/full -C 1 -F %j -V 5 -D subscribe subscription-identifier 7",
    "-t {room}/a -C 1 -F %I",
    "-t {room}/a -C 1 -F %U",
    "-t {room}/a -C 1 -F @Y",
    "-t {room}/a -C 1 -F %5q|%-5q|%05l|%40t|%.3t",
    "-t {room}/empty -W 1 -v",
    "-t {room}/nothing -W 1",
    "-t {room}/a -R -W 1",
    "-t {room}/a -E",
    "-t {room}/+ --retained-only -C 1 -T {room}/b -T {room}/full -T {room}/json -v",
    "-t {room}/a -C 1 --retain-as-published -V 5 -F %r",
    "-t {room}/a -C 1 -i {room}-client",
    "-t {room}/a -C 1 --id-prefix room-",
    "-t {room}/a -C 1 -k 10 --nodelay --quiet",
    "-t {room}/a -C 1 -c -i {room}-kept -x 10 -V 5",
    "-t {room}/a -C 1 -A 127.0.0.1",
    "-t {room}/a -C 1 --will-topic {room}/will --will-payload gone --will-qos 1 --will-retain",
    "-t {room}/a -C 1 -u user -P password",
    "-t {room}/a -q 0 -q 1 -C 9 -C 1 -F %q -F %t",
    "-t {room}/a -t {room}/b -q 0 -q 1 -C 2 -F %q",
    "-L mqtt://{host}:{port}/{room}/a -C 1",
    "-L mqtt://user:word@{host}:{port}/{room}/a -C 1 -v",
]
# Mistakes on the command line, with what is said about them: those of sub, pub and rr.
WRONG = {
    "sub": [
        "", "-t", "-t a/#/b", "-t a -q 3", "-t a -V 9", "-t a -C 0", "-t a -F %y", "-t a -F %", "-t a -F \\y", "-t a -F @",
        "-t a -i b -I c", "-t a -c", "-t a -k 3", "-t a -k x", "-t a -p 0", "-t a -U b/#/c", "-t a -T b/#/c",
        "-t a --will-payload x", "-t a --will-retain", "-t a --will-qos 3 --will-topic b", "-t a -L http://b",
        "-t a -D publish nonsense 1", "-t a -D nonsense content-type b", "-t a --nonsense", "-t a -x y",
        "-t a --random-filter 0", "-t a --cert a",
    ],
    "pub": [
        "", "-t a", "-m a", "-t a/# -m b", "-t a -m b -n", "-t a -m b -q 3", "-t a -f /nowhere", "-t a -m b -V 9",
        "-t a -m b --repeat", "-t a -m b --will-topic c/#", "-t a -m b -D publish topic-alias 0",
    ],
    "rr": ["", "-t a", "-t a -m b", "-t a -e c", "-t a/# -e c -m b", "-t a -e c -m b -q 3"],
}
# Flags of pub, each with what is on its standard input. A subscriber of mosquitto's says what has come.
PUB = [
    ("-t {room}/p -m hello", b""),
    ("-t {room}/p -m -5", b""),
    ("-t {room}/p -m hello -q 1", b""),
    ("-t {room}/p -m hello -q 2 -r", b""),
    ("-t {room}/p -n", b""),
    ("-t {room}/p -s", b"all\nof it"),
    ("-t {room}/p -l", b"one\n"),
    ("-t {room}/p -f {file}", b""),
    ("-t {room}/p -m hello -V 5 -D publish content-type text -D publish user-property a b", b""),
    ("-t {room}/p -m hello --repeat 3 --repeat-delay 0.01", b""),
    ("-t {room}/p -m hello -q 1 -M 5 --quiet -d", b""),
    ("-L mqtt://{host}:{port}/{room}/p -m hello", b""),
    ("--topic {room}/p --message hello --qos 1 --retain --id {room}-client --keepalive 20 --nodelay", b""),
]


@case((None,))
def every_flag_of_sub():
    room = unique("room")
    retain(
        room,
        ("a", "-m", "payload"), ("b", "-m", "other"), ("json", "-m", '{"a": [1, 2, {"b": "c d"}], "e": {}}'),
        ("full", "-m", "text", "-D", "publish", "content-type", "text/plain", "-D", "publish", "correlation-data", "abc",
         "-D", "publish", "response-topic", "answers", "-D", "publish", "user-property", "k", "v",
         "-D", "publish", "user-property", "k2", "v2", "-D", "publish", "payload-format-indicator", "1"),
    )
    for line in SUB:
        words = line.format(room=room, host=HOST, port=PORT).split(" ")
        both("sub", words)
    all_alike()
    for topic in ("a", "b", "json", "full"):
        ended(THEIRS["pub"], ["-t", f"{room}/{topic}", "-r", "-n"])


@case((None,))
def every_mistake():
    for tool, lines in WRONG.items():
        for line in lines:
            both(tool, line.split())
    all_alike()


@case((None,))
def every_flag_of_pub():
    for line, stdin in PUB:
        seen = []
        for program in (THEIRS["pub"], LINKS.path("pub")):
            room = unique("room")
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"from a file\n")
                file.flush()
                words = line.format(room=room, host=HOST, port=PORT, file=file.name).split(" ")
                count = words[words.index("--repeat") + 1] if "--repeat" in words else "1"
                sub = subprocess.Popen(
                    ["stdbuf", "-oL", THEIRS["sub"], "-h", HOST, "-p", str(PORT), "-V", "5", "-q", "2", "-t", f"{room}/#",
                     "-C", count, "-F", "%t %q %r %l %C %P [%p]", "-d"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )
                for out in sub.stdout:
                    if out.startswith(b"Subscribed"):
                        break
                code, out, _ = ended(program, words, stdin)
                if "-d" in words:
                    out = b""
                heard = sub.communicate(timeout=DEADLINE_SECONDS)[0]
                lines = [one for one in heard.split(b"\n") if not one.startswith(b"Client ")]
                seen.append((code, out, plain(b"\n".join(lines))))
        expect((line, seen[1]), (line, seen[0]))


@case((None,))
def requests_and_responses():
    for flags in ("", "-v", "-F %j", "-N", "-q 1", "-V mqttv311", "-F %p --pretty"):
        seen = []
        for program in (THEIRS["rr"], LINKS.path("rr")):
            room = unique("room")
            # The answer is there already: what comes first is what is printed.
            retain(room, ("answer", "-m", "42"))
            code, out, _ = ended(program, ["-t", f"{room}/ask", "-e", f"{room}/answer", "-m", "?", *flags.split()])
            seen.append((code, out))
        expect((flags, seen[1]), (flags, seen[0]))
    both("rr", ["-t", "nobody/asks", "-e", f"{unique('room')}/x", "-m", "?", "-W", "1"])
    all_alike()


@case((None,))
def nobody_listens():
    for tool, rest in (("pub", ["-m", "x"]), ("sub", []), ("rr", ["-m", "x", "-e", "y"])):
        codes = [
            subprocess.run([program, "-p", "1", "-t", "a", *rest], capture_output=True, timeout=DEADLINE_SECONDS).returncode
            for program in (THEIRS[tool], LINKS.path(tool))
        ]
        expect((tool, codes[1]), (tool, codes[0]))


if __name__ == "__main__":
    common.run()

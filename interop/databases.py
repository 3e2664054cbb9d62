"""Debian's PostgreSQL, MariaDB, Redis and OpenLDAP, each for one test: in a folder, on a port of 127.0.0.1.

Owns: how each is set up, started, stopped, and told about users. Does not own: what a broker asks them (see directories),
their installation (see install). Start reading at Database. Invariant: what is started here is stopped by its process id,
and nothing of it is outside of its folder.
"""

import base64
import glob
import hashlib
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

START_SECONDS_MAX = 40
STOP_SECONDS_MAX = 30
# What our broker logs in with, at each of them: quotes, spaces and what URLs are made of.
SECRET = "a secret: of'the \"broker\"@/#%"


def free_port():
    """One that no connection gets by itself while its server is stopped: below those that systems give away."""
    while True:
        with socket.socket() as free:
            port = random.randrange(20_000, 32_000)
            try:
                free.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Database:
    """A server that knows users. `tls` is a folder with server.pem, server.key and ca.pem."""

    #: Whom Debian's package has made to run it.
    account = None

    def __init__(self, folder, tls):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.tls = self.folder / "tls"
        shutil.copytree(tls, self.tls)
        self.port = free_port()
        self.process = None
        self.own()
        try:
            self.set_up()
            self.start()
            self.fill()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def own(self):
        """Gives the folder to who runs the server, if that is somebody else."""
        (self.tls / "server.key").chmod(0o600)
        if not self.is_somebody_else():
            return
        entry = pwd.getpwnam(self.account)
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def is_somebody_else(self):
        return self.account is not None and os.getuid() == 0

    def as_account(self, command):
        if not self.is_somebody_else():
            return command
        return ["setpriv", "--reuid", self.account, "--regid", self.account, "--clear-groups", "--", *command]

    def call(self, command, **more):
        """Runs a command of the server's, and shows what it said if it fails."""
        command = self.as_account([str(part) for part in command])
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=START_SECONDS_MAX, **more)
        if done.returncode:
            sys.exit(f"interop: {command} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        command = self.as_account([str(part) for part in self.command()])
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("interop: a database does not start:\n" + (self.folder / "server.log").read_text(errors="replace")[-4000:])
            time.sleep(0.05)  # nothing tells when another program is ready: it is asked again

    def is_ready(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def stop(self, how=signal.SIGTERM):
        """Stops it; `how` is the signal, and what it was at is lost with SIGKILL."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Postgres(Database):
    account = "postgres"

    def set_up(self):
        self.programs = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        data = self.folder / "data"
        self.call([self.programs / "initdb", "-D", data, "-U", "owner", "--auth=trust", "--no-sync", "-E", "UTF8"])
        (data / "pg_hba.conf").write_text("local all owner trust\nhost all mqtt 127.0.0.1/32 scram-sha-256\n")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{self.folder}'\nfsync = off\n"
                f"ssl = on\nssl_cert_file = '{self.tls}/server.pem'\nssl_key_file = '{self.tls}/server.key'\n"
            )

    def command(self):
        return [self.programs / "postgres", "-D", self.folder / "data"]

    def is_ready(self):
        check = [self.programs / "pg_isready", "-q", "-h", self.folder, "-p", self.port]
        return subprocess.run([str(part) for part in check]).returncode == 0

    def stop(self, how=signal.SIGINT):
        super().stop(how)

    def sql(self, text):
        psql = [self.programs / "psql", "-v", "ON_ERROR_STOP=1", "-qAt", "-h", self.folder, "-p", self.port, "-U", "owner", "postgres"]
        return self.call(psql, input=text)

    def fill(self):
        self.sql(
            "CREATE TABLE users (name text PRIMARY KEY, password text, administrator boolean DEFAULT false, groups text[], site text);"
            "CREATE TABLE rights (name text, place int, effect text, actions text, topic text, qos_max int);"
            f"CREATE ROLE mqtt LOGIN PASSWORD {quoted(SECRET)};"
            "GRANT SELECT ON users, rights TO mqtt;"
        )

    def put(self, name, stored, administrator=False, groups=(), site=None):
        values = [quoted(name), quoted(stored), str(administrator), f"string_to_array({quoted(','.join(groups))}, ',')", quoted(site)]
        self.sql(f"DELETE FROM users WHERE name = {quoted(name)}; INSERT INTO users VALUES ({', '.join(values)});")

    def allow(self, name, place, effect, actions, topic, qos_max=None):
        qos_max = "NULL" if qos_max is None else qos_max
        self.sql(f"INSERT INTO rights VALUES ({quoted(name)}, {place}, {quoted(effect)}, {quoted(actions)}, {quoted(topic)}, {qos_max});")

    def count(self):
        return int(self.sql("SELECT count(*) FROM users;"))


class MariaDb(Database):
    account = "mysql"

    def set_up(self):
        (self.folder / "my.cnf").write_text(
            f"[mariadbd]\ndatadir={self.folder}/data\nsocket={self.folder}/s.sock\nport={self.port}\nbind-address=127.0.0.1\n"
            f"pid-file={self.folder}/pid\nssl-cert={self.tls}/server.pem\nssl-key={self.tls}/server.key\n"
            "skip-name-resolve\ninnodb_flush_log_at_trx_commit=0\ncharacter-set-server=utf8mb4\n"
        )
        install = ["mariadb-install-db", f"--defaults-file={self.folder}/my.cnf", "--auth-root-authentication-method=normal"]
        self.call([*install, "--skip-test-db"])

    def command(self):
        return ["/usr/sbin/mariadbd", f"--defaults-file={self.folder}/my.cnf"]

    def sql(self, text):
        client = ["mariadb", "--no-defaults", f"--socket={self.folder}/s.sock", "-u", "root", "-N", "-B", "--default-character-set=utf8mb4"]
        return self.call(client, input=text)

    def is_ready(self):
        check = ["mariadb-admin", "--no-defaults", f"--socket={self.folder}/s.sock", "-u", "root", "ping"]
        return subprocess.run(check, capture_output=True).returncode == 0

    def fill(self):
        self.sql(
            "CREATE DATABASE mqtt CHARACTER SET utf8mb4; USE mqtt;"
            "CREATE TABLE users (name varchar(200) CHARACTER SET latin1 PRIMARY KEY, password text, administrator boolean DEFAULT false, groups_ text, site text);"
            "CREATE TABLE rights (name varchar(200), place int, effect text, actions text, topic text, qos_max int);"
            f"CREATE USER mqtt@'127.0.0.1' IDENTIFIED BY {quoted(SECRET)}; GRANT SELECT ON mqtt.* TO mqtt@'127.0.0.1';"
        )

    def put(self, name, stored, administrator=False, groups=(), site=None):
        values = [quoted(name), quoted(stored), str(administrator), quoted(",".join(groups)), quoted(site)]
        self.sql(f"USE mqtt; REPLACE INTO users VALUES ({', '.join(values)});")

    def allow(self, name, place, effect, actions, topic, qos_max=None):
        qos_max = "NULL" if qos_max is None else qos_max
        self.sql(f"USE mqtt; INSERT INTO rights VALUES ({quoted(name)}, {place}, {quoted(effect)}, {quoted(actions)}, {quoted(topic)}, {qos_max});")

    def count(self):
        return int(self.sql("SELECT count(*) FROM mqtt.users;"))


class Redis(Database):
    def set_up(self):
        self.port_tls = free_port()
        digest = hashlib.sha256(SECRET.encode()).hexdigest()
        (self.folder / "users.acl").write_text(
            f"user default off\nuser owner on nopass ~* +@all\nuser mqtt on #{digest} %R~mqtt:user:* +hmget\n"
        )
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ntls-port {self.port_tls}\ntls-cert-file {self.tls}/server.pem\n"
            f"tls-key-file {self.tls}/server.key\ntls-ca-cert-file {self.tls}/ca.pem\ntls-auth-clients no\n"
            f"dir {self.folder}\naclfile {self.folder}/users.acl\nappendonly yes\nappendfsync no\n"
        )

    def command(self):
        return ["redis-server", self.folder / "redis.conf"]

    def ask(self, *words):
        return self.call(["redis-cli", "-p", self.port, "--user", "owner", "--pass", "x", "--no-auth-warning", "-e", *words])

    def is_ready(self):
        check = ["redis-cli", "-p", str(self.port), "--user", "owner", "--pass", "x", "--no-auth-warning", "ping"]
        return subprocess.run(check, capture_output=True, text=True).stdout.strip() == "PONG"

    def fill(self):
        pass

    def put(self, name, stored, administrator=False, groups=(), site=None):
        key = f"mqtt:user:{name}"
        fields = ["administrator", int(administrator), "groups", ",".join(groups)]
        fields += [] if stored is None else ["password", stored]
        self.ask("del", key)
        self.ask("hset", key, *fields, *(["site", site] if site else []))

    def rights(self, name, text):
        self.ask("hset", f"mqtt:user:{name}", "rights", text)

    def count(self):
        return int(self.ask("dbsize"))


class Slapd(Database):
    account = "openldap"
    base = "dc=example,dc=org"
    manager = f"cn=manager,{base}"

    def set_up(self):
        self.port_tls = free_port()
        (self.folder / "data").mkdir()
        self.own()
        (self.folder / "slapd.conf").write_text(
            "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
            + f"modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {self.folder}/pid\nallow bind_v2\n"
            + f"TLSCACertificateFile {self.tls}/ca.pem\nTLSCertificateFile {self.tls}/server.pem\nTLSCertificateKeyFile {self.tls}/server.key\n"
            + f'database mdb\nmaxsize 67108864\nsuffix "{self.base}"\nrootdn "{self.manager}"\nrootpw manager-word\n'
            + f"directory {self.folder}/data\ndbnosync\n"
            + f'access to attrs=userPassword by anonymous auth by * none\naccess to * by self read by dn="cn=mqtt,{self.base}" read by * none\n'
        )

    def command(self):
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.port_tls}"
        return ["/usr/sbin/slapd", "-f", self.folder / "slapd.conf", "-h", urls, "-d", "0"]

    def ldif(self, text, modify=False):
        program = ["ldapmodify"] if modify else ["ldapadd"]
        self.call([*program, "-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", self.manager, "-w", "manager-word"], input=text)

    def fill(self):
        self.ldif(
            f"dn: {self.base}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n"
            + "".join(f"dn: ou={name},{self.base}\nobjectClass: organizationalUnit\nou: {name}\n\n" for name in ("people", "groups"))
            + f"dn: cn=mqtt,{self.base}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: mqtt\nuserPassword:: {encoded(SECRET)}\n"
        )
        self.groups = set()
        self.names = 0

    def put(self, name, stored, administrator=False, groups=(), site=None):
        """`stored` is the password itself here: the directory hashes and compares."""
        dn = f"uid={dn_escaped(name)},ou=people,{self.base}"
        person = f"dn:: {encoded(dn)}\nobjectClass: inetOrgPerson\nsn: Somebody\ncn: Somebody\nuid:: {encoded(name)}\n"
        person += f"userPassword:: {encoded(stored)}\n" if stored else ""
        person += f"l: {site}\n" if site else ""
        self.ldif(person)
        self.names += 1
        for group in [*groups, *(["admins"] if administrator else [])]:
            group_dn = f"cn={group},ou=groups,{self.base}"
            if group in self.groups:
                self.ldif(f"dn: {group_dn}\nchangetype: modify\nadd: member\nmember:: {encoded(dn)}\n", modify=True)
            else:
                self.ldif(f"dn: {group_dn}\nobjectClass: groupOfNames\ncn: {group}\nmember:: {encoded(dn)}\n")
                self.groups.add(group)

    def change_password(self, name, password):
        dn = f"uid={dn_escaped(name)},ou=people,{self.base}"
        self.ldif(f"dn:: {encoded(dn)}\nchangetype: modify\nreplace: userPassword\nuserPassword:: {encoded(password)}\n", modify=True)

    def count(self):
        return self.names


def quoted(text):
    """As a text of SQL, where MySQL reads backslashes, too."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def dn_escaped(text):
    """RFC 4514, section 2.4."""
    escaped = "".join("\\" + character if character in '"+,;<>\\=' else character for character in text)
    return "\\" + escaped if escaped[:1] in (" ", "#") else escaped

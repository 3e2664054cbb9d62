//! The rows of `[authentication]`, and of how another machine is asked.
//!
//! Owns: their texts. Does not own: what they mean to the program (see `authentication`). Start reading
//! at [`GROUPS`]. Invariant: tables that ask another machine say the same of how it is asked.

use super::Kind::{Duration, File, Map, Table, Tables, Text, Texts, Truth, Whole, Word};
use super::rows::{ANONYMOUS, Row, row};

/// The tables, and their keys.
pub(super) const GROUPS: &[(&str, &[Row])] = &[
    ("authentication", AUTHENTICATION),
    ("authentication.tokens", TOKENS),
    ("authentication.http", HTTP),
    ("authentication.http.cache", CACHE),
    ("authentication.http.breaker", BREAKER),
    ("authentication.postgres", SQL),
    ("authentication.postgres.cache", CACHE),
    ("authentication.postgres.breaker", BREAKER),
    ("authentication.mysql", SQL),
    ("authentication.mysql.cache", CACHE),
    ("authentication.mysql.breaker", BREAKER),
    ("authentication.redis", REDIS),
    ("authentication.redis.cache", CACHE),
    ("authentication.redis.breaker", BREAKER),
    ("authentication.ldap", LDAP),
    ("authentication.ldap.users", SEARCH),
    ("authentication.ldap.groups", SEARCH),
    ("authentication.ldap.cache", CACHE),
    ("authentication.ldap.breaker", BREAKER),
];

const MAX: u64 = u64::MAX;
const U32: u64 = u32::MAX as u64;
const SECOND: u64 = 1000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

const AUTHENTICATION: &[Row] = &[
    row(
        "anonymous",
        ANONYMOUS,
        "\"loopback\"",
        "From where clients are let in without proof; `loopback` is this machine.",
    ),
    row(
        "password_file",
        File,
        "",
        "A password file as mosquitto has it.",
    ),
    row(
        "password_file_rehash",
        Truth,
        "true",
        "Whether a login replaces an old hash in it (`$6$`, `$7$`, PBKDF2, a cheap argon2id) by argon2id, which mosquitto before 2.1 cannot read.",
    ),
    row(
        "password_cache",
        Duration(0, MAX),
        "\"10m\"",
        "For so long a password that fitted is not verified again; 0 verifies it each time.",
    ),
    row(
        "scram",
        Truth,
        "true",
        "Whether users with passwords may prove them by SCRAM-SHA-256 (5.0).",
    ),
    row(
        "certificate_user",
        Word(&["common-name", "subject", "dns", "email", "uri"]),
        "",
        "What of a client's certificate is its user's name; by default a certificate lets nobody in.",
    ),
    row(
        "failures_max",
        Whole(0, U32),
        "10",
        "Failed logins of one user name from one address in `failures_window` that begin a ban; 0 bans nobody.",
    ),
    row(
        "failures_per_address_max",
        Whole(0, U32),
        "100",
        "The same of one address, whatever the user name; this machine is left out. 0 bans no address.",
    ),
    row(
        "failures_window",
        Duration(SECOND, 30 * DAY),
        "\"1m\"",
        "The time in which failures are counted, from the first one.",
    ),
    row(
        "ban",
        Duration(SECOND, 30 * DAY),
        "\"1m\"",
        "How long a ban lasts.",
    ),
    row(
        "tokens",
        Table,
        "",
        "Which JSON Web Tokens let a client in.",
    ),
    row(
        "http",
        Table,
        "",
        "A service that is asked about whom none of the users here is.",
    ),
    row(
        "postgres",
        Table,
        "",
        "Users in PostgreSQL; behind the Cargo feature `postgres`.",
    ),
    row(
        "mysql",
        Table,
        "",
        "Users in MySQL or MariaDB; behind the Cargo feature `mysql`.",
    ),
    row(
        "redis",
        Table,
        "",
        "Users in Redis; behind the Cargo feature `redis`.",
    ),
    row(
        "ldap",
        Table,
        "",
        "Users in an LDAP directory; behind the Cargo feature `ldap`.",
    ),
    row(
        "client_ids",
        Tables,
        "",
        "Which client identifiers who may use; by default anyone any.",
    ),
    row(
        "test_method",
        Truth,
        "false",
        "Whether there is the Authentication Method `VENCEJO-TEST`, for tests of clients.",
    ),
];

const TOKENS: &[Row] = &[
    row(
        "key",
        File,
        "",
        "The key: PEM, or a secret of at least 32 bytes for the HS algorithms.",
    ),
    row(
        "jwks",
        Text,
        "",
        "In place of a key: a JSON Web Key Set, as a file or the URL where it is published.",
    ),
    row(
        "algorithms",
        Texts,
        "",
        "Algorithms a token may be signed with, all of one family.",
    ),
    row(
        "issuer",
        Text,
        "",
        "What `iss` has to be; by default anything.",
    ),
    row(
        "audience",
        Text,
        "",
        "What `aud` has to be, or to hold; by default a token that is meant for somebody is refused.",
    ),
    row(
        "user_claim",
        Text,
        "\"sub\"",
        "The claim that is the user's name.",
    ),
    row(
        "groups_claim",
        Text,
        "\"groups\"",
        "The claim that is a list of groups, or one.",
    ),
    row(
        "attributes",
        Texts,
        "[]",
        "Claims that become attributes of the user, for rules to ask.",
    ),
    row(
        "rights_claim",
        Text,
        "",
        "The claim that says what the user may do; by default tokens say nothing of it.",
    ),
    row(
        "leeway",
        Duration(0, MAX),
        "\"0s\"",
        "How far the clock of who signs may be away.",
    ),
    row(
        "ca",
        File,
        "",
        "With a URL: certificates (PEM) that may have signed that of the service.",
    ),
    row(
        "insecure",
        Truth,
        "false",
        "With a URL: whether it may be `http` to another machine.",
    ),
    row(
        "timeout",
        Duration(10, HOUR),
        "\"5s\"",
        "With a URL: for so long an answer is waited for.",
    ),
    row(
        "refresh",
        Duration(100, 30 * DAY),
        "\"10m\"",
        "With a URL: how often keys are fetched.",
    ),
    row(
        "refresh_min",
        Duration(100, 30 * DAY),
        "\"10s\"",
        "With a URL: how often at most, where a token names a key that is not there.",
    ),
    row(
        "stale_max",
        Duration(100, 30 * DAY),
        "\"1d\"",
        "With a URL: for so long the last keys count while none can be fetched.",
    ),
];

pub(super) const HTTP: &[Row] = &[
    row(
        "url",
        Text,
        "",
        "Where the service is; `http` only on this machine, or with `insecure`.",
    ),
    row(
        "headers",
        Map,
        "",
        "What each question carries in its head; values are not shown.",
    ),
    row(
        "bearer_file",
        File,
        "",
        "A file with a secret that each question carries as `Authorization: Bearer`.",
    ),
    row(
        "ca",
        File,
        "",
        "Certificates (PEM) that may have signed that of the service; by default those that the system trusts.",
    ),
    row(
        "certificate",
        File,
        "",
        "The certificate (PEM) that is shown to the service.",
    ),
    row("key", File, "", "Its private key (PEM)."),
    row(
        "insecure",
        Truth,
        "false",
        "Whether passwords may travel to the service in plain text.",
    ),
    row(
        "timeout",
        Duration(10, HOUR),
        "\"5s\"",
        "For so long an answer is waited for.",
    ),
    row(
        "at_once",
        Whole(1, 10_000),
        "64",
        "So many questions are under way at once; others wait.",
    ),
    ON_ERROR,
    CACHE_ROW,
    BREAKER_ROW,
];

const ON_ERROR: Row = row(
    "on_error",
    Word(&["deny", "next"]),
    "\"deny\"",
    "What counts without an answer: nobody is let in, or the next authenticator is asked.",
);
const CACHE_ROW: Row = row("cache", Table, "", "How long answers are good.");
const BREAKER_ROW: Row = row(
    "breaker",
    Table,
    "",
    "When it is left in peace because it does not answer.",
);
const URL: Row = row(
    "url",
    Text,
    "",
    "Where it is; a password in it is not shown.",
);
const PASSWORD: Row = row(
    "password_file",
    File,
    "",
    "A file with the password that this server logs in there with, in place of one in `url`.",
);
const DIRECTORY_TLS: Row = row(
    "tls",
    Word(&["verify", "off"]),
    "",
    "Whether the way there is encrypted and its certificate verified; by default yes, but on this machine.",
);
const DIRECTORY_CA: Row = row(
    "ca",
    File,
    "",
    "Certificates (PEM) that may have signed that of the server.",
);
const TIMEOUT: Row = row(
    "timeout",
    Duration(10, HOUR),
    "\"5s\"",
    "For so long an answer is waited for.",
);
const AT_ONCE: Row = row(
    "at_once",
    Whole(1, 10_000),
    "8",
    "So many questions are under way at once; others wait.",
);

pub(super) const CACHE: &[Row] = &[
    row(
        "allow",
        Duration(0, DAY),
        "\"1m\"",
        "For so long a yes is good; 0 asks each time.",
    ),
    row(
        "deny",
        Duration(0, DAY),
        "\"5s\"",
        "For so long a no is good; 0 asks again at once.",
    ),
    row(
        "entries",
        Whole(0, 10_000_000),
        "10000",
        "So many answers are kept of each kind.",
    ),
];

pub(super) const BREAKER: &[Row] = &[
    row(
        "failures",
        Whole(0, U32),
        "5",
        "So many questions in a row without an answer, and nothing is asked for a while; 0 goes on asking.",
    ),
    row(
        "pause",
        Duration(10, DAY),
        "\"5s\"",
        "How long that while is; then one question tries again.",
    ),
];

const SQL: &[Row] = &[
    URL,
    PASSWORD,
    row(
        "query",
        Text,
        "",
        "A statement that returns one row for a user that is known; `${username}` is a parameter of it.",
    ),
    row(
        "rights_query",
        Text,
        "",
        "A statement that returns a row for each right of the user; by default users have none of their own.",
    ),
    DIRECTORY_TLS,
    DIRECTORY_CA,
    TIMEOUT,
    AT_ONCE,
    ON_ERROR,
    CACHE_ROW,
    BREAKER_ROW,
];

const REDIS: &[Row] = &[
    URL,
    PASSWORD,
    row(
        "key",
        Text,
        "\"mqtt:user:${username}\"",
        "The key of a user.",
    ),
    row(
        "password_field",
        Text,
        "\"password\"",
        "The field with the stored password.",
    ),
    row(
        "administrator_field",
        Text,
        "\"administrator\"",
        "The field that is `1`, `true` or `yes` for administrators.",
    ),
    row(
        "groups_field",
        Text,
        "\"groups\"",
        "The field with groups, a comma between two.",
    ),
    row(
        "rights_field",
        Text,
        "",
        "The field with the user's rights; by default users have none of their own.",
    ),
    row(
        "attributes",
        Texts,
        "[]",
        "Fields that become attributes of the user, for rules to ask.",
    ),
    DIRECTORY_TLS,
    DIRECTORY_CA,
    TIMEOUT,
    AT_ONCE,
    ON_ERROR,
    CACHE_ROW,
    BREAKER_ROW,
];

const LDAP: &[Row] = &[
    URL,
    row(
        "user_dn",
        Text,
        "",
        "The name of a user's entry, made of `${username}`.",
    ),
    row(
        "users",
        Table,
        "",
        "In place of `user_dn`: how the entry of a user is searched for.",
    ),
    row(
        "user_attribute",
        Text,
        "\"uid\"",
        "The attribute of that entry that holds the user name, letter by letter.",
    ),
    row(
        "bind_dn",
        Text,
        "",
        "As whom this server searches, with `password_file`; by default without a name.",
    ),
    PASSWORD,
    row(
        "groups",
        Table,
        "",
        "Where the groups of a user are; by default it has none.",
    ),
    row(
        "group_attribute",
        Text,
        "\"cn\"",
        "The attribute of a group that is its name.",
    ),
    row(
        "administrators",
        Text,
        "",
        "The group whose members are administrators.",
    ),
    row(
        "attributes",
        Texts,
        "[]",
        "Attributes of the entry that become attributes of the user, for rules to ask.",
    ),
    DIRECTORY_TLS,
    DIRECTORY_CA,
    TIMEOUT,
    AT_ONCE,
    ON_ERROR,
    CACHE_ROW,
    BREAKER_ROW,
];

const SEARCH: &[Row] = &[
    row("base", Text, "", "Where is searched."),
    row("filter", Text, "", "What is searched for."),
];

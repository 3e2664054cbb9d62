//! The rows of `[authorization]` and of Client Identifiers: who may do what.
//!
//! Owns: their texts. Does not own: what they mean to the program (see `authorization`). Start reading at [`GROUPS`].
//! Invariant: whom a rule is about is said in the same words wherever it is said.

use super::Kind::{File, Map, Table, Tables, Text, Texts, Truth, Whole, Word, Words};
use super::login_rows::{BREAKER, CACHE, HTTP};
use super::rows::{Row, row};

/// The tables, and their keys.
pub(super) const GROUPS: &[(&str, &[Row])] = &[
    ("authentication.client_ids", CLIENT_IDS),
    ("authorization", AUTHORIZATION),
    ("authorization.http", HTTP),
    ("authorization.http.cache", CACHE),
    ("authorization.http.breaker", BREAKER),
    ("authorization.rules", RULES),
];

const WHO_USERS: Row = row("users", Texts, "", "Only these users.");
const WHO_GROUPS: Row = row("groups", Texts, "", "Only members of one of these groups.");
const WHO_ADDRESSES: Row = row(
    "addresses",
    Texts,
    "",
    "Only from these addresses or networks.",
);
const WHO_LISTENERS: Row = row("listeners", Texts, "", "Only at these listeners, by name.");
const WHO_ANONYMOUS: Row = row(
    "anonymous",
    Truth,
    "",
    "Only who was let in without proof, or only who was not.",
);
const WHO_ADMINISTRATOR: Row = row(
    "administrator",
    Truth,
    "",
    "Only administrators, or only others.",
);
const WHO_ATTRIBUTES: Row = row("attributes", Map, "", "Only who has these attributes.");

const CLIENT_IDS: &[Row] = &[
    row("name", Text, "", "Its name in the log and in reasons."),
    row(
        "patterns",
        Texts,
        "",
        "Client identifiers, in which `*` and `${username}` may stand.",
    ),
    WHO_USERS,
    WHO_GROUPS,
    WHO_ADDRESSES,
    WHO_LISTENERS,
    WHO_ANONYMOUS,
    WHO_ADMINISTRATOR,
    WHO_ATTRIBUTES,
];

const AUTHORIZATION: &[Row] = &[
    row(
        "acl_file",
        File,
        "",
        "An ACL file as mosquitto has it; its lines come after the rules.",
    ),
    row(
        "http",
        Table,
        "",
        "A service that is asked where no rule says anything.",
    ),
    row(
        "rules",
        Tables,
        "",
        "Rules in their order: the first that matches decides, and what none matches is denied.",
    ),
];

const RULES: &[Row] = &[
    row("name", Text, "", "Its name in the log and in reasons."),
    row("effect", Word(&["allow", "deny"]), "", "What it does."),
    row(
        "actions",
        Words(&["publish", "subscribe", "receive"]),
        "",
        "Which actions it is about; by default all.",
    ),
    row(
        "topics",
        Texts,
        "",
        "Topic filters, in which `${username}` and `${clientid}` may stand.",
    ),
    WHO_USERS,
    WHO_GROUPS,
    row("client_ids", Texts, "", "Only these client identifiers."),
    WHO_ADDRESSES,
    WHO_LISTENERS,
    WHO_ANONYMOUS,
    WHO_ADMINISTRATOR,
    WHO_ATTRIBUTES,
    row(
        "qos_max",
        Whole(0, 2),
        "",
        "The highest QoS that it allows.",
    ),
    row(
        "retain",
        Truth,
        "",
        "Only messages that are to be retained, or only others.",
    ),
    row(
        "first",
        Truth,
        "false",
        "Whether it comes before the rights that a proof has brought along.",
    ),
];

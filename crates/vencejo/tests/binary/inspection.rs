//! `vencejo probe`, `doctor` and `conformance`: what they say of a server and of this machine.
//!
//! Owns: what is found. Does not own: the rows of conformance (its crate). Start reading at any test. Invariant: what was
//! looked at is left as it was.

use std::net::TcpListener;

use crate::program::{Served, run, succeeded, text};

#[test]
fn probe_says_what_a_server_supports_and_leaves_nothing_behind() {
    let served = Served::in_memory();
    let server = format!("127.0.0.1:{}", served.port);
    let said = succeeded(&run(&["probe", &server, "--json"]));
    let said: serde_json::Value = serde_json::from_str(&said).expect("is JSON");
    let of = |what: &str| {
        let findings = said["findings"].as_array().expect("a list");
        let found = findings.iter().find(|one| one["what"] == what);
        found.map_or_else(String::new, |one| one["value"].to_string())
    };
    for what in [
        "MQTT 3.1",
        "MQTT 3.1.1",
        "MQTT 5.0",
        "QoS 2 round trip",
        "Shared subscription",
        "Retained message",
    ] {
        assert!(of(what).starts_with("\"yes"), "{what}: {}", of(what));
    }
    assert_eq!(of("Receive Maximum"), "1024");
    // The server takes packets of 1 MiB.
    assert_eq!(of("Largest payload tried and taken"), "\"1 MB\"");
    assert!(
        of("$SYS/broker/version").contains("encejo"),
        "{}",
        of("$SYS/broker/version")
    );
    assert_eq!(
        succeeded(&run(&[
            "retained",
            "ls",
            "-p",
            &served.port,
            "vencejo-probe/#"
        ])),
        ""
    );
    let nobody = run(&["probe", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stderr).contains("Connection refused"),
        "{}",
        text(&nobody.stderr)
    );
}

#[test]
fn doctor_names_what_is_bad_and_what_mends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = run(&["doctor", "--listen", &address, "--level", "memory"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.contains("BAD") && said.contains(&address) && said.contains("-> kill"),
        "{said}"
    );
    let output = run(&["doctor", "--set", "storage.level=wrong", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(
        (said[0]["what"].as_str(), said[0]["state"].as_str()),
        (Some("configuration"), Some("bad"))
    );
}

#[test]
fn conformance_reports_what_a_server_keeps() {
    let served = Served::in_memory();
    let server = format!("127.0.0.1:{}", served.port);
    let line = ["conformance", &server, "--filter", "will v5"];
    let output = run(&line);
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        text(&output.stderr)
    );
    assert!(
        said.contains(" passed") && said.contains("statements are kept"),
        "{said}"
    );
    let output = run(&[&line[..], &["--json"]].concat());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert!(
        said["passed"].as_u64() > Some(5) && said["failed"] == 0,
        "{said}"
    );
    let nobody = run(&["conformance", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
}

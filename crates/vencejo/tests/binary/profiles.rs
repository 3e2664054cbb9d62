//! `vencejo profile`, and what a profile is to the tools; passwords from files and the environment.
//!
//! Owns: what processes with a folder of settings do. Does not own: what wins (unit tests of `precedence`). Start reading at
//! [`Desk`]. Invariant: no setting of whoever runs the tests is read.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use vencejo_test::Broker;

use crate::program::{TempFolder, output, succeeded, text};

/// A folder of settings of its own.
struct Desk(TempFolder);

impl Desk {
    fn new() -> Self {
        Self(TempFolder::new())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.vencejo(args);
        command.env("XDG_CONFIG_HOME", self.0.path(""));
        command
    }

    /// With a variable of the environment.
    fn run_with(&self, name: &str, value: &str, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.env(name, value);
        output(command)
    }

    fn run(&self, args: &[&str]) -> Output {
        output(self.command(args))
    }

    /// What it prints, when it ends well.
    #[track_caller]
    fn said(&self, args: &[&str]) -> String {
        succeeded(&self.run(args))
    }
}

#[test]
fn profiles_are_made_listed_shown_and_removed_without_their_password() {
    let desk = Desk::new();
    let line = [
        "profile",
        "add",
        "home",
        "mqtts://anna:hidden@broker.example:8884",
    ];
    assert_eq!(desk.said(&line), "profile home added\n");
    desk.said(&["profile", "add", "here", "-p", "1884", "-k", "20"]);
    let file = desk.0.join("vencejo/cli.toml");
    let mode = std::fs::metadata(&file)
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = desk.said(&["profile", "ls"]);
    assert!(
        listed.contains("home             mqtts://broker.example:8884  as anna"),
        "{listed}"
    );
    assert!(listed.contains("localhost:1884"), "{listed}");
    for args in [
        &["profile", "ls", "--json"][..],
        &["profile", "show", "home"],
        &["profile", "show", "home", "--json"],
    ] {
        let said = desk.said(args);
        assert!(
            said.contains("broker.example") && !said.contains("hidden"),
            "{said}"
        );
    }
    let shown = desk.said(&["profile", "show", "home", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        (&shown["username"], &shown["has_password"]),
        (&"anna".into(), &true.into())
    );
    assert_eq!(desk.run(&line).status.code(), Some(1));
    assert_eq!(
        desk.run(&["profile", "add", "x", "-d"]).status.code(),
        Some(1)
    );
    desk.said(&["profile", "rm", "home"]);
    assert_eq!(
        desk.run(&["profile", "show", "home"]).status.code(),
        Some(1)
    );
}

/// Class X: the password of a proxy is one, too.
#[test]
fn a_proxy_of_a_profile_is_shown_without_its_password() {
    let desk = Desk::new();
    let proxy = "socks5h://me:hidden@proxy.example:1081";
    desk.said(&["profile", "add", "home", "broker.example", "--proxy", proxy]);
    for args in [
        &["profile", "show", "home"][..],
        &["profile", "show", "home", "--json"],
    ] {
        let said = desk.said(args);
        assert!(
            said.contains("socks5h://me:***@proxy.example:1081"),
            "{said}"
        );
    }
    for args in [&["profile", "ls"][..], &["profile", "ls", "--json"]] {
        assert!(!desk.said(args).contains("hidden"));
    }
    let kept = std::fs::read_to_string(desk.0.join("vencejo/cli.toml"));
    assert!(kept.is_ok_and(|kept| kept.contains(proxy)));
}

#[test]
fn the_tools_connect_as_a_profile_says_and_flags_win() {
    let desk = Desk::new();
    let broker = Broker::start();
    let url = format!("mqtt://{}", broker.addr());
    desk.said(&["profile", "add", "here", &url]);
    desk.said(&["profile", "add", "nowhere", "-p", "1"]);
    let publish = ["pub", "-t", "a", "-m", "kept", "-r", "--profile", "here"];
    desk.said(&publish);
    for line in [
        &["sub", "-t", "a", "-C", "1", "--profile", "here"][..],
        &["retained", "get", "a", "--profile", "here"],
    ] {
        assert_eq!(desk.said(line), "kept\n", "{line:?}");
    }
    assert!(
        desk.said(&["probe", "--profile", "here"])
            .contains("MQTT 5.0")
    );
    // The environment names one, a flag another one, and a server is nobody's profile.
    let get = ["retained", "get", "a"];
    let by_environment = desk.run_with("MQTT_PROFILE", "here", &get);
    assert_eq!(succeeded(&by_environment), "kept\n");
    let both = ["retained", "get", "a", "--profile", "nowhere"];
    let both = desk.run_with("MQTT_PROFILE", "here", &both);
    assert_eq!(both.status.code(), Some(1));
    let other = ["retained", "get", "a", "-L", &url];
    let other = desk.run_with("MQTT_PROFILE", "nowhere", &other);
    assert_eq!(succeeded(&other), "kept\n");
    let port = broker.addr().port().to_string();
    desk.said(&[
        "pub",
        "-t",
        "b",
        "-m",
        "x",
        "--profile",
        "nowhere",
        "-p",
        &port,
    ]);
    let wrong = desk.run(&["pub", "-t", "a", "-m", "b", "--profile", "none"]);
    assert!(text(&wrong.stderr).contains("there are here, nowhere"));
}

#[test]
fn passwords_of_users_come_from_a_file_or_the_environment() {
    let desk = Desk::new();
    desk.0.write("secret", "of the file\nmore\n");
    desk.said(&[
        "user",
        "add",
        "anna",
        "--admin",
        "--group",
        "ops",
        "--password-file",
        "secret",
    ]);
    let add = ["user", "add", "otto", "--password-env", "SECRET"];
    succeeded(&desk.run_with("SECRET", "of the environment", &add));
    let empty = desk.run(&[
        "user",
        "passwd",
        "otto",
        "--password-env",
        "NO_SUCH_VARIABLE",
    ]);
    assert_eq!(empty.status.code(), Some(1));
    let listed = desk.said(&["user", "list", "--json"]);
    let first = listed.lines().next().unwrap_or_default();
    let first: serde_json::Value = serde_json::from_str(first).expect("JSON");
    let expected = serde_json::json!({
        "name": "anna", "administrator": true, "groups": ["ops"], "attributes": {},
    });
    assert_eq!(first, expected);
    desk.said(&[
        "passwd",
        "-c",
        "passwords",
        "eva",
        "--password-file",
        "secret",
    ]);
    assert!(desk.0.read("passwords").starts_with("eva:$"));
}

#[test]
fn flags_of_other_families_reach_the_packet() {
    let desk = Desk::new();
    let broker = Broker::start();
    let url = format!("mqtt://{}", broker.addr());
    let line = [
        "pub",
        "-L",
        &url,
        "-t",
        "a",
        "-m",
        "x",
        "-r",
        "-up",
        "room:kitchen",
        "--content-type",
        "text",
    ];
    desk.said(&line);
    let said = desk.said(&[
        "sub", "-L", &url, "-t", "a", "-C", "1", "-F", "%P %C %p", "-rap", "-rh", "0",
    ]);
    assert_eq!(said, "room:kitchen text x\n");
    desk.said(&["pub", "-L", &url, "-t", "a", "--payload-size", "5", "-r"]);
    assert_eq!(
        desk.said(&["sub", "-L", &url, "-t", "a", "-C", "1"]),
        "xxxxx\n"
    );
}

//! SIGHUP, `serve --watch` and the files that a configuration names.
//!
//! Owns: what a saved file does. Does not own: what each key does when it changes (the server's tests). Start reading at any
//! test. Invariant: every wait has a deadline.

use crate::program::{Served, TempFolder, run, succeeded, until};

/// A password that is set in a file which the configuration names counts without a signal.
#[test]
fn a_watched_password_file_is_taken_over_when_it_is_saved() {
    let folder = TempFolder::new();
    let passwords = folder.path("passwords");
    let set = |flags: &str, password: &str| {
        succeeded(&run(&["passwd", flags, &passwords, "anna", password]));
    };
    set("-cb", "old");
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[authentication]\nanonymous = \"never\"\npassword_file = \"{passwords}\"\n"
    );
    let file = folder.write("vencejo.toml", text);
    let args = ["-c", &file, "--watch", "--shards", "1", "--level", "memory"];
    let served = Served::start(&folder, &args);
    let code = |password: &str| {
        let line = ["-t", "a", "-m", "b", "-u", "anna", "-P", password];
        served.tool("pub", &line).status.code()
    };
    assert_eq!(code("old"), Some(0));
    set("-b", "new");
    // The right one is tried: too many wrong ones are a ban.
    let is_read_again = until(|| code("old") != Some(0));
    assert!(is_read_again, "the file was not read again");
    assert_eq!((code("old"), code("new")), (Some(134), Some(0)));
}

#[test]
fn sighup_takes_over_a_right_file_and_a_wrong_one_changes_nothing() {
    let folder = TempFolder::new();
    let write = |anonymous: &str| {
        let text =
            format!("sys_interval = \"1s\"\n[authentication]\nanonymous = \"{anonymous}\"\n");
        folder.write("vencejo.toml", text)
    };
    let path = write("loopback");
    let args = ["-c", &path, "--listen", "127.0.0.1:0", "--level", "memory"];
    let served = Served::start(&folder, &args);
    served.publish(&["-t", "a", "-m", "b"]);
    let mut operator = served.subscriber(&["-t", "$SYS/broker/alarms"]);
    assert_eq!(operator.line_with("none"), "none");

    write("nobody");
    served.process.signal("HUP");
    let alarm = operator.line_with("not reloaded");
    assert!(alarm.contains(":3:13: unknown word `nobody`"), "{alarm}");
    served.publish(&["-t", "a", "-m", "b"]);

    write("never");
    served.process.signal("HUP");
    assert_eq!(operator.line_with("none"), "none");
    let refused = || served.tool("pub", &["-t", "a", "-m", "b"]).status.code() != Some(0);
    assert!(until(refused));
}

/// Who is let in changes with the file, without a signal; a wrong file in between changes nothing.
#[test]
fn a_watched_file_is_taken_over_when_it_is_saved() {
    let folder = TempFolder::new();
    let write = |anonymous: &str| {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[authentication]\nanonymous = \"{anonymous}\"\n"
        );
        folder.write("vencejo.toml", text)
    };
    let path = write("always");
    let args = ["-c", &path, "--watch", "--shards", "1", "--level", "memory"];
    let served = Served::start(&folder, &args);
    let code = || {
        let output = served.tool("pub", &["-t", "a", "-m", "b"]);
        output.status.code()
    };
    let wait_for = |wanted: i32| {
        assert!(until(|| code() == Some(wanted)), "not {wanted} in time");
    };
    assert_eq!(code(), Some(0));
    write("never");
    wait_for(135);
    write("nevr");
    write("always");
    wait_for(0);
}

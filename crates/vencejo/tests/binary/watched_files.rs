//! `serve --watch` and the files that a configuration names.
//!
//! Owns: what a saved password file does. Does not own: the configuration itself (see `command_line`). Start reading at the
//! test. Invariant: every wait has a deadline.

use std::time::{Duration, Instant};

use crate::program::{DEADLINE, Served, TempFolder, run, succeeded};

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
    let started = Instant::now();
    while code("old") == Some(0) {
        assert!(started.elapsed() < DEADLINE, "the file was not read again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!((code("old"), code("new")), (Some(134), Some(0)));
}

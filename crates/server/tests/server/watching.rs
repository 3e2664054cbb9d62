//! Certificates that are replaced while the Server runs.
//!
//! Owns: nothing but tests. Start reading at the test.
//! Invariant: nothing looks at the files but the test.

use std::time::{Duration, Instant};

use vencejo_server::Watcher;

use crate::authority::Authority;
use crate::client::{PATIENCE, Raw};
use crate::start;
use crate::tls::{Secured, any, secured, tls};

#[test]
fn files_that_change_are_taken_over_and_a_broken_pair_is_not() {
    let authority = Authority::new();
    let files = authority.files("a", "localhost");
    let mut config = secured(2, tls(files.clone()));
    config.sys_interval = Duration::from_millis(50);
    let (server, plain) = start(config);
    let secure = server.listeners()[1];
    let mut watcher = Watcher::new(server.reloader());
    assert!(!watcher.look().expect("nothing has changed"));
    let mut stays = Secured::connect(secure, any(&authority), "stays").expect("is let in");
    // The certificate is there before its key, as whoever renews them may do it.
    let successor = Authority::new();
    let next = successor.files("a", "localhost");
    std::fs::copy(&next.certificate, &files.certificate).expect("a file");
    let error = watcher.look().expect_err("the key is the old one");
    assert!(error.to_string().contains("does not go with"), "{error}");
    assert!(!watcher.look().expect("is not tried again"));
    Secured::connect(secure, any(&authority), "still").expect("is let in");
    let mut operator = Raw::v311(plain, "operator");
    operator.subscribe("$SYS/broker/alarms", 0);
    let mut wait_for = |said: &str| {
        let until = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&operator.hear()).contains(said) {
            assert!(Instant::now() < until, "no alarm says {said:?}");
        }
    };
    wait_for("changed files of TLS are not taken over");
    std::fs::copy(&next.key, &files.key).expect("a file");
    assert!(watcher.look().expect("both are new"));
    Secured::connect(secure, any(&successor), "new").expect("is let in");
    wait_for("none");
    // A file that is gone is a change too.
    std::fs::remove_file(&files.key).expect("is there");
    watcher.look().expect_err("there is no key");
    Secured::connect(secure, any(&successor), "old").expect("is let in");
    stays.say(&[0xC0, 0]);
    assert_eq!(stays.hear(2), [0xD0, 0]);
}

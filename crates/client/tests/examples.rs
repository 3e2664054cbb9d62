//! Every example, run against a server in this process.
//!
//! Owns: nothing but tests. Start reading at [`every_example_is_run`]. Invariant: an example ends by itself.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    reason = "an example has a main, which is not called here"
)]

#[path = "../examples/blocking.rs"]
mod blocking;
#[path = "../examples/durable.rs"]
mod durable;
#[path = "../examples/many.rs"]
mod many;
#[path = "../examples/properties.rs"]
mod properties;
#[path = "../examples/publish.rs"]
mod publish;
#[path = "../examples/request.rs"]
mod request;
#[path = "../examples/state.rs"]
mod state;
#[path = "../examples/subscribe.rs"]
mod subscribe;
#[path = "../examples/will.rs"]
mod will;
#[path = "../examples/worker.rs"]
mod worker;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use vencejo_client::Error;
use vencejo_test::Broker;

const PATIENCE: Duration = Duration::from_secs(30);

async fn ran(name: &'static str, example: impl Future<Output = Result<(), Error>>) -> String {
    let ended = timeout(PATIENCE, example).await;
    ended
        .unwrap_or_else(|_| unreachable!("{name} does not end"))
        .unwrap();
    name.to_owned()
}

/// Each ends well, and none is missing here.
#[tokio::test]
async fn every_example_is_run() {
    let broker = Broker::start();
    let url = broker.url();
    let url = url.as_str();
    let mut run = BTreeSet::new();
    run.insert(ran("durable", durable::run(url)).await);
    run.insert(ran("many", many::run(url)).await);
    run.insert(ran("properties", properties::run(url)).await);
    run.insert(ran("publish", publish::run(url)).await);
    run.insert(ran("request", request::run(url)).await);
    run.insert(ran("state", state::run(url)).await);
    run.insert(ran("subscribe", subscribe::run(url)).await);
    run.insert(ran("will", will::run(url)).await);
    run.insert(ran("worker", worker::run(url)).await);
    let owned = url.to_owned();
    let blocking = tokio::task::spawn_blocking(move || blocking::run(&owned));
    run.insert(ran("blocking", async { blocking.await.unwrap() }).await);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().path());
    let names = names.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    assert_eq!(run, names.collect());
    for reading in ["1017", "1018", "1019"] {
        broker
            .expect_publish("meters/7")
            .with(reading)
            .within(PATIENCE)
            .await;
    }
}

/// What pages tell a stranger to add is there, under the name that they say.
#[test]
fn every_line_that_adds_a_package_names_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut named = BTreeSet::new();
    for page in [
        "README.md",
        "README.es.md",
        "docs/client.md",
        "crates/client/src/lib.rs",
        "crates/test/src/lib.rs",
    ] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("cargo add vencejo-"));
        for (_, rest) in lines {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let name = format!("vencejo-{}", words[0]);
            let path = words.iter().skip_while(|word| **word != "--path").nth(1);
            let path = path.unwrap().strip_prefix("../vencejo/").unwrap();
            let manifest = std::fs::read_to_string(root.join(path).join("Cargo.toml")).unwrap();
            assert!(
                manifest.contains(&format!("name = \"{name}\"")),
                "{page}: {rest}"
            );
            named.insert((page, name));
        }
    }
    assert_eq!(named.len(), 8, "{named:?}");
}

//! DESIGN's arrows: which crate may depend on which, and what never sinks below the server.
//!
//! Owns: the table of arrows; the wall between `proto::packet` and the state above it.
//! Does not own: versions and licences (`deny.toml`). Start reading at [`check`].

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::{Finding, RustFile};

/// What `cargo metadata` says, as far as arrows need it.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Asks cargo about the members of the workspace.
///
/// # Errors
/// A sentence if cargo fails or answers in a form that is not known here.
pub(super) fn load(root: &Path) -> Result<Metadata, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Finds dependencies that run against an arrow. Development dependencies are free.
pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let ours: Vec<&str> = metadata
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            findings.push(finding(package, "has no row in the table of arrows"));
            continue;
        };
        let foreign = FORBIDDEN.iter().find(|(name, _)| *name == package.name);
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            if ours.contains(&name) && !allowed.contains(&name) {
                findings.push(finding(package, &format!("must not depend on {name}")));
            }
            if foreign.is_some_and(|(_, names)| names.contains(&name)) {
                findings.push(finding(package, &format!("must not know {name}")));
            }
        }
    }
    findings
}

/// Finds `proto::packet` looking up at Connection or Session.
pub(super) fn check_imports(file: &RustFile<'_>) -> Vec<Finding> {
    let is_packet = file.file.path.starts_with("crates/proto/src/packet");
    let lines = file.masked.code.lines().enumerate().filter(|_| is_packet);
    lines
        .filter(|(_, line)| STATE.iter().any(|module| line.contains(module)))
        .map(|(at, _)| {
            Finding::new(
                file.file,
                at + 1,
                "packet knows no connection and no session",
            )
        })
        .collect()
}

fn finding(package: &Package, says: &str) -> Finding {
    Finding {
        path: package.name.clone(),
        line: 0,
        says: says.to_owned(),
    }
}

const STATE: &[&str] = &[
    "crate::connection",
    "crate::session",
    "super::super::session",
];

/// Package, and which of ours it may depend on. Nobody depends on a tool or on the simulator, but for
/// what the binary offers of them.
const ARROWS: &[(&str, &[&str])] = &[
    ("vencejo-proto", &[]),
    ("vencejo-store", &[]),
    ("vencejo-engine", &["vencejo-proto", "vencejo-store"]),
    ("vencejo-scram", &[]),
    (
        "vencejo-server",
        &[
            "vencejo-proto",
            "vencejo-store",
            "vencejo-engine",
            "vencejo-scram",
        ],
    ),
    ("vencejo-client", &["vencejo-proto", "vencejo-scram"]),
    (
        "vencejo-test",
        &["vencejo-client", "vencejo-server", "vencejo-store"],
    ),
    (
        "vencejo",
        &[
            "vencejo-proto",
            "vencejo-store",
            "vencejo-server",
            "vencejo-client",
            // Its rows are asked of other servers by `vencejo conformance`.
            "conformance",
        ],
    ),
    (
        "vencejo-sim",
        &["vencejo-proto", "vencejo-store", "vencejo-engine"],
    ),
    ("bench", &[]),
    (
        "rooms",
        &["vencejo-proto", "vencejo-store", "vencejo-engine"],
    ),
    ("conformance", &["vencejo-proto"]),
    (
        "killtest",
        &["vencejo-proto", "vencejo-server", "vencejo-store"],
    ),
    ("siege", &[]),
    ("xtask", &[]),
    // Real clients against the real broker: only its tests use ours.
    ("interop", &[]),
];

/// Package, and what it must not know: time, sockets and command lines stay above.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("vencejo-proto", RUNTIME),
    ("vencejo-store", RUNTIME),
    ("vencejo-engine", RUNTIME),
    ("vencejo-scram", RUNTIME),
    ("vencejo-server", &["clap"]),
    ("vencejo-client", &["clap", "mio"]),
];
const RUNTIME: &[&str] = &["tokio", "mio", "rustls", "hyper", "clap", "rand", "socket2"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TextFile;

    fn found(json: &str) -> Vec<String> {
        let metadata = serde_json::from_str(json).expect("the test's metadata is valid");
        check(&metadata)
            .into_iter()
            .map(|finding| finding.says)
            .collect()
    }

    #[test]
    fn an_arrow_that_runs_back_up_is_found() {
        let json = r#"{"packages": [
            {"name": "vencejo-proto", "dependencies": [
                {"name": "vencejo-engine", "kind": null}, {"name": "bytes", "kind": null}]},
            {"name": "vencejo-engine", "dependencies": [
                {"name": "vencejo-proto", "kind": null}, {"name": "tokio", "kind": "dev"}]}
        ]}"#;
        assert_eq!(found(json), ["must not depend on vencejo-engine"]);
    }

    #[test]
    fn a_runtime_below_the_server_is_found() {
        let json = r#"{"packages": [
            {"name": "vencejo-store", "dependencies": [{"name": "tokio", "kind": null}]}
        ]}"#;
        assert_eq!(found(json), ["must not know tokio"]);
    }

    #[test]
    fn a_new_crate_needs_its_row() {
        let json = r#"{"packages": [{"name": "vencejo-util", "dependencies": []}]}"#;
        assert_eq!(found(json), ["has no row in the table of arrows"]);
    }

    #[test]
    fn a_packet_that_imports_state_is_found() {
        let text = "//! A packet.\nuse crate::session::Session; // crate::connection\n";
        let file = TextFile::new("crates/proto/src/packet/publish.rs", text);
        assert_eq!(check_imports(&RustFile::new(&file)).len(), 1);
    }
}

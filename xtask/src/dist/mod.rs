//! Packages of the program: `cargo xtask dist [--target TRIPLE] [--binary FILE] [--output DIR] [--quick]`.
//!
//! Owns: the folder that becomes an archive, its names, and the order of the work. Does not own: what is special to Debian
//! ([`debian`]), images and charts (`packaging/`), whether a package works (`packaging/check`).
//! Start reading at [`run`]. Invariant: the same commit and the same binary make the same bytes.

mod debian;
mod guides;
mod plan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guides::Guides;
use plan::{Options, Plan};

/// Builds the program unless `words` name one, and writes `vencejo-VERSION-TRIPLE.tar.gz` and the packages for Debian.
///
/// # Errors
/// A sentence if the command line is wrong, or something cannot be built, run or written.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<bool, String> {
    let Some(options) = Options::read(words)? else {
        crate::say(plan::USAGE);
        return Ok(true);
    };
    let plan = Plan::new(root, options, &host()?)?;
    let binary = match &plan.binary {
        Some(binary) => binary.clone(),
        None => build(root, &plan.triple)?,
    };
    let speaker = if plan.runs_here {
        binary.clone()
    } else {
        build_for_pages(root)?
    };
    let work = plan.output.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    }
    let epoch = epoch(root);
    let made = [
        archive(root, &plan, &binary, &speaker, &work, &epoch)?,
        debian::package(root, &plan, &binary, &work, &epoch)?,
        debian::links(&plan, &work, &epoch)?,
    ];
    fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    for file in made {
        let bytes = fs::metadata(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        crate::say(&format!("{} ({} bytes)\n", file.display(), bytes.len()));
    }
    Ok(true)
}

/// The archive: program, licences, README and guides, and what the program says of itself as pages and completions.
fn archive(
    root: &Path,
    plan: &Plan,
    binary: &Path,
    speaker: &Path,
    work: &Path,
    epoch: &str,
) -> Result<PathBuf, String> {
    let name = format!("vencejo-{}-{}", plan.version, plan.triple);
    let folder = work.join(&name);
    put(binary, &folder.join("bin/vencejo"), 0o755)?;
    let licences = ["LICENSE-APACHE", "LICENSE-MIT"];
    for file in licences {
        put(&root.join(file), &folder.join(file), 0o644)?;
    }
    let first = ["README.md", "README.es.md", "CHANGELOG.md"];
    for (path, text) in Guides::read(root, &first, &licences)?.0 {
        write(&folder.join(path), text.as_bytes(), 0o644)?;
    }
    for unit in ["vencejo.service", "vencejo.socket"] {
        let to = folder.join("systemd").join(unit);
        put(&root.join("docs/systemd").join(unit), &to, 0o644)?;
    }
    put(
        &root.join("packaging/debian/vencejo.toml"),
        &folder.join("vencejo.toml"),
        0o644,
    )?;
    let pages = folder.join("share/man/man1");
    let mut man = Command::new(speaker);
    man.args(["man", "-o"]).arg(&pages);
    done(man, "vencejo man")?;
    for (shell, file) in COMPLETIONS {
        let said = Command::new(speaker).args(["completions", shell]).output();
        let said = said.map_err(|error| format!("vencejo completions: {error}"))?;
        if !said.status.success() {
            return Err(format!("vencejo completions {shell}: {}", said.status));
        }
        write(&folder.join("share").join(file), &said.stdout, 0o644)?;
    }
    let file = plan.output.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args([
            "--mode=u=rwX,go=rX",
            "--format=gnu",
            "--use-compress-program=gzip -9n",
        ])
        .arg(format!("--mtime=@{epoch}"))
        .arg("-cf")
        .arg(&file)
        .arg("-C")
        .arg(work)
        .arg(&name);
    done(tar, "tar")?;
    Ok(file)
}

/// Builds the release for `triple`, without debug information, and says where it is.
fn build(root: &Path, triple: &str) -> Result<PathBuf, String> {
    let mut build = Command::new(cargo());
    build
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "vencejo",
            "--target",
            triple,
        ])
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .current_dir(root);
    done(build, "cargo build")?;
    Ok(target(root).join(triple).join("release/vencejo"))
}

/// A program for this machine, for pages of one that does not run here.
fn build_for_pages(root: &Path) -> Result<PathBuf, String> {
    let mut build = Command::new(cargo());
    build
        .args(["build", "--locked", "--package", "vencejo"])
        .current_dir(root);
    done(build, "cargo build")?;
    Ok(target(root).join("debug/vencejo"))
}

/// The triple of this machine's compiler.
fn host() -> Result<String, String> {
    let said = Command::new("rustc").arg("-vV").output();
    let said = said.map_err(|error| format!("rustc -vV: {error}"))?;
    let text = String::from_utf8_lossy(&said.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned)
        .ok_or_else(|| "rustc -vV names no host".to_owned())
}

/// The time of every file in a package, in seconds: what `SOURCE_DATE_EPOCH` says, else that of the commit.
fn epoch(root: &Path) -> String {
    if let Ok(said) = std::env::var("SOURCE_DATE_EPOCH") {
        return said;
    }
    let said = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(root)
        .output();
    let text = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "0".to_owned())
}

/// Copies a file to `to`, whose folders are made.
fn put(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    let bytes = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
    write(to, &bytes, mode)
}

/// Writes a file, and the folders above it.
fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(to, bytes).map_err(failed)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(failed)
}

fn done(mut command: Command, name: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// Shells, and where in `share` each looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/vencejo"),
    ("zsh", "zsh/vendor-completions/_vencejo"),
    ("fish", "fish/vendor_completions.d/vencejo.fish"),
];

//! Packages for Debian: the server with its service, and links under mosquitto's names.
//!
//! Owns: where files lie on Debian, control files, and what changes in the units of `docs/systemd`.
//! Does not own: the scripts that dpkg runs (`packaging/debian`), the archive's own format (dpkg-deb writes it).
//! Start reading at [`package`]. Invariant: only what lies below `/etc` is a conffile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guides::Guides;
use super::plan::Plan;
use super::{done, put, write};

/// Writes `vencejo_VERSION_ARCHITECTURE.deb`; pages and completions are taken from the archive's folder in `work`.
pub(super) fn package(
    root: &Path,
    plan: &Plan,
    binary: &Path,
    work: &Path,
    epoch: &str,
) -> Result<PathBuf, String> {
    let folder = work.join("deb");
    let said = work.join(format!("vencejo-{}-{}", plan.version, plan.triple));
    put(binary, &folder.join("usr/bin/vencejo"), 0o755)?;
    let ours = root.join("packaging/debian");
    put(
        &ours.join("vencejo.toml"),
        &folder.join("etc/vencejo/vencejo.toml"),
        0o644,
    )?;
    put(
        &ours.join("vencejo.sysusers"),
        &folder.join("usr/lib/sysusers.d/vencejo.conf"),
        0o644,
    )?;
    let units = root.join("docs/systemd");
    let read = |name: &str| {
        fs::read_to_string(units.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let service = packaged_service(&read("vencejo.service")?)?;
    let to = folder.join("usr/lib/systemd/system");
    write(&to.join("vencejo.service"), service.as_bytes(), 0o644)?;
    write(
        &to.join("vencejo.socket"),
        read("vencejo.socket")?.as_bytes(),
        0o644,
    )?;
    for page in files(&said.join("share/man/man1"))? {
        let name = page.file_name().unwrap_or_default();
        put(&page, &folder.join("usr/share/man/man1").join(name), 0o644)?;
    }
    for (_, file) in super::COMPLETIONS {
        put(
            &said.join("share").join(file),
            &folder.join("usr/share").join(file),
            0o644,
        )?;
    }
    let doc = folder.join("usr/share/doc/vencejo");
    put(&ours.join("copyright"), &doc.join("copyright"), 0o644)?;
    put(&root.join("LICENSE-MIT"), &doc.join("LICENSE-MIT"), 0o644)?;
    let first = ["README.md", "README.es.md"];
    for (path, text) in Guides::read(root, &first, &["LICENSE-MIT"])?.0 {
        write(&doc.join(path), text.as_bytes(), 0o644)?;
    }
    put(&root.join("CHANGELOG.md"), &doc.join("changelog"), 0o644)?;
    compress(&folder)?;

    let program = fs::read(binary).map_err(|error| format!("{}: {error}", binary.display()))?;
    let control = folder.join("DEBIAN");
    write(
        &control.join("control"),
        server_control(plan, &program).as_bytes(),
        0o644,
    )?;
    write(
        &control.join("conffiles"),
        b"/etc/vencejo/vencejo.toml\n",
        0o644,
    )?;
    for script in ["postinst", "prerm", "postrm"] {
        put(&ours.join(script), &control.join(script), 0o755)?;
    }
    pack(
        &folder,
        plan,
        &format!("vencejo_{}_{}", plan.version, plan.architecture),
        epoch,
    )
}

/// Writes `vencejo-mosquitto-compat_VERSION_all.deb`: mosquitto's names for the tools.
pub(super) fn links(plan: &Plan, work: &Path, epoch: &str) -> Result<PathBuf, String> {
    let folder = work.join("links");
    let programs = folder.join("usr/bin");
    fs::create_dir_all(&programs).map_err(|error| format!("{}: {error}", programs.display()))?;
    for name in ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"] {
        std::os::unix::fs::symlink("vencejo", programs.join(name))
            .map_err(|error| format!("{name}: {error}"))?;
    }
    let control = links_control(&plan.version);
    write(&folder.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    pack(
        &folder,
        plan,
        &format!("vencejo-mosquitto-compat_{}_all", plan.version),
        epoch,
    )
}

fn pack(folder: &Path, plan: &Plan, name: &str, epoch: &str) -> Result<PathBuf, String> {
    let file = plan.output.join(format!("{name}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group"])
        .args(if plan.is_quick {
            &["-Zgzip", "-z1"][..]
        } else {
            &["-Zxz"]
        })
        .arg("--build")
        .arg(folder)
        .arg(&file)
        .env("SOURCE_DATE_EPOCH", epoch)
        .stdout(std::process::Stdio::null());
    done(pack, "dpkg-deb")?;
    Ok(file)
}

/// The unit of `docs/systemd`, as a package has it: the program where packages put it, a user that keeps its number, and
/// sockets of its own unless somebody enables the socket unit.
fn packaged_service(unit: &str) -> Result<String, String> {
    let mut text = unit.to_owned();
    for (from, to) in [
        ("Requires=vencejo.socket\n", ""),
        (
            "ExecStart=/usr/local/bin/vencejo ",
            "ExecStart=/usr/bin/vencejo ",
        ),
        ("DynamicUser=yes\n", "User=vencejo\nGroup=vencejo\n"),
        (
            "StateDirectory=vencejo\n",
            "StateDirectory=vencejo\nStateDirectoryMode=0750\n",
        ),
    ] {
        if text.matches(from).count() != 1 {
            return Err(format!(
                "vencejo.service: {} is not there once",
                from.trim_end()
            ));
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

fn server_control(plan: &Plan, program: &[u8]) -> String {
    let mut needs = vec!["adduser | systemd | systemd-standalone-sysusers".to_owned()];
    if let Some((major, minor)) = c_library(program) {
        needs.push(format!("libc6 (>= {major}.{minor})"));
    }
    if needs_library(program, b"libgcc_s.so.1") {
        needs.push("libgcc-s1".to_owned());
    }
    format!(
        "Package: vencejo\nVersion: {}\nArchitecture: {}\n{MAINTAINER}Section: net\nPriority: optional\n\
         Depends: {}\nSuggests: vencejo-mosquitto-compat\nDescription: MQTT server, and its command line tools\n \
         An MQTT server (3.1, 3.1.1 and 5.0) that keeps on disk what it acknowledges,\n \
         with tools to publish, to subscribe and to look at servers.\n",
        plan.version,
        plan.architecture,
        needs.join(", "),
    )
}

fn links_control(version: &str) -> String {
    format!(
        "Package: vencejo-mosquitto-compat\nVersion: {version}\nArchitecture: all\n{MAINTAINER}Section: net\n\
         Priority: optional\nDepends: vencejo (= {version})\nProvides: mosquitto-clients\n\
         Conflicts: mosquitto-clients\nReplaces: mosquitto-clients\n\
         Description: mosquitto_pub, mosquitto_sub and mosquitto_rr by Vencejo\n \
         Links under the names of mosquitto's tools, whose flags, output and exit codes\n \
         those of Vencejo take.\n"
    )
}

/// The youngest version of glibc that `program` names; none if it is linked statically.
fn c_library(program: &[u8]) -> Option<(u32, u32)> {
    let names = program.split(|byte| *byte == 0);
    let minors = names.filter_map(|name| {
        let minor = name.strip_prefix(b"GLIBC_2.")?;
        let digits = minor.iter().copied().take_while(u8::is_ascii_digit);
        String::from_utf8(digits.collect())
            .ok()?
            .parse::<u32>()
            .ok()
    });
    minors.max().map(|minor| (2, minor))
}

/// Whether `program` names the library `name`.
fn needs_library(program: &[u8], name: &[u8]) -> bool {
    program.split(|byte| *byte == 0).any(|text| text == name)
}

/// Debian wants pages of the manual and the changelog compressed, without a time in them.
fn compress(folder: &Path) -> Result<(), String> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-9n")
        .arg(folder.join("usr/share/doc/vencejo/changelog"))
        .args(files(&folder.join("usr/share/man/man1"))?);
    done(gzip, "gzip")
}

/// The files of a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    Ok(files)
}

const MAINTAINER: &str = "Maintainer: The Vencejo contributors <vencejo@localhost>\n";

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = include_str!("../../../docs/systemd/vencejo.service");

    #[test]
    fn the_packaged_service_has_a_user_of_its_own_and_needs_no_socket_unit() {
        let unit = packaged_service(UNIT).unwrap();
        assert!(unit.contains("\nExecStart=/usr/bin/vencejo serve -c /etc/vencejo/vencejo.toml --data /var/lib/vencejo\n"));
        assert!(unit.contains("\nUser=vencejo\nGroup=vencejo\n"));
        assert!(!unit.contains("DynamicUser"));
        assert!(!unit.contains("Requires="));
    }

    #[test]
    fn a_unit_that_has_lost_a_line_is_not_packaged() {
        let unit = UNIT.replace("DynamicUser=yes\n", "");
        let error = packaged_service(&unit).unwrap_err();
        assert_eq!(error, "vencejo.service: DynamicUser=yes is not there once");
    }

    #[test]
    fn the_youngest_symbol_says_which_c_library_is_needed() {
        let program = b"..\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_2.x\0";
        assert_eq!(c_library(program), Some((2, 34)));
        assert_eq!(c_library(b"static"), None);
    }
}

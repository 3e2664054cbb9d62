//! Connection settings with a name, in a file of the user's.
//!
//! Owns: where the file is, what a profile holds, how one is put in and taken out. Does not own: what the settings mean (see
//! `args`), the commands (see `profile`). Start reading at [`Profiles::open`]. Invariants: the file is for its owner only,
//! and a change leaves every other line of it as it was.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Failure;
use super::url::without_password;

/// What is kept of a connection; a key is the long flag of `sub` with `_` for `-`.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unix: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth_method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keepalive: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) nodelay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cafile: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capath: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tls_use_os_certs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_alpn: Option<String>,
}

impl Profile {
    /// The same without what nobody is to see.
    pub(crate) fn without_password(&self) -> Self {
        let hidden = |url: &Option<String>| url.as_deref().map(without_password);
        Self {
            password: None,
            url: hidden(&self.url),
            proxy: hidden(&self.proxy),
            ..self.clone()
        }
    }

    /// Whether there is something in it that nobody is to see.
    fn is_secret(&self) -> bool {
        let urls = [&self.url, &self.proxy];
        let mut urls = urls.into_iter().filter_map(Option::as_deref);
        self.password.is_some() || urls.any(|url| without_password(url) != url)
    }
}

/// The file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

/// All profiles of a user.
pub(crate) struct Profiles {
    path: PathBuf,
    text: String,
    by_name: BTreeMap<String, Profile>,
}

impl Profiles {
    /// Those of whoever runs this program.
    pub(crate) fn open() -> Result<Self, Failure> {
        Self::at(path()?)
    }

    fn at(path: PathBuf) -> Result<Self, Failure> {
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(format!("Error: {}: {why}.", path.display()))
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&error)),
        };
        let by_name = parse(&text).map_err(|why| failed(&why))?;
        let is_secret = by_name.values().any(Profile::is_secret);
        let mode = fs::metadata(&path).map_or(0, |file| file.permissions().mode());
        if is_secret && mode & 0o077 != 0 {
            let shown = path.display();
            return Err(failed(&format!(
                "it holds a password, and others on this machine can read it; chmod 600 {shown}"
            )));
        }
        Ok(Self {
            path,
            text,
            by_name,
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.by_name
            .iter()
            .map(|(name, profile)| (name.as_str(), profile))
    }

    /// The one called `name`.
    pub(crate) fn named(&self, name: &str) -> Result<&Profile, Failure> {
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let known = match known.is_empty() {
                true => "vencejo profile add makes one".to_owned(),
                false => format!("there are {}", known.join(", ")),
            };
            let path = self.path.display();
            Failure::new(format!(
                "Error: there is no profile {name:?} in {path}; {known}."
            ))
        })
    }

    /// Puts one in, as its last; or in place of one of that name, if it may.
    pub(crate) fn add(
        &mut self,
        name: &str,
        profile: &Profile,
        may_replace: bool,
    ) -> Result<(), Failure> {
        check_name(name)?;
        if self.by_name.contains_key(name) {
            if !may_replace {
                return Err(Failure::new(format!(
                    "Error: there is a profile {name:?} already; --force replaces it."
                )));
            }
            self.text = self.without(name)?;
        }
        let body = toml::to_string(profile);
        let body = body.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push_str(if self.text.ends_with('\n') {
                "\n"
            } else {
                "\n\n"
            });
        }
        self.text.push_str(&format!("[profiles.{name}]\n{body}"));
        self.write()
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.named(name)?;
        self.text = self.without(name)?;
        self.write()
    }

    /// The text without the lines from the head of `name` to the next head.
    fn without(&self, name: &str) -> Result<String, Failure> {
        let heads = [
            format!("[profiles.{name}]"),
            format!("[profiles.\"{name}\"]"),
            format!("[profiles.'{name}']"),
        ];
        let mut is_in = false;
        let mut rest = String::new();
        for line in self.text.split_inclusive('\n') {
            let bare = line.split('#').next().unwrap_or_default().trim();
            if bare.starts_with('[') {
                is_in = heads.iter().any(|head| head == bare);
            }
            if !is_in {
                rest.push_str(line);
            }
        }
        // Nothing else may have gone with it, whatever the form of the file.
        let left = parse(&rest).map_err(|why| Failure::new(format!("Error: {why}.")))?;
        if left.contains_key(name) || left.len() + 1 != self.by_name.len() {
            let path = self.path.display();
            return Err(Failure::new(format!(
                "Error: profile {name:?} is written in another form; take it out of {path} by hand."
            )));
        }
        Ok(rest)
    }

    /// Puts the text in place of the file, as a whole.
    fn write(&mut self) -> Result<(), Failure> {
        let path = &self.path;
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(format!("Error: {}: {why}.", path.display()))
        };
        self.by_name = parse(&self.text).map_err(|why| failed(&why))?;
        // A link stays one.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let draft = target.with_extension("draft");
        let written = (|| {
            if let Some(folder) = target.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)?;
            }
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(self.text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &target)
        })();
        written.map_err(|error| failed(&error))
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Profile>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    Ok(file.profiles)
}

/// Names that need no quotes, in the file and in a shell.
fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "Error: {name:?} is no name for a profile: letters, digits, - and _."
    )))
}

/// `$XDG_CONFIG_HOME/vencejo/cli.toml`, or below `~/.config`.
fn path() -> Result<PathBuf, Failure> {
    let folder = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let base =
        folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let base =
        base.ok_or_else(|| Failure::new("Error: neither HOME nor XDG_CONFIG_HOME is set."))?;
    Ok(base.join(Path::new("vencejo/cli.toml")))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("vencejo-profiles-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn file(&self) -> PathBuf {
            self.0.join("vencejo/cli.toml")
        }

        fn open(&self) -> Profiles {
            Profiles::at(self.file()).unwrap_or_else(|failure| panic!("{failure:?}"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn home() -> Profile {
        Profile {
            host: Some("broker.example".to_owned()),
            port: Some(8883),
            password: Some("secret # \" \\".to_owned()),
            ..Profile::default()
        }
    }

    fn refusal<T>(result: Result<T, Failure>) -> String {
        result.err().map(|failure| failure.text).unwrap_or_default()
    }

    #[test]
    fn a_profile_is_kept_in_a_file_of_its_owner() {
        let folder = Folder::new("kept");
        folder.open().add("home", &home(), false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.file()), 0o600);
        assert_eq!(mode(&folder.0.join("vencejo")), 0o700);
        let profiles = folder.open();
        let found = profiles.named("home").unwrap();
        assert_eq!(
            (found.port, &found.password),
            (Some(8883), &home().password)
        );
        assert!(found.without_password().password.is_none());
        assert!(refusal(profiles.named("away")).contains("there are home"));
        let twice = refusal(folder.open().add("home", &home(), false));
        assert!(twice.contains("--force"), "{twice}");
        assert!(refusal(folder.open().add("a b", &home(), false)).contains("no name"));
    }

    /// Class X: a password that others can read is told, not used.
    #[test]
    fn a_file_with_a_password_that_others_can_read_is_refused() {
        let folder = Folder::new("lax");
        folder.open().add("home", &home(), false).unwrap();
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
        let text = refusal(Profiles::at(folder.file()));
        assert!(text.contains("chmod 600"), "{text}");
        for key in ["proxy", "url"] {
            let text = format!("[profiles.a]\n{key} = \"socks5h://me:hidden@b\"\n");
            fs::write(folder.file(), text).unwrap();
            let text = refusal(Profiles::at(folder.file()));
            assert!(text.contains("chmod 600"), "{key}: {text}");
        }
        // Without one there is nothing to hide.
        let text = "[profiles.a]\nproxy = \"socks5h://me@b\"\nurl = \"mqtt://me@b\"\n";
        fs::write(folder.file(), text).unwrap();
        assert_eq!(folder.open().all().count(), 1);
        fs::write(folder.file(), "[profiles.a]\nhost = \"b\"\n").unwrap();
        assert_eq!(folder.open().all().count(), 1);
    }

    #[test]
    fn a_change_leaves_the_other_lines_as_they_were() {
        let folder = Folder::new("lines");
        let text =
            "# mine\n[profiles.a] # first\nhost = \"x\"\n\n[profiles.\"b\"]\nhost = \"y\"\n# end\n";
        fs::create_dir_all(folder.file().parent().unwrap()).unwrap();
        fs::write(folder.file(), text).unwrap();
        folder.open().remove("a").unwrap();
        let left = fs::read_to_string(folder.file()).unwrap();
        assert_eq!(left, "# mine\n[profiles.\"b\"]\nhost = \"y\"\n# end\n");
        folder.open().add("c", &Profile::default(), false).unwrap();
        folder.open().add("b", &home(), true).unwrap();
        let profiles = folder.open();
        let names: Vec<&str> = profiles.all().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "c"]);
        assert!(
            fs::read_to_string(folder.file())
                .unwrap()
                .starts_with("# mine\n")
        );
        // In a form that lines do not tell apart nothing is taken out.
        fs::write(folder.file(), "profiles = { a = {}, b = {} }\n").unwrap();
        assert!(refusal(folder.open().remove("a")).contains("by hand"));
        assert!(refusal(Profiles::at(folder.0.clone())).starts_with("Error: "));
        fs::write(folder.file(), "[profiles.a]\nhots = \"x\"\n").unwrap();
        assert!(refusal(Profiles::at(folder.file())).contains("hots"));
    }
}

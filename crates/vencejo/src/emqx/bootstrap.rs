//! The users that an emqx.conf fills EMQX's own database with.
//!
//! Owns: [`take_over`]: bootstrap files in CSV and JSON, hashes that can be verified here. Does not own: the chain (see `people`).
//! Start reading at [`take_over`]. Invariant: a user of whom no password can be verified is named, and left out.

use std::fmt::Write as _;
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde_json::Value;
use server::authentication::StoredPassword;

use super::Work;
use crate::import::hocon::{self, Key};
use crate::import::rows::Outcome;

/// How passwords are hashed.
#[derive(Clone, Debug)]
pub(super) struct Hashing {
    name: String,
    salt_position: String,
    mac: String,
    iterations: u64,
}

/// A user of a bootstrap file.
#[derive(Debug, Default, PartialEq, Eq)]
struct User {
    name: String,
    password: Option<String>,
    hash: String,
    salt: String,
    is_superuser: bool,
}

impl Hashing {
    pub(super) fn of(work: &Work, key: &Key) -> Self {
        let at = key.then("password_hash_algorithm");
        let text = |name: &str, default: &str| {
            let text = work.settings.text(&at.then(name));
            text.unwrap_or(default).to_owned()
        };
        Self {
            name: text("name", "sha256"),
            salt_position: text("salt_position", "prefix"),
            mac: text("mac_fun", "sha256"),
            iterations: text("iterations", "4096").parse().unwrap_or(0),
        }
    }

    /// What stands before the salt of a hash that is verified here, both in Base64 with a `$` between them.
    pub(super) fn notation(&self) -> Option<String> {
        match (
            self.name.as_str(),
            self.mac.as_str(),
            self.salt_position.as_str(),
        ) {
            ("sha512", _, "suffix") => Some("$6$".to_owned()),
            ("pbkdf2", mac @ ("sha256" | "sha512"), _) if self.iterations > 0 => {
                Some(format!("PBKDF2${mac}${}$", self.iterations))
            }
            _ => None,
        }
    }

    pub(super) fn shown(&self) -> String {
        match self.name.as_str() {
            "bcrypt" | "plain" => self.name.clone(),
            "pbkdf2" => format!("pbkdf2 with {}", self.mac),
            name => format!("{name} with the salt as {}", self.salt_position),
        }
    }

    /// A hash of EMQX, in hexadecimal digits, as one that is verified here.
    fn stored(&self, hash: &str, salt: &str) -> Result<StoredPassword, String> {
        if self.name == "plain" {
            return StoredPassword::new(hash.as_bytes());
        }
        let notation = self.notation();
        let notation = notation.ok_or_else(|| format!("{} is not verified here", self.shown()))?;
        let hash = HEXLOWER_PERMISSIVE.decode(hash.as_bytes());
        let hash = hash.map_err(|_| "its hash is not made of hexadecimal digits".to_owned())?;
        let (salt, hash) = (BASE64.encode(salt.as_bytes()), BASE64.encode(&hash));
        StoredPassword::parse(&format!("{notation}{salt}${hash}"))
            .map_err(|error| error.to_string())
    }
}

/// Makes a password file of the bootstrap file of the authenticator at `key`.
pub(super) fn take_over(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    let id = key.then("user_id_type");
    if work.settings.text(&id) == Some("clientid") {
        return Err("passwords are those of users, not of client identifiers".to_owned());
    }
    work.settings.kept(&id, "passwords are those of users");
    let at = key.then("bootstrap_file");
    let written = work.settings.text(&at).map(str::to_owned);
    let written = written.filter(|text| !text.is_empty());
    let has_file = work.target.authentication.value("password_file").is_some();
    if has_file || work.has_passwords && written.is_some() {
        return Err("there is one password file, and another authenticator has it".to_owned());
    }
    let Some(written) = written else {
        work.has_passwords = true;
        let why = "link \"passwords\": the users are in EMQX's database, which is not read; vencejo user add NAME makes them anew";
        work.settings.rest(key, Outcome::Changed, why);
        return Ok("passwords");
    };
    let path = work.path(&written)?;
    let users = users_of(&path)?;
    work.has_passwords = true;
    let hashing = Hashing::of(work, key);
    let mut lines = String::new();
    let mut count = 0;
    for user in users {
        let stored = match &user.password {
            Some(password) => StoredPassword::new(password.as_bytes()),
            None => hashing.stored(&user.hash, &user.salt),
        };
        let stored = stored.and_then(|stored| match is_name(&user.name) {
            true => Ok(stored),
            false => Err("its name can stand in no password file".to_owned()),
        });
        match stored {
            Ok(stored) => {
                // Writing to a text cannot fail.
                writeln!(lines, "{}:{}", user.name, stored.expose()).ok();
                count += 1;
                if user.is_superuser {
                    superuser(work, key, user.name);
                }
            }
            Err(why) => {
                let why = format!(
                    "{why}: vencejo user add {:?} gives it a password",
                    user.name
                );
                work.settings
                    .note(format!("user {:?}", user.name), Outcome::Ignored, why);
            }
        }
    }
    if count > 0 {
        let file = work.file("emqx.passwords", lines);
        work.target.authentication.text("password_file", file);
    }
    let why = format!(
        "password_file, with {count} users as they are in that file; what was changed in EMQX's database later is not seen"
    );
    work.settings.changed(&at, why);
    let why = "hashes as they are, where they can be verified here";
    work.settings
        .rest(&key.then("password_hash_algorithm"), Outcome::Kept, why);
    work.settings
        .kept(&key.then("bootstrap_type"), "password_file");
    Ok("passwords")
}

/// `name` may do everything, if the authenticator at `key` is one of all listeners.
fn superuser(work: &mut Work, key: &Key, name: String) {
    if key.is_below(&Key::of("authentication")) {
        return work.superusers.push(name);
    }
    let why = "is_superuser is left out: a rule holds at all listeners, and this user is one of this listener's";
    let option = format!("user {name:?}");
    work.settings.note(option, Outcome::Changed, why);
}

fn users_of(path: &Path) -> Result<Vec<User>, String> {
    let text = hocon::text_of(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let is_json = path.extension().is_some_and(|end| end == "json");
    let users = if is_json {
        users_in_json(&text)
    } else {
        users_in_csv(&text)
    };
    users.map_err(|why| format!("{}: {why}", path.display()))
}

pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = !name.is_empty() && name.trim() == name && !name.starts_with('#');
    is_plain && !name.contains(':') && !name.contains(char::is_control)
}

fn users_in_json(text: &str) -> Result<Vec<User>, String> {
    let all: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let users = all.iter().map(|one| {
        let word = |name: &str| {
            one.get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let flag = one.get("is_superuser");
        User {
            name: word("user_id"),
            password: one
                .get("password")
                .and_then(Value::as_str)
                .map(str::to_owned),
            hash: word("password_hash"),
            salt: word("salt"),
            is_superuser: flag == Some(&Value::Bool(true)) || word("is_superuser") == "true",
        }
    });
    Ok(users.collect())
}

/// Fields without commas or quotation marks in them, or between quotation marks.
fn users_in_csv(text: &str) -> Result<Vec<User>, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let head = fields(lines.next().ok_or("it is empty")?);
    let place = |name: &str| head.iter().position(|field| field == name);
    let name = place("user_id").ok_or("its first line has no user_id")?;
    let users = lines.map(|line| {
        let fields = fields(line);
        let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).cloned();
        User {
            name: field(Some(name)).unwrap_or_default(),
            password: field(place("password")),
            hash: field(place("password_hash")).unwrap_or_default(),
            salt: field(place("salt")).unwrap_or_default(),
            is_superuser: field(place("is_superuser")).is_some_and(|word| word == "true"),
        }
    });
    Ok(users.collect())
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for one in line.trim_end_matches('\r').chars() {
        match one {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            one => {
                if let Some(field) = fields.last_mut() {
                    field.push(one);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn hashing(name: &str, salt_position: &str, mac: &str) -> Hashing {
        Hashing {
            name: name.to_owned(),
            salt_position: salt_position.to_owned(),
            mac: mac.to_owned(),
            iterations: 1000,
        }
    }

    /// Made by Python's hashlib, as EMQX makes them: of `secret` and the salt `peppercorn`.
    #[test]
    fn hashes_of_emqx_are_verified_where_there_is_a_notation_for_them() {
        let sha512 = "d3d9a7fd7bb42d0b1a3b39ac0a0d2a4c";
        assert!(
            hashing("sha512", "suffix", "")
                .stored(sha512, "peppercorn")
                .is_err()
        );
        for (of, hash) in [
            (hashing("sha512", "suffix", ""), SHA512_SUFFIX),
            (hashing("pbkdf2", "", "sha256"), PBKDF2_SHA256),
            (hashing("pbkdf2", "", "sha512"), PBKDF2_SHA512),
        ] {
            let stored = of.stored(hash, "peppercorn").expect("is verified");
            assert!(stored.is(b"secret"), "{}", of.shown());
            assert!(!stored.is(b"Secret"));
        }
        assert!(
            hashing("plain", "disable", "")
                .stored("secret", "")
                .is_ok_and(|stored| stored.is(b"secret"))
        );
        for of in [
            hashing("sha512", "prefix", ""),
            hashing("sha256", "suffix", ""),
            hashing("bcrypt", "", ""),
            hashing("pbkdf2", "", "md5"),
        ] {
            assert!(
                of.stored(SHA512_SUFFIX, "peppercorn").is_err(),
                "{}",
                of.shown()
            );
        }
    }

    #[test]
    fn users_are_read_in_both_forms() {
        let csv = users_in_csv(
            "user_id,password_hash,salt,is_superuser\n\"a,b\",00,x,true\r\nc,11,,false\n",
        );
        let json = users_in_json(
            r#"[{"user_id":"a,b","password_hash":"00","salt":"x","is_superuser":true},{"user_id":"c","password_hash":"11"}]"#,
        );
        let (csv, json) = (csv.expect("is CSV"), json.expect("is JSON"));
        assert_eq!(csv, json);
        assert_eq!(
            (csv[0].name.as_str(), csv[0].is_superuser, csv.len()),
            ("a,b", true, 2)
        );
        let plain = users_in_csv("user_id,password\na,b\n").expect("is CSV");
        assert_eq!(plain[0].password.as_deref(), Some("b"));
        assert!(
            users_in_csv("").is_err()
                && users_in_csv("a,b\n").is_err()
                && users_in_json("{}").is_err()
        );
    }

    const SHA512_SUFFIX: &str = "0c15af1387effe4b43477b7baaf568a30c0f35acbf8687f01feaf6897c3fc79cdaa9b36009400182e12ca8adffed22be27bd9cb8748c86dbdf387dfc88e522ce";
    const PBKDF2_SHA256: &str = "9e8b15dd4e1a33563512da19457ac5fe08fcc1837bc9d16f5d23e24dd9121b63";
    const PBKDF2_SHA512: &str = "766a09a339536ca5a02301dbc99b423342e971a688ecd9cd38f963b9fd163e65ca1cdcff5ccbb8bc78ec1dc85f96a9640993ec49bf40301fa5192e387efc7236";
}

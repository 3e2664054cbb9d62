//! Configurations of other servers, imported, and servers that run with what they became.
//!
//! Owns: what the tests of all imports set up and ask. Does not own: the configurations (see `mosquitto`, `emqx`, `nanomq`). Start
//! reading at [`Imported`]. Invariant: every process and folder ends with its test.

use crate::program::{Served, TempFolder, output, run, succeeded, text};

/// Writes a file, in which `DIR/` is the folder.
pub(crate) fn write(folder: &TempFolder, name: &str, text: &str) {
    let path = folder.path("");
    folder.write(name, text.replace("DIR/", &path));
}

/// Writes a password file with these users, in the form of mosquitto_passwd.
pub(crate) fn write_passwords(folder: &TempFolder, name: &str, users: &[(&str, &str)]) {
    let path = folder.write(name, "");
    for (user, password) in users {
        succeeded(&run(&["passwd", "-b", &path, user, password]));
    }
}

/// A configuration that was imported, and the server that runs with what it became.
pub(crate) struct Imported {
    pub(crate) table: String,
    pub(crate) toml: String,
    /// The ports of its listeners over TCP, in their order.
    pub(crate) ports: Vec<String>,
    served: Option<Served>,
    pub(crate) folder: TempFolder,
}

impl Imported {
    /// Imports `conf`, in which `DIR` is the folder, by `vencejo import what`.
    #[track_caller]
    pub(crate) fn of(what: &str, folder: TempFolder, conf: &str) -> Self {
        let name = format!("{what}.conf");
        write(&folder, &name, conf);
        let (file, out) = (folder.path(&name), folder.path("out"));
        let table = succeeded(&run(&["import", what, &file, "-o", &out]));
        let toml = folder.read("out/vencejo.toml");
        Self {
            table,
            toml,
            ..Self::not_yet(folder)
        }
    }

    /// The same, and serves.
    #[track_caller]
    pub(crate) fn serving(what: &str, folder: TempFolder, conf: &str) -> Self {
        let mut imported = Self::of(what, folder, conf);
        let config = imported.folder.path("out/vencejo.toml");
        imported.start(&["-c", &config]);
        imported
    }

    /// A folder in which nothing was imported.
    pub(crate) const fn not_yet(folder: TempFolder) -> Self {
        Self {
            table: String::new(),
            toml: String::new(),
            ports: Vec::new(),
            served: None,
            folder,
        }
    }

    pub(crate) fn start(&mut self, args: &[&str]) {
        let served = Served::start(&self.folder, &[args, &["--shards", "1"]].concat());
        self.ports = served.ports();
        assert!(
            !self.ports.is_empty() || self.toml.contains("unix:"),
            "{}",
            served.log()
        );
        self.served = Some(served);
    }

    pub(crate) fn log(&self) -> String {
        self.served.as_ref().map(Served::log).unwrap_or_default()
    }

    /// Publishes at a listener; returns the exit code and what is said.
    pub(crate) fn publish(&self, listener: usize, args: &str) -> (i32, String) {
        let mut line = vec!["pub", "-p", &self.ports[listener], "-q", "1", "-m", "x"];
        line.extend(args.split(' ').filter(|word| !word.is_empty()));
        let output = run(&line);
        (output.status.code().unwrap_or(-1), text(&output.stderr))
    }

    /// Whether a publish is taken, and not refused.
    pub(crate) fn takes(&self, listener: usize, args: &str) -> bool {
        let (code, said) = self.publish(listener, args);
        code == 0 && said.is_empty()
    }

    /// What the line with `option` has become, in the table.
    pub(crate) fn row(&self, option: &str) -> &str {
        let found = self.table.lines().find(|line| line.contains(option));
        assert!(found.is_some(), "{option}: {}", self.table);
        found.unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn assert_row(&self, option: &str, outcome: &str, why: &str) {
        let row = self.row(option);
        assert!(
            row.contains(&format!("  {outcome}")) && row.contains(why),
            "{row}"
        );
    }
}

/// An authority, a certificate for the server, and one for a client that it has signed.
pub(crate) fn certificates(folder: &TempFolder) {
    let init = folder.vencejo(&["tls", "init", "--name", "localhost"]);
    succeeded(&output(init));
    let read = |name: &str| folder.read(&format!("tls/{name}"));
    let key = rcgen::KeyPair::from_pem(&read("ca.key")).expect("a key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), key).expect("an authority");
    let own = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("is valid");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "device");
    params
        .extended_key_usages
        .push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let signed = params.signed_by(&own, &issuer).expect("is signed");
    folder.write("tls/client.pem", signed.pem());
    folder.write("tls/client.key", own.serialize_pem());
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string()
}

//! The flags of `pub` and `sub` for TLS.
//!
//! Owns: [`TlsArgs`] and checks across them. Does not own: the handshake (see `client::Tls`).
//! Start reading at [`TlsArgs::tls`]. Invariant: a flag means here what it means to mosquitto.

use std::path::PathBuf;

use clap::Args;
use client::{Tls, TlsError, TlsVersion};

use super::Failure;
use super::profiles::Profile;

/// How the connection is secured.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// Believe servers whose certificates one of those in this PEM file has signed; the port is then 8883
    #[arg(long, alias = "ca", value_name = "FILE")]
    pub(crate) cafile: Option<PathBuf>,
    /// The same with every PEM file of a folder
    #[arg(long, value_name = "DIR")]
    pub(crate) capath: Option<PathBuf>,
    /// The same with the certificates of the system, as `mqtts://` and `quic://` do where none are named
    #[arg(long)]
    pub(crate) tls_use_os_certs: bool,
    /// Our certificate (PEM), for a server that asks for one
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Believe a certificate that is for another host: for tests only
    #[arg(long)]
    pub(crate) insecure: bool,
    /// tlsv1.2 or tlsv1.3 [default: both; QUIC has 1.3 only]
    #[arg(long, value_name = "VERSION")]
    pub(crate) tls_version: Option<String>,
    /// Offer this protocol (ALPN)
    #[arg(long, alias = "alpn", value_name = "PROTOCOL")]
    pub(crate) tls_alpn: Option<String>,
    /// Write the secrets of the connection into this file, for a program that is to read what is sent (as SSLKEYLOGFILE)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_keylog: Option<PathBuf>,
    /// No TLS, whatever a profile says
    #[arg(long)]
    pub(crate) no_tls: bool,
}

impl TlsArgs {
    /// Whether a flag asks for TLS.
    pub(crate) const fn is_asked(&self) -> bool {
        self.cafile.is_some() || self.capath.is_some() || self.tls_use_os_certs
    }

    /// These flags, and where they say nothing the profile: whom to believe as a whole, who we are as a whole.
    pub(crate) fn over(&self, profile: &Profile) -> Self {
        let mut all = self.clone();
        if all.no_tls {
            return all;
        }
        if !all.is_asked() {
            all.cafile.clone_from(&profile.cafile);
            all.capath.clone_from(&profile.capath);
            all.tls_use_os_certs = profile.tls_use_os_certs;
        }
        if all.cert.is_none() && all.key.is_none() {
            all.cert.clone_from(&profile.cert);
            all.key.clone_from(&profile.key);
        }
        all.insecure |= profile.insecure;
        all.tls_version = all.tls_version.or_else(|| profile.tls_version.clone());
        all.tls_alpn = all.tls_alpn.or_else(|| profile.tls_alpn.clone());
        all
    }

    /// What the flags come to; `None` for a connection without TLS. `is_asked`: the URL has asked for it.
    pub(crate) fn tls(&self, tool: &str, is_asked: bool) -> Result<Option<Tls>, Failure> {
        if self.no_tls && (self.is_asked() || is_asked || self.unused().is_some()) {
            let text = "--no-tls, and a flag or a URL that asks for TLS, contradict one another.";
            return Err(Failure::usage(tool, text));
        }
        if !self.is_asked() && !is_asked {
            return match self.unused() {
                None => Ok(None),
                Some(flag) => {
                    let text = format!(
                        "{flag} needs --cafile, --capath, --tls-use-os-certs, mqtts:// or quic://."
                    );
                    Err(Failure::usage(tool, text))
                }
            };
        }
        let failed = |error: TlsError| Failure::new(format!("Error: {error}."));
        let mut tls = Tls::new();
        if let Some(path) = &self.cafile {
            tls = tls.root_file(path).map_err(failed)?;
        }
        if let Some(path) = &self.capath {
            tls = tls.root_folder(path).map_err(failed)?;
        }
        tls = match (&self.cert, &self.key) {
            (None, None) => tls,
            (Some(chain), Some(key)) => tls.client_certificate(chain, key).map_err(failed)?,
            _ => {
                let text = "Both certfile and keyfile must be provided if one of them is set.";
                return Err(Failure::usage(tool, text));
            }
        };
        if self.insecure {
            tls = tls.skip_host_name();
        }
        match self.tls_version.as_deref() {
            None => {}
            Some("tlsv1.2" | "1.2") => tls = tls.version(TlsVersion::Tls12),
            Some("tlsv1.3" | "1.3") => tls = tls.version(TlsVersion::Tls13),
            Some(other) => {
                let text = format!("TLS version {other} is not one of tlsv1.2 and tlsv1.3.");
                return Err(Failure::usage(tool, text));
            }
        }
        if let Some(protocol) = &self.tls_alpn {
            tls = tls.alpn(protocol.as_bytes());
        }
        if let Some(path) = &self.tls_keylog {
            tls = tls.key_log_file(path).map_err(failed)?;
        }
        Ok(Some(tls))
    }

    /// A flag that says something about TLS where there is none: the user believes to be safe.
    fn unused(&self) -> Option<&'static str> {
        let flags = [
            (self.cert.is_some(), "--cert"),
            (self.key.is_some(), "--key"),
            (self.insecure, "--insecure"),
            (self.tls_version.is_some(), "--tls-version"),
            (self.tls_alpn.is_some(), "--tls-alpn"),
            (self.tls_keylog.is_some(), "--tls-keylog"),
        ];
        flags
            .iter()
            .find_map(|(is_set, flag)| is_set.then_some(*flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_for_a_connection_without_tls_are_refused() {
        let args = TlsArgs {
            insecure: true,
            ..TlsArgs::default()
        };
        let failure = args.tls("pub", false).expect_err("no TLS");
        assert!(
            failure.text.contains("--insecure needs --cafile"),
            "{failure:?}"
        );
        assert!(args.tls("pub", true).expect("mqtts").is_some());
        assert!(TlsArgs::default().tls("pub", false).expect("TCP").is_none());
    }

    #[test]
    fn no_tls_wins_over_a_profile_and_over_nothing_else() {
        let profile = Profile {
            cafile: Some("/nowhere/ca.crt".into()),
            ..Profile::default()
        };
        let none = TlsArgs {
            no_tls: true,
            ..TlsArgs::default()
        };
        assert!(none.over(&profile).tls("sub", false).unwrap().is_none());
        assert!(TlsArgs::default().over(&profile).tls("sub", false).is_err());
        let roots = TlsArgs {
            tls_use_os_certs: true,
            ..none.clone()
        };
        let insecure = TlsArgs {
            insecure: true,
            ..none.clone()
        };
        for failure in [
            none.tls("sub", true),
            roots.tls("sub", false),
            insecure.tls("sub", false),
        ] {
            let failure = failure.expect_err("it contradicts itself");
            assert!(failure.text.contains("contradict"), "{failure:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let args = TlsArgs {
            cafile: Some("/nowhere/ca.crt".into()),
            ..TlsArgs::default()
        };
        let failure = args.tls("pub", false).expect_err("no file");
        assert!(failure.text.contains("/nowhere/ca.crt"), "{failure:?}");
        let args = TlsArgs {
            cert: Some("/nowhere/a.crt".into()),
            tls_use_os_certs: true,
            ..TlsArgs::default()
        };
        let failure = args.tls("pub", false).expect_err("no key");
        assert!(failure.text.contains("Both certfile"), "{failure:?}");
        let args = TlsArgs {
            tls_version: Some("tlsv1.1".to_owned()),
            tls_use_os_certs: true,
            ..TlsArgs::default()
        };
        let failure = args.tls("pub", false).expect_err("too old");
        assert!(failure.text.contains("tlsv1.1"), "{failure:?}");
    }
}

//! `tls` of a listener: how its connections are secured.
//!
//! Owns: [`TlsConfig`], which values fit. Does not own: what is in the files it names (see `crate::tls`). Start
//! reading at [`TlsConfig`]. Invariant: there is at least one certificate, and those of Clients are asked for only if
//! they can be judged.

use std::path::PathBuf;

use toml::Spanned;

use super::checked::Fault;
use super::raw::{RawCertificate, RawClientCertificates, RawTls, RawTlsVersion};

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates of the Server: the first that fits the name a Client asks for, or the very first.
    pub certificates: Vec<CertificateFiles>,
    /// PEM file of the certificates that may have signed those of Clients. Default: none.
    pub client_ca: Option<PathBuf>,
    /// Whether Clients have to show a certificate. Default: `required` with a `client_ca`, else `none`.
    pub client_certificates: ClientCertificates,
    /// PEM file of certificates of Clients that were revoked. Default: none.
    pub crl: Option<PathBuf>,
    /// The oldest version of TLS that is spoken. Default: 1.2.
    pub min_version: TlsVersion,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by what it takes to reach a root that Clients know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whether Clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one that is shown must be good.
    Optional,
    /// Nobody gets in without a good one.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Judges what was written.
pub(super) fn check(raw: Spanned<RawTls>) -> Result<TlsConfig, Fault> {
    let span = raw.span();
    let fault = |message: &str| Fault {
        span: Some(span.clone()),
        message: message.to_owned(),
    };
    let raw = raw.into_inner();
    let mut certificates = Vec::new();
    match (raw.certificate, raw.key) {
        (Some(certificate), Some(key)) => certificates.push(CertificateFiles { certificate, key }),
        (None, None) => {}
        _ => {
            return Err(fault(
                "a certificate needs its key, and a key its certificate",
            ));
        }
    }
    let more = raw.certificates.into_iter();
    certificates.extend(
        more.map(|RawCertificate { certificate, key }| CertificateFiles { certificate, key }),
    );
    if certificates.is_empty() {
        return Err(fault("tls needs a certificate and its key"));
    }
    let client_certificates = match (raw.client_certificates, &raw.client_ca) {
        (Some(RawClientCertificates::None) | None, None) => ClientCertificates::None,
        (None | Some(RawClientCertificates::Required), Some(_)) => ClientCertificates::Required,
        (Some(RawClientCertificates::Optional), Some(_)) => ClientCertificates::Optional,
        (Some(RawClientCertificates::None), Some(_)) => {
            return Err(fault(
                "client_ca counts for nothing with client_certificates = \"none\"",
            ));
        }
        (Some(_), None) => {
            return Err(fault(
                "client_certificates needs a client_ca to judge them by",
            ));
        }
    };
    if raw.crl.is_some() && client_certificates == ClientCertificates::None {
        return Err(fault("crl counts for nothing without a client_ca"));
    }
    Ok(TlsConfig {
        certificates,
        client_ca: raw.client_ca,
        client_certificates,
        crl: raw.crl,
        min_version: match raw.min_version {
            None | Some(RawTlsVersion::Tls12) => TlsVersion::Tls12,
            Some(RawTlsVersion::Tls13) => TlsVersion::Tls13,
        },
    })
}

//! TLS of a listener: from the files its configuration names to what handshakes are made with.
//!
//! Owns: [`load`], which certificate a Client is shown, how Clients' certificates are judged. Does not own: the
//! bytes of a connection (see `shard::socket`). Start reading at [`load`].
//! Invariant: a key that does not fit its certificate, or a file that cannot be read, is an error here, never a
//! listener that is less safe.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::{CertificateFiles, ClientCertificates, TlsConfig, TlsVersion, Transport};

/// Why a listener cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in it cannot be used.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What does not fit together.
    #[error("{0}")]
    Other(String),
}

/// Reads everything that `config` names, for a listener that speaks `transport` inside, or both where it `sniffs`.
/// QUIC has TLS 1.3 only.
/// # Errors
/// A file cannot be read, or what is in it cannot be used.
pub(crate) fn load(
    config: &TlsConfig,
    transport: Transport,
    sniffs: bool,
) -> Result<ServerConfig, TlsError> {
    let other = |error: rustls::Error| TlsError::Other(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match config.min_version {
        TlsVersion::Tls12 if transport != Transport::Quic => rustls::DEFAULT_VERSIONS,
        TlsVersion::Tls12 | TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(other)?;
    let builder = match client_verifier(config, Arc::clone(&provider))? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let shown = config.certificates.iter();
    let shown: Result<_, _> = shown.map(|files| Shown::load(files, &provider)).collect();
    let mut server = builder.with_cert_resolver(Arc::new(Certificates(shown?)));
    server.alpn_protocols = match transport {
        _ if sniffs => vec![ALPN.to_vec(), ALPN_HTTP.to_vec()],
        Transport::Stream | Transport::Quic => vec![ALPN.to_vec()],
        Transport::WebSocket => vec![ALPN_HTTP.to_vec()],
    };
    // What is known of a Client travels with it, so that one that comes again costs less, and nothing here.
    server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(other)?;
    Ok(server)
}

/// What another machine is asked by: judged by the certificates in `ca`, or by those that the system trusts, and
/// shown `certificate`. Where nothing is asked by TLS (`is_needed`), nobody is trusted.
/// # Errors
/// A file cannot be read, or what is in it cannot be used; or there is nothing to judge by.
pub(crate) fn client(
    ca: Option<&Path>,
    certificate: Option<&CertificateFiles>,
    is_needed: bool,
) -> Result<ClientConfig, TlsError> {
    let other = |error: rustls::Error| TlsError::Other(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| TlsError::Content {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
            }
        }
        // What cannot be read among the system's is not ours to mend; none at all is.
        None if is_needed => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    if is_needed && roots.is_empty() {
        let text = "this system trusts no certificates: name those to judge by as ca";
        return Err(TlsError::Other(text.to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map_err(other)?
        .with_root_certificates(roots);
    let Some(CertificateFiles { certificate, key }) = certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of_pem(key, "key", error))?;
    let built = builder.with_client_auth_cert(chain, private);
    built.map_err(|error| TlsError::Content {
        path: key.clone(),
        reason: format!("does not go with {}: {error}", certificate.display()),
    })
}

fn client_verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = &config.client_ca else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::Content {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &config.crl {
        // One whose time is over may leave out who was revoked since.
        builder = builder
            .with_crls(revocations(path)?)
            .enforce_revocation_expiration();
    }
    if config.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    let named = config.crl.as_ref().unwrap_or(path);
    let verifier = builder.build().map_err(|error| TlsError::Content {
        path: named.clone(),
        reason: error.to_string(),
    })?;
    Ok(Some(verifier))
}

/// A certificate that Clients are shown.
#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
}

impl Shown {
    fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let CertificateFiles { certificate, key } = files;
        let chain = certificates(certificate)?;
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|error| of_pem(key, "key", error))?;
        // It does not fit the certificate, or is of a kind that is not supported.
        let key = CertifiedKey::from_der(chain, private, provider).map_err(|error| {
            TlsError::Content {
                path: key.clone(),
                reason: format!("does not go with {}: {error}", certificate.display()),
            }
        })?;
        let shown = Self { key: Arc::new(key) };
        shown.parsed().ok_or_else(|| TlsError::Content {
            path: certificate.clone(),
            reason: "its first certificate cannot be read".to_owned(),
        })?;
        Ok(shown)
    }

    fn parsed(&self) -> Option<ParsedCertificate<'_>> {
        ParsedCertificate::try_from(self.key.end_entity_cert().ok()?).ok()
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        self.parsed()
            .is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

/// All of a listener.
#[derive(Debug)]
struct Certificates(Vec<Shown>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| self.0.iter().find(|shown| shown.is_for(&name)));
        named
            .or_else(|| self.0.first())
            .map(|shown| Arc::clone(&shown.key))
    }
}

/// The certificates in a PEM file, one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, "certificate", CertificateDer::pem_file_iter(path))
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_file_iter(path);
    all(path, "revocation list", lists)
}

fn all<T>(
    path: &Path,
    what: &str,
    items: Result<impl Iterator<Item = Result<T, PemError>>, PemError>,
) -> Result<Vec<T>, TlsError> {
    let found: Result<Vec<T>, _> = items.and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err(of_pem(path, what, PemError::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(of_pem(path, what, error)),
    }
}

fn of_pem(path: &Path, what: &str, error: PemError) -> TlsError {
    let path = path.to_owned();
    match error {
        PemError::Io(source) => TlsError::File { path, source },
        PemError::NoItemsFound => TlsError::Content {
            path,
            reason: format!("there is no {what} in it"),
        },
        other => TlsError::Content {
            path,
            reason: format!("no {what} in PEM form: {other}"),
        },
    }
}

/// The name of MQTT among the protocols of a handshake.
const ALPN: &[u8] = b"mqtt";
/// That of what WebSocket begins with.
const ALPN_HTTP: &[u8] = b"http/1.1";

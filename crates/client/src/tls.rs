//! TLS towards the Server: whom to believe, and who we are.
//!
//! Owns: [`Tls`], what it is made from, the handshake. Does not own: the socket (see `driver`).
//! Start reading at [`Tls::new`]. Invariant: without a word to the contrary, a certificate is checked against
//! the system's roots and the name that was connected to.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::key_log::KeyLogFile;

/// How a connection is secured. TLS 1.2 and 1.3.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    roots: Vec<CertificateDer<'static>>,
    client: Option<Arc<ClientCertificate>>,
    skips: Skips,
    version: Option<TlsVersion>,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    key_log: Option<Arc<KeyLogFile>>,
}

/// One version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Skips {
    #[default]
    Nothing,
    HostName,
    Everything,
}

/// Who we are. The key does not print.
struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why a connection cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or of a key cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds nothing that can be used.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no certificates to believe.
    #[error("the system has no root certificates; name some")]
    NoRoots,
    /// The name connected to can be in no certificate.
    #[error("{0:?} is neither a host name nor an address")]
    ServerName(String),
    /// The certificates, the key or the versions do not fit.
    #[error("{0}")]
    Options(Error),
    /// The handshake failed: the Server's certificate is not believed, or the Server wants another one of us.
    #[error("{0}")]
    Handshake(io::Error),
}

impl Tls {
    /// Believes the roots of the system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes what the certificates in this PEM file have signed, and, from the first such file on, the
    /// system's roots no more.
    /// # Errors
    /// [`TlsError::File`], [`TlsError::Content`]
    pub fn root_file(mut self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        self.roots.extend(certificates(path.as_ref())?);
        Ok(self)
    }

    /// The same for every file of a folder that holds a certificate; other files are left alone.
    /// # Errors
    /// [`TlsError::File`], or [`TlsError::Content`] if there is no certificate in any.
    pub fn root_folder(mut self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = path.as_ref();
        let failed = |source| TlsError::File {
            path: path.to_owned(),
            source,
        };
        let before = self.roots.len();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            // Folders of certificates hold links to each of them, and other things.
            if let Ok(found) = certificates(&file) {
                self.roots.extend(found);
            }
        }
        if self.roots.len() == before {
            return Err(TlsError::Content {
                path: path.to_owned(),
                reason: "there is no certificate in it".to_owned(),
            });
        }
        Ok(self)
    }

    /// Shows this certificate (PEM, with what it takes to reach a root) if the Server asks for one.
    /// # Errors
    /// [`TlsError::File`], [`TlsError::Content`]
    pub fn client_certificate(
        mut self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let (chain, path) = (certificates(chain.as_ref())?, key.as_ref());
        let key = PrivateKeyDer::from_pem_file(path).map_err(|error| of_pem(path, "key", error))?;
        self.client = Some(Arc::new(ClientCertificate { chain, key }));
        Ok(self)
    }

    /// Takes a certificate for another name than the one connected to: whoever has any certificate that is
    /// believed can pretend to be the Server.
    #[must_use]
    pub const fn skip_host_name(mut self) -> Self {
        self.skips = Skips::HostName;
        self
    }

    /// Takes any certificate: the connection is hidden from those who listen, not from those who meddle.
    #[must_use]
    pub const fn skip_verification(mut self) -> Self {
        self.skips = Skips::Everything;
        self
    }

    /// Speaks this version only.
    #[must_use]
    pub const fn version(mut self, version: TlsVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// The name the certificate must be for, where it is not the host's.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Offers this protocol to the Server (ALPN), behind those offered before.
    #[must_use]
    pub fn alpn(mut self, protocol: impl Into<Vec<u8>>) -> Self {
        self.alpn.push(protocol.into());
        self
    }

    /// Writes the secrets of each connection behind what is in this file, in the format of `SSLKEYLOGFILE`, for a program
    /// like Wireshark: whoever has both can read what was sent. The file is made where there is none.
    /// # Errors
    /// [`TlsError::File`]
    pub fn key_log_file(mut self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = path.as_ref();
        let opened = KeyLogFile::open(path).map_err(|source| TlsError::File {
            path: path.to_owned(),
            source,
        })?;
        self.key_log = Some(Arc::new(opened));
        Ok(self)
    }

    /// The handshake.
    pub(crate) async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, TlsError> {
        let (server_name, _) = self.name(host)?;
        let versions: &[&SupportedProtocolVersion] = match self.version {
            None => rustls::DEFAULT_VERSIONS,
            Some(TlsVersion::Tls12) => &[&rustls::version::TLS12],
            Some(TlsVersion::Tls13) => &[&rustls::version::TLS13],
        };
        let connector = TlsConnector::from(Arc::new(self.config(versions)?));
        connector
            .connect(server_name, stream)
            .await
            .map_err(TlsError::Handshake)
    }

    /// What a handshake of QUIC is made with, and the name the certificate must be for.
    #[cfg(feature = "quic")]
    pub(crate) fn for_quic(&self, host: &str) -> Result<(ClientConfig, String), TlsError> {
        if self.version == Some(TlsVersion::Tls12) {
            let text = "QUIC is secured by TLS 1.3 and no other version";
            return Err(TlsError::Options(Error::General(text.to_owned())));
        }
        let (_, name) = self.name(host)?;
        let mut config = self.config(&[&rustls::version::TLS13])?;
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols.push(b"mqtt".to_vec());
        }
        Ok((config, name.to_owned()))
    }

    /// The name the certificate must be for.
    fn name<'a>(&'a self, host: &'a str) -> Result<(ServerName<'static>, &'a str), TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let parsed = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName(name.to_owned()))?;
        Ok((parsed, name))
    }

    fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(TlsError::Options)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let mut config = match self.client.as_deref() {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
                .map_err(TlsError::Options)?,
        };
        config.alpn_protocols.clone_from(&self.alpn);
        if let Some(key_log) = &self.key_log {
            config.key_log = Arc::<KeyLogFile>::clone(key_log);
        }
        Ok(config)
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        if self.skips == Skips::Everything {
            return Ok(Arc::new(Lenient {
                chain: None,
                provider,
            }));
        }
        let mut roots = RootCertStore::empty();
        if self.roots.is_empty() {
            // What cannot be read among the system's is not ours to mend; none at all is.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            roots.add_parsable_certificates(self.roots.iter().cloned());
        }
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::Options(Error::General(error.to_string())))?;
        Ok(match self.skips {
            Skips::HostName => Arc::new(Lenient {
                chain: Some(verifier),
                provider,
            }),
            Skips::Nothing | Skips::Everything => verifier,
        })
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

/// The certificates in a PEM file, one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| of_pem(path, what, error));
    match found {
        Ok(found) if found.is_empty() => Err(of_pem(path, what, PemError::NoItemsFound)),
        found => found,
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

/// Checks less than it should: all but the name, or, without a `chain`, only that the Server has the key of the
/// certificate it shows.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

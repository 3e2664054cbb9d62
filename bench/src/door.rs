//! How one gets to a broker: by TCP, or by TLS over it.
//!
//! Owns: [`Door`], [`Carrier`], the certificate that brokers show. Does not own: packets (see `peer`), who listens (see
//! `brokers`). Start reading at [`Door::connect`]. Invariant: every handshake is a whole one, none resumes.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Where a broker is, and what is spoken there.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Door {
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// The same with TLS, to a broker that shows the certificate of `identity`.
    /// # Errors
    /// The certificate is none.
    pub(crate) fn secured(address: SocketAddr, identity: &Identity) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(identity.certificate.clone())
            .map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self {
            address,
            tls: Some(Arc::new(config)),
        })
    }

    /// Connects, and waits for that; a handshake goes on with what is read and written.
    /// # Errors
    /// As of the socket.
    pub(crate) fn connect(&self, registry: &Registry, token: usize) -> io::Result<Carrier> {
        let stream = std::net::TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.carry(TcpStream::from_std(stream), registry, token)
    }

    /// The same, but does not wait: the socket says when it can be written.
    /// # Errors
    /// As of the socket.
    pub(crate) fn begin_to_connect(
        &self,
        registry: &Registry,
        token: usize,
    ) -> io::Result<Carrier> {
        let stream = TcpStream::connect(self.address)?;
        self.carry(stream, registry, token)
    }

    fn carry(
        &self,
        mut stream: TcpStream,
        registry: &Registry,
        token: usize,
    ) -> io::Result<Carrier> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(token), interest)?;
        let Some(config) = &self.tls else {
            return Ok(Carrier::Plain(stream));
        };
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Carrier::Secured(Box::new((session, stream))))
    }
}

/// The bytes of one connection.
#[derive(Debug)]
pub(crate) enum Carrier {
    Plain(TcpStream),
    Secured(Box<(ClientConnection, TcpStream)>),
}

impl Carrier {
    /// Whether a read that fills less than its room has left nothing behind.
    pub(crate) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether TLS has something to send of its own, or of what it was given.
    pub(crate) fn is_pending(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secured(secured) => secured.0.wants_write(),
        }
    }
}

impl Read for Carrier {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secured(secured) => {
                let (session, stream) = &mut **secured;
                rustls::Stream::new(session, stream).read(buffer)
            }
        }
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secured(secured) => {
                let (session, stream) = &mut **secured;
                rustls::Stream::new(session, stream).write(bytes)
            }
        }
    }

    /// Hands TCP what TLS holds.
    fn flush(&mut self) -> io::Result<()> {
        let Self::Secured(secured) = self else {
            return Ok(());
        };
        let (session, stream) = &mut **secured;
        while session.wants_write() {
            match session.write_tls(stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A certificate that has signed itself, and its key, in files.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

impl Identity {
    /// A new one, with its files in `folder`.
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let certificate_file = folder.join("certificate.pem");
        let key_file = folder.join("key.pem");
        fs::write(&certificate_file, made.cert.pem())?;
        fs::write(&key_file, made.signing_key.serialize_pem())?;
        Ok(Self {
            certificate: made.cert.der().clone(),
            certificate_file,
            key_file,
        })
    }
}

/// What the certificate is for.
const NAME: &str = "localhost";

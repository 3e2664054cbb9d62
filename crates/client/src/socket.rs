//! From options to a connection that carries bytes: TCP or a Unix socket, with TLS or without, or QUIC.
//!
//! Owns: which addresses are tried, [`Reader`] and [`Writer`]. Does not own: what is said (see `driver`), TLS (see
//! `tls`), QUIC (see `quic`). Start reading at [`open`]. Invariant: nothing takes longer than the time to connect.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use crate::{ConnectError, Options, Tls};

/// The connection as it was asked for, for reading and for writing.
pub(crate) async fn open(options: &Options) -> Result<(Reader, Writer), ConnectError> {
    #[cfg(feature = "quic")]
    if options.is_quic {
        return crate::quic::open(options).await;
    }
    #[cfg(feature = "websocket")]
    if let Some(path) = &options.websocket {
        return open_websocket(path, options).await;
    }
    match (&options.unix, &options.tls) {
        (None, None) => {
            let (reader, writer) = open_tcp(options).await?.into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        (Some(path), None) => {
            let (reader, writer) = open_unix(path, options).await?.into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        (None, Some(tls)) => secure(open_tcp(options).await?, tls, options).await,
        (Some(path), Some(tls)) => secure(open_unix(path, options).await?, tls, options).await,
    }
}

async fn open_unix(path: &Path, options: &Options) -> Result<UnixStream, ConnectError> {
    let stream = timeout(options.timeouts.connack, UnixStream::connect(path));
    let stream = stream.await.map_err(|_| ConnectError::Timeout)?;
    stream.map_err(ConnectError::Unix)
}

/// TLS over `stream`.
async fn secure(
    stream: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static,
    tls: &Tls,
    options: &Options,
) -> Result<(Reader, Writer), ConnectError> {
    let secured = timeout(options.timeouts.connack, tls.secure(&options.host, stream));
    let stream = secured
        .await
        .map_err(|_| ConnectError::Timeout)?
        .map_err(ConnectError::Tls)?;
    Ok(split(stream))
}

fn split(stream: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(stream);
    (Box::new(reader), Box::new(writer))
}

/// WebSocket over any of the streams.
#[cfg(feature = "websocket")]
async fn open_websocket(path: &str, options: &Options) -> Result<(Reader, Writer), ConnectError> {
    let host = match options.host.contains(':') {
        true => format!("[{}]:{}", options.host, options.port),
        false => format!("{}:{}", options.host, options.port),
    };
    let stream: Box<dyn Both> = match &options.unix {
        None => Box::new(open_tcp(options).await?),
        Some(path) => Box::new(open_unix(path, options).await?),
    };
    let upgraded = async {
        let Some(tls) = &options.tls else {
            let framed = crate::websocket::upgrade(&host, path, stream).await?;
            return Ok(split(framed));
        };
        let secured = tls.secure(&options.host, stream).await;
        let secured = secured.map_err(ConnectError::Tls)?;
        let framed = crate::websocket::upgrade(&host, path, secured).await?;
        Ok(split(framed))
    };
    let upgraded = timeout(options.timeouts.connack, upgraded);
    upgraded.await.map_err(|_| ConnectError::Timeout)?
}

/// Both sides.
#[cfg(feature = "websocket")]
trait Both: AsyncRead + AsyncWrite + Debug + Send + Unpin {}
#[cfg(feature = "websocket")]
impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Both for T {}

/// Tries each address of the host in turn.
async fn open_tcp(options: &Options) -> Result<TcpStream, ConnectError> {
    let (host, port) = match &options.socks5 {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (options.host.as_str(), options.port),
    };
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(ConnectError::Resolve)?;
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(options.timeouts.connack, open_one(address, options)).await {
            Ok(Ok(stream)) => {
                stream
                    .set_nodelay(options.nodelay)
                    .map_err(ConnectError::Tcp)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(ConnectError::Tcp(last_error))
}

async fn open_one(address: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(local) = options.bind_address {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let mut stream = socket.connect(address).await?;
    if let Some(proxy) = &options.socks5 {
        proxy.ask(&mut stream, &options.host, options.port).await?;
    }
    Ok(stream)
}

/// The reading side of any kind of connection.
pub(crate) trait Reading: AsyncRead + Debug + Send + Unpin {}
impl<T: AsyncRead + Debug + Send + Unpin> Reading for T {}

/// The writing side.
pub(crate) trait Writing: AsyncWrite + Debug + Send + Unpin {}
impl<T: AsyncWrite + Debug + Send + Unpin> Writing for T {}

pub(crate) type Reader = Box<dyn Reading>;
pub(crate) type Writer = Box<dyn Writing>;

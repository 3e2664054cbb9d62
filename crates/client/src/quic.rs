//! QUIC towards the Server: one connection with one bidirectional stream.
//!
//! Owns: [`open`], what of QUIC is asked for. Does not own: whom to believe (see `tls`), what is said (see `driver`).
//! Start reading at [`open`]. Invariant: the connection has a UDP socket of its own, which ends with it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ReadError,
    RecvStream, TokioRuntime, TransportConfig, VarInt,
};
use rustls::AlertDescription;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::socket::{Reader, Writer};
use crate::{ConnectError, Options, Tls, TlsError};

/// Connects and opens the stream.
pub(crate) async fn open(options: &Options) -> Result<(Reader, Writer), ConnectError> {
    let opened = timeout(options.timeouts.connack, async {
        let connection = connect(options).await?;
        connection.open_bi().await.map_err(failed)
    });
    let (writer, reader) = opened.await.map_err(|_| ConnectError::Timeout)??;
    Ok((Box::new(Incoming(reader)), Box::new(writer)))
}

async fn connect(options: &Options) -> Result<Connection, ConnectError> {
    let tls = options.tls.as_ref();
    let made = tls.map_or_else(
        || Tls::new().for_quic(&options.host),
        |tls| tls.for_quic(&options.host),
    );
    let (tls, name) = made.map_err(ConnectError::Tls)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| {
        let error = rustls::Error::General(error.to_string());
        ConnectError::Tls(TlsError::Options(error))
    })?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    let addresses = tokio::net::lookup_host((options.host.as_str(), options.port))
        .await
        .map_err(ConnectError::Resolve)?;
    first_of(addresses, &config, options.bind_address, &name).await
}

/// Tries the addresses of a host, each a little after the one before: nothing says that nobody listens at one, so
/// waiting for it to fail could take all the time there is.
async fn first_of(
    addresses: impl Iterator<Item = SocketAddr>,
    config: &ClientConfig,
    local: Option<IpAddr>,
    name: &str,
) -> Result<Connection, ConnectError> {
    let mut attempts = JoinSet::new();
    for (place, address) in (0_u32..).zip(addresses) {
        let (config, name) = (config.clone(), name.to_owned());
        attempts.spawn(async move {
            sleep(STAGGER * place).await;
            handshake(config, address, local, &name).await
        });
    }
    let mut last = ConnectError::Tcp(io::ErrorKind::NotFound.into());
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(connection)) => return Ok(connection),
            // The Server is there: the other addresses are not better.
            Ok(Err(error @ ConnectError::Tls(_))) => return Err(error),
            Ok(Err(error)) => last = error,
            Err(error) => last = ConnectError::Tcp(io::Error::other(error)),
        }
    }
    Err(last)
}

async fn handshake(
    config: ClientConfig,
    address: SocketAddr,
    local: Option<IpAddr>,
    name: &str,
) -> Result<Connection, ConnectError> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local.unwrap_or(any), 0)).map_err(ConnectError::Tcp)?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime);
    let connecting = endpoint
        .map_err(ConnectError::Tcp)?
        .connect_with(config, address, name)
        .map_err(|error| ConnectError::Tcp(io::Error::other(error)))?;
    connecting.await.map_err(failed)
}

fn failed(error: ConnectionError) -> ConnectError {
    if matches!(error, ConnectionError::TimedOut) {
        return ConnectError::Timeout;
    }
    match alert(&error) {
        None => ConnectError::Tcp(error.into()),
        Some(_) => ConnectError::Tls(TlsError::Handshake(said(error))),
    }
}

/// What TLS has to complain about, RFC 9001, section 4.8.
fn alert(error: &ConnectionError) -> Option<AlertDescription> {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return None,
    };
    let code = u64::from(code).checked_sub(0x100)?;
    u8::try_from(code).ok().map(AlertDescription::from)
}

/// The same in words.
fn said(error: ConnectionError) -> io::Error {
    match (alert(&error), &error) {
        // The reason is ours then, and says more.
        (Some(alert), ConnectionError::ConnectionClosed(_)) => {
            io::Error::other(format!("the server ends the handshake: {alert:?}"))
        }
        (Some(_), ConnectionError::TransportError(error)) if !error.reason.is_empty() => {
            io::Error::other(error.reason.clone())
        }
        _ => error.into(),
    }
}

/// The receiving side: says why the connection has ended, and takes the Server's orderly end of it for the end of
/// the stream.
#[derive(Debug)]
struct Incoming(RecvStream);

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self(stream) = self.get_mut();
        stream
            .poll_read_buf(context, buffer)
            .map(|read| match read {
                Ok(()) => Ok(()),
                Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close)))
                    if close.error_code == NO_ERROR =>
                {
                    Ok(())
                }
                Err(ReadError::ConnectionLost(error)) => Err(said(error)),
                Err(error) => Err(error.into()),
            })
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        // Nothing but the one stream, which is ours to open.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MILLIS))))
        // With a long Keep Alive or none, MQTT alone would let the connection (and a NAT on the way) fall asleep.
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// What a connection is closed with where nothing is wrong.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// When the next address is tried as well.
const STAGGER: Duration = Duration::from_millis(250);
/// Bytes on their way or waiting for it.
const SEND_WINDOW_BYTES: u64 = 1024 * 1024;
/// A Server from which nothing has come for so long is gone.
const IDLE_MILLIS: u32 = 60_000;
/// How often the Server is asked for a sign of life, where nothing else is said.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to whoever answers first, and what is closed when nobody does.
    #[tokio::test]
    async fn a_host_with_several_addresses_is_reached_where_it_answers() {
        let named = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let rcgen::CertifiedKey { cert, signing_key } = named.expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into());
        let mut config = config.expect("fits");
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config);
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto.expect("TLS 1.3")));
        let server = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let there = server.local_addr().expect("an address");
        let served = tokio::spawn(async move {
            let incoming = server.accept().await.expect("comes");
            incoming.await.expect("a handshake")
        });

        // Takes what comes and says nothing.
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let silent = silent.local_addr().expect("an address");
        let tls = Tls::new().skip_verification().for_quic("localhost");
        let (tls, name) = tls.expect("a configuration");
        let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3");
        let config = ClientConfig::new(Arc::new(crypto));
        let addresses = [silent, there].into_iter();
        let connected = timeout(
            Duration::from_secs(20),
            first_of(addresses, &config, None, &name),
        );
        let connection = connected.await.expect("in time").expect("a connection");
        assert_eq!(connection.remote_address(), there);
        served.await.expect("served");
    }
}

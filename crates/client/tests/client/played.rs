//! The Server's end of one connection, which a test plays by hand.
//!
//! Owns: packets in and out of a socket. Does not own: what they are about. Start reading at [`Played`].
//! Invariant: nothing waits longer than [`DEADLINE`].

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use vencejo_client::Options;
use vencejo_client::proto::Version;
use vencejo_client::proto::packet::{self, ConnAck, ConnAckProperties, Packet, ReasonCode};

use crate::DEADLINE;

pub(crate) struct Played {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Played {
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        Self {
            socket,
            input: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet::encode(packet, Version::V5, &mut bytes).unwrap();
        self.socket.write_all(&bytes).await.unwrap();
    }

    /// What `look` makes of the next packet; nothing if the client has closed.
    pub(crate) async fn next<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> Option<T> {
        loop {
            let decoded = packet::decode(&self.input, Version::V5, u32::MAX).unwrap();
            if let Some((packet, used)) = decoded {
                let seen = look(&packet);
                self.input.drain(..used);
                return Some(seen);
            }
            let mut buffer = [0; 4096];
            let read = timeout(DEADLINE, self.socket.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            if read == 0 {
                return None;
            }
            self.input.extend_from_slice(&buffer[..read]);
        }
    }
}

/// Where a client finds the Server that is played.
pub(crate) async fn listener() -> (TcpListener, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Options::new("127.0.0.1", port).client_id("me"))
}

/// What lets a client in.
pub(crate) fn connack() -> ConnAck {
    ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties::default(),
    }
}

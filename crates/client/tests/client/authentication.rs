//! Proofs by AUTH against a Server that a test plays by hand: a true one, and false ones.
//!
//! Owns: whom the client takes for its Server. Does not own: SCRAM itself (unit tests of the crate `scram`).
//! Start reading at [`Server`]. Invariant: no password is sent.

use scram::{ClientFirst, Iterations, Keys, ServerExchange};
use tokio::net::TcpListener;
use tokio::time::timeout;
use vencejo_client::proto::connection::ClientError;
use vencejo_client::proto::packet::{
    Auth, ConnAck, ConnAckProperties, Disconnect, Packet, PacketType, Publish, PublishProperties,
    ReasonCode,
};
use vencejo_client::proto::{Qos, Secret, Version};
use vencejo_client::{
    ConnectError, Connection, DisconnectCause, Event, Events, Options, RequestError, ScramSha256,
    Token,
};

use crate::DEADLINE;
use crate::played::{self, Played, connack};

const SCRAM: &str = "SCRAM-SHA-256";

/// The Server's end of one connection.
struct Server(Played);

impl Server {
    async fn accept(listener: &TcpListener) -> Self {
        Self(Played::accept(listener).await)
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        self.0.send(packet).await;
    }

    async fn auth(&mut self, reason: ReasonCode, data: Option<Vec<u8>>) {
        let auth = Auth::new(reason, SCRAM, data.map(Secret::new));
        self.send(&Packet::Auth(Box::new(auth))).await;
    }

    async fn connack(&mut self, data: Option<Vec<u8>>) {
        let properties = ConnAckProperties {
            authentication_method: Some(SCRAM.to_owned()),
            authentication_data: data.map(Secret::new),
            ..ConnAckProperties::default()
        };
        let connack = ConnAck {
            properties,
            ..connack()
        };
        self.send(&Packet::ConnAck(Box::new(connack))).await;
    }

    /// The next packet: its type, its Reason Code if it is a DISCONNECT or AUTH, and Authentication Data.
    async fn next(&mut self) -> (PacketType, Option<ReasonCode>, Vec<u8>) {
        let seen = self.0.next(|packet| {
            let bytes = |data: &Option<Secret>| {
                data.as_ref()
                    .map(|data| data.expose().to_vec())
                    .unwrap_or_default()
            };
            let (reason, data) = match packet {
                Packet::Connect(connect) => {
                    assert_eq!(connect.password, None, "it is not sent");
                    (None, bytes(&connect.properties.authentication_data))
                }
                Packet::Auth(auth) => (Some(auth.reason), bytes(&auth.data)),
                Packet::Disconnect(disconnect) => (Some(disconnect.reason), Vec::new()),
                _ => (None, Vec::new()),
            };
            (packet.packet_type(), reason, data)
        });
        seen.await.expect("the client has not closed")
    }

    /// Goes through an exchange that the Client has begun with `said`, as one who has these keys; returns what it ends
    /// with.
    async fn judge(&mut self, said: &[u8], keys: Keys) -> Option<Vec<u8>> {
        let (exchange, answer) =
            ServerExchange::begin(ClientFirst::parse(said).unwrap(), keys, "xyz");
        self.auth(ReasonCode::ContinueAuthentication, Some(answer))
            .await;
        let (packet_type, reason, said) = self.next().await;
        assert_eq!(packet_type, PacketType::Auth);
        assert_eq!(reason, Some(ReasonCode::ContinueAuthentication));
        exchange.finish(&said).ok()
    }
}

fn keys(password: &str) -> Keys {
    Keys::derive(password, &[1; 16], Iterations::new(4096).unwrap()).unwrap()
}

/// For a user with a password.
async fn listener() -> (TcpListener, Options) {
    let (listener, options) = played::listener().await;
    let proof = ScramSha256::new("anna", Secret::new("word"));
    (listener, options.authenticator(proof))
}

/// A client that a true Server has let in.
async fn connected() -> (Server, Connection, Events) {
    let (listener, options) = listener().await;
    let serve = async {
        let mut server = Server::accept(&listener).await;
        let (_, _, said) = server.next().await;
        let last = server.judge(&said, keys("word")).await;
        assert!(last.is_some(), "a proof");
        server.connack(last).await;
        server
    };
    let (server, client) = tokio::join!(serve, Connection::connect(options));
    let (client, events) = client.unwrap();
    (server, client, events)
}

/// What a client says of a Server that does `serve` with its CONNECT; the Server is told goodbye unless it never
/// answered.
async fn refusal<F: Future<Output = ()>>(serve: impl FnOnce(Server, Vec<u8>) -> F) -> ConnectError {
    let (listener, options) = listener().await;
    let serve = async {
        let mut server = Server::accept(&listener).await;
        let (_, _, said) = server.next().await;
        serve(server, said).await;
    };
    let ((), client) = tokio::join!(serve, Connection::connect(options));
    client.unwrap_err()
}

async fn cause(events: &mut Events) -> DisconnectCause {
    loop {
        match timeout(DEADLINE, events.recv()).await.unwrap() {
            Some(Event::Disconnected(end)) => return end.cause,
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

/// Verifies [MQTT-4.12.0-3]: the password is proven, and so is the Server; again while connected, with messages between.
#[tokio::test]
async fn client_proves_its_password_at_connect_and_again() {
    let (mut server, client, mut events) = connected().await;
    for _ in 0..2 {
        let serve = async {
            let (packet_type, reason, said) = server.next().await;
            assert_eq!(packet_type, PacketType::Auth);
            assert_eq!(reason, Some(ReasonCode::ReAuthenticate));
            let publish = Publish {
                dup: false,
                qos: Qos::AtMostOnce,
                retain: false,
                topic: "a",
                packet_id: None,
                properties: PublishProperties::default(),
                payload: b"x",
            };
            server.send(&Packet::Publish(publish)).await;
            let last = server.judge(&said, keys("word")).await;
            server.auth(ReasonCode::Success, last).await;
        };
        let ((), proven) = tokio::join!(serve, client.reauthenticate());
        assert_eq!(proven, Ok(()));
        let message = timeout(DEADLINE, events.recv()).await.unwrap();
        assert!(matches!(message, Some(Event::Message(_))), "{message:?}");
    }
}

/// A false Server cannot pass, whatever it leaves out or makes up.
#[tokio::test]
async fn server_that_does_not_know_the_user_is_refused() {
    let refused = [
        refusal(|mut server, _| async move { server.connack(None).await }).await,
        refusal(|mut server, _| async move { server.connack(Some(b"v=AAAA".to_vec())).await })
            .await,
        refusal(|mut server, said| async move {
            // It guesses wrong, and says that all is well.
            assert_eq!(server.judge(&said, keys("ward")).await, None);
            server
                .connack(Some(format!("v={}=", "A".repeat(43)).into_bytes()))
                .await;
            let (packet_type, reason, _) = server.next().await;
            assert_eq!(packet_type, PacketType::Disconnect);
            assert_eq!(reason, Some(ReasonCode::UnspecifiedError));
        })
        .await,
        refusal(|mut server, said| async move {
            assert_eq!(server.judge(&said, keys("ward")).await, None);
            server.connack(None).await;
        })
        .await,
        refusal(|mut server, said| async move {
            // Too little work: what it gets is worth guessing by.
            let nonce = String::from_utf8(said)
                .unwrap()
                .split_once("r=")
                .unwrap()
                .1
                .to_owned();
            let cheap = format!("r={nonce}x,s=AAAA,i=1");
            server
                .auth(ReasonCode::ContinueAuthentication, Some(cheap.into_bytes()))
                .await;
        })
        .await,
        refusal(|mut server, said| async move {
            // The same question twice.
            server.judge(&said, keys("word")).await.unwrap();
            server.judge_again().await;
        })
        .await,
        refusal(|mut server, _| async move {
            server.auth(ReasonCode::ContinueAuthentication, None).await;
        })
        .await,
    ];
    for error in refused {
        assert!(
            matches!(error, ConnectError::Authentication(_)),
            "{error:?}"
        );
    }
    let error =
        refusal(|mut server, _| async move { server.auth(ReasonCode::Success, None).await }).await;
    assert!(matches!(error, ConnectError::Protocol(_)), "{error:?}");
}

impl Server {
    async fn judge_again(&mut self) {
        let question = b"r=x,s=AAAA,i=4096".to_vec();
        self.auth(ReasonCode::ContinueAuthentication, Some(question))
            .await;
    }
}

#[tokio::test]
async fn server_that_fails_to_prove_itself_again_is_left() {
    for last in [None, Some(b"v=AAAA".to_vec())] {
        let (mut server, client, mut events) = connected().await;
        let serve = async {
            let (_, _, said) = server.next().await;
            server.judge(&said, keys("word")).await;
            server.auth(ReasonCode::Success, last).await;
            server.next().await
        };
        let ((packet_type, ..), proven) = tokio::join!(serve, client.reauthenticate());
        assert_eq!(packet_type, PacketType::Disconnect);
        assert_eq!(proven, Err(RequestError::ConnectionLost));
        let cause = cause(&mut events).await;
        assert!(
            matches!(cause, DisconnectCause::Authentication(_)),
            "{cause:?}"
        );
    }
}

/// Verifies [MQTT-4.12.1-2]: a proof that the Server does not take ends the connection, and the request with it.
#[tokio::test]
async fn proof_that_is_not_taken_ends_the_connection() {
    let (mut server, client, mut events) = connected().await;
    let serve = async {
        server.next().await;
        let disconnect = Disconnect::new(ReasonCode::NotAuthorized);
        server.send(&Packet::Disconnect(disconnect)).await;
    };
    let ((), proven) = tokio::join!(serve, client.reauthenticate());
    assert_eq!(proven, Err(RequestError::ConnectionLost));
    let cause = cause(&mut events).await;
    assert!(matches!(cause, DisconnectCause::ByServer(_)), "{cause:?}");
}

/// Only a Client begins to prove something.
#[tokio::test]
async fn auth_that_nobody_asked_for_ends_the_connection() {
    let (mut server, _client, mut events) = connected().await;
    server.auth(ReasonCode::ContinueAuthentication, None).await;
    let cause = cause(&mut events).await;
    let unexpected = ClientError::UnexpectedPacket(PacketType::Auth);
    assert!(matches!(cause, DisconnectCause::Protocol(error) if error == unexpected));
}

#[tokio::test]
async fn token_is_made_anew_for_each_exchange() {
    let (listener, options) = listener().await;
    let made = std::sync::atomic::AtomicU32::new(0);
    let token = Token::new(move || {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Secret::new(format!("token {number}"))
    });
    let options = options.authenticator(token.method(SCRAM));
    let serve = async {
        let mut server = Server::accept(&listener).await;
        assert_eq!(server.next().await.2, b"token 0");
        server.connack(None).await;
        server
    };
    let (mut server, client) = tokio::join!(serve, Connection::connect(options));
    let (client, _events) = client.unwrap();
    let serve = async {
        assert_eq!(server.next().await.2, b"token 1");
        server.auth(ReasonCode::Success, None).await;
    };
    let ((), proven) = tokio::join!(serve, client.reauthenticate());
    assert_eq!(proven, Ok(()));
}

/// An older version would have no place for a proof; nothing is sent.
#[tokio::test]
async fn proofs_need_5_0_and_something_to_prove_with() {
    let (_listener, options) = listener().await;
    let older = Connection::connect(options.version(Version::V311)).await;
    assert!(
        matches!(older, Err(ConnectError::Authentication(_))),
        "{older:?}"
    );
    let (listener, options) = played::listener().await;
    let serve = async {
        let mut server = Server::accept(&listener).await;
        server.next().await;
        server.send(&Packet::ConnAck(Box::new(connack()))).await;
        server
    };
    let (_server, client) = tokio::join!(serve, Connection::connect(options));
    let (client, _events) = client.unwrap();
    assert_eq!(
        client.reauthenticate().await,
        Err(RequestError::NoAuthenticator)
    );
}

//! The way to a Server through a SOCKS5 proxy (RFC 1928), which resolves its name.
//!
//! Owns: [`Socks5`], the greeting and the request. Does not own: connecting to the proxy (see `socket`). Start reading at
//! [`Socks5::ask`]. Invariant: after it the stream carries what the Server says, from its first byte.

use std::fmt;
use std::io;

use proto::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A SOCKS5 proxy.
#[derive(Clone, Debug)]
pub struct Socks5 {
    pub(crate) host: String,
    pub(crate) port: u16,
    login: Option<(String, Secret)>,
}

impl Socks5 {
    /// The proxy at this host and port; the usual port is 1080.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            login: None,
        }
    }

    /// Says a user name and a password if the proxy asks for them (RFC 1929).
    #[must_use]
    pub fn login(mut self, user_name: impl Into<String>, password: Secret) -> Self {
        self.login = Some((user_name.into(), password));
        self
    }

    /// Has the proxy connect `stream` to a host.
    pub(crate) async fn ask(
        &self,
        stream: &mut TcpStream,
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        let methods: &[u8] = match self.login {
            None => &[VERSION, 1, NO_LOGIN],
            Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
        };
        stream.write_all(methods).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        match (answer, &self.login) {
            ([VERSION, NO_LOGIN], _) => {}
            ([VERSION, LOGIN], Some((user_name, password))) => {
                log_in(stream, user_name.as_bytes(), password.expose()).await?;
            }
            ([VERSION, _], _) => return Err(refused("it wants another proof of who we are")),
            _ => return Err(refused("it does not speak SOCKS5")),
        }
        let mut request = vec![VERSION, CONNECT, 0, NAME];
        put_short(&mut request, host.as_bytes())?;
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        let [version, reply, _, kind] = answer;
        if version != VERSION {
            return Err(refused("it does not speak SOCKS5"));
        }
        if reply != 0 {
            return Err(refused(reply_text(reply)));
        }
        // From where it has connected; nobody here wants to know.
        let bytes = match kind {
            1 => 4,
            4 => 16,
            NAME => usize::from(stream.read_u8().await?),
            _ => return Err(refused("it does not speak SOCKS5")),
        };
        let mut rest = vec![0; bytes + 2];
        stream.read_exact(&mut rest).await?;
        Ok(())
    }
}

async fn log_in(stream: &mut TcpStream, user_name: &[u8], password: &[u8]) -> io::Result<()> {
    let mut login = vec![LOGIN_VERSION];
    put_short(&mut login, user_name)?;
    put_short(&mut login, password)?;
    stream.write_all(&login).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        [_, 0] => Ok(()),
        _ => Err(refused("it does not take this user name and password")),
    }
}

/// A text with its length in one byte.
fn put_short(bytes: &mut Vec<u8>, text: &[u8]) -> io::Result<()> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length > 0);
    let length = length.ok_or_else(|| refused("a name for it has 1 to 255 bytes"))?;
    bytes.push(length);
    bytes.extend_from_slice(text);
    Ok(())
}

fn refused(why: impl fmt::Display) -> io::Error {
    io::Error::other(format!("the proxy: {why}"))
}

const fn reply_text(reply: u8) -> &'static str {
    match reply {
        2 => "its rules do not allow it",
        3 => "it cannot reach the network",
        4 => "it cannot reach the host, or does not know it",
        5 => "the connection was refused there",
        6 => "the way there is too long",
        _ => "it has failed",
    }
}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const NAME: u8 = 3;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// How many bytes a proxy is told, and what it then says.
    type Answers = Vec<(usize, Vec<u8>)>;

    /// A proxy that says `answers`; what it was told.
    async fn proxied(
        proxy: impl FnOnce(Socks5) -> Socks5,
        answers: Answers,
    ) -> (io::Result<()>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut told = Vec::new();
            for (bytes, answer) in answers {
                let mut heard = vec![0; bytes];
                stream.read_exact(&mut heard).await.expect("is told");
                told.extend(heard);
                stream.write_all(&answer).await.expect("is heard");
            }
            told
        });
        let mut stream = TcpStream::connect(address).await.expect("is there");
        let proxy = proxy(Socks5::new("127.0.0.1", address.port()));
        let asked = proxy.ask(&mut stream, "mqtt.example", 1883).await;
        drop(stream);
        (asked, server.await.expect("it ends"))
    }

    fn with_login(proxy: Socks5) -> Socks5 {
        proxy.login("me", Secret::new(b"word".to_vec()))
    }

    const REQUEST: &[u8] = b"\x05\x01\x00\x03\x0cmqtt.example\x07\x5b";

    #[tokio::test]
    async fn the_proxy_is_asked_for_the_name_and_not_for_an_address() {
        let done = vec![5, 0, 0, 1, 127, 0, 0, 1, 0, 80];
        let answers = vec![(3, vec![5, 0]), (REQUEST.len(), done)];
        let (asked, told) = proxied(|proxy| proxy, answers).await;
        assert!(asked.is_ok(), "{asked:?}");
        assert_eq!(told, [&[5, 1, 0][..], REQUEST].concat());
    }

    #[tokio::test]
    async fn a_login_is_said_where_it_is_asked_for() {
        let done = vec![5, 0, 0, 3, 1, b'a', 0, 80];
        let answers = vec![(4, vec![5, 2]), (9, vec![1, 0]), (REQUEST.len(), done)];
        let (asked, told) = proxied(with_login, answers).await;
        assert!(asked.is_ok(), "{asked:?}");
        assert_eq!(
            told,
            [b"\x05\x02\x00\x02\x01\x02me\x04word", REQUEST].concat()
        );
        let answers = vec![(4, vec![5, 2]), (9, vec![1, 1])];
        let (asked, _) = proxied(with_login, answers).await;
        let said = asked.expect_err("is refused").to_string();
        assert!(said.contains("this user name and password"), "{said}");
    }

    #[tokio::test]
    async fn whatever_a_proxy_answers_otherwise_is_an_error_in_words() {
        let cases: [(Answers, &str); 5] = [
            (vec![(3, vec![5, 0xFF])], "another proof"),
            (vec![(3, b"HT".to_vec())], "does not speak SOCKS5"),
            (
                vec![(3, vec![5, 0]), (REQUEST.len(), vec![5, 5, 0, 1])],
                "refused there",
            ),
            (
                vec![(3, vec![5, 0]), (REQUEST.len(), vec![5, 0, 0, 9])],
                "does not speak SOCKS5",
            ),
            (vec![(3, vec![5])], "early eof"),
        ];
        for (answers, why) in cases {
            let (asked, _) = proxied(|proxy| proxy, answers).await;
            let said = asked.expect_err("is refused").to_string();
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}

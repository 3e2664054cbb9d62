//! A service by HTTP, as well or as badly behaved as a test wants it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The request line and the headers.
    pub(crate) head: String,
    /// The body, if it is JSON.
    pub(crate) body: Value,
}

/// What becomes of a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole answer, after which the connection stays.
    Json(u16, String),
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// Nothing, until the one who asks goes.
    Silence,
    /// A byte now and then, for ever.
    Trickle,
    /// An answer of so many bytes.
    Flood(usize),
}

pub(crate) fn json(text: &str) -> Reply {
    Reply::Json(200, text.to_owned())
}

type Behaviour = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A service at a free port of this machine.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    asked: mpsc::Receiver<Asked>,
}

struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    asked: mpsc::Sender<Asked>,
    count: AtomicUsize,
    is_over: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Service {
    pub(crate) fn start(behaviour: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), None, behaviour)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        behaviour: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, asked) = mpsc::channel();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(Box::new(behaviour))),
            asked: sender,
            count: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            tls,
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
            asked,
        }
    }

    /// Behaves like this from now on.
    pub(crate) fn behave(&self, behaviour: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.shared.behaviour.lock().expect("no panic") = Arc::new(Box::new(behaviour));
    }

    /// What is asked next.
    pub(crate) fn asked(&self) -> Asked {
        let asked = self.asked.recv_timeout(Duration::from_secs(20));
        asked.expect("it is asked")
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        if self.shared.tls.is_some() {
            return format!("https://localhost:{}{path}", self.address.port());
        }
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // So that it looks.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let Some(tls) = &self.tls else {
            return self.converse(stream);
        };
        let connection = ServerConnection::new(Arc::clone(tls)).expect("a configuration");
        self.converse(StreamOwned::new(connection, stream));
    }

    fn converse(&self, mut stream: impl Stream) {
        while let Some(asked) = hear(&mut stream) {
            // Who is asked after its end has gone.
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            self.count.fetch_add(1, Ordering::SeqCst);
            let behaviour = Arc::clone(&self.behaviour.lock().expect("no panic"));
            let reply = behaviour(&asked);
            self.asked.send(asked).ok();
            if say(&mut stream, reply).is_none() {
                return;
            }
        }
    }
}

/// The next question; `None` at the end.
fn hear(stream: &mut impl Stream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
            let lower = head.to_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
            while bytes.len() < at + 4 + length {
                let taken = stream.read(&mut buffer).ok().filter(|taken| *taken > 0)?;
                bytes.extend_from_slice(&buffer[..taken]);
            }
            let body = serde_json::from_slice(&bytes[at + 4..]).unwrap_or_default();
            return Some(Asked { head, body });
        }
        let taken = stream.read(&mut buffer).ok().filter(|taken| *taken > 0)?;
        bytes.extend_from_slice(&buffer[..taken]);
    }
}

/// Says it; `None` if nothing more is to be said.
fn say(stream: &mut impl Stream, reply: Reply) -> Option<()> {
    match reply {
        Reply::Json(status, body) => {
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            // 204 has no body.
            let text = if status == 204 {
                "HTTP/1.1 204 X\r\n\r\n".to_owned()
            } else {
                text
            };
            stream.write_all(text.as_bytes()).ok()?;
            stream.flush().ok()
        }
        Reply::Raw(bytes) => {
            stream.write_all(&bytes).ok()?;
            stream.flush().ok();
            None
        }
        Reply::Silence => {
            while stream.read(&mut [0; 64]).ok()? > 0 {}
            None
        }
        Reply::Trickle => {
            stream.write_all(b"HTTP/1.1 200 X\r\n\r\n").ok()?;
            loop {
                // Until the other side has had enough.
                std::thread::park_timeout(Duration::from_millis(5));
                stream.write_all(b" ").ok()?;
                stream.flush().ok()?;
            }
        }
        Reply::Flood(bytes) => {
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes()).ok()?;
            let chunk = [b' '; 65_536];
            for _ in 0..bytes / chunk.len() {
                stream.write_all(&chunk).ok()?;
            }
            stream.flush().ok()
        }
    }
}

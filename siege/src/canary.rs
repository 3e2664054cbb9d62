//! The healthy pair beside a siege: how long each of its messages takes.
//!
//! Owns: [`Canary`]. Does not own: what is too long. Start reading at [`Canary::start`].
//! Invariant: a message that does not come is as long as the wait for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire;

/// Goes on until it is stopped.
#[derive(Debug)]
pub(crate) struct Canary {
    songs: Arc<Mutex<Vec<Song>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One message: when it was sent, and how long it took.
#[derive(Clone, Copy, Debug)]
struct Song {
    at: Instant,
    took: Duration,
}

/// What some time of it looked like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    pub(crate) count: usize,
}

impl Canary {
    /// Connects both, and begins.
    pub(crate) fn start(address: SocketAddr) -> Result<Self, String> {
        let mut pair = Pair::connect(address)?;
        let songs = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (sung, over) = (Arc::clone(&songs), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let at = Instant::now();
                if pair.sing().is_err() {
                    // It was thrown out, which is as bad as it gets: the wait for its return counts.
                    while !over.load(Ordering::Relaxed) {
                        match Pair::connect(address) {
                            Ok(new) => {
                                pair = new;
                                break;
                            }
                            Err(_) => std::thread::sleep(PAUSE),
                        }
                    }
                }
                let took = at.elapsed();
                let mut songs = sung.lock().unwrap_or_else(PoisonError::into_inner);
                songs.push(Song { at, took });
                drop(songs);
                std::thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            songs,
            is_over,
            thread: Some(thread),
        })
    }

    /// What was sent between these.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Latency {
        let songs = self.songs.lock().unwrap_or_else(PoisonError::into_inner);
        let within = songs.iter().filter(|song| song.at >= from && song.at < to);
        let mut took: Vec<Duration> = within.map(|song| song.took).collect();
        drop(songs);
        took.sort_unstable();
        let at =
            |part: usize| took.get((took.len() * part / 100).min(took.len().saturating_sub(1)));
        Latency {
            median: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
            max: took.last().copied().unwrap_or_default(),
            count: took.len(),
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say but what was noted.
            thread.join().ok();
        }
    }
}

struct Pair {
    publisher: TcpStream,
    subscriber: TcpStream,
    number: u64,
    rest: Vec<u8>,
}

impl Pair {
    fn connect(address: SocketAddr) -> Result<Self, String> {
        let open = |client_id: &str| -> std::io::Result<TcpStream> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(&wire::connect(client_id, true, false))?;
            Ok(stream)
        };
        let text = |error: std::io::Error| error.to_string();
        let mut pair = Self {
            publisher: open("canary-publisher").map_err(text)?,
            subscriber: open("canary-subscriber").map_err(text)?,
            number: 0,
            rest: Vec::new(),
        };
        let subscribe = wire::subscribe(1, &["canary".to_owned()], 0);
        pair.subscriber.write_all(&subscribe).map_err(text)?;
        while pair.next()?.0 >> 4 != 9 {}
        Ok(pair)
    }

    fn sing(&mut self) -> Result<(), String> {
        self.number += 1;
        let mut bytes = Vec::new();
        let number = self.number.to_be_bytes();
        wire::publish(&mut bytes, "canary", 0, 0, false, &number);
        self.publisher
            .write_all(&bytes)
            .map_err(|error| error.to_string())?;
        loop {
            let (first, body) = self.next()?;
            if wire::read_publish(first, &body).is_some_and(|(_, payload)| payload == number) {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<(u8, Vec<u8>), String> {
        loop {
            if let Some((first, body, used)) = wire::next_packet(&self.rest) {
                let packet = (first, body.to_vec());
                self.rest.drain(..used);
                return Ok(packet);
            }
            let mut buffer = [0; 4096];
            match self.subscriber.read(&mut buffer) {
                Ok(0) => return Err("the end".to_owned()),
                Ok(len) => self.rest.extend_from_slice(&buffer[..len]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Between one and the next.
const PAUSE: Duration = Duration::from_millis(5);
/// A message that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);

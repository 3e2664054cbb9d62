//! The control socket: what an operator asks of a Server that runs, one line of JSON each way.
//!
//! Owns: [`ask`], [`ControlRequest`], [`ControlAnswer`], the thread that answers. Does not own: what is done (see
//! `backup`, `writer`). Start reading at [`Control::answer`]. Invariant: no shard and no batch waits for
//! what is asked here; only who may write to the data folder can ask.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::backup::{self, BackedUp};
use super::exchange::{Exchange, Request};
use super::figures::{Figures, Status};
use crate::authentication::{Ban, UserChange};
use crate::peer::Origin;
use crate::shard::{Command, Shared};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// What the store does.
    Status,
    /// The alarms that are open.
    Alarms,
    /// To forget them.
    Acknowledge,
    /// A backup.
    Backup {
        /// Where; an absolute path.
        dir: PathBuf,
    },
    /// The bans in force.
    Bans,
    /// To lift bans.
    LiftBans {
        /// Of this address or user of this machine, or all.
        address: Option<Origin>,
    },
    /// Sessions that have lost messages, those that lost most first.
    Losses {
        /// No more than so many.
        count: usize,
    },
    /// A change of the users.
    User {
        /// Which.
        change: Box<UserChange>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum ControlAnswer {
    /// What the store does.
    Status(Status),
    /// The alarms that are open, or those that were acknowledged now.
    Alarms {
        /// What they say, oldest first.
        alarms: Vec<String>,
    },
    /// There is a backup.
    Backup(BackedUp),
    /// The bans in force.
    Bans {
        /// Those that end first in front.
        bans: Vec<Ban>,
    },
    /// So many bans are lifted.
    Lifted {
        /// How many.
        count: usize,
    },
    /// Sessions that have lost messages.
    Losses {
        /// Those that lost most first.
        sessions: Vec<SessionLosses>,
    },
    /// It is done.
    Done,
    /// It was not done, because it does not fit what is there: a name is taken, or unknown.
    Unfit {
        /// Why.
        error: String,
    },
    /// It was not done.
    Refused {
        /// Why.
        error: String,
    },
}

/// What a Session has lost since it began, or since the start of the Server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionLosses {
    /// Whose it is.
    pub client_id: String,
    /// Messages that did not fit its queue.
    pub queue_full: u64,
    /// QoS 0 messages that its Client was too slow for.
    pub congested: u64,
    /// Messages larger than its Client takes.
    pub too_large: u64,
}

/// Asks the Server that uses the data folder at `data`. `None` if none does.
/// # Errors
/// The Server does not answer, or not in a form that is known here.
pub fn ask(data: &Path, request: &ControlRequest) -> io::Result<Option<ControlAnswer>> {
    let connected = Short::of(data).and_then(|short| UnixStream::connect(short.path()));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            // A socket whose Server has died stays in the folder.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
            _ => return Err(error),
        },
    };
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(Some(serde_json::from_str(&answer)?))
}

/// The thread that answers.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) data: PathBuf,
    pub(super) exchange: Arc<Exchange>,
    pub(super) figures: Arc<Figures>,
    pub(super) shared: Arc<Shared>,
}

/// Ends the thread.
#[derive(Debug)]
pub(super) struct ControlStop {
    data: PathBuf,
    is_over: Arc<AtomicBool>,
}

impl ControlStop {
    /// Takes the socket away; the thread ends when it has answered what it is at.
    pub(super) fn stop(self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It sleeps until somebody comes.
        drop(Short::of(&self.data).and_then(|short| UnixStream::connect(short.path())));
        fs::remove_file(self.data.join(SOCKET)).ok();
    }
}

impl Control {
    /// Opens the socket; returns it with what stops whoever answers.
    pub(super) fn open(data: &Path) -> io::Result<(UnixListener, ControlStop)> {
        let short = Short::of(data)?;
        match fs::remove_file(short.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(short.path())?;
        // The folder lets nobody else in; this is for one that was made by somebody else.
        fs::set_permissions(short.path(), fs::Permissions::from_mode(0o600))?;
        let stop = ControlStop {
            data: data.to_owned(),
            is_over: Arc::default(),
        };
        Ok((listener, stop))
    }

    /// Answers until it is stopped, one after the other.
    pub(super) fn run(self, listener: &UnixListener, is_over: &AtomicBool) {
        for stream in listener.incoming() {
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            match stream.and_then(|stream| self.serve(&stream)) {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(%error, "the control socket");
                    // It may have no file descriptor left.
                    std::thread::sleep(ERROR_PAUSE);
                }
            }
        }
    }

    fn serve(&self, mut stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => self.answer(request),
            Err(error) => ControlAnswer::Refused {
                error: format!("not a request: {error}"),
            },
        };
        let mut line = serde_json::to_string(&answer)?;
        line.push('\n');
        stream.write_all(line.as_bytes())
    }

    fn answer(&self, request: ControlRequest) -> ControlAnswer {
        let refused = |error| ControlAnswer::Refused { error };
        match request {
            ControlRequest::Status => ControlAnswer::Status(self.figures.status()),
            ControlRequest::Alarms => ControlAnswer::Alarms {
                alarms: super::texts(&self.figures.alarms()),
            },
            ControlRequest::Acknowledge => match self.ask_writer(Request::Acknowledge) {
                Ok(alarms) => ControlAnswer::Alarms { alarms },
                Err(error) => refused(error),
            },
            ControlRequest::Backup { dir } => match self.back_up(&dir) {
                Ok(done) => ControlAnswer::Backup(done),
                Err(error) => refused(error),
            },
            ControlRequest::Bans => ControlAnswer::Bans {
                bans: self.shared.bans_in_force(Instant::now()),
            },
            ControlRequest::LiftBans { address } => ControlAnswer::Lifted {
                count: self.shared.lift_bans(address, Instant::now()),
            },
            ControlRequest::Losses { count } => ControlAnswer::Losses {
                sessions: self.losses(count.min(LOSSES_MAX)),
            },
            ControlRequest::User { change } => self.change_user(&change),
        }
    }

    /// Asks all shards who has lost most.
    fn losses(&self, count: usize) -> Vec<SessionLosses> {
        let (answer, answers) = mpsc::channel();
        self.shared.tell_all(|| Command::Losers {
            count,
            answer: answer.clone(),
        });
        drop(answer);
        // A shard that ends lets go of its commands.
        let mut losers: Vec<_> = answers.iter().flatten().collect();
        losers.sort_by_key(|(_, lost)| std::cmp::Reverse(lost.total()));
        losers.truncate(count);
        let of = |(client_id, lost): (Arc<str>, engine::Lost)| SessionLosses {
            client_id: client_id.as_ref().to_owned(),
            queue_full: lost.queue_full,
            congested: lost.congested,
            too_large: lost.too_large,
        };
        losers.into_iter().map(of).collect()
    }

    /// Whoever is connected by what was changed has to come again; groups change under those who are there.
    fn change_user(&self, change: &UserChange) -> ControlAnswer {
        let Some(users) = self.shared.users.as_ref() else {
            let error = "this server has no users of its own".to_owned();
            return ControlAnswer::Refused { error };
        };
        let before = self.shared.known();
        if let Err(failed) = users.apply(change) {
            let error = failed.to_string();
            return if failed.is_unfit() {
                ControlAnswer::Unfit { error }
            } else {
                ControlAnswer::Refused { error }
            };
        }
        self.shared.users_changed();
        let user: Arc<str> = change.name().into();
        let now = self.shared.known();
        let (done, all_done) = mpsc::channel();
        self.shared.tell_all(|| match change {
            UserChange::Groups { .. } => Command::UsersRead {
                before: before.clone(),
                now: now.clone(),
                done: done.clone(),
            },
            _ => Command::UserChanged {
                user: Arc::clone(&user),
                done: done.clone(),
            },
        });
        drop(done);
        // A shard that ends lets go of its commands.
        all_done.iter().count();
        tracing::info!("users changed");
        ControlAnswer::Done
    }

    /// Asks the persist thread, and waits for its answer.
    fn ask_writer<T>(
        &self,
        request: impl FnOnce(mpsc::Sender<Result<T, String>>) -> Request,
    ) -> Result<T, String> {
        let (answer, answered) = mpsc::channel();
        self.exchange.request(request(answer));
        let gone = |_| "the server stops".to_owned();
        answered.recv().map_err(gone)?
    }

    fn back_up(&self, dir: &Path) -> Result<BackedUp, String> {
        let names = self.ask_writer(Request::Hold)?;
        let done = backup::link_held(&self.data, &names, dir);
        self.exchange.request(Request::Release);
        done.map_err(|error| error.to_string())
    }
}

impl ControlStop {
    /// Whether [`Self::stop`] was called.
    pub(super) fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }
}

/// A name of the socket that is short enough for the system, whatever the name of its folder.
#[derive(Debug)]
struct Short {
    _folder: fs::File,
    path: PathBuf,
}

impl Short {
    fn of(data: &Path) -> io::Result<Self> {
        let folder = fs::File::open(data)?;
        let full = data.join(SOCKET);
        let is_short = full.as_os_str().len() < SOCKET_NAME_BYTES_MAX;
        let path = if is_short {
            full
        } else {
            format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
        };
        Ok(Self {
            _folder: folder,
            path,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Sessions that one answer names.
const LOSSES_MAX: usize = 10_000;
/// The socket in the data folder.
const SOCKET: &str = "control.sock";
/// Room for a name in the address of a socket.
const SOCKET_NAME_BYTES_MAX: usize = 100;
/// For a line of whoever asks.
const PATIENCE: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: u64 = 64 * 1024;
const ERROR_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::server::shared_for_tests;
    use crate::testing::TempFolder;

    /// A socket without a persist thread behind it.
    fn control(data: &Path) -> (std::thread::JoinHandle<()>, ControlStop) {
        let (listener, stop) = Control::open(data).expect("a socket");
        let control = Control {
            data: data.to_owned(),
            exchange: Arc::new(Exchange::new(1)),
            figures: Arc::default(),
            shared: shared_for_tests(1, &Config::default()),
        };
        let is_over = stop.is_over();
        let thread = std::thread::spawn(move || control.run(&listener, &is_over));
        (thread, stop)
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_one_answered() {
        let temp = TempFolder::new();
        let (thread, stop) = control(temp.path());
        let socket = temp.path().join(SOCKET);
        let mode = fs::metadata(&socket)
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        for text in ["\n", "{}\n", "\u{7f}\u{0}\n"] {
            let mut stream = UnixStream::connect(&socket).expect("is open");
            stream.write_all(text.as_bytes()).expect("is read");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert!(answer.contains("not a request"), "{text:?} {answer}");
        }
        // One that says nothing and goes.
        drop(UnixStream::connect(&socket).expect("is open"));
        let answer = ask(temp.path(), &ControlRequest::Alarms).expect("an answer");
        let none = ControlAnswer::Alarms { alarms: Vec::new() };
        assert_eq!(answer, Some(none));
        stop.stop();
        thread.join().expect("it ends");
        assert!(!socket.exists());
        let gone = ask(temp.path(), &ControlRequest::Alarms).expect("nobody is there");
        assert_eq!(gone, None);
    }

    #[test]
    fn socket_of_a_server_that_was_killed_is_in_nobodys_way() {
        let temp = TempFolder::new();
        drop(UnixListener::bind(temp.path().join(SOCKET)).expect("a socket"));
        let answer = ask(temp.path(), &ControlRequest::Status).expect("nobody is there");
        assert_eq!(answer, None);
        let (thread, stop) = control(temp.path());
        assert!(ask(temp.path(), &ControlRequest::Status).is_ok_and(|answer| answer.is_some()));
        stop.stop();
        thread.join().expect("it ends");
    }
}

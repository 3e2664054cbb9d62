//! The terminal while it is ours, and as it was afterwards.
//!
//! Owns: raw mode, the other screen, keys as they come. Does not own: what is drawn. Start reading at [`Screen::open`].
//! Invariant: however this program ends, but by SIGKILL, the terminal is as it was, and what is said then can be read.

use std::io::{self, IsTerminal as _, Stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyEvent, KeyEventKind,
};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use tokio::sync::mpsc;

use crate::tools::Failure;

/// What a person does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Key(KeyEvent),
    Paste(String),
    /// The terminal has another size.
    Resized,
}

/// A terminal that is drawn on until it is dropped.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> Result<Self, Failure> {
        check()?;
        let failed = |error: io::Error| Failure::new(format!("Error: the terminal: {error}."));
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            restore();
            earlier(what);
        }));
        IS_OURS.store(true, Ordering::SeqCst);
        let screen = enable_raw_mode().and_then(|()| {
            execute!(
                io::stdout(),
                EnterAlternateScreen,
                EnableBracketedPaste,
                cursor::Hide
            )?;
            Terminal::new(CrosstermBackend::new(io::stdout()))
        });
        match screen {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(failed(error))
            }
        }
    }

    /// Whether the terminal was given back already, which a panic in any thread does.
    pub(super) fn is_lost() -> bool {
        !IS_OURS.load(Ordering::SeqCst)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// What is typed from now on. A thread waits for it, which ends with the process.
pub(super) fn typed() -> mpsc::Receiver<Typed> {
    let (sender, receiver) = mpsc::channel(TYPED_MAX);
    std::thread::spawn(move || {
        loop {
            let typed = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Typed::Key(key),
                Ok(Event::Paste(text)) => Typed::Paste(text),
                Ok(Event::Resize(..)) => Typed::Resized,
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => return,
            };
            if sender.blocking_send(typed).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Whether there is one.
pub(super) fn check() -> Result<(), Failure> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    if is_dumb || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let text = "Error: explore draws on a terminal, and this is none; vencejo sub -v prints what comes.";
        return Err(Failure::new(text));
    }
    Ok(())
}

/// Gives the terminal back, once.
fn restore() {
    if !IS_OURS.swap(false, Ordering::SeqCst) {
        return;
    }
    // Whatever of it works is better than nothing.
    disable_raw_mode().ok();
    execute!(
        io::stdout(),
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    )
    .ok();
}

/// Whether the terminal is to be given back.
static IS_OURS: AtomicBool = AtomicBool::new(false);
/// Keys that wait to be looked at.
const TYPED_MAX: usize = 256;

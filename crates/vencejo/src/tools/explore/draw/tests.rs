//! The screen as text: what stands where, at several sizes.

use std::time::Duration;

use bytes::Bytes;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::super::tree::Caps;
use super::*;

struct Bench {
    view: View,
    tree: Tree,
    status: Status,
    now: Instant,
}

impl Bench {
    fn new(caps: Caps) -> Self {
        let now = Instant::now();
        let status = Status {
            server: "localhost:1883  #".to_owned(),
            link: "connected, MQTT 5.0".to_owned(),
            ..Status::default()
        };
        Self {
            view: View::default(),
            tree: Tree::new(caps, now),
            status,
            now,
        }
    }

    fn take(&mut self, name: &str, payload: &[u8], retain: bool) {
        self.now += Duration::from_millis(100);
        let value = Value {
            payload: Some(Bytes::copy_from_slice(payload)),
            len: payload.len(),
            qos: 1,
            retain,
            clock: "12:33:01".into(),
            properties: vec!["content-type: text".to_owned()],
        };
        self.tree.take(name, value, true, self.now);
        self.view.catch_up(&self.tree);
    }

    fn keys(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                other => KeyCode::Char(other),
            };
            self.view.on_key(KeyEvent::from(code), &self.tree);
        }
    }

    fn terminal(&mut self, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let drawn = terminal.draw(|frame| {
            draw(frame, &mut self.view, &self.tree, &self.status, self.now);
        });
        drawn.unwrap();
        terminal
    }

    fn screen(&mut self, width: u16, height: u16) -> String {
        let terminal = self.terminal(width, height);
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(width));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        rows.collect::<Vec<_>>().join("\n")
    }
}

const CAPS: Caps = Caps {
    topics_max: 100,
    bytes_max: 1_000_000,
    history_max: 10,
};

fn house() -> Bench {
    let mut bench = Bench::new(CAPS);
    bench.take("house/hall/light", b"off", true);
    bench.take("house/hall/state", br#"{"t":21.5,"h":40}"#, false);
    bench.take("house/hall/state", br#"{"t":21.6,"h":40}"#, false);
    bench
}

fn assert_holds(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "{text} in\n{screen}");
    }
}

#[test]
fn the_tree_stands_beside_the_value_and_its_history() {
    let mut bench = house();
    let screen = bench.screen(110, 30);
    assert_holds(
        &screen,
        &[
            "localhost:1883  #",
            "connected, MQTT 5.0",
            "2 topics",
            "▸ house (2)",
        ],
    );
    assert_holds(&screen, &["2 topics below", "Nothing was published here."]);
    bench.keys("\njj");
    let screen = bench.screen(110, 30);
    assert_holds(
        &screen,
        &["▾ house", "  ▾ hall", "light R = off", "house/hall/light"],
    );
    assert_holds(
        &screen,
        &[
            "QoS 1  RETAIN  3 bytes  12:33:01",
            "content-type: text",
            "retained",
        ],
    );
    bench.keys("j");
    let screen = bench.screen(110, 30);
    assert_holds(
        &screen,
        &[
            "  \"t\": 21.6,",
            "History (2)",
            "{\"t\":21.5,\"h\":40}",
            "2 messages",
        ],
    );
    bench.keys("d");
    let screen = bench.screen(110, 30);
    assert_holds(
        &screen,
        &["-   \"t\": 21.5,", "+   \"t\": 21.6,", "    \"h\": 40"],
    );
    bench.keys("fff");
    assert_holds(
        &bench.screen(110, 30),
        &["hex, what the last value has changed", "000000  7b 22"],
    );
}

#[test]
fn what_is_asked_stands_below() {
    let mut bench = house();
    assert_holds(&bench.screen(110, 30), &["q quit  ? keys"]);
    bench.keys("/ligh");
    assert_holds(
        &bench.screen(110, 30),
        &["Search: ligh", "Topics with ligh", "light R = off"],
    );
    bench.keys("\n");
    bench.keys("jjx");
    assert_holds(
        &bench.screen(110, 30),
        &["Clear the retained message of house/hall/light? y/n"],
    );
    bench.keys("n");
    bench.keys("p");
    assert_holds(
        &bench.screen(110, 30),
        &["Topic    house/hall/light", "Payload  off", "Retain   no"],
    );
    let mut bench = house();
    bench.keys("?");
    assert_holds(
        &bench.screen(110, 30),
        &["arrows, hjkl", "search: part of a name"],
    );
    bench.keys("? ");
    assert_holds(&bench.screen(110, 30), &["PAUSED, 0 messages not taken"]);
    bench.keys(" ");
    bench.status.is_lost = true;
    assert_holds(
        &bench.screen(110, 30),
        &["What is shown is what was known."],
    );
}

#[test]
fn that_it_is_full_is_said() {
    let mut bench = Bench::new(Caps {
        topics_max: 1,
        ..CAPS
    });
    bench.take("a", b"1", false);
    bench.take("b", b"1", false);
    assert_holds(
        &bench.screen(110, 30),
        &["FULL: 1 messages of further topics are not shown"],
    );
    let mut bench = Bench::new(Caps {
        bytes_max: 2_000,
        ..CAPS
    });
    for _ in 0..9 {
        bench.take("a", &[b'x'; 500], false);
    }
    assert_holds(&bench.screen(110, 30), &["FULL: ", "old values had to go"]);
}

/// Class X: whatever peers send, the screen holds no control character, and no size makes drawing fail.
#[test]
fn nothing_that_peers_send_reaches_the_terminal_as_it_is() {
    let nasty = "\x1b]0;x\x07\u{9b}2J\u{202e}\u{200b}\r\n\t\u{0}é温";
    let mut bench = Bench::new(CAPS);
    bench.take(&format!("{nasty}/{nasty}"), nasty.as_bytes(), true);
    bench.take(
        &format!("{nasty}/{nasty}"),
        b"{\"\\u001b[2J\":\"\x7f\"}",
        true,
    );
    bench.keys("\nj");
    for keys in ["", "d", "f", "f", "f", "fp", "\t\t", "/", "x", "?"] {
        bench.keys(keys);
        for (width, height) in [(1, 1), (3, 40), (20, 4), (69, 10), (200, 60)] {
            let screen = bench.screen(width, height);
            let bad = screen.chars().find(|character| {
                (character.is_control() && *character != '\n')
                    || matches!(character, '\u{200b}' | '\u{202e}')
            });
            assert_eq!(bad, None, "{keys:?} {width}x{height}");
        }
        bench.view.prompt = Prompt::None;
    }
}

#[test]
fn without_colours_there_are_none() {
    let mut bench = house();
    bench.keys("\njjd");
    let coloured = |bench: &mut Bench| {
        let terminal = bench.terminal(110, 30);
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset).count()
    };
    assert!(coloured(&mut bench) > 0);
    bench.status.is_plain = true;
    assert_eq!(coloured(&mut bench), 0);
}

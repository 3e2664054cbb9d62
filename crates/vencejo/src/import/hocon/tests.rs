//! The form of a file, by examples, and what random ones do.

use std::path::Path;

use super::*;

fn parsed(text: &str) -> Settings {
    let mut settings = Settings::default();
    let parser = Parser::new(Path::new("x.conf"), text, 0, &mut settings);
    if let Err(fault) = parser.file(&Key::default()) {
        panic!("{fault}");
    }
    settings
}

fn fault(text: &str) -> String {
    let mut settings = Settings::default();
    let parser = Parser::new(Path::new("x.conf"), text, 0, &mut settings);
    parser.file(&Key::default()).expect_err(text).to_string()
}

/// Rows without what became of them.
fn said(text: &str) -> Vec<String> {
    let rows = parsed(text).into_rows();
    rows.into_iter()
        .map(|row| format!("{} {}", row.place, row.option))
        .collect()
}

#[test]
fn values_are_found_where_they_stand() {
    let text = "# a comment\nmqtt {\n  max_packet_size = 1MB // another\n  \"q.r\" : \"a\\tb\\u00f1\"\n}\n\
                listeners.tcp.default.bind = 0.0.0.0:1883\nurl=http://a/b // c\nlist = [a, \"b\"\n c]\n\
                objects = [{x = 1} {y = 2}\n {z = 3}]\nempty {}\nnone = []\nok = true,more=5s\n";
    assert_eq!(
        said(text),
        [
            "x.conf:3 mqtt.max_packet_size = 1MB",
            "x.conf:4 mqtt.q.r = a\\tbñ",
            "x.conf:6 listeners.tcp.default.bind = 0.0.0.0:1883",
            "x.conf:7 url = http://a/b",
            "x.conf:8 list = [a, b, c]",
            "x.conf:10 objects.1.x = 1",
            "x.conf:10 objects.1.y = 2",
            "x.conf:11 objects.2.z = 3",
            "x.conf:12 empty = {}",
            "x.conf:13 none = []",
            "x.conf:14 ok = true",
            "x.conf:14 more = 5s",
        ]
    );
    let settings = parsed(text);
    assert_eq!(settings.texts(&Key::of("list")), ["a", "b", "c"]);
    assert_eq!(settings.truth(&Key::of("ok")), Some(true));
    assert_eq!(settings.elements(&Key::of("objects")).len(), 2);
}

#[test]
fn braces_around_a_file_may_be_left_out() {
    assert_eq!(said("{a = 1}"), said("a = 1"));
    assert_eq!(said("\u{feff} { \"a\": 1, }\n# end"), ["x.conf:1 a = 1"]);
}

#[test]
fn objects_are_joined_and_everything_else_is_replaced() {
    let settings = parsed("a {b = 1, c = 2}\na.b = 3\na {d = 4}\nl = [{x = 1}]\nl = [{y = 2}]\n");
    let at = |key: &str| settings.text(&Key::of(key)).unwrap_or("-").to_owned();
    assert_eq!(
        ["a.b", "a.c", "a.d", "l.1.x", "l.1.y"].map(at),
        ["3", "2", "4", "-", "2"]
    );
    let settings = parsed("a = 1\na { b = 2 }\n");
    assert!(settings.text(&Key::of("a")).is_none());
    let settings = parsed("a { b = 2 }\na = 1\n");
    assert!(settings.text(&Key::of("a.b")).is_none());
}

#[test]
fn lists_grow_and_lists_by_numbers_are_lists() {
    let settings = parsed("a = [x]\na += y\nauth.2.k = b\nauth.1.k = a\nauth.10.k = c\n");
    assert_eq!(settings.texts(&Key::of("a")), ["x", "y"]);
    let elements = settings.elements(&Key::of("auth"));
    let all = elements
        .iter()
        .map(|key| settings.text(&key.then("k")).unwrap_or("-"));
    assert_eq!(all.collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn texts_go_over_lines_between_three_marks() {
    let settings =
        parsed("a = \"\"\"x\n\"y\"\"\"\"\nb = \"\"\"~\n   one\n     two\n   ~\"\"\"\nc = 1\n");
    assert_eq!(settings.text(&Key::of("a")), Some("x\n\"y\""));
    assert_eq!(settings.text(&Key::of("b")), Some("one\n  two\n"));
    assert_eq!(settings.place(&Key::of("c")), "x.conf:7");
}

#[test]
fn substitutions_are_never_followed() {
    let settings = parsed("a = 1\nb = ${a}\nc = x${?a}y\nd = \"${a}\"\ne = [${a}, 2]\n");
    for key in ["b", "c", "e.1"] {
        assert!(
            matches!(settings.value(&Key::of(key)), Some(Value::Reference(_))),
            "{key}"
        );
        assert!(settings.is_unclear(&Key::of(key)));
    }
    // In quotation marks it is for EMQX itself.
    assert_eq!(settings.text(&Key::of("d")), Some("${a}"));
    assert_eq!(settings.text(&Key::of("e.2")), Some("2"));
    let rows = settings.into_rows();
    assert!(rows[1].why.contains("write the value"), "{rows:?}");
}

#[test]
fn faults_say_where_they_are() {
    for (text, expected) in [
        ("a = [1, 2\n", "x.conf:1:5: this list has no end"),
        ("a {\n b = 1\n", "x.conf:1:3: this object has no end"),
        ("a = 1\n}\n", "x.conf:2:1: there is nothing to end here"),
        ("a\n", "x.conf:1:2: wanted = or : or { behind \"a\""),
        ("a = \n", "x.conf:2:1: wanted a value"),
        (
            "a = \"b\nc\"\n",
            "x.conf:1:5: this text has no end in its line",
        ),
        ("a = \"\\x\"\n", "there is no such escape"),
        ("a = \"\\ud800\"\n", "there is no such escape"),
        ("a = \"\"\"b\n", "x.conf:1:5: this text has no end"),
        ("= 1\n", "x.conf:1:1: wanted the name of a key"),
        ("a..b = 1\n", "x.conf:1:3: wanted the name of a key"),
        ("a = {b = 1} c\n", "x.conf:1:13: wanted the end of the line"),
        ("a = ${b\n", "x.conf:1:5: this ${ has no }"),
        (
            "{a = 1} b = 2",
            "x.conf:1:9: the object of the whole file has ended",
        ),
        ("a = [}", "x.conf:1:6: there is nothing to end here"),
        ("ñ = ]", "x.conf:1:5: wanted a value"),
    ] {
        let said = fault(text);
        assert!(said.contains(expected), "{text:?}: {said}");
    }
    assert_eq!(
        fault("a = 1\nb = [1\n"),
        "x.conf:2:5: this list has no end\n  |\n2 | b = [1\n  |     ^"
    );
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(fault(&deep).contains("nothing may nest so deep"));
}

#[test]
fn included_files_come_where_they_stand() {
    let folder = std::env::temp_dir().join(format!("vencejo-hocon-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("is written");
    write(
        "main.conf",
        "a = 1\nb {include \"b.conf\"}\ninclude required(file(\"c.conf\"))\nb.x = 3\ninclude \"not-there.conf\"\nd {include \"acl.conf\"}\n",
    );
    write("b.conf", "x = 2\ny = 2\n");
    write("c.conf", "{z = 4}\n");
    write("acl.conf", "%% rules\n{allow, all}.\n");
    write("round.conf", "include \"round.conf\"\n");
    let mut settings = Settings::default();
    read(&folder.join("main.conf"), &mut settings).expect("is read");
    let mut round = Settings::default();
    let without_end = read(&folder.join("round.conf"), &mut round).expect_err("goes round");
    std::fs::remove_dir_all(&folder).expect("is ours");
    let at = |key: &str| settings.text(&Key::of(key)).unwrap_or("-").to_owned();
    assert_eq!(["b.x", "b.y", "z"].map(at), ["3", "2", "4"]);
    assert_eq!(settings.place(&Key::of("b.y")), "b.conf:2");
    assert!(settings.is_unclear(&Key::of("d")) && !settings.is_unclear(&Key::of("b")));
    assert!(
        matches!(settings.value(&Key::of("include")), Some(Value::File(_, why)) if why.contains("not-there"))
    );
    assert!(without_end.to_string().contains("without an end"));
}

/// Pieces of which files are made, put together at random: it ends, and never with a panic; and each value has one row.
#[test]
fn whatever_a_file_holds_is_a_fault_or_settings() {
    const PIECES: [&str; 34] = [
        "a",
        "b.c",
        "\"q\"",
        "\"",
        "\"\"\"",
        " = ",
        ":",
        "+=",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\n",
        " ",
        "# c\n",
        "//",
        "${a}",
        "${",
        "include \"x\"",
        "include",
        "\\",
        "\\u00",
        "1MB",
        "ñ",
        "~\n",
        "=",
        ".",
        "0.0.0.0:1",
        "\r\n",
        "\t",
        "true",
        "$",
        "🦅",
    ];
    let mut seed: u64 = 0x5eed;
    let mut read = 0;
    for round in 0..20_000 {
        let mut text = String::new();
        for _ in 0..round % 24 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = usize::try_from(seed >> 33).expect("is small");
            text.push_str(PIECES[number % PIECES.len()]);
        }
        let mut settings = Settings::default();
        let parser = Parser::new(Path::new("/nowhere/x.conf"), &text, 0, &mut settings);
        if parser.file(&Key::default()).is_ok() {
            read += 1;
            let counted = settings.count();
            assert_eq!(settings.into_rows().len(), counted, "{text:?}");
        }
    }
    assert!(read > 1000, "only {read} were read");
}

//! What `-F` prints, letter by letter; compared with mosquitto_sub 2.0.11.
//!
//! Owns: the tables. Does not own: JSON's own rules. Start reading at
//! [`every_letter_prints_what_mosquitto_prints`]. Invariant: the same text on every machine.

use proto::Qos;
use proto::packet::{Publish, PublishProperties};

use super::*;

#[test]
fn formats_parse_or_say_why_not() {
    for format in [
        "%t %p",
        "%%",
        "@@",
        "%05l%-10t%.3C",
        r"\\\0\a\e\n\r\t\v",
        "",
        "@Y-@m-@dT@H:@M:@S@z",
    ] {
        assert!(Format::parse(format).is_ok(), "{format}");
    }
    let cases = [
        ("%", "Incomplete format specifier."),
        ("%5", "Incomplete format specifier."),
        ("%5.", "Incomplete format specifier."),
        ("@", "Incomplete format specifier."),
        ("%z", "Invalid format specifier 'z'."),
        ("%@", "Invalid format specifier '@'."),
        (r"\q", "Invalid escape specifier 'q'."),
    ];
    for (format, text) in cases {
        assert_eq!(Format::parse(format).unwrap_err(), text, "{format}");
    }
}

/// A message with every property, read from its bytes.
fn message(payload: &[u8]) -> ReceivedMessage {
    let properties = [
        Property::SubscriptionIdentifier(5),
        Property::ContentType("te\"x"),
        Property::UserProperty("k", "v"),
        Property::UserProperty("k2", "v2"),
        Property::ResponseTopic("r/t"),
        Property::CorrelationData(b"cd"),
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(100),
    ];
    let mut raw = Vec::new();
    for property in properties {
        property.put(&mut raw).unwrap();
    }
    let publish = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "p",
        packet_id: PacketIdentifier::new(1),
        properties: PublishProperties::parse(&raw).unwrap(),
        payload,
    };
    ReceivedMessage::from_publish(&publish)
}

fn printed(format: &str, payload: &[u8]) -> String {
    let at: ZonedDateTime = "2026-11-26T02:36:58.600424001+01:00[+01:00]"
        .parse()
        .unwrap();
    let format = Format::parse(format).unwrap();
    let mut out = Vec::new();
    format.print(&message(payload), &at, "", &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_letter_prints_what_mosquitto_prints() {
    let cases = [
        (
            "[%A|%C|%D|%E|%F|%R|%S|%P|%m|%q|%r|%l]",
            "[|te\"x|cd|100|1|r/t|5|k:v k2:v2|1|1|1|13]",
        ),
        (
            "[%10t|%-10t|%05l|%-5l]",
            "[         p|p         |00013|13   ]",
        ),
        (
            "[%3.2C|%20.3t|%-08m|%08m]",
            "[ te|                   p|1       |00000001]",
        ),
        ("%p", "{\"a\": [1, 2]}"),
        ("[%-15p]", "[{\"a\": [1, 2]}  ]"),
        ("%x", "7b2261223a205b312c20325d7d"),
        ("%X", "7B2261223A205B312C20325D7D"),
        ("%I", "2026-11-26T02:36:58+0100"),
        ("%U", "1795657018.600424001"),
        (
            "@Y-@m-@d @H:@M:@S.@N @z",
            "2026-11-26 02:36:58.600424001 +0100",
        ),
        (r"%%@@\\\e", "%@\\\u{1b}"),
    ];
    for (format, text) in cases {
        assert_eq!(printed(format, br#"{"a": [1, 2]}"#), text, "{format}");
    }
}

#[test]
fn json_is_mosquittos() {
    let head = r#"{"tst":"2026-11-26T02:36:58.600424Z+0100","topic":"p","qos":1,"retain":1,"payloadlen":13,"mid":1,"properties":{"subscription-identifier":5,"content-type":"te\"x","user-properties":{"k":"v","k2":"v2"},"response-topic":"r/t","correlation-data":"cd","payload-format-indicator":1,"message-expiry-interval":100},"payload":"#;
    let payload = br#"{"a": [1, 2]}"#;
    assert_eq!(
        printed("%j", payload),
        format!("{head}{}}}", r#""{\"a\": [1, 2]}""#)
    );
    assert_eq!(
        printed("%J", payload),
        format!("{head}{}}}", r#"{"a":[1,2]}"#)
    );
    assert_eq!(
        without_blanks(r#"{ "b" : "x \" y" , "a" : [ 1.0, "\\" ] }"#),
        r#"{"b":"x \" y","a":[1.0,"\\"]}"#
    );
    assert_eq!(printed("%J", b"not json"), "");
    assert!(printed("%j", b"").ends_with("\"payload\":null}"));
}

#[test]
fn the_plain_formats_print_what_mosquitto_prints() {
    let at = ZonedDateTime::now();
    let cases: [(Format, &[u8], &str); 4] = [
        (Format::Payload, b"x", "x\n"),
        (Format::Payload, b"", ""),
        (Format::Verbose, b"x y", "p x y\n"),
        (Format::Verbose, b"", "p (null)\n"),
    ];
    for (format, payload, text) in cases {
        let mut out = Vec::new();
        format
            .print(&message(payload), &at, "\n", &mut out)
            .unwrap();
        assert_eq!(out, text.as_bytes());
    }
}

/// As mosquitto_sub 2.0.11 prints it with `--pretty`; the interop suite `flags` compares them live, too.
#[test]
fn pretty_json_is_that_of_mosquitto() {
    let compact = r#"{"a":1,"b":{"c":[1,2,{"d":"e, \"f\": {"}],"g":{}},"h":[],"i":null}"#;
    let expected = "{\n\t\"a\":\t1,\n\t\"b\":\t{\n\t\t\"c\":\t[1, 2, {\n\t\t\t\t\"d\":\t\"e, \\\"f\\\": {\"\n\t\t\t}],\n\t\t\"g\":\t{\n\t\t}\n\t},\n\t\"h\":\t[],\n\t\"i\":\tnull\n}";
    assert_eq!(over_lines(compact), expected);
}

#[test]
fn formats_have_names() {
    let at = ZonedDateTime::now();
    let print_flags = |format: &str, is_verbose, is_pretty| {
        let format = Format::of_flags(Some(format), is_verbose, is_pretty).unwrap();
        let mut out = Vec::new();
        format.print(&message(b"hi"), &at, "", &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let print = |format: &str| print_flags(format, false, false);
    assert_eq!(print("hex"), "6869");
    assert_eq!(print("base64"), "aGk=");
    assert_eq!(print("json"), print("%j"));
    assert_eq!(print("%5q|%-5r|"), "1|1|");
    assert_eq!(print("auto"), "hi");
    assert_eq!(print_flags("hex", true, false), "p 6869");
    assert_eq!(print_flags("auto", true, true), "p hi");
    // Letters say themselves whether the topic is printed.
    assert_eq!(print_flags("%p", true, false), "hi");
    assert_eq!(print_flags("json", true, false), print("json"));
    assert_eq!(Format::of_flags(None, true, true), Ok(Format::Verbose));
    assert_eq!(Format::of_flags(None, false, false), Ok(Format::Payload));
}

/// Since 2.1.
#[test]
fn hexadecimal_digits_stand_in_groups() {
    for (format, shown) in [
        ("%.2:x", "68:69:6a"),
        ("%.4 X", "6869 6A"),
        ("%.1-x", "6-8-6-9-6-a"),
        ("%12.2.x|", "    68.69.6a|"),
        // Without a size, or without a separator, there are none.
        ("%:x", "68696a"),
        ("%.0:x", "68696a"),
        ("%.2x", "68696a"),
    ] {
        assert_eq!(printed(format, b"hij"), shown, "{format}");
    }
    assert_eq!(printed("%.2:x", b""), "");
}

/// Since 2.1.
#[test]
fn a_payload_of_four_or_eight_bytes_is_a_number() {
    let float = (-1.5_f32).to_le_bytes();
    let double = 2.25_f64.to_le_bytes();
    for (format, payload, shown) in [
        ("%f", &float[..], "-1.500000"),
        ("%.1f", &float, "-1.5"),
        ("%8.2f|", &float, "   -1.50|"),
        ("%-8.2f|", &float, "-1.50   |"),
        ("%08.2f|", &float, "-0001.50|"),
        ("%d", &double, "2.250000"),
        ("%.0d", &double, "2"),
        ("%d", &f64::INFINITY.to_le_bytes(), "inf"),
        ("%f", &f32::NAN.to_le_bytes(), "nan"),
        // Neither is one, which is said on standard error.
        ("[%f]", &double, "[]"),
        ("[%d]", b"2.25", "[]"),
    ] {
        assert_eq!(printed(format, payload), shown, "{format}");
    }
}

#[test]
fn what_cannot_be_printed_is_said_in_the_line_and_no_topic_leaves_it() {
    let at = ZonedDateTime::default();
    let mut message = message(b"\xFFx");
    message.topic = "a\u{1b}[2J\n".to_owned();
    for (format, start) in [
        ("cbor", "Error: Message payload is not valid CBOR"),
        ("msgpack", "Error: Message payload is not valid MessagePack"),
        (
            "sparkplug",
            "Error: Message payload is not valid Sparkplug B",
        ),
        ("%J", "Error: Message payload is not valid JSON"),
        ("%f", "requested float printing"),
    ] {
        let format = Format::of_flags(Some(format), false, false).unwrap();
        let line = String::from_utf8(format.line(&message, &at).unwrap()).unwrap();
        assert!(line.starts_with(start), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

//! What payloads become, by the examples of those who made the forms, and what bytes of nobody's do.
//!
//! Owns: the tables. Does not own: what is printed around it (see `format`). Start reading at
//! [`cbor_is_shown_as_its_standard_has_it`]. Invariant: whatever is shown of a form is JSON.

use data_encoding::HEXLOWER_PERMISSIVE;
use proto::Qos;
use proto::packet::{Publish, PublishProperties};

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.replace([' ', '\n'], "");
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap()
}

fn message(topic: &str, payload: &[u8], content_type: Option<&str>) -> ReceivedMessage {
    let mut raw = Vec::new();
    if let Some(text) = content_type {
        Property::ContentType(text).put(&mut raw).unwrap();
    }
    ReceivedMessage::from_publish(&Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties::parse(&raw).unwrap(),
        payload,
    })
}

#[track_caller]
fn assert_json(json: &str) {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(json);
    assert!(parsed.is_ok(), "{json}: {parsed:?}");
}

/// RFC 8949, appendix A, and section 6.1 for what JSON does not have.
#[test]
fn cbor_is_shown_as_its_standard_has_it() {
    for (hex, json) in [
        ("00", "0"),
        ("17", "23"),
        ("1818", "24"),
        ("1903e8", "1000"),
        ("1a000f4240", "1000000"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("c249010000000000000000", "\"AQAAAAAAAAAA\""),
        ("c349010000000000000000", "\"~AQAAAAAAAAAA\""),
        ("3bffffffffffffffff", "-18446744073709551616"),
        ("20", "-1"),
        ("3903e7", "-1000"),
        ("f90000", "0.0"),
        ("f98000", "-0.0"),
        ("f93c00", "1.0"),
        ("fb3ff199999999999a", "1.1"),
        ("f93e00", "1.5"),
        ("f97bff", "65504.0"),
        ("fa47c35000", "100000.0"),
        ("f90001", "5.960464477539063e-8"),
        ("f90400", "6.103515625e-5"),
        ("f9c400", "-4.0"),
        ("f97c00", "null"),
        ("f97e00", "null"),
        ("f9fc00", "null"),
        ("fa7f800000", "null"),
        ("f4", "false"),
        ("f5", "true"),
        ("f6", "null"),
        ("f7", "null"),
        ("f0", "null"),
        ("f8ff", "null"),
        (
            "c074323031332d30332d32315432303a30343a30305a",
            "\"2013-03-21T20:04:00Z\"",
        ),
        ("c11a514b67b0", "1363896240"),
        ("d74401020304", "\"01020304\""),
        ("d6420102", "\"AQI=\""),
        ("d818456449455446", "\"ZElFVEY\""),
        ("40", "\"\""),
        ("4401020304", "\"AQIDBA\""),
        ("6449455446", "\"IETF\""),
        ("62225c", r#""\"\\""#),
        ("62c3bc", "\"ü\""),
        ("64f0908591", "\"𐅑\""),
        ("80", "[]"),
        ("8301820203820405", "[1,[2,3],[4,5]]"),
        ("a0", "{}"),
        ("a201020304", r#"{"1":2,"3":4}"#),
        ("a26161016162820203", r#"{"a":1,"b":[2,3]}"#),
        ("826161a161626163", r#"["a",{"b":"c"}]"#),
        ("5f42010243030405ff", "\"AQIDBAU\""),
        ("7f657374726561646d696e67ff", "\"streaming\""),
        ("9fff", "[]"),
        ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
        ("bf61610161629f0203ffff", r#"{"a":1,"b":[2,3]}"#),
        ("bf6346756ef563416d7421ff", r#"{"Fun":true,"Amt":-2}"#),
    ] {
        assert_eq!(cbor::json(&bytes(hex)), Ok(json.to_owned()), "{hex}");
        assert_json(json);
    }
}

/// RFC 8949, appendix F, is a list of what is not well-formed.
#[test]
fn what_is_not_cbor_says_why() {
    for (hex, why) in [
        ("", Mismatch::Ends),
        ("18", Mismatch::Ends),
        ("19 01", Mismatch::Ends),
        ("61", Mismatch::Ends),
        ("5bffffffffffffffff 010203", Mismatch::Ends),
        ("9bffffffffffffffff", Mismatch::Ends),
        ("81", Mismatch::Ends),
        ("a1 00", Mismatch::Ends),
        ("c0", Mismatch::Ends),
        ("5f4100", Mismatch::Ends),
        ("9f0102", Mismatch::Ends),
        ("00 00", Mismatch::GoesOn),
        ("1c", Mismatch::Meaningless),
        ("5d", Mismatch::Meaningless),
        ("f818", Mismatch::Meaningless),
        ("ff", Mismatch::Meaningless),
        ("81ff", Mismatch::Meaningless),
        ("bf00ff", Mismatch::Meaningless),
        ("5f00ff", Mismatch::Meaningless),
        ("5f5f4100ffff", Mismatch::Meaningless),
        ("1f", Mismatch::Meaningless),
        ("df00", Mismatch::Meaningless),
        ("61ff", Mismatch::Meaningless),
    ] {
        assert_eq!(cbor::json(&bytes(hex)), Err(why), "{hex}");
    }
    let nested = |depth: usize| [vec![0x81; depth], vec![0]].concat();
    assert!(cbor::json(&nested(DEPTH_MAX)).is_ok());
    let deep = nested(1_000_000);
    assert_eq!(cbor::json(&deep), Err(Mismatch::TooDeep));
    assert_eq!(cbor::json(&vec![0xC1; 1_000_000]), Err(Mismatch::TooDeep));
}

/// The examples of the specification at msgpack.org, and one of each kind of value.
#[test]
fn msgpack_is_shown_as_json() {
    for (hex, json) in [
        (
            "82a7636f6d70616374c3a6736368656d6100",
            r#"{"compact":true,"schema":0}"#,
        ),
        ("00", "0"),
        ("7f", "127"),
        ("ff", "-1"),
        ("e0", "-32"),
        ("c0", "null"),
        ("c2", "false"),
        ("cc80", "128"),
        ("cd0100", "256"),
        ("ce00010000", "65536"),
        ("cfffffffffffffffff", "18446744073709551615"),
        ("d080", "-128"),
        ("d18000", "-32768"),
        ("d280000000", "-2147483648"),
        ("d38000000000000000", "-9223372036854775808"),
        ("ca3fc00000", "1.5"),
        ("ca3dcccccd", "0.1"),
        ("cb3ff199999999999a", "1.1"),
        ("cb7ff0000000000000", "null"),
        ("a0", "\"\""),
        ("a161", "\"a\""),
        ("d90161", "\"a\""),
        ("da000161", "\"a\""),
        ("db0000000161", "\"a\""),
        ("c40201ff", "\"Af8\""),
        ("c5000101", "\"AQ\""),
        ("c60000000101", "\"AQ\""),
        ("93010203", "[1,2,3]"),
        ("dc00020102", "[1,2]"),
        ("dd000000020102", "[1,2]"),
        ("de000101a161", r#"{"1":"a"}"#),
        ("df0000000101a161", r#"{"1":"a"}"#),
        ("819101c0", r#"{"[1]":null}"#),
        ("d40501", r#"{"ext":5,"data":"AQ"}"#),
        ("c70305010203", r#"{"ext":5,"data":"AQID"}"#),
        ("d6ff00000000", "\"1970-01-01T00:00:00Z\""),
        ("d7ff 77359400 5e0be100", "\"2020-01-01T00:00:00.5Z\""),
        (
            "c70cff 1dcd6500 000000005e0be100",
            "\"2020-01-01T00:00:00.5Z\"",
        ),
        // No time has so many nanoseconds.
        (
            "c70cff ffffffff 0000000000000000",
            r#"{"ext":-1,"data":"_____wAAAAAAAAAA"}"#,
        ),
    ] {
        assert_eq!(msgpack::json(&bytes(hex)), Ok(json.to_owned()), "{hex}");
        assert_json(json);
    }
    for (hex, why) in [
        ("", Mismatch::Ends),
        ("c1", Mismatch::Meaningless),
        ("a1ff", Mismatch::Meaningless),
        ("92 01", Mismatch::Ends),
        ("dbffffffff 61", Mismatch::Ends),
        ("ddffffffff", Mismatch::Ends),
        ("c9ffffffff01", Mismatch::Ends),
        ("01 01", Mismatch::GoesOn),
    ] {
        assert_eq!(msgpack::json(&bytes(hex)), Err(why), "{hex}");
    }
    assert_eq!(
        msgpack::json(&vec![0x91; 1_000_000]),
        Err(Mismatch::TooDeep)
    );
}

/// A message of a protocol buffer, as its encoding is described at protobuf.dev.
#[derive(Clone, Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7F {
            self.0.push(u8::try_from(number & 0x7F).unwrap() | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap());
    }

    fn number(mut self, field: u64, number: u64) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn float(mut self, field: u64, number: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(number.to_le_bytes());
        self
    }

    fn double(mut self, field: u64, number: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(number.to_le_bytes());
        self
    }
}

fn metric(name: &str, datatype: u64) -> Proto {
    Proto::default().text(1, name).number(4, datatype)
}

/// What a metric becomes.
fn shown_metric(metric: &Proto) -> String {
    let payload = Proto::default().message(2, metric);
    let json = sparkplug::json(&payload.0).unwrap();
    assert_json(&json);
    let metric = json.strip_prefix("{\"metrics\":[").unwrap();
    metric.strip_suffix("]}").unwrap().to_owned()
}

#[test]
fn sparkplug_is_shown_by_the_names_of_its_fields() {
    let of = |datatype, name: &str, value: &str| {
        format!(r#"{{"name":"m","datatype":"{name}","value":{value}}}"#).replace("#", datatype)
    };
    let minus_five = u64::from((-5_i32).cast_unsigned());
    for (metric, name, value) in [
        (metric("m", 1).number(10, minus_five), "Int8", "-5"),
        (metric("m", 1).number(10, 0xFB), "Int8", "-5"),
        (metric("m", 2).number(10, minus_five), "Int16", "-5"),
        (metric("m", 3).number(10, minus_five), "Int32", "-5"),
        (metric("m", 4).number(11, u64::MAX), "Int64", "-1"),
        (
            metric("m", 7).number(10, minus_five),
            "UInt32",
            "4294967291",
        ),
        (
            metric("m", 8).number(11, u64::MAX),
            "UInt64",
            "18446744073709551615",
        ),
        (metric("m", 9).float(12, 21.1), "Float", "21.1"),
        (metric("m", 10).double(13, f64::NAN), "Double", "null"),
        (metric("m", 11).number(14, 1), "Boolean", "true"),
        (
            metric("m", 12).text(15, "on \"it\""),
            "String",
            r#""on \"it\"""#,
        ),
        (
            metric("m", 13).number(11, 1_700_000_000_000),
            "DateTime",
            "1700000000000",
        ),
        (metric("m", 17).bytes(16, b"\x01\xff"), "Bytes", "\"Af8\""),
        (metric("m", 12).number(7, 1), "String", "null"),
        (
            metric("m", 12).number(7, 0).text(15, "x"),
            "String",
            "\"x\"",
        ),
    ] {
        assert_eq!(shown_metric(&metric), of("", name, value));
    }
    // Data after the birth: an alias, and no type to tell a sign by. What the tables do not know is left out.
    let unnamed = Proto::default()
        .number(2, 7)
        .number(10, minus_five)
        .text(100, "?");
    assert_eq!(shown_metric(&unnamed), r#"{"alias":7,"value":4294967291}"#);
    let payload = Proto::default()
        .number(1, 5)
        .number(3, 255)
        .message(2, &unnamed)
        .message(2, &unnamed);
    let expected = r#"{"timestamp":5,"seq":255,"metrics":[{"alias":7,"value":4294967291},{"alias":7,"value":4294967291}]}"#;
    assert_eq!(sparkplug::json(&payload.0), Ok(expected.to_owned()));
}

#[test]
fn sparkplug_keeps_what_is_within_its_metrics() {
    let element = |number| Proto::default().number(1, number);
    let row = |first, second: &str| {
        let second = Proto::default().text(6, second);
        Proto::default()
            .message(1, &element(first))
            .message(1, &second)
    };
    let minus_one = u64::from(u32::MAX);
    let set = Proto::default()
        .number(1, 2)
        .text(2, "n")
        .text(2, "s")
        .number(3, 3)
        .number(3, 12);
    let set = set
        .message(4, &row(minus_one, "a"))
        .message(4, &row(2, "b"));
    assert_eq!(
        shown_metric(&metric("d", 16).message(17, &set)),
        r#"{"name":"d","datatype":"DataSet","value":{"columns":["n","s"],"types":["Int32","String"],"rows":[[-1,"a"],[2,"b"]]}}"#
    );
    let parameter = Proto::default()
        .text(1, "p")
        .number(2, 3)
        .number(3, minus_one);
    let template = Proto::default()
        .text(4, "pump")
        .message(2, &metric("x", 11).number(14, 0));
    let template = template.message(3, &parameter);
    assert_eq!(
        shown_metric(&metric("t", 19).message(18, &template)),
        r#"{"name":"t","datatype":"Template","value":{"template_ref":"pump","metrics":[{"name":"x","datatype":"Boolean","value":false}],"parameters":[{"name":"p","type":"Int32","value":-1}]}}"#
    );
    let unit = Proto::default().number(1, 12).text(8, "°C");
    let properties = Proto::default().text(1, "unit").message(2, &unit);
    let lists = Proto::default().message(1, &properties);
    let inner = Proto::default().number(1, 21).message(10, &lists);
    let properties = properties.text(1, "more").message(2, &inner);
    assert_eq!(
        shown_metric(&metric("p", 3).message(9, &properties).number(10, 1)),
        r#"{"name":"p","datatype":"Int32","properties":{"unit":{"type":"String","value":"°C"},"more":{"type":"PropertySetList","value":[{"unit":{"type":"String","value":"°C"}}]}},"value":1}"#
    );
    let short = Proto::default().text(1, "unit");
    let wrong = Proto::default().message(2, &metric("p", 3).message(9, &short));
    assert_eq!(sparkplug::json(&wrong.0), Err(Mismatch::Meaningless));
}

/// A payload of some 200 bytes, which took two to the power of 30 steps.
#[test]
fn properties_within_properties_are_shown_once() {
    let mut value = Proto::default().text(8, "x");
    let mut expected = r#"{"value":"x"}"#.to_owned();
    for _ in 0..30 {
        let properties = Proto::default().text(1, "").message(2, &value);
        value = Proto::default().message(9, &properties);
        expected = format!(r#"{{"value":{{"":{expected}}}}}"#);
    }
    let properties = Proto::default().text(1, "").message(2, &value);
    assert_eq!(
        shown_metric(&Proto::default().message(9, &properties)),
        format!(r#"{{"properties":{{"":{expected}}}}}"#)
    );
}

#[test]
fn what_is_not_sparkplug_says_why() {
    let mut nested = metric("x", 11);
    for _ in 0..40 {
        nested = metric("t", 19).message(18, &Proto::default().message(2, &nested));
    }
    for (payload, why) in [
        (Proto::default().message(2, &nested).0, Mismatch::TooDeep),
        (vec![0x08], Mismatch::Ends),
        (vec![0x12, 0x05, 0x01], Mismatch::Ends),
        (vec![0x12, 0x7F], Mismatch::Ends),
        (vec![0x0B], Mismatch::Meaningless),
        (vec![0x00, 0x00], Mismatch::Meaningless),
        // A number where text belongs, text that is none, a number of more than 64 bits.
        (Proto::default().number(4, 1).0, Mismatch::Meaningless),
        (Proto::default().bytes(4, b"\xff").0, Mismatch::Meaningless),
        (
            [vec![0x08], vec![0xFF; 9], vec![0x02]].concat(),
            Mismatch::Meaningless,
        ),
    ] {
        assert_eq!(sparkplug::json(&payload), Err(why), "{payload:02x?}");
    }
}

#[test]
fn auto_shows_text_as_it_is_and_guesses_at_nothing_that_could_be_two_things() {
    let birth = Proto::default()
        .message(2, &metric("m", 3).number(10, 7))
        .number(3, 0)
        .0;
    let born = r#"{"seq":0,"metrics":[{"name":"m","datatype":"Int32","value":7}]}"#;
    let map = bytes("a161611820");
    for (topic, payload, content_type, shown) in [
        ("a", &b"21.5 \xc2\xb0C\r\n"[..], None, "21.5 °C\r\n"),
        ("a", br#"{"a": 1}"#, Some("application/cbor"), r#"{"a": 1}"#),
        ("spBv1.0/g/NBIRTH/n", &birth, None, born),
        ("spBv1.0/g/NBIRTH/n", b"\xff\xff", None, "ffff"),
        ("a", &birth, None, &HEXLOWER.encode(&birth)),
        ("a", &map, None, r#"{"a":32}"#),
        ("a", &bytes("81a161cc80"), None, r#"{"a":128}"#),
        // A number by itself is of both forms; what the sender says counts.
        ("a", b"\x80", None, "80"),
        ("a", b"\x80", Some("application/cbor"), "[]"),
        ("a", b"\x80", Some("Application/MsgPack; x=y"), "{}"),
        ("a", b"\x01", Some("application/x-msgpack"), "1"),
        ("a", b"\x18\x20", None, "1820"),
        ("a", b"\xff\xfe\x00", Some("application/cbor"), "fffe00"),
        ("a", b"\x1b[2J", None, "1b5b324a"),
        ("a", b"", None, "null"),
    ] {
        let message = message(topic, payload, content_type);
        assert_eq!(Form::Auto.shown(&message).unwrap(), shown, "{payload:02x?}");
    }
}

#[test]
fn a_form_that_is_named_is_shown_or_said_not_to_be_there() {
    let state = br#"{"online":true,"timestamp":1}"#;
    let shown = Form::Sparkplug.shown(&message("spBv1.0/STATE/host", state, None));
    assert_eq!(shown.as_deref(), Ok(r#"{"online":true,"timestamp":1}"#));
    let wrong = Form::Cbor.shown(&message("a", b"\x18", None));
    let said = "Message payload is not valid CBOR (it ends within a value)";
    assert_eq!(wrong, Err(said.to_owned()));
    let empty = Form::MessagePack.shown(&message("a", b"", None));
    assert_eq!(empty.as_deref(), Ok("null"));
}

/// Bytes of nobody's: none makes it fall over, and what it shows is JSON.
#[test]
fn whatever_comes_is_json_or_refused() {
    let good = [
        bytes("bf61610161629f0203ff63416d74d9010082f90001c24101ff"),
        bytes("82a7636f6d70616374d6ff00000000a161dc0002cb3ff199999999999ac40101"),
        Proto::default()
            .number(1, 5)
            .message(
                2,
                &metric("m", 16).message(17, &Proto::default().text(2, "c").number(3, 3)),
            )
            .0,
    ];
    let mut shown = 0_u32;
    let mut check = |payload: &[u8]| {
        for read in [cbor::json, msgpack::json, sparkplug::json] {
            if let Ok(json) = read(payload) {
                assert_json(&json);
                shown += 1;
            }
        }
    };
    for payload in good {
        for at in 0..payload.len() {
            check(&payload[..at]);
            for byte in 0..=255 {
                let mut changed = payload.clone();
                changed[at] = byte;
                check(&changed);
            }
        }
    }
    assert!(shown > 1_000, "{shown}");
}

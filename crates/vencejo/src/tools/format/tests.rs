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

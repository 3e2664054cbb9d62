//! Just enough of Rust's lexical rules to tell code, comments and strings apart.
//!
//! Owns: comments (nested too), string, raw string, byte string and character literals, lifetimes.
//! Does not own: syntax. Start reading at [`Masked::new`].
//! Invariant: `code` and `comments` have the bytes and lines of the source, blanks elsewhere.

/// One source text seen twice: its code without the rest, its comments without the rest.
#[derive(Debug)]
pub(crate) struct Masked {
    /// Code only; comments are blank, string literals keep their quotes and are blank inside.
    pub(crate) code: String,
    /// Comments only, with their `//` or `/*`.
    pub(crate) comments: String,
}

impl Masked {
    /// Splits `source`. Never fails: what is not Rust yields some split of the same length.
    pub(crate) fn new(source: &str) -> Self {
        let mut lexer = Lexer {
            bytes: source.as_bytes(),
            at: 0,
            code: Vec::with_capacity(source.len()),
            comments: Vec::with_capacity(source.len()),
        };
        while lexer.at < lexer.bytes.len() {
            lexer.step();
        }
        Self {
            code: String::from_utf8_lossy(&lexer.code).into_owned(),
            comments: String::from_utf8_lossy(&lexer.comments).into_owned(),
        }
    }

    /// The number of the first line (from 0) of the unit tests, or of lines if there are none.
    pub(crate) fn tests_start(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        (0..lines.len())
            .find(|&at| {
                lines[at].trim_start().starts_with("#[cfg(test)]")
                    && lines[at..]
                        .iter()
                        .take(4)
                        .map(|line| line.trim())
                        // A declaration of tests in a file of their own ends nothing here.
                        .any(|line| line.starts_with("mod ") && !line.ends_with(';'))
            })
            .unwrap_or(lines.len())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Hidden,
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        if self.looks_at(b"//") {
            self.take_while(Kind::Comment, |byte| byte != b'\n');
        } else if self.looks_at(b"/*") {
            self.block_comment();
        } else if let Some(hashes) = self.raw_string_hashes() {
            self.raw_string(hashes);
        } else if self.looks_at(b"\"") {
            self.string();
        } else if self.looks_at(b"'") && self.is_character() {
            self.character();
        } else {
            self.take(Kind::Code, 1);
        }
    }

    fn looks_at(&self, what: &[u8]) -> bool {
        self.bytes[self.at..].starts_with(what)
    }

    /// Moves over `count` bytes; every view gets the byte or a blank, and every newline.
    fn take(&mut self, kind: Kind, count: usize) {
        for _ in 0..count {
            let Some(&byte) = self.bytes.get(self.at) else {
                return;
            };
            let blank = if byte == b'\n' { b'\n' } else { b' ' };
            self.code
                .push(if kind == Kind::Code { byte } else { blank });
            self.comments
                .push(if kind == Kind::Comment { byte } else { blank });
            self.at += 1;
        }
    }

    fn take_while(&mut self, kind: Kind, wanted: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).is_some_and(|&byte| wanted(byte)) {
            self.take(kind, 1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            if self.looks_at(b"/*") {
                depth += 1;
                self.take(Kind::Comment, 2);
            } else if self.looks_at(b"*/") {
                depth -= 1;
                self.take(Kind::Comment, 2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(Kind::Comment, 1);
            }
        }
    }

    /// The number of `#` if a raw string starts here (`r"`, `r#"`; a `b` before is code already).
    fn raw_string_hashes(&self) -> Option<usize> {
        let before = self.at.checked_sub(1).map(|at| self.bytes[at]);
        let starts_word = before.is_none_or(|byte| byte == b'b' || !is_word(byte));
        let rest = self.bytes[self.at..]
            .strip_prefix(b"r")
            .filter(|_| starts_word)?;
        let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
        (rest.get(hashes) == Some(&b'"')).then_some(hashes)
    }

    fn raw_string(&mut self, hashes: usize) {
        self.take(Kind::Code, hashes + 2);
        let mut end = vec![b'"'];
        end.resize(hashes + 1, b'#');
        while self.at < self.bytes.len() && !self.looks_at(&end) {
            self.take(Kind::Hidden, 1);
        }
        self.take(Kind::Code, end.len());
    }

    fn string(&mut self) {
        self.take(Kind::Code, 1);
        while self.at < self.bytes.len() && !self.looks_at(b"\"") {
            let count = if self.looks_at(b"\\") { 2 } else { 1 };
            self.take(Kind::Hidden, count);
        }
        self.take(Kind::Code, 1);
    }

    /// Tells `'a'` and `'\n'` from the lifetime `'a`.
    fn is_character(&self) -> bool {
        let rest = &self.bytes[self.at + 1..];
        match rest.first() {
            Some(b'\\') => true,
            Some(&byte) if byte >= 0x80 => rest.iter().take(5).any(|&byte| byte == b'\''),
            Some(_) => rest.get(1) == Some(&b'\''),
            None => false,
        }
    }

    fn character(&mut self) {
        self.take(Kind::Code, 1);
        let first = if self.looks_at(b"\\") { 2 } else { 1 };
        self.take(Kind::Hidden, first);
        self.take_while(Kind::Hidden, |byte| byte != b'\'' && byte != b'\n');
        self.take(Kind::Code, 1);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_blank_in_the_code_view() {
        let masked = Masked::new("let a = \"// no\"; // yes \"\nlet b = r#\"a\"b\"#;");
        assert_eq!(
            masked.code,
            "let a = \"     \";         \nlet b = r#\"   \"#;"
        );
        assert_eq!(masked.comments.trim_end(), "                 // yes \"");
        assert_eq!(masked.comments.len(), masked.code.len());
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let masked = Masked::new("fn f<'a>(x: &'a str) { let q = '\"'; let e = '\\''; } // c");
        assert!(
            masked
                .code
                .contains("fn f<'a>(x: &'a str) { let q = ' '; let e = '  '; }")
        );
        assert!(masked.comments.ends_with("// c"));
    }

    #[test]
    fn nested_block_comments_end_once() {
        let masked = Masked::new("a /* b /* c */ d */ e");
        assert_eq!(masked.code.trim_end(), "a                   e");
    }

    #[test]
    fn unit_tests_start_at_their_attribute() {
        let masked = Masked::new("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(masked.tests_start(), 2);
        assert_eq!(Masked::new("fn a() {}\n").tests_start(), 1);
    }

    #[test]
    fn declared_test_module_does_not_end_the_code() {
        let masked = Masked::new("#[cfg(test)]\nmod tests;\n\nfn a() {}\n");
        assert_eq!(masked.tests_start(), 4);
    }
}

//! Terms of Erlang, as in an acl.conf.
//!
//! Owns: [`read`], [`Term`]. Does not own: what they mean (see `acl`). Start reading at [`read`]. Invariant: nothing nests deeper
//! than [`DEPTH_MAX`].

use crate::import::hocon::Fault;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Atom(String),
    Text(String),
    Number(i64),
    Tuple(Vec<Self>),
    List(Vec<Self>),
}

/// A term that ends with a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) line: usize,
    /// As it is written, in one line.
    pub(crate) shown: String,
    pub(crate) term: Term,
}

/// All terms of the file `name`.
/// # Errors
/// It is not made of terms.
pub(crate) fn read(name: &str, text: &str) -> Result<Vec<Sentence>, Fault> {
    let mut parser = Parser { name, text, at: 0 };
    let mut all = Vec::new();
    loop {
        parser.skip_blank();
        if parser.rest().is_empty() {
            return Ok(all);
        }
        let start = parser.at;
        let term = parser.term(0)?;
        parser.skip_blank();
        if !parser.take('.') {
            return Err(parser.fault("wanted a full stop behind the rule"));
        }
        let source = text.get(start..parser.at).unwrap_or_default();
        all.push(Sentence {
            line: text.get(..start).unwrap_or_default().matches('\n').count() + 1,
            shown: source.split_whitespace().collect::<Vec<_>>().join(" "),
            term,
        });
    }
}

struct Parser<'p> {
    name: &'p str,
    text: &'p str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if self.peek() != Some('%') {
                return;
            }
            let rest = self.rest();
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn fault(&self, message: &str) -> Fault {
        Fault::at(self.name, self.text, self.at, message)
    }

    fn term(&mut self, depth: usize) -> Result<Term, Fault> {
        if depth > DEPTH_MAX {
            return Err(self.fault("nothing may nest so deep"));
        }
        match self.peek() {
            Some('{') => self.elements('}', depth).map(Term::Tuple),
            Some('[') => self.elements(']', depth).map(Term::List),
            Some('"') => self.quoted('"').map(Term::Text),
            Some('\'') => self.quoted('\'').map(Term::Atom),
            Some('<') => self.binary(),
            Some(one) if one.is_ascii_digit() || one == '-' => self.number(),
            Some(one) if one.is_ascii_lowercase() => {
                let rest = self.rest();
                let end =
                    rest.find(|one: char| !one.is_ascii_alphanumeric() && one != '_' && one != '@');
                let atom = rest
                    .get(..end.unwrap_or(rest.len()))
                    .unwrap_or_default()
                    .to_owned();
                self.at += atom.len();
                Ok(Term::Atom(atom))
            }
            _ => Err(self.fault("wanted a tuple, a list, a text in quotation marks or a word")),
        }
    }

    fn elements(&mut self, end: char, depth: usize) -> Result<Vec<Term>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut all = Vec::new();
        loop {
            self.skip_blank();
            if self.take(end) {
                return Ok(all);
            }
            if !all.is_empty() {
                if !self.take(',') {
                    let at = if self.rest().is_empty() {
                        start
                    } else {
                        self.at
                    };
                    let message = format!("wanted a comma or {end}");
                    return Err(Fault::at(self.name, self.text, at, &message));
                }
                self.skip_blank();
            }
            all.push(self.term(depth + 1)?);
        }
    }

    fn quoted(&mut self, mark: char) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        let mut is_escaped = false;
        for one in self.text.get(self.at..).unwrap_or_default().chars() {
            self.at += one.len_utf8();
            match one {
                _ if is_escaped => {
                    text.push(match one {
                        'n' => '\n',
                        't' => '\t',
                        other => other,
                    });
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                one if one == mark => return Ok(text),
                one => text.push(one),
            }
        }
        Err(Fault::at(
            self.name,
            self.text,
            start,
            "this text has no end",
        ))
    }

    /// `<<"text">>`, or with `/utf8` behind the text.
    fn binary(&mut self) -> Result<Term, Fault> {
        let wrong = "wanted <<\"a text\">>";
        if !self.rest().starts_with("<<\"") {
            return Err(self.fault(wrong));
        }
        self.at += 2;
        let text = self.quoted('"')?;
        if self.rest().starts_with("/utf8") {
            self.at += "/utf8".len();
        }
        if !(self.take('>') && self.take('>')) {
            return Err(self.fault(wrong));
        }
        Ok(Term::Text(text))
    }

    fn number(&mut self) -> Result<Term, Fault> {
        let rest = self.rest();
        let end = rest.find(|one: char| !one.is_ascii_digit() && one != '-');
        let digits = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let (length, number) = (digits.len(), digits.parse());
        let number = number.map_err(|_| self.fault("this is no number"))?;
        self.at += length;
        Ok(Term::Number(number))
    }
}

const DEPTH_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_end_with_full_stops() {
        let text = "%% one\n{allow, {user, \"x\\\"y\"}, subscribe,\n  [\"a/#\", {eq, <<\"ñ\"/utf8>>}]}.\n{deny,'all',-1}. % two\n";
        let all = read("acl.conf", text).expect("is right");
        let shown: Vec<_> = all
            .iter()
            .map(|one| (one.line, one.shown.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    2,
                    "{allow, {user, \"x\\\"y\"}, subscribe, [\"a/#\", {eq, <<\"ñ\"/utf8>>}]}."
                ),
                (4, "{deny,'all',-1}."),
            ]
        );
        assert_eq!(
            all[1].term,
            Term::Tuple(vec![
                Term::Atom("deny".into()),
                Term::Atom("all".into()),
                Term::Number(-1)
            ])
        );
    }

    #[test]
    fn faults_say_where_they_are() {
        for (text, expected) in [
            ("{allow, all}", "a:1:13: wanted a full stop"),
            ("\n{allow all}.", "a:2:8: wanted a comma or }"),
            ("{allow,\n\"x}.", "a:2:1: this text has no end"),
            ("{allow, X}.", "a:1:9: wanted a tuple"),
            ("{allow, [1", "a:1:9: wanted a comma or ]"),
            ("<<x>>.", "a:1:1: wanted <<"),
            ("-.", "a:1:1: this is no number"),
            ("99999999999999999999.", "a:1:1: this is no number"),
        ] {
            let fault = read("a", text).expect_err(text).to_string();
            assert!(fault.contains(expected), "{text:?}: {fault}");
        }
        let deep = read("a", &"[".repeat(100_000)).expect_err("is too deep");
        assert!(deep.to_string().contains("nothing may nest so deep"));
    }
}

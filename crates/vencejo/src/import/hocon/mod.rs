//! Files of HOCON, as EMQX and NanoMQ have them.
//!
//! Owns: [`read`], the form of a file: objects, lists, texts, comments, includes. Does not own: what counts where something is
//! said twice (see `settings`), units (see `units`). Start reading at [`read`]. Invariants: a fault says where it is; `${...}` is
//! never followed; nothing nests deeper than [`DEPTH_MAX`].

mod settings;
pub(crate) mod units;

use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use settings::{Key, Settings, Value};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fault {
    /// In `text` of the file `name`, at the byte `at`: line, column, and the line with a mark below it.
    pub(crate) fn at(name: &str, text: &str, at: usize, message: &str) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(start..).unwrap_or_default().chars().count();
        let shown = text.get(start..).unwrap_or_default();
        let shown = shown.lines().next().unwrap_or_default().replace('\t', " ");
        let (number, width) = (line.to_string(), line.to_string().len());
        Self(format!(
            "{name}:{line}:{}: {message}\n{:width$} |\n{number} | {shown}\n{:width$} | {:column$}^",
            column + 1,
            "",
            "",
            ""
        ))
    }

    pub(crate) const fn of(text: String) -> Self {
        Self(text)
    }
}

/// Reads the file at `path` into `settings`, and what it includes.
/// # Errors
/// It cannot be read, or is not HOCON.
pub(crate) fn read(path: &Path, settings: &mut Settings) -> Result<(), Fault> {
    let failed = |error: &dyn fmt::Display| Fault(format!("{}: {error}", path.display()));
    let text = text_of(path).map_err(|error| failed(&error))?;
    Parser::new(path, &text, 0, settings).file(&Key::default())
}

/// Reads `text`, which stands in a line of the file at `path`, into what is below `key`.
/// # Errors
/// It is no HOCON.
pub(crate) fn read_line(
    path: &Path,
    line: usize,
    text: &str,
    key: &Key,
    settings: &mut Settings,
) -> Result<(), Fault> {
    let mut parser = Parser::new(path, text, 0, settings);
    parser.line = line;
    parser.file(key)
}

/// A file of a size that a person writes.
pub(crate) fn text_of(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if length.len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// What a value turned out to be. Objects and lists are in the settings already.
enum Piece {
    Text(String),
    Reference(String),
    Object,
    List,
}

struct Parser<'p> {
    path: &'p Path,
    name: String,
    text: &'p str,
    /// Bytes that are taken.
    at: usize,
    line: usize,
    /// Files around this one.
    files: usize,
    /// Objects and lists around this place.
    depth: usize,
    settings: &'p mut Settings,
}

impl<'p> Parser<'p> {
    fn new(path: &'p Path, text: &'p str, files: usize, settings: &'p mut Settings) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            path,
            name: name.display().to_string(),
            // A mark of the order of bytes says nothing in UTF-8.
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            at: 0,
            line: 1,
            files,
            depth: 0,
            settings,
        }
    }

    fn file(mut self, key: &Key) -> Result<(), Fault> {
        self.skip_to_member();
        let start = self.at;
        if self.take("{") {
            self.members(key, Some(start))?;
            self.skip_to_member();
            return match self.peek() {
                None => Ok(()),
                Some(_) => Err(self.fault("the object of the whole file has ended")),
            };
        }
        self.members(key, None)
    }

    /// What is in an object that begins at `start`, or in a file.
    fn members(&mut self, key: &Key, start: Option<usize>) -> Result<(), Fault> {
        loop {
            self.skip_to_member();
            match (self.peek(), start) {
                (None, None) => return Ok(()),
                (None, Some(start)) => return Err(self.fault_at(start, "this object has no end")),
                (Some('}'), Some(_)) => {
                    self.bump();
                    return Ok(());
                }
                (Some('}' | ']'), _) => return Err(self.fault("there is nothing to end here")),
                _ if self.is_at_include() => self.include(key)?,
                _ => self.member(key)?,
            }
        }
    }

    fn member(&mut self, above: &Key) -> Result<(), Fault> {
        let place = self.place();
        let key = self.key(above)?;
        self.skip_spaces();
        let adds = self.take("+=");
        if !adds && !self.take("=") && !self.take(":") && self.peek() != Some('{') {
            return Err(self.fault(&format!("wanted = or : or {{ behind {:?}", key.last())));
        }
        if adds {
            return self.added(&key, place);
        }
        self.skip_blank();
        match self.value(&key)? {
            Piece::Text(text) => self.settings.set(key, place, Value::Text(text)),
            Piece::Reference(text) => self.settings.set(key, place, Value::Reference(text)),
            Piece::Object | Piece::List => {}
        }
        Ok(())
    }

    /// `a += b`.
    fn added(&mut self, key: &Key, place: String) -> Result<(), Fault> {
        self.skip_blank();
        let next = self.settings.elements(key).len() + 1;
        let element = key.with(next.to_string());
        match self.value(&element)? {
            Piece::Text(text) => self.settings.append(key, place, text),
            Piece::Reference(text) => self.settings.set(element, place, Value::Reference(text)),
            Piece::Object | Piece::List => {}
        }
        Ok(())
    }

    /// `a.b."c.d"`.
    fn key(&mut self, above: &Key) -> Result<Key, Fault> {
        let mut key = above.clone();
        loop {
            let part = if self.peek() == Some('"') {
                self.quoted()?
            } else {
                let is_end = |one: char| one.is_whitespace() || "=:{}[],.\"+#$".contains(one);
                self.until(is_end)
            };
            if part.is_empty() {
                return Err(self.fault("wanted the name of a key"));
            }
            key = key.with(part);
            if !self.take(".") {
                return Ok(key);
            }
        }
    }

    /// A value, which may be made of pieces in one line.
    fn value(&mut self, key: &Key) -> Result<Piece, Fault> {
        let mut whole = self.piece(key)?;
        loop {
            let before = self.at;
            let spaces = self.skip_spaces();
            if self.is_at_end_of_value() {
                return Ok(whole);
            }
            let start = self.at;
            let next = self.piece(key)?;
            let spaces = self.text.get(before..before + spaces).unwrap_or_default();
            whole = match (whole, next) {
                (Piece::Text(one), Piece::Text(other)) => {
                    Piece::Text(format!("{one}{spaces}{other}"))
                }
                (
                    Piece::Text(one) | Piece::Reference(one),
                    Piece::Text(other) | Piece::Reference(other),
                ) => Piece::Reference(format!("{one}{spaces}{other}")),
                (Piece::Object, Piece::Object) => Piece::Object,
                (Piece::List, Piece::List) => Piece::List,
                _ => {
                    let message = "wanted the end of the line, a comma, or more of the same kind";
                    return Err(self.fault_at(start, message));
                }
            };
        }
    }

    fn piece(&mut self, key: &Key) -> Result<Piece, Fault> {
        let start = self.at;
        match self.peek() {
            Some('{') => {
                self.bump();
                let place = self.place();
                self.settings.open(key, &place);
                let before = self.settings.count();
                self.deeper(start)?;
                self.members(key, Some(start))?;
                self.depth -= 1;
                if self.settings.count() == before {
                    self.settings.nothing(key.clone(), place);
                }
                Ok(Piece::Object)
            }
            Some('[') => {
                self.bump();
                self.deeper(start)?;
                self.list(key, start)?;
                self.depth -= 1;
                Ok(Piece::List)
            }
            Some('"') => self.quoted().map(Piece::Text),
            Some('$') if self.rest().starts_with("${") => {
                let text = self.until(|one| one == '}' || one == '\n');
                match self.take("}") {
                    true => Ok(Piece::Reference(format!("{text}}}"))),
                    false => Err(self.fault_at(start, "this ${ has no }")),
                }
            }
            _ => self.unquoted().map(Piece::Text),
        }
    }

    fn deeper(&mut self, start: usize) -> Result<(), Fault> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => Err(self.fault_at(start, "nothing may nest so deep")),
            false => Ok(()),
        }
    }

    /// The elements of a list that begins at `start`.
    fn list(&mut self, key: &Key, start: usize) -> Result<(), Fault> {
        let place = self.place();
        let mut texts = Vec::new();
        self.settings.forget(key, &place);
        let mut number = 0;
        let mut is_plain = true;
        loop {
            self.skip_to_member();
            if self.take("]") {
                break;
            }
            match self.peek() {
                None => return Err(self.fault_at(start, "this list has no end")),
                Some('}') => return Err(self.fault("there is nothing to end here")),
                _ => {}
            }
            number += 1;
            let element = key.with(number.to_string());
            let place = self.place();
            match self.value(&element)? {
                Piece::Text(text) => texts.push((element, place, text)),
                Piece::Reference(text) => {
                    is_plain = false;
                    self.settings.set(element, place, Value::Reference(text));
                }
                Piece::Object | Piece::List => is_plain = false,
            }
        }
        if is_plain {
            let texts = texts.into_iter().map(|(_, _, text)| text).collect();
            self.settings.set(key.clone(), place, Value::List(texts));
        } else {
            for (element, place, text) in texts {
                self.settings.set(element, place, Value::Text(text));
            }
        }
        Ok(())
    }

    /// A text in quotation marks, one or three.
    fn quoted(&mut self) -> Result<String, Fault> {
        let start = self.at;
        if self.take("\"\"\"") {
            return self.quoted_by_three(start);
        }
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                None | Some('\n') => {
                    return Err(self.fault_at(start, "this text has no end in its line"));
                }
                Some(one) => text.push(one),
            }
        }
    }

    fn quoted_by_three(&mut self, start: usize) -> Result<String, Fault> {
        let Some(mut length) = self.rest().find("\"\"\"") else {
            return Err(self.fault_at(start, "this text has no end"));
        };
        // Of more than three marks the last three are the end.
        while self
            .rest()
            .get(length..)
            .is_some_and(|rest| rest.starts_with("\"\"\"\""))
        {
            length += 1;
        }
        let text = self.rest().get(..length).unwrap_or_default().to_owned();
        for _ in text.chars() {
            self.bump();
        }
        self.take("\"\"\"");
        // EMQX: marked by ~, it begins behind the newline, and ends before the last one.
        let Some(inner) = text.strip_prefix("~\n") else {
            return Ok(text);
        };
        let inner = inner.strip_suffix('~').unwrap_or(inner);
        let indent = |line: &str| line.len() - line.trim_start().len();
        let lines = inner.lines().filter(|line| !line.trim().is_empty());
        let least = lines.map(indent).min().unwrap_or(0);
        let lines = inner
            .lines()
            .map(|line| line.get(least..).unwrap_or_default());
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    fn escaped(&mut self) -> Result<char, Fault> {
        let start = self.at;
        let wrong =
            "there is no such escape: wanted one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0041";
        match self.bump() {
            Some(one @ ('"' | '\\' | '/')) => Ok(one),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let digits = self.rest().get(..4).unwrap_or_default().to_owned();
                let one = u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32);
                for _ in digits.chars() {
                    self.bump();
                }
                one.ok_or_else(|| self.fault_at(start, wrong))
            }
            _ => Err(self.fault_at(start, wrong)),
        }
    }

    /// A text without quotation marks: up to the end of the line, or what cannot be in it. More is taken than HOCON does, as
    /// NanoMQ takes it: `0.0.0.0:1883`, `http://a/b`.
    fn unquoted(&mut self) -> Result<String, Fault> {
        let start = self.at;
        while let Some(one) = self.peek() {
            let is_comment = self.rest().starts_with("//")
                && (self.at == start || self.text.get(..self.at).is_some_and(ends_blank));
            if is_comment || "\n\r,{}[]\"#".contains(one) || self.rest().starts_with("${") {
                break;
            }
            self.bump();
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let text = text.trim_end();
        // The spaces belong between pieces.
        self.at = start + text.len();
        match text.is_empty() {
            true => Err(self.fault("wanted a value")),
            false => Ok(text.to_owned()),
        }
    }

    fn is_at_include(&self) -> bool {
        let Some(rest) = self.rest().strip_prefix("include") else {
            return false;
        };
        let what = rest.trim_start_matches([' ', '\t']);
        what.starts_with('"') && rest != what
            || ["file(", "required(", "url(", "classpath("]
                .iter()
                .any(|form| what.starts_with(form) && rest != what)
    }

    /// `include "file"`, whose values come where it stands.
    fn include(&mut self, key: &Key) -> Result<(), Fault> {
        let (start, place) = (self.at, self.place());
        self.until(|one| one == '"' || one == '\n');
        let form: String = self.text.get(start..self.at).unwrap_or_default().into();
        if self.peek() != Some('"') {
            return Err(self.fault("wanted a file in quotation marks"));
        }
        let named = self.quoted()?;
        self.until(|one| one != ')');
        let path = match self.path.parent() {
            Some(folder) => folder.join(&named),
            None => PathBuf::from(&named),
        };
        let at = key.with("include");
        let mut left_out = |why: String| {
            let (place, path) = (place.clone(), path.clone());
            self.settings.set(at.clone(), place, Value::File(path, why));
        };
        if form.contains("url(") || form.contains("classpath(") {
            left_out("only files are followed".to_owned());
            return Ok(());
        }
        if self.files >= FILES_MAX {
            return Err(self.fault_at(start, "files include each other without an end"));
        }
        let text = match text_of(&path) {
            Ok(text) => text,
            Err(error) => {
                left_out(format!("{}: {error}", path.display()));
                return Ok(());
            }
        };
        if is_erlang(&text) {
            left_out(format!("{} is no HOCON", path.display()));
            return Ok(());
        }
        let mut inner = Parser::new(&path, &text, self.files + 1, self.settings);
        inner.depth = self.depth;
        inner.file(key)
    }

    fn rest(&self) -> &'p str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let one = self.peek()?;
        self.at += one.len_utf8();
        self.line += usize::from(one == '\n');
        Some(one)
    }

    /// Takes `text` if it is next.
    fn take(&mut self, text: &str) -> bool {
        let is_there = self.rest().starts_with(text);
        if is_there {
            self.at += text.len();
        }
        is_there
    }

    fn until(&mut self, is_end: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek().is_some_and(|one| !is_end(one)) {
            self.bump();
        }
        self.text.get(start..self.at).unwrap_or_default().to_owned()
    }

    /// Spaces in this line; returns how many bytes they have.
    fn skip_spaces(&mut self) -> usize {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|one| one.is_whitespace() && one != '\n')
        {
            self.bump();
        }
        self.at - start
    }

    /// Spaces, newlines, comments.
    fn skip_blank(&mut self) {
        loop {
            while self.peek().is_some_and(char::is_whitespace) {
                self.bump();
            }
            if self.peek() != Some('#') && !self.rest().starts_with("//") {
                return;
            }
            self.until(|one| one == '\n');
        }
    }

    /// The same, and commas.
    fn skip_to_member(&mut self) {
        self.skip_blank();
        while self.take(",") {
            self.skip_blank();
        }
    }

    fn is_at_end_of_value(&self) -> bool {
        self.rest().starts_with("//") || self.peek().is_none_or(|one| "\n\r,}]#".contains(one))
    }

    fn place(&self) -> String {
        format!("{}:{}", self.name, self.line)
    }

    fn fault(&self, message: &str) -> Fault {
        self.fault_at(self.at, message)
    }

    fn fault_at(&self, at: usize, message: &str) -> Fault {
        Fault::at(&self.name, self.text, at, message)
    }
}

fn ends_blank(text: &str) -> bool {
    text.ends_with([' ', '\t', '\n'])
}

/// Whether a file holds terms of Erlang, as an acl.conf of EMQX does.
pub(crate) fn is_erlang(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_start);
    let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
    first.starts_with('%') || first.starts_with("{allow") || first.starts_with("{deny")
}

/// Objects and lists in one another.
const DEPTH_MAX: usize = 32;
/// Files that include one another.
const FILES_MAX: usize = 8;
const FILE_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests;

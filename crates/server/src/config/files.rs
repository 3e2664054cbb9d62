//! Which files a configuration names.
//!
//! Owns: the list. Does not own: reading them, those of TLS of listeners (see `watch`, which looks after them always). Start
//! reading at [`Config::files`]. Invariant: what a reload reads again stands in it.

use std::path::PathBuf;

use super::http::HttpConfig;
use super::{Config, TokenKeys};

impl Config {
    /// The files that say who gets in and who may do what, and those that their services are asked with.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let who = &self.authentication;
        let mut files: Vec<PathBuf> = who.password_file.iter().cloned().collect();
        let keys = who.tokens.as_ref().map(|tokens| &tokens.keys);
        match keys {
            Some(TokenKeys::Key(path) | TokenKeys::Jwks(path)) => files.push(path.clone()),
            Some(TokenKeys::Fetched(fetch)) => add_service(&mut files, &fetch.http),
            None => {}
        }
        let directories = [
            who.postgres.as_ref().map(|of| &of.server),
            who.mysql.as_ref().map(|of| &of.server),
            who.redis.as_ref().map(|of| &of.server),
            who.ldap.as_ref().map(|of| &of.server),
        ];
        for of in directories.into_iter().flatten() {
            files.extend([&of.password_file, &of.ca].into_iter().flatten().cloned());
        }
        let may = self.authorization.as_ref();
        files.extend(may.and_then(|rules| rules.acl_file.clone()));
        let services = [who.http.as_ref(), may.and_then(|rules| rules.http.as_ref())];
        for of in services.into_iter().flatten() {
            add_service(&mut files, of);
        }
        files
    }
}

fn add_service(files: &mut Vec<PathBuf>, of: &HttpConfig) {
    files.extend([&of.bearer_file, &of.ca].into_iter().flatten().cloned());
    if let Some(shown) = &of.certificate {
        files.extend([shown.certificate.clone(), shown.key.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    #[test]
    fn every_file_that_a_reload_reads_is_named() {
        let text = r#"
            [authentication]
            password_file = "passwords"
            [authentication.tokens]
            key = "key.pem"
            algorithms = ["RS256"]
            [authentication.http]
            url = "https://a.example/"
            bearer_file = "bearer"
            ca = "ca.pem"
            certificate = "own.pem"
            key = "own.key"
            [authorization]
            acl_file = "acl"
        "#;
        let config = parse(text, Path::new("vencejo.toml")).unwrap();
        let files = config.files();
        let names: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        let expected = [
            "passwords",
            "key.pem",
            "acl",
            "bearer",
            "ca.pem",
            "own.pem",
            "own.key",
        ];
        assert_eq!(names, expected);
        assert!(parse("", Path::new("a")).unwrap().files().is_empty());
    }
}

//! Users in an LDAP directory, which verifies their passwords itself.
//!
//! Owns: [`Ldap`]: how an entry is found and bound as, which groups it has. Does not own: time-out, breaker and
//! cache (see `crate::outbound`). Start reading at [`Asker::ask`]. Invariants: no bind without a password, for a
//! directory takes that for nobody in particular and says yes; a name is escaped wherever it is put; the entry
//! has to hold the name letter by letter.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ldap3::{
    Ldap as Connection, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry,
    SearchOptions, dn_escape, ldap_escape,
};
use proto::Secret;
use rustls::{ClientConfig, RootCertStore};

use super::{allow, credentials, roots_of, server_password, told};
use crate::authentication::passwords::wrong;
use crate::authentication::{
    Attempt, AuthenticationError, Authenticator, Decision, Exchange, Identity,
};
use crate::config::{DirectoryServer, LdapConfig, LdapSearch, LdapUser, Placeholder, Template};
use crate::outbound::{Answer, AskError, BackEnd, Kept};

/// Lets in whom a directory lets bind.
pub(super) struct Ldap {
    asker: Arc<Asker>,
    back_end: BackEnd<Verdict>,
}

/// What a directory says of a name and a password.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It does not know the name, or does not tell.
    Unknown,
    /// It knows the name, and the password is wrong.
    Wrong,
    /// They are right.
    Right(Arc<Identity>),
}

/// What it takes to ask.
struct Asker {
    config: LdapConfig,
    /// With which `bind_dn` is bound as.
    password: Option<String>,
    settings: LdapConnSettings,
}

/// An entry that stands for a user.
struct Entry {
    dn: String,
    found: SearchEntry,
}

impl Ldap {
    /// # Errors
    /// A file that it rests on cannot be used.
    pub(super) fn new(
        config: &LdapConfig,
        back_end: BackEnd<Verdict>,
    ) -> Result<Self, AuthenticationError> {
        let server = &config.server;
        let upgrades = server.has_tls && server.url.expose().starts_with("ldap://");
        let mut settings = LdapConnSettings::new()
            .set_conn_timeout(server.ask.timeout)
            .set_starttls(upgrades);
        if server.has_tls {
            settings = settings.set_config(Arc::new(client_config(server)?));
        }
        let asker = Asker {
            config: config.clone(),
            password: server_password(server)?,
            settings,
        };
        Ok(Self {
            asker: Arc::new(asker),
            back_end,
        })
    }
}

impl Authenticator for Ldap {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let (name, password) = credentials(attempt)?;
        let key = self
            .back_end
            .key(&[Some(name.as_bytes()), Some(password.expose())]);
        if let Some(verdict) = self.back_end.known(key) {
            return decide(verdict);
        }
        let (asker, name, password) = (Arc::clone(&self.asker), name.to_owned(), password.clone());
        let asked = async move {
            let value = asker.ask(&name, &password).await?;
            let kept = match value {
                Verdict::Right(_) => Kept::AsYes,
                Verdict::Unknown | Verdict::Wrong => Kept::AsNo,
            };
            Ok(Answer { value, kept })
        };
        Some(Decision::Wait(
            self.back_end.ask(exchange, key, asked, decide),
        ))
    }
}

impl fmt::Debug for Ldap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ldap({:?})", self.asker.config.server.url)
    }
}

fn decide(verdict: Verdict) -> Option<Decision> {
    match verdict {
        Verdict::Unknown => None,
        Verdict::Wrong => Some(wrong()),
        Verdict::Right(identity) => Some(allow(&identity)),
    }
}

impl Asker {
    /// What the directory says of `name` with `password`, on a connection of its own: who is bound as somebody
    /// is that for all that follows.
    async fn ask(&self, name: &str, password: &Secret) -> Result<Verdict, AskError> {
        // A directory compares texts.
        let password = std::str::from_utf8(password.expose()).unwrap_or_default();
        if password.is_empty() {
            return Ok(Verdict::Unknown);
        }
        let opened =
            LdapConnAsync::with_settings(self.settings.clone(), self.config.server.url.expose());
        let (driver, mut connection) = opened.await.map_err(|error| told(&error))?;
        // Ends with the connection, or by itself when the directory is gone.
        let driver = tokio::spawn(driver.drive());
        let _ended = Ended(driver.abort_handle());
        let verdict = match &self.config.user {
            LdapUser::Named(_) => self.ask_by_name(&mut connection, name, password).await,
            LdapUser::Searched(search) => {
                self.ask_by_search(&mut connection, search, name, password)
                    .await
            }
        };
        let verdict = verdict.map_err(|error| told(&error))?;
        // Politeness; that it does not arrive harms nobody.
        connection.unbind().await.ok();
        Ok(verdict)
    }

    /// Binds as the entry that the name is made into, then reads it as that user.
    async fn ask_by_name(
        &self,
        connection: &mut Connection,
        name: &str,
        password: &str,
    ) -> Result<Verdict, LdapError> {
        let LdapUser::Named(template) = &self.config.user else {
            return Ok(Verdict::Unknown);
        };
        let dn = dn_of(template, name);
        if !bind(connection, &dn, password).await? {
            return Ok(Verdict::Unknown);
        }
        let filter = "(objectClass=*)";
        let Some(entry) = self
            .find(connection, &dn, Scope::Base, filter, name)
            .await?
        else {
            return Ok(Verdict::Unknown);
        };
        self.identity(connection, name, &entry).await
    }

    /// Searches for the entry, then binds as it.
    async fn ask_by_search(
        &self,
        connection: &mut Connection,
        search: &LdapSearch,
        name: &str,
        password: &str,
    ) -> Result<Verdict, LdapError> {
        self.bind_as_server(connection).await?;
        let filter = filter_of(&search.filter, name, "");
        let found = self.find(connection, &search.base, Scope::Subtree, &filter, name);
        let Some(entry) = found.await? else {
            // As much as for a user that is known: no entry has this name.
            let nobody = format!("cn={NOBODY},{}", search.base);
            let _nobody = bind(connection, &nobody, password).await?;
            return Ok(Verdict::Unknown);
        };
        if !bind(connection, &entry.dn, password).await? {
            return Ok(Verdict::Wrong);
        }
        self.identity(connection, name, &entry).await
    }

    /// The one entry that `filter` fits and that holds `name` letter by letter: directories compare without
    /// regard to case and spaces, rules do not.
    async fn find(
        &self,
        connection: &mut Connection,
        base: &str,
        scope: Scope,
        filter: &str,
        name: &str,
    ) -> Result<Option<Entry>, LdapError> {
        let wanted = &self.config.user_attribute;
        let mut attributes = vec![wanted.as_str()];
        attributes.extend(self.config.attributes.iter().map(String::as_str));
        let limits = SearchOptions::new().sizelimit(2);
        connection.with_search_options(limits);
        let searched = connection.search(base, scope, filter, attributes).await?;
        let found = match searched.success() {
            Ok((found, _)) => found,
            // There is none, there are several and it is not known which is meant, or it may not be seen.
            Err(LdapError::LdapResult { result })
                if matches!(result.rc, NO_SUCH | TOO_MANY | NO_RIGHTS) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut found = found.into_iter().filter(|one| !one.is_ref());
        let (Some(one), None) = (found.next(), found.next()) else {
            return Ok(None);
        };
        let found = SearchEntry::construct(one);
        let has_name = values(&found, wanted).any(|value| value == name);
        Ok(has_name.then(|| Entry {
            dn: found.dn.clone(),
            found,
        }))
    }

    /// Who that is, with its groups.
    async fn identity(
        &self,
        connection: &mut Connection,
        name: &str,
        entry: &Entry,
    ) -> Result<Verdict, LdapError> {
        let groups = match &self.config.groups {
            Some(search) => match self.groups(connection, search, name, &entry.dn).await? {
                Some(groups) => groups,
                None => {
                    let reason = format!("ldap, user {name:?}: it is in too many groups");
                    tracing::warn!(
                        reason,
                        "a user cannot log in: what a database says of it is wrong"
                    );
                    return Ok(Verdict::Wrong);
                }
            },
            None => BTreeSet::new(),
        };
        let administrators = self.config.administrators.as_deref();
        let attributes = self.config.attributes.iter().filter_map(|attribute| {
            let value = values(&entry.found, attribute).next()?;
            Some((Arc::from(attribute.as_str()), Arc::from(value)))
        });
        Ok(Verdict::Right(Arc::new(Identity {
            is_administrator: administrators.is_some_and(|group| groups.contains(group)),
            attributes: attributes.collect(),
            groups,
            ..Identity::of_user(name)
        })))
    }

    /// The names of its groups; `None` if there are too many to know them all.
    async fn groups(
        &self,
        connection: &mut Connection,
        search: &LdapSearch,
        name: &str,
        dn: &str,
    ) -> Result<Option<BTreeSet<Arc<str>>>, LdapError> {
        if self.config.bind_dn.is_some() || matches!(self.config.user, LdapUser::Searched(_)) {
            self.bind_as_server(connection).await?;
        }
        let filter = filter_of(&search.filter, name, dn);
        let limits = SearchOptions::new().sizelimit(GROUPS_MAX);
        connection.with_search_options(limits);
        let attribute = self.config.group_attribute.as_str();
        let attributes = vec![attribute];
        let searched = connection.search(&search.base, Scope::Subtree, &filter, attributes);
        let found = match searched.await?.success() {
            Ok((found, _)) => found,
            Err(LdapError::LdapResult { result }) if result.rc == TOO_MANY => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut groups = BTreeSet::new();
        for entry in found.into_iter().filter(|one| !one.is_ref()) {
            let entry = SearchEntry::construct(entry);
            groups.extend(values(&entry, attribute).map(Arc::from));
        }
        Ok(Some(groups))
    }

    async fn bind_as_server(&self, connection: &mut Connection) -> Result<(), LdapError> {
        let (dn, password) = match (&self.config.bind_dn, &self.password) {
            (Some(dn), Some(password)) => (dn.as_str(), password.as_str()),
            _ => ("", ""),
        };
        connection.simple_bind(dn, password).await?.success()?;
        Ok(())
    }
}

/// The name of an entry with `name` in it, where it means nothing but itself (RFC 4514).
fn dn_of(template: &Template, name: &str) -> String {
    template.fill(|_| dn_escape(name).into_owned())
}

/// A filter with `name` and `dn` in it, where they mean nothing but themselves (RFC 4515).
fn filter_of(template: &Template, name: &str, dn: &str) -> String {
    template.fill(|placeholder| {
        let value = match placeholder {
            Placeholder::Dn => dn,
            _ => name,
        };
        ldap_escape(value).into_owned()
    })
}

/// Whether the directory lets `dn` in with `password`, which is not empty.
async fn bind(connection: &mut Connection, dn: &str, password: &str) -> Result<bool, LdapError> {
    let result: LdapResult = connection.simple_bind(dn, password).await?;
    match result.rc {
        0 => Ok(true),
        rc if NO_MATTER_WHY.contains(&rc) => Ok(false),
        _ => Err(LdapError::from(result)),
    }
}

/// The values of an attribute, whose name is written in any case.
fn values<'a>(entry: &'a SearchEntry, attribute: &str) -> impl Iterator<Item = &'a str> {
    let found = entry.attrs.iter();
    let mut found = found.filter(move |(name, _)| name.eq_ignore_ascii_case(attribute));
    let values = found.next().map(|(_, values)| values.as_slice());
    values.unwrap_or_default().iter().map(String::as_str)
}

/// Ends a task when the question that it serves is answered or given up.
struct Ended(tokio::task::AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What TLS to the directory is made with.
fn client_config(server: &DirectoryServer) -> Result<ClientConfig, AuthenticationError> {
    let roots = match &server.ca {
        Some(path) => roots_of(path, AuthenticationError::read(path)?.as_bytes())?,
        None => {
            let mut roots = RootCertStore::empty();
            // What of the system's cannot be read signs nothing for us.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AuthenticationError::Server {
            name: "ldap",
            problem: error.to_string(),
        })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// RFC 4511, Appendix A: noSuchObject.
const NO_SUCH: u32 = 32;
/// sizeLimitExceeded.
const TOO_MANY: u32 = 4;
/// insufficientAccessRights.
const NO_RIGHTS: u32 = 50;
/// constraintViolation, noSuchObject, invalidDNSyntax, inappropriateAuthentication, invalidCredentials,
/// insufficientAccessRights and unwillingToPerform: this user is not let in, whatever the reason.
const NO_MATTER_WHY: [u32; 7] = [19, NO_SUCH, 34, 48, 49, NO_RIGHTS, 53];
/// So many groups of a user are asked for; with more it is not known which are missing, and nobody is let in.
const GROUPS_MAX: i32 = 1000;
/// A name that no entry has.
const NOBODY: &str = "no-such-user-5d0f4b";

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Placeholder; 2] = [Placeholder::UserName, Placeholder::Dn];

    /// Class A: a name with what names and filters of LDAP are made of is a name still.
    #[test]
    fn name_means_nothing_but_itself_wherever_it_is_put() {
        let dn = Template::parse("uid=${username},o=x", &BOTH).expect("is a template");
        let dns = [
            ("anna", "uid=anna,o=x"),
            ("anna,ou=root", "uid=anna\\2cou\\3droot,o=x"),
            ("a+cn=b", "uid=a\\2bcn\\3db,o=x"),
            (" #a ", "uid=\\20#a\\20,o=x"),
            ("#a\\\"<>;", "uid=\\23a\\5c\\22\\3c\\3e\\3b,o=x"),
        ];
        for (name, expected) in dns {
            assert_eq!(dn_of(&dn, name), expected, "{name}");
        }
        let filter = "(&(uid=${username})(member=${dn}))";
        let filter = Template::parse(filter, &BOTH).expect("is a template");
        let filled = filter_of(&filter, "*)(uid=*\\", "cn=a(b),o=x");
        assert_eq!(
            filled,
            "(&(uid=\\2a\\29\\28uid=\\2a\\5c)(member=cn=a\\28b\\29,o=x))"
        );
    }
}

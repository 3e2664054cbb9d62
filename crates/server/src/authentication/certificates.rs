//! Client certificates: TLS has judged them, a name in them is the user.
//!
//! Owns: [`Certificates`], [`CertificateUser`]. Does not own: which certificates are good (see `crate::tls`), what
//! they say (see [`ClientCertificate`]). Start reading at [`Certificates::authenticate`].
//! Invariant: a certificate that does not say one name of the wanted kind lets nobody in.

use proto::packet::ReasonCode;

use super::certificate::{AlternativeName, ClientCertificate};
use super::passwords::is_user_name;
use super::{Attempt, Authenticator, Decision, Exchange, Identity};

/// Which part of a certificate is the user's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUser {
    /// The Common Name.
    CommonName,
    /// The whole subject, in the form of RFC 4514.
    Subject,
    /// The only DNS name.
    Dns,
    /// The only e-mail address.
    Email,
    /// The only URI.
    Uri,
}

/// Lets Clients in by their certificates. One that shows none is left to the next authenticator.
#[derive(Clone, Copy, Debug)]
pub struct Certificates {
    user: CertificateUser,
}

impl Certificates {
    /// Takes `user` for the name.
    #[must_use]
    pub const fn new(user: CertificateUser) -> Self {
        Self { user }
    }

    /// The name that `certificate` gives; `None` if it gives none, or several.
    fn name(self, certificate: &ClientCertificate) -> Option<&str> {
        let name = match self.user {
            CertificateUser::CommonName => certificate.common_name.as_deref(),
            CertificateUser::Subject => Some(certificate.subject.as_str()),
            _ => {
                let mut names = certificate.names.iter().filter_map(|name| self.part(name));
                names.next().filter(|_| names.next().is_none())
            }
        };
        name.filter(|name| is_user_name(name))
    }

    fn part(self, name: &AlternativeName) -> Option<&str> {
        match (self.user, name) {
            (CertificateUser::Dns, AlternativeName::Dns(name))
            | (CertificateUser::Email, AlternativeName::Email(name))
            | (CertificateUser::Uri, AlternativeName::Uri(name)) => Some(name),
            _ => None,
        }
    }
}

impl Authenticator for Certificates {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let certificate = attempt.certificate?;
        let deny = |text: &str| Some(Decision::Deny(ReasonCode::NotAuthorized, text.to_owned()));
        let Some(name) = self.name(certificate) else {
            return deny("the certificate does not say one name of the wanted kind");
        };
        if attempt.user_name.is_some_and(|said| said != name) {
            return deny("the certificate is of another user");
        }
        Some(Decision::Allow {
            identity: Identity::of_user(name),
            data: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            common_name: Some("pump".to_owned()),
            subject: "CN=pump,O=Works".to_owned(),
            names: vec![
                AlternativeName::Dns("a.example".to_owned()),
                AlternativeName::Email("pump@example".to_owned()),
                AlternativeName::Dns("b.example".to_owned()),
                AlternativeName::Uri("urn:pump".to_owned()),
            ],
            ends_at: None,
        }
    }

    /// The user that is let in; "refused", or "next".
    fn answer(
        user: CertificateUser,
        certificate: Option<&ClientCertificate>,
        user_name: Option<&str>,
    ) -> String {
        let attempt = Attempt {
            client_id: "a",
            user_name,
            password: None,
            data: None,
            peer: ([127, 0, 0, 1], 9).into(),
            version: proto::Version::V5,
            listener: "tls",
            anonymous: None,
            certificate,
            is_for_others: false,
        };
        match Certificates::new(user).authenticate(&attempt, &mut Exchange::default()) {
            Some(Decision::Allow { identity, .. }) => {
                identity.user.expect("a user").as_ref().to_owned()
            }
            Some(Decision::Deny(ReasonCode::NotAuthorized, _)) => "refused".to_owned(),
            None => "next".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn name_of_the_wanted_kind_is_the_user_if_there_is_one_of_it() {
        let certificate = certificate();
        let cases = [
            (CertificateUser::CommonName, "pump"),
            (CertificateUser::Subject, "CN=pump,O=Works"),
            (CertificateUser::Email, "pump@example"),
            (CertificateUser::Uri, "urn:pump"),
            // Two of them: which one would it be?
            (CertificateUser::Dns, "refused"),
        ];
        for (user, expected) in cases {
            assert_eq!(answer(user, Some(&certificate), None), expected, "{user:?}");
        }
        let nameless = ClientCertificate::default();
        for (user, _) in cases {
            assert_eq!(answer(user, Some(&nameless), None), "refused", "{user:?}");
        }
    }

    /// Class A: who has a certificate is who it says, and nobody else.
    #[test]
    fn user_name_beside_a_certificate_has_to_be_its_own() {
        let (user, certificate) = (CertificateUser::CommonName, certificate());
        assert_eq!(answer(user, Some(&certificate), Some("pump")), "pump");
        for other in ["valve", "", "Pump"] {
            assert_eq!(answer(user, Some(&certificate), Some(other)), "refused");
        }
        assert_eq!(answer(user, None, Some("pump")), "next");
    }
}

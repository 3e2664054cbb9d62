//! The certificate a Client has shown, as far as it says who the Client is.
//!
//! Owns: [`ClientCertificate`]. Does not own: whether it is good (TLS has judged that, see `crate::tls`), what follows
//! from it (see the authenticators). Start reading at [`ClientCertificate::parse`].
//! Invariant: a name that could be read in two ways is not given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Whom a certificate names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The Common Name; `None` if there is none, several, or one with a control character in it.
    pub common_name: Option<String>,
    /// The subject in the form of RFC 4514, `CN=pump,O=Works`; what could be taken for syntax is escaped.
    pub subject: String,
    /// Subject Alternative Names.
    pub names: Vec<AlternativeName>,
    /// When it ends, in seconds since 1970, if we have seen it ourselves: a session of TLS that is taken up again does not
    /// look.
    pub ends_at: Option<i64>,
}

/// One Subject Alternative Name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// A host name.
    Dns(String),
    /// An e-mail address.
    Email(String),
    /// A URI.
    Uri(String),
    /// An address.
    Ip(IpAddr),
}

impl ClientCertificate {
    /// The same, whatever was shown: one that cannot be read is there, and names nobody.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self::parse(der).unwrap_or_default()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.ends_at.is_some_and(|ends_at| ends_at < now)
    }

    /// Reads a certificate (DER). `None` if it cannot be read as a whole.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let alternative = certificate.subject_alternative_name().ok()?;
        let names = alternative
            .iter()
            .flat_map(|found| &found.value.general_names);
        Some(Self {
            common_name: common_name(certificate.subject()),
            subject: subject(certificate.subject()),
            names: names.filter_map(alternative_name).collect(),
            ends_at: Some(certificate.validity().not_after.timestamp()),
        })
    }
}

impl ClientCertificate {
    /// One of which only the Common Name is known, as somebody else has read it.
    #[must_use]
    pub fn of_common_name(name: &[u8]) -> Self {
        let name = std::str::from_utf8(name).ok();
        Self {
            common_name: name.and_then(plain),
            ..Self::default()
        }
    }
}

fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let mut all = subject.iter_common_name();
    let first = all.next().filter(|_| all.next().is_none())?;
    first.as_str().ok().and_then(plain)
}

/// A name without a character that nobody sees: a NUL ends it for some and not for others.
fn plain(text: &str) -> Option<String> {
    let is_plain = !text.is_empty() && !text.chars().any(char::is_control);
    is_plain.then(|| text.to_owned())
}

fn alternative_name(name: &GeneralName<'_>) -> Option<AlternativeName> {
    match name {
        GeneralName::DNSName(name) => plain(name).map(AlternativeName::Dns),
        GeneralName::RFC822Name(name) => plain(name).map(AlternativeName::Email),
        GeneralName::URI(name) => plain(name).map(AlternativeName::Uri),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).into());
            let v6 = || <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).into());
            v4.or_else(|_| v6()).ok().map(AlternativeName::Ip)
        }
        _ => None,
    }
}

/// RFC 4514, section 2: the last one first.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes: Vec<String> = part.iter().map(attribute).collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = KINDS.iter().find(|(number, _)| *number == oid);
    let name = known.map_or(oid.as_str(), |(_, name)| name);
    match attribute.as_str() {
        Ok(value) => format!("{name}={}", escaped(value)),
        // A kind of text that we do not read is given as bytes.
        Err(_) => {
            let bytes = attribute.as_slice().iter();
            let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
            format!("{name}=#{hex}")
        }
    }
}

/// RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let is_syntax = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || c == '#' && at == 0
            || c == ' ' && (at == 0 || at == last);
        if is_syntax {
            text.extend(['\\', c]);
        } else if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                text.push_str(&format!("\\{byte:02x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Kinds of attributes that have a name in RFC 4514, section 3.
const KINDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(parts: &[(DnType, &str)], names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    #[test]
    fn everything_that_names_a_client_is_read() {
        let names = vec![
            SanType::DnsName("pump.example".try_into().expect("a name")),
            SanType::Rfc822Name("pump@works.example".try_into().expect("a name")),
            SanType::URI("urn:pump:7".try_into().expect("a name")),
            SanType::IpAddress([10, 0, 0, 7].into()),
        ];
        let parts = [
            (DnType::OrganizationName, "Works"),
            (DnType::CommonName, "pump"),
        ];
        let read = ClientCertificate::parse(&certificate(&parts, names)).expect("is read");
        assert_eq!(read.common_name.as_deref(), Some("pump"));
        assert_eq!(read.subject, "CN=pump,O=Works");
        let expected = [
            AlternativeName::Dns("pump.example".to_owned()),
            AlternativeName::Email("pump@works.example".to_owned()),
            AlternativeName::Uri("urn:pump:7".to_owned()),
            AlternativeName::Ip([10, 0, 0, 7].into()),
        ];
        assert_eq!(read.names, expected);
    }

    /// A Client may choose what stands in its request for a certificate; nobody else's name may come of it.
    #[test]
    fn a_name_cannot_pass_for_another_one() {
        let read = |name| {
            let der = certificate(&[(DnType::CommonName, name)], Vec::new());
            ClientCertificate::parse(&der).expect("is read")
        };
        assert_eq!(read("admin\0.example").common_name, None);
        assert_eq!(read("admin\n").common_name, None);
        assert_eq!(read("admin\0").subject, "CN=admin\\00");
        assert_eq!(read("a,O=Works").subject, "CN=a\\,O=Works");
        assert_eq!(read(" #a ").subject, "CN=\\ #a\\ ");
        assert_eq!(read("#a").subject, "CN=\\#a");
        let none = ClientCertificate::parse(&certificate(&[], Vec::new()));
        assert_eq!(none.expect("is read").common_name, None);
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        let mut der = certificate(&[(DnType::CommonName, "pump")], Vec::new());
        assert_eq!(ClientCertificate::parse(&der[..der.len() - 1]), None);
        der.push(0);
        assert_eq!(ClientCertificate::parse(&der), None);
        assert_eq!(ClientCertificate::parse(&[]), None);
    }
}

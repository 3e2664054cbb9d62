//! `http = { ... }`: a service that is asked by HTTP.
//!
//! Owns: [`HttpConfig`], its defaults, which values fit. Does not own: files of certificates and secrets, which
//! are read when a policy is made (see `crate::outbound`). Start reading at [`HttpConfig`].
//! Invariant: what is asked beyond this machine is asked by TLS, unless that was turned off in words.

use std::net::IpAddr;
use std::path::PathBuf;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Uri, http};
use toml::Spanned;

use super::asking::{self, AskConfig, RawAsks};
use super::checked::Fault;
use super::raw::RawHttp;
use super::tls::CertificateFiles;

/// A service that is asked by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it is. `http` only on this machine, or with `insecure`.
    pub url: Uri,
    /// What each question carries in its head; values do not print. Default: nothing of its own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A file with a secret that each question carries as `Authorization: Bearer`. Default: none.
    pub bearer_file: Option<PathBuf>,
    /// Who its certificate has to be of: certificates in PEM. Default: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// What we show it. Default: nothing.
    pub certificate: Option<CertificateFiles>,
    /// Whether passwords may travel to it in plain text. Default: no.
    pub insecure: bool,
    /// How it is asked.
    pub asks: AskConfig,
}

pub(super) fn check(raw: Spanned<RawHttp>) -> Result<HttpConfig, Fault> {
    let span = raw.span();
    let raw = raw.into_inner();
    let url = check_url(&raw.url, raw.insecure)?;
    let mut headers = Vec::new();
    for (name, value) in raw.headers {
        headers.push(check_header(&name, &value)?);
    }
    let certificate = match (raw.certificate, raw.key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (None, None) => None,
        _ => {
            return Err(Fault {
                span: Some(span),
                message: "a certificate needs its key, and a key its certificate".to_owned(),
            });
        }
    };
    Ok(HttpConfig {
        url,
        headers,
        bearer_file: raw.bearer_file,
        ca: raw.ca,
        certificate,
        insecure: raw.insecure,
        asks: asking::check(RawAsks {
            timeout: raw.timeout,
            at_once: raw.at_once,
            on_error: raw.on_error,
            cache: raw.cache,
            breaker: raw.breaker,
        })?,
    })
}

/// A URL that can be asked, in the way that is allowed.
pub(super) fn check_url(raw: &Spanned<String>, is_insecure: bool) -> Result<Uri, Fault> {
    let fault = |message: &str| Fault {
        span: Some(raw.span()),
        message: message.to_owned(),
    };
    let wanted = "wanted a URL like https://auth.example/mqtt";
    let url: Uri = raw.get_ref().parse().map_err(|_| fault(wanted))?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(fault(wanted));
    };
    if authority.as_str().contains('@') {
        return Err(fault(
            "a name and a password do not belong in a URL: see headers and bearer_file",
        ));
    }
    match scheme {
        "https" => Ok(url),
        "http" if is_insecure || is_here(authority) => Ok(url),
        "http" => Err(fault(
            "this would travel in plain text, for everybody to read and change: use https, or say insecure = true",
        )),
        _ => Err(fault(wanted)),
    }
}

/// Whether that is this machine, whatever a name server says.
fn is_here(authority: &http::uri::Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn check_header(
    name: &Spanned<String>,
    value: &Spanned<String>,
) -> Result<(HeaderName, HeaderValue), Fault> {
    let fault = |of: &Spanned<String>, message: &str| Fault {
        span: Some(of.span()),
        message: message.to_owned(),
    };
    let parsed: HeaderName = name
        .get_ref()
        .parse()
        .map_err(|_| fault(name, "this is no name of a header"))?;
    if OURS.contains(&parsed.as_str()) {
        return Err(fault(name, "this header is ours to set"));
    }
    let mut value: HeaderValue = value
        .get_ref()
        .parse()
        .map_err(|_| fault(value, "a header cannot hold this"))?;
    // It may be a secret.
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// What says how long a question is and where it goes.
const OURS: [&str; 6] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
];

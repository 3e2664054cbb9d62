//! Questions by HTTP.
//!
//! Owns: [`HttpClient`]: connections that are kept, what is read of an answer at most. Does not own: what is
//! asked, what an answer means (see the authenticators), time-outs (see [`super::BackEnd`]). Start reading at
//! [`HttpClient::post`]. Invariants: no redirect is followed; nothing that an error says is of a question.

use std::error::Error;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::AskError;
use crate::config::HttpConfig;
use crate::tls::{self, TlsError};

/// Asks one service.
#[derive(Debug)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    answer_bytes_max: usize,
}

/// Why a service cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The file with its secret cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no secret in it, or one that cannot travel.
    #[error("{}:1: no secret that a header can hold", path.display())]
    NoSecret {
        /// Which.
        path: PathBuf,
    },
    /// TLS to it cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a service has answered.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl HttpClient {
    /// Reads the files that `config` names. Of an answer `answer_bytes_max` are read at most.
    /// # Errors
    /// One of them cannot be used.
    pub(crate) fn new(config: &HttpConfig, answer_bytes_max: usize) -> Result<Self, HttpError> {
        let mut headers: HeaderMap = config.headers.iter().cloned().collect();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let agent = HeaderValue::from_static(concat!("vencejo/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        if let Some(path) = &config.bearer_file {
            headers.insert(AUTHORIZATION, bearer(path)?);
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.asks.timeout));
        let is_secure = config.url.scheme_str() == Some("https");
        let tls = tls::client(config.ca.as_deref(), config.certificate.as_ref(), is_secure)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(config.asks.at_once)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(Self {
            client,
            url: config.url.clone(),
            headers,
            answer_bytes_max,
        })
    }

    /// Asks for what is there.
    pub(crate) async fn get(&self) -> Result<HttpAnswer, AskError> {
        self.ask(Method::GET, Bytes::new()).await
    }

    /// Asks with `body`, which is JSON.
    pub(crate) async fn post(&self, body: Bytes) -> Result<HttpAnswer, AskError> {
        self.ask(Method::POST, body).await
    }

    async fn ask(&self, method: Method, body: Bytes) -> Result<HttpAnswer, AskError> {
        let first = self.send(&method, body.clone()).await;
        let answer = match first {
            // A connection that was kept may end at the moment it is used again.
            Err(error) if is_cut_off(&error) => self.send(&method, body).await,
            first => first,
        };
        let answer = answer.map_err(|error| AskError(words_of(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.answer_bytes_max).collect().await;
        let body = body.map_err(|error| {
            AskError(match error.downcast_ref::<LengthLimitError>() {
                Some(_) => "the answer is too long".to_owned(),
                None => "the answer ends in its middle".to_owned(),
            })
        })?;
        Ok(HttpAnswer {
            status: head.status,
            body: body.to_bytes(),
        })
    }

    async fn send(&self, method: &Method, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        if *method == Method::POST {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        self.client.request(request).await
    }
}

/// Whether the other side has closed before it said anything.
fn is_cut_off(error: &ClientError) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<hyper::Error>());
    !error.is_connect() && source.is_some_and(hyper::Error::is_incomplete_message)
}

/// The last cause is the one that says something.
fn words_of(error: &ClientError) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_connect() {
        return format!("cannot connect: {cause}");
    }
    cause.to_string()
}

fn bearer(path: &Path) -> Result<HeaderValue, HttpError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(HttpError::Unreadable { path, source }),
    };
    let secret = text.trim();
    let value = (!secret.is_empty()).then(|| HeaderValue::from_str(&format!("Bearer {secret}")));
    match value {
        Some(Ok(mut value)) => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(HttpError::NoSecret { path }),
    }
}

/// So long a connection is kept that nothing is asked on: less than services keep theirs.
const IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(2);
/// The head of an answer is not longer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

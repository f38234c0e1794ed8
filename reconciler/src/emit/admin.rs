//! Envoy's admin interface, on its Unix socket.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time};

/// For one whole exchange; the admin interface shares Envoy's main thread
/// with configuration updates.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_BODY: usize = 32 << 20;

/// A client of one Envoy's admin interface.
#[derive(Debug, Clone)]
pub struct Admin {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens on the socket.
    #[error("Envoy's admin socket {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer within five seconds.
    #[error("Envoy's admin interface did not answer {0} within {max} s", max = TIMEOUT.as_secs())]
    Timeout(String),
    /// A broken answer, or one that is no success.
    #[error("Envoy's admin interface answered {path}: {why}")]
    Answer {
        /// What was asked.
        path: String,
        /// What came.
        why: String,
    },
}

impl Admin {
    /// A client of the Envoy whose admin socket this is.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The body of `GET path`.
    ///
    /// # Errors
    /// When Envoy does not answer, or with anything but 200.
    pub async fn get(&self, path: &str) -> Result<String, AdminError> {
        self.ask(Method::GET, path).await
    }

    /// The body of `POST path`, for what changes Envoy.
    ///
    /// # Errors
    /// As [`Admin::get`].
    pub async fn post(&self, path: &str) -> Result<String, AdminError> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<String, AdminError> {
        let exchange = self.exchange(method, path);
        let answer = time::timeout(TIMEOUT, exchange).await;
        answer.map_err(|_| AdminError::Timeout(path.into()))?
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<String, AdminError> {
        let broken = |why: String| AdminError::Answer {
            path: path.into(),
            why,
        };
        let connected = UnixStream::connect(&self.socket).await;
        let stream = connected.map_err(|source| AdminError::Connect {
            path: self.socket.clone(),
            source,
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(e.to_string()))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "admin")
            .body(Empty::<Bytes>::new());
        let answer = async {
            let request = request.map_err(|e| broken(e.to_string()))?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| broken(e.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let bytes = body.map_err(|e| broken(e.to_string()))?.to_bytes();
            match status.is_success() {
                true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                false => Err(broken(status.to_string())),
            }
        };
        let answer = answer.await;
        connection.abort();
        answer
    }

    /// The values of the statistics whose names contain `part`, as text.
    ///
    /// # Errors
    /// As [`Admin::get`].
    pub async fn stats(&self, part: &str) -> Result<Vec<(String, String)>, AdminError> {
        let body = self.get(&format!("/stats?filter={part}")).await?;
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        };
        Ok(body.lines().filter_map(pair).collect())
    }
}

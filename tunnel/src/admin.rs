//! The admin server: `GET /livez`, `/readyz`, `/metrics`, `PUT /log` to change
//! the log filter, and of dialer and connector `GET /status`.
//!
//! It is bound to loopback unless told otherwise, and it asks nobody who they
//! are: whoever can reach it can read the status and change the log filter,
//! and nothing else.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::{log::LogHandle, status::Status};

/// Where the admin server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AdminAddr {
    /// `127.0.0.1:9901`; port 0 for any.
    Tcp(SocketAddr),
    /// `unix:/run/adit/admin.sock`, made with mode 0600.
    Unix(PathBuf),
}

/// A text that is no admin address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no admin address; write 127.0.0.1:9901 or unix:/run/adit/admin.sock")]
pub struct BadAdminAddr(String);

/// What the server tells.
#[derive(Clone)]
pub struct Admin {
    /// The state of the process.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// The metrics in the OpenMetrics text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The logger, where it may be changed.
    pub log: Option<LogHandle>,
}

/// What the server of any process tells.
#[derive(Clone)]
pub struct Health {
    /// Whether the process serves.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The metrics in the OpenMetrics text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The logger, where it may be changed.
    pub log: Option<LogHandle>,
}

/// Why there is no admin server.
#[derive(Debug, thiserror::Error)]
#[error("the admin server on {addr}: {source}; choose another --admin address")]
pub struct AdminError {
    addr: AdminAddr,
    source: io::Error,
}

/// Binds `addr` and serves until `shutdown`. Returns the address that was
/// bound.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    addr: AdminAddr,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<AdminAddr, AdminError> {
    let Admin {
        status,
        metrics,
        log,
    } = admin;
    let of_ready = status.clone();
    let health = Health {
        ready: Arc::new(move || of_ready().ready),
        metrics,
        log,
    };
    let page = get(async move || Json(status()));
    listen(addr, pages(health).route("/status", page), shutdown).await
}

/// As [`serve`], of a process without a `/status`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve_health(
    addr: AdminAddr,
    health: Health,
    shutdown: CancellationToken,
) -> Result<AdminAddr, AdminError> {
    listen(addr, pages(health), shutdown).await
}

fn pages(health: Health) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/log", put(set_log))
        .layer(DefaultBodyLimit::max(4096))
        .with_state(health)
}

async fn listen(
    addr: AdminAddr,
    app: Router,
    shutdown: CancellationToken,
) -> Result<AdminAddr, AdminError> {
    let failed = |source| AdminError {
        addr: addr.clone(),
        source,
    };
    let stop = shutdown.clone().cancelled_owned();
    match &addr {
        AdminAddr::Tcp(wanted) => {
            if !wanted.ip().is_loopback() {
                tracing::warn!(%addr, "the admin server is reachable from outside this host and asks nobody who they are");
            }
            let listener = TcpListener::bind(wanted).await.map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, app)
                    .with_graceful_shutdown(stop)
                    .await
                {
                    tracing::error!(%error, "the admin server stopped");
                }
            });
            Ok(AdminAddr::Tcp(bound))
        }
        AdminAddr::Unix(path) => {
            let listener = bind_unix(path).await.map_err(failed)?;
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, app)
                    .with_graceful_shutdown(stop)
                    .await
                {
                    tracing::error!(%error, "the admin server stopped");
                }
            });
            Ok(addr)
        }
    }
}

/// Binds a Unix socket of mode 0600. A stale file is replaced, but only if it
/// is a socket where nobody answers.
async fn bind_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the file exists and is no socket",
            ));
        }
        let answer = tokio::time::timeout(
            Duration::from_secs(1),
            tokio::net::UnixStream::connect(path),
        )
        .await;
        match answer {
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process serves it",
                ));
            }
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if (health.ready)() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], (health.metrics)()).into_response()
}

async fn set_log(State(health): State<Health>, filter: String) -> Response {
    let Some(log) = health.log else {
        return (
            StatusCode::NOT_FOUND,
            "this process's log filter is fixed\n",
        )
            .into_response();
    };
    match log.set(&filter) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "the log filter was changed");
            "ok\n".into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

impl FromStr for AdminAddr {
    type Err = BadAdminAddr;

    fn from_str(text: &str) -> Result<Self, BadAdminAddr> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(_) => Err(BadAdminAddr(text.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| BadAdminAddr(text.into())),
        }
    }
}

impl TryFrom<String> for AdminAddr {
    type Error = BadAdminAddr;

    fn try_from(text: String) -> Result<Self, BadAdminAddr> {
        text.parse()
    }
}

impl From<AdminAddr> for String {
    fn from(addr: AdminAddr) -> Self {
        addr.to_string()
    }
}

impl fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

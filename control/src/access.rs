//! Which API server, as whom.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde::{Deserialize, Serialize};

/// For TCP and TLS to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a request's body. A read without a time limit would hang with a server
/// that has gone away silently; a calm watch speaks at least every 290 s, as it
/// asks the server to end it then (kube's default).
const READ_TIMEOUT: Duration = Duration::from_secs(295);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The options that choose an API server. Without any there is none.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
// clap names a group after the type, and each command has Options of its own.
#[group(id = "control")]
pub struct Options {
    /// Use the Kubernetes API that this file names
    #[arg(long, env = "ADIT_KUBECONFIG", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, env = "ADIT_KUBE_CONTEXT", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_context: Option<String>,
    /// Use the Kubernetes API of the cluster that this process runs in
    #[arg(long, env = "ADIT_IN_CLUSTER", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_cluster: Option<bool>,
    /// The namespace of this process's own objects [default: the kubeconfig's, or the pod's]
    #[arg(short = 'n', long, env = "ADIT_NAMESPACE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A client and the namespace that it works in.
#[derive(Clone)]
pub struct Access {
    /// The client.
    pub client: Client,
    /// The namespace of the process's own objects.
    pub namespace: String,
}

/// Why there is no access.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Two ways at once.
    #[error("--kubeconfig and --in-cluster exclude each other")]
    Both,
    /// A context for no file.
    #[error("--kube-context chooses in a kubeconfig: give --kubeconfig FILE too")]
    ContextAlone,
    /// The file.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// No pod.
    #[error(
        "--in-cluster: {0}; outside a pod give --kubeconfig FILE, in a pod mount its service account token"
    )]
    InCluster(#[from] InClusterError),
    /// TLS or a proxy.
    #[error("a client for the Kubernetes API at {url}: {source}")]
    Client {
        /// The server.
        url: String,
        /// The cause.
        source: Box<kube::Error>,
    },
}

/// An option without the one that gives it a meaning.
#[derive(Debug, thiserror::Error)]
#[error(
    "--{0} has no meaning without a Kubernetes API: give --kubeconfig FILE or --in-cluster too"
)]
pub struct Meaningless(pub &'static str);

impl Options {
    /// Whether an API server is to be used at all.
    pub fn wanted(&self) -> bool {
        self.kubeconfig.is_some() || self.in_cluster == Some(true)
    }

    /// The client; `None` when no API server is to be used. Nothing is sent.
    ///
    /// # Errors
    /// When the options contradict each other or name nothing usable.
    pub async fn access(&self) -> Result<Option<Access>, AccessError> {
        let mut config = match (&self.kubeconfig, self.in_cluster == Some(true)) {
            (Some(_), true) => return Err(AccessError::Both),
            (None, _) if self.kube_context.is_some() => return Err(AccessError::ContextAlone),
            (None, false) => return Ok(None),
            (None, true) => Config::incluster()?,
            (Some(path), false) => {
                let failed = |source| AccessError::Kubeconfig {
                    path: path.clone(),
                    source,
                };
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                let options = KubeConfigOptions {
                    context: self.kube_context.clone(),
                    ..KubeConfigOptions::default()
                };
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(failed)?
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.write_timeout = Some(WRITE_TIMEOUT);
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|source| AccessError::Client {
            url,
            source: Box::new(source),
        })?;
        Ok(Some(Access { client, namespace }))
    }
}

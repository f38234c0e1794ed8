//! The options of `adit cleanup`.

use std::time::Duration;

use adit_tunnel::options::Interval;

use super::Cleanup;

/// For thousands of objects, and a Lease whose holder was killed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a person says.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Which API server.
    #[command(flatten)]
    pub control: adit_control::Options,
    /// A namespace that the reconciler watched; may be repeated [default: all]
    #[arg(
        long,
        env = "ADIT_WATCH_NAMESPACE",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub watch_namespace: Vec<String>,
    /// The reconciler's --gateway: its namespace is looked at beside those that were watched
    #[arg(long, env = "ADIT_GATEWAY", value_name = "NAMESPACE/NAME")]
    pub gateway: Option<String>,
    /// The reconciler's Deployment, in --namespace, to scale to none first
    #[arg(long, env = "ADIT_DEPLOYMENT", value_name = "NAME")]
    pub deployment: Option<String>,
    /// The reconciler's --leader-lease-name
    #[arg(
        long,
        env = "ADIT_LEADER_LEASE_NAME",
        value_name = "NAME",
        default_value = "adit-reconciler"
    )]
    pub leader_lease_name: String,
    /// A ConnectorClass to remove too, if it is labelled as Adit's
    #[arg(long, env = "ADIT_CONNECTOR_CLASS", value_name = "NAME")]
    pub connector_class: Option<String>,
    /// How long all of it may take [default: 2m]
    #[arg(long, env = "ADIT_TIMEOUT", value_name = "TIME")]
    pub timeout: Option<Interval>,
    /// Say what would be removed, and change nothing [default: false]
    #[arg(long, env = "ADIT_DRY_RUN", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub dry_run: Option<bool>,
}

/// An option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// Not `NAMESPACE/NAME`.
    #[error("--gateway {0:?}: write NAMESPACE/NAME")]
    Gateway(String),
    /// No API server.
    #[error("which Kubernetes API? Give --kubeconfig FILE, or --in-cluster in a pod")]
    NoControl,
}

impl Options {
    /// Checks them.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn resolve(self) -> Result<Cleanup, OptionError> {
        if !self.control.wanted() {
            return Err(OptionError::NoControl);
        }
        let mut namespaces = self.watch_namespace;
        if let Some(gateway) = self.gateway {
            match gateway.split_once('/') {
                // Without namespaces to watch it is looked at everywhere.
                Some((namespace, _)) if !namespaces.is_empty() => namespaces.push(namespace.into()),
                Some(_) => {}
                None => return Err(OptionError::Gateway(gateway)),
            }
        }
        namespaces.sort();
        namespaces.dedup();
        Ok(Cleanup {
            control: self.control,
            namespaces,
            deployment: self.deployment,
            leader_lease: self.leader_lease_name,
            connector_class: self.connector_class,
            timeout: self.timeout.map_or(TIMEOUT, |t| t.0),
            dry_run: self.dry_run == Some(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(watch: &[&str], gateway: &str) -> Options {
        Options {
            control: adit_control::Options {
                in_cluster: Some(true),
                ..adit_control::Options::default()
            },
            watch_namespace: watch.iter().map(|w| (*w).to_owned()).collect(),
            gateway: Some(gateway.into()),
            ..Options::default()
        }
    }

    #[test]
    fn the_gateways_namespace_is_looked_at_beside_the_watched_ones() {
        let places = |watch: &[&str]| given(watch, "edge/gw").resolve().unwrap().namespaces;
        assert_eq!(places(&["b", "a", "edge", "b"]), ["a", "b", "edge"]);
        assert_eq!(places(&["a"]), ["a", "edge"]);
        assert!(places(&[]).is_empty(), "everywhere");
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = given(&[], "gw").resolve().unwrap_err();
        assert!(error.to_string().contains("NAMESPACE/NAME"), "{error}");
        let error = Options::default().resolve().unwrap_err();
        assert!(error.to_string().contains("--kubeconfig"), "{error}");
    }
}

//! The dialer in a Kubernetes API: it reads where connectors are and which
//! targets are live, and says by a Lease which key it dials with.
//!
//! ```text
//! Connectors ──────────┐                      ┌► Lease adit-dialer-<id>
//! EnvoyPatchPolicies ──┴─► discovery sources  │   holderIdentity = EndpointId
//!                                             └ renewed; deleted at the end
//! ```

use std::{sync::Arc, time::Duration};

use adit_api::labels::{DIALER_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use adit_control::{
    Access, AccessError, Contact, Failure, Meaningless, apply,
    lease::{self, Schedule},
};
use adit_wire::EndpointId;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::discovery::{self, Sources};

const STEP: &str = "renew the Lease";
/// The field manager of the Lease.
const MANAGER: &str = "adit-dialer";
/// How long the end of the process waits for the Lease to be deleted.
const FAREWELL: Duration = Duration::from_secs(3);

/// The options of `adit dialer` that concern the Kubernetes API. A flag, its
/// environment variable and its file key have one name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ControlOptions {
    /// Which API server
    #[command(flatten)]
    #[serde(flatten)]
    pub control: adit_control::Options,
    /// Read Connectors of this namespace only; may be repeated [default: of all namespaces]
    #[arg(
        long,
        env = "ADIT_WATCH_NAMESPACE",
        value_name = "NAME",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch_namespace: Vec<String>,
    /// Close streams of targets that no EnvoyPatchPolicy of this namespace names; may be repeated [default: close none]
    #[arg(
        long,
        env = "ADIT_GATEWAY_NAMESPACE",
        value_name = "NAME",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateway_namespace: Vec<String>,
}

/// Checked.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Which API server.
    pub control: adit_control::Options,
    /// Where Connectors are; empty for everywhere.
    pub watch_namespaces: Vec<String>,
    /// Where the policies with live targets are; empty for nowhere.
    pub gateway_namespaces: Vec<String>,
}

impl ControlOptions {
    /// `None` without an API server.
    ///
    /// # Errors
    /// When an option has no meaning.
    pub fn resolve(self) -> Result<Option<ControlConfig>, Meaningless> {
        if self.control.wanted() {
            return Ok(Some(ControlConfig {
                control: self.control,
                watch_namespaces: self.watch_namespace,
                gateway_namespaces: self.gateway_namespace,
            }));
        }
        match (
            self.watch_namespace.is_empty(),
            self.gateway_namespace.is_empty(),
        ) {
            (true, true) => Ok(None),
            (false, _) => Err(Meaningless("watch-namespace")),
            (true, false) => Err(Meaningless("gateway-namespace")),
        }
    }
}

/// The dialer's standing in the API.
#[derive(Clone)]
pub(crate) struct Presence {
    pub(crate) contact: Contact,
    api: Api<Lease>,
    name: String,
    id: EndpointId,
    /// The Lease as this process wrote it last.
    written: Arc<Mutex<Option<Lease>>>,
}

impl Presence {
    /// Begins to read and to renew, until `stop`. Nothing is waited for.
    ///
    /// # Errors
    /// When the options name no API server that can be used.
    pub(crate) async fn start(
        config: ControlConfig,
        id: EndpointId,
        sources: Sources,
        stop: CancellationToken,
    ) -> Result<Option<Self>, AccessError> {
        let Some(Access { client, namespace }) = config.control.access().await? else {
            return Ok(None);
        };
        let name = format!("adit-dialer-{}", &id.to_string()[..10]);
        let contact = Contact::new(format!("{namespace}/{name}"));
        let presence = Self {
            contact: contact.clone(),
            api: Api::namespaced(client.clone(), &namespace),
            name,
            id,
            written: Arc::default(),
        };
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(discovery::kubernetes::follow(
                    client.clone(),
                    config.watch_namespaces,
                    contact.clone(),
                    sources.clone(),
                )),
        );
        if !config.gateway_namespaces.is_empty() {
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(discovery::live_targets::follow(
                        client,
                        config.gateway_namespaces,
                        contact,
                        sources,
                    )),
            );
        }
        let renewing = presence.clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move { renewing.renew().await }));
        Ok(Some(presence))
    }

    async fn renew(&self) {
        let mut schedule = Schedule::new(lease::DEFAULT_DURATION);
        loop {
            let pause = match self.attempt(&schedule).await {
                Ok(()) => {
                    self.contact.ok(STEP);
                    self.contact.renewed();
                    schedule.renewed(rand::random())
                }
                Err(failure) => {
                    self.contact.failed(STEP, failure);
                    schedule.failed(rand::random())
                }
            };
            sleep(pause).await;
        }
    }

    async fn attempt(&self, schedule: &Schedule) -> Result<(), Failure> {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": {DIALER_LABEL: "true", MANAGED_BY_LABEL: MANAGED_BY},
            },
            "spec": {
                "holderIdentity": self.id.to_string(),
                "leaseDurationSeconds": schedule.duration().as_secs(),
                "renewTime": lease::micro_time(Timestamp::now()),
            },
        });
        let mut written = self.written.lock().await;
        let write = apply::object(&self.api, MANAGER, &object, &self.name);
        let lease = timeout(schedule.attempt(), write)
            .await
            .map_err(|_| Failure::timed_out(schedule.attempt()))??;
        *written = Some(lease);
        Ok(())
    }

    /// Takes the Lease away, so that connectors need not let this key in any
    /// more; unless another process with the same key has renewed it since.
    pub(crate) async fn end(self) {
        let Ok(written) = timeout(FAREWELL, self.written.lock()).await else {
            return;
        };
        let Some(lease) = &*written else { return };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                resource_version: lease.metadata.resource_version.clone(),
                uid: lease.metadata.uid.clone(),
            }),
            ..DeleteParams::default()
        };
        match timeout(FAREWELL, self.api.delete(&self.name, &params)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let failure = Failure::from(&error);
                tracing::info!(%failure, "the Lease was left as it is: it expires by itself");
            }
            Err(_) => {
                tracing::info!("the Lease could not be deleted in time: it expires by itself")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_without_a_control_plane_are_refused_not_ignored() {
        assert!(ControlOptions::default().resolve().unwrap().is_none());
        let options = ControlOptions {
            gateway_namespace: vec!["gateways".into()],
            ..Default::default()
        };
        let error = options.resolve().unwrap_err().to_string();
        assert!(error.contains("--gateway-namespace"), "{error}");
    }
}

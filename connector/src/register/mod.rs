//! The agent in the control plane: its Connector, its Lease, its
//! advertisement, and the dialers that it is told to let in.
//!
//! ```text
//! endpoint's addresses ─┐                      ┌─► Connector, status, Advertisement
//! targets ──────────────┼─► keep (what differs)┤
//! watch of the objects ─┘        ▲             └─► HTTPProxy, once
//!        │                       │ whose is it?
//!        │                     lease ─► renewed every third of its duration
//!        └─► status.allowedDialers ─► lists
//! ```
//!
//! Tunnels need none of it: without an API server, or with one that is away,
//! the agent serves with the lists it has.

mod addresses;
mod keep;
mod lease;
mod objects;
mod options;
mod tenure;
mod watch;

use std::sync::Arc;

use adit_control::{Access, AccessError, Contact};
use adit_tunnel::{endpoint::Supervisor, ids};
use kube::{Api, core::ApiResource};
use tokio::{sync::watch as channel, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use objects::Identity;
pub use options::{RegisterError, RegisterOptions, Settings};

use crate::lists::Lists;
use objects::Seen;

/// Why the agent cannot register.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// No way to the API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The manifest is for elsewhere.
    #[error(
        "--http-proxy: the manifest is for the namespace {manifest:?}, this agent is in {own:?} (--namespace)"
    )]
    Namespace {
        /// Of the manifest.
        manifest: String,
        /// Of the agent.
        own: String,
    },
}

/// A running registration; dropped, it ends at once and lets nothing go.
pub(crate) struct Registration {
    pub(crate) contact: Contact,
    stop: CancellationToken,
    lease: JoinHandle<()>,
    _rest: DropGuard,
}

impl Registration {
    /// Begins. Nothing is waited for.
    ///
    /// # Errors
    /// When the options name no API server that can be used.
    pub(crate) async fn start(
        settings: Settings,
        supervisor: &Supervisor,
        lists: Arc<Lists>,
    ) -> Result<Option<Self>, RegistrationError> {
        let Some(Access { client, namespace }) = settings.control.access().await? else {
            return Ok(None);
        };
        if let Some(manifest) = settings
            .proxy
            .as_ref()
            .and_then(|proxy| proxy["metadata"]["namespace"].as_str())
            .filter(|manifest| *manifest != namespace)
        {
            return Err(RegistrationError::Namespace {
                manifest: manifest.to_owned(),
                own: namespace,
            });
        }
        let identity = settings.identity;
        let key = ids::to_wire(supervisor.endpoint().id()).to_string();
        let contact = Contact::new(format!("{namespace}/{}", identity.name));
        // The process, not the machine: two of them on one are two.
        let process = format!("{}-{:08x}", identity.device_name, rand::random::<u32>());
        let process: String = process.split_whitespace().collect();
        tracing::info!(
            connector = %format!("{namespace}/{}", identity.name), class = identity.class, lease_holder = process,
            "this agent registers itself"
        );

        let connectors = watch::api(&client, &namespace, "Connector", "connectors");
        let advertisements = watch::api(
            &client,
            &namespace,
            "ConnectorAdvertisement",
            "connectoradvertisements",
        );
        let proxies = ApiResource {
            group: adit_api::networking::GROUP.to_owned(),
            version: "v1alpha".to_owned(),
            api_version: format!("{}/v1alpha", adit_api::networking::GROUP),
            kind: "HTTPProxy".to_owned(),
            plural: "httpproxies".to_owned(),
        };
        let (connector_known, connector) = channel::channel(None);
        let (advertisement_known, advertisement) = channel::channel(None);
        let (told, details) = channel::channel(None);
        let (standing_set, standing) = channel::channel(lease::Standing::default());

        let rest = CancellationToken::new();
        let spawn = |task| tokio::spawn(rest.clone().run_until_cancelled_owned(task));
        spawn(boxed(watch::one(
            connectors.clone(),
            identity.name.clone(),
            "watch the Connector",
            contact.clone(),
            connector_known,
        )));
        if settings.advertise {
            spawn(boxed(watch::one(
                advertisements.clone(),
                identity.name.clone(),
                "watch the ConnectorAdvertisement",
                contact.clone(),
                advertisement_known,
            )));
        }
        spawn(boxed(addresses::follow(supervisor.subscribe(), told)));
        spawn(boxed(grant(connector.clone(), lists.clone(), key.clone())));
        spawn(boxed(
            keep::Keeper {
                connectors,
                advertisements,
                proxies: Api::namespaced_with(client.clone(), &namespace, &proxies),
                contact: contact.clone(),
                identity,
                advertise: settings.advertise,
                proxy: settings.proxy,
                connector: connector.clone(),
                advertisement,
                details,
                policy: lists.subscribe(),
                standing,
                done: keep::Done::default(),
            }
            .run(),
        ));
        let stop = CancellationToken::new();
        let lease = lease::Keeper {
            api: Api::namespaced(client, &namespace),
            contact: contact.clone(),
            tenure: tenure::Tenure::new(process),
            key,
            connector,
            standing: standing_set,
        };
        Ok(Some(Self {
            contact,
            lease: tokio::spawn(lease.run(stop.clone())),
            stop,
            _rest: rest.drop_guard(),
        }))
    }

    /// Lets the Lease go, so that everybody sees at once that this agent ends.
    /// The objects stay: it may come back.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let _ = self.lease.await;
    }
}

fn boxed(
    task: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(task)
}

/// Lets in the dialers that the Connector's status names.
async fn grant(mut connector: channel::Receiver<watch::Known>, lists: Arc<Lists>, key: String) {
    let mut said = 0;
    while connector.changed().await.is_ok() {
        let known = connector.borrow_and_update().clone();
        // An object that is gone takes no right away: the agent makes it anew,
        // and its controller then says who may connect.
        let Some(Some(object)) = known else { continue };
        let seen = Seen(object.as_ref().clone());
        if seen.key().is_some_and(|other| other != key) {
            continue;
        }
        let Some((dialers, ignored)) = seen.dialers() else {
            continue;
        };
        if ignored > 0 && ignored != said {
            tracing::warn!(
                ignored,
                "status.allowedDialers holds entries that are no keys, or too many"
            );
        }
        said = ignored;
        let count = dialers.len();
        if lists.grant(dialers) {
            tracing::info!(dialers = count, "status.allowedDialers is in effect");
        }
    }
}

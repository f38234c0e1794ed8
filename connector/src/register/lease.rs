//! The Lease that says that this agent is alive, and whose Connector it is.

use std::{sync::Arc, time::Duration};

use adit_control::{Contact, Failure, lease, pace};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    objects::{MANAGER, Seen},
    tenure::{self, Tenure, Turn},
    watch::Known,
};

const STEP: &str = "renew the Lease";
/// The mark of an agent that stands back: its name and the time.
const CONTENDER: &str = "networking.datumapis.com/contender";
/// How long the reconciler may take to make the Lease before it is said.
const LEASE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the Lease to be emptied.
const FAREWELL: Duration = Duration::from_secs(3);

/// Whether the objects are this agent's to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not known yet: nothing is written.
    #[default]
    Unknown,
    /// There is no Lease to tell by, or it may not be read.
    Unleased,
    /// They are.
    Held {
        /// An agent that would like them to be its own.
        contender: Option<String>,
    },
    /// They are another agent's.
    Back,
}

pub(crate) struct Keeper {
    pub(crate) api: Api<Lease>,
    pub(crate) contact: Contact,
    pub(crate) tenure: Tenure,
    /// This agent's key.
    pub(crate) key: String,
    pub(crate) connector: watch::Receiver<Known>,
    pub(crate) standing: watch::Sender<Standing>,
}

/// How an attempt ended.
enum Round {
    Renewed(Lease),
    Missing,
    Back { holder: String, lease: Lease },
}

impl Keeper {
    /// Renews until `stop`, then lets the Lease go.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut schedule = lease::Schedule::new(lease::DEFAULT_DURATION);
        let known = self.connector.wait_for(Option::is_some);
        if !matches!(stop.run_until_cancelled(known).await, Some(Ok(_))) {
            return;
        }
        let mut missing = None;
        loop {
            // What makes the next round due before its time.
            let due = self.connector_lease();
            let Some(round) = stop
                .run_until_cancelled(timeout(schedule.attempt(), self.round(due.as_ref())))
                .await
            else {
                break;
            };
            let round = round.unwrap_or_else(|_| Err(Failure::timed_out(schedule.attempt())));
            if !matches!(round, Ok(Round::Missing)) {
                missing = None;
            }
            let dice = rand::random();
            let pause = match round {
                Ok(Round::Renewed(lease)) => {
                    self.contact.ok(STEP);
                    self.contact.renewed();
                    schedule.set_duration(lease::duration(&lease));
                    schedule.renewed(dice)
                }
                Ok(Round::Missing) => {
                    self.set(Standing::Unleased);
                    let since = *missing.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LEASE_PATIENCE {
                        self.contact.failed(
                            STEP,
                            Failure {
                                class: adit_control::Class::NotFound,
                                text: "there is no Lease: the reconciler makes it; is one running \
                                       for this ConnectorClass?"
                                    .to_owned(),
                            },
                        );
                    }
                    schedule.failed(dice)
                }
                Ok(Round::Back { holder, lease }) => {
                    self.contact.ok(STEP);
                    self.contact.notice(Some(format!(
                        "another agent, {holder:?}, holds this Connector's Lease and renews it: this \
                         one stands back and writes nothing; stop one of the two, or give this one \
                         another --name and --key-file"
                    )));
                    self.set(Standing::Back);
                    schedule.set_duration(lease::duration(&lease));
                    schedule.renewed(dice)
                }
                Err(failure) => {
                    // Without the right to see it there is no telling: the
                    // rest is done all the same.
                    let blind = failure.class == adit_control::Class::Forbidden;
                    if blind && *self.standing.borrow() == Standing::Unknown {
                        self.set(Standing::Unleased);
                    }
                    self.contact.failed(STEP, failure);
                    schedule.failed(dice)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.changed(&due) => {}
                () = stop.cancelled() => break,
            }
        }
        if matches!(*self.standing.borrow(), Standing::Held { .. }) {
            let _ = timeout(FAREWELL, self.release()).await;
        }
    }

    async fn round(&mut self, due: Option<&(String, String)>) -> Result<Round, Failure> {
        let Some((_, name)) = due else {
            return Ok(Round::Missing);
        };
        let Some(seen) = self.api.get_opt(name).await? else {
            return Ok(Round::Missing);
        };
        let renewed = lease::renewed(&seen).map(|at| at.to_string());
        let annotations = seen.metadata.annotations.as_ref();
        let turn = self.tenure.turn(
            tenure::Seen {
                holder: lease::holder(&seen),
                renewed: renewed.as_deref().unwrap_or_default(),
                duration: lease::duration(&seen),
                contender: annotations
                    .and_then(|a| a.get(CONTENDER))
                    .map(String::as_str),
                other_key: self.other_key(),
            },
            Instant::now(),
        );
        match turn {
            Turn::StandBack { holder } => {
                self.mark(name).await?;
                Ok(Round::Back {
                    holder,
                    lease: seen,
                })
            }
            Turn::Hold {
                displaced,
                contender,
            } => {
                let lease = lease::renew(&self.api, MANAGER, &seen, self.tenure.identity()).await?;
                if let Some(displaced) = displaced {
                    tracing::warn!(
                        displaced,
                        "this agent took the Lease over; if the other agent still runs, stop it: \
                         two agents with one key take each other's connections away"
                    );
                }
                self.contact.notice(contender.as_ref().map(|other| {
                    format!(
                        "another agent, {other:?}, also wants to be this Connector and stands back; \
                         stop one of the two"
                    )
                }));
                self.set(Standing::Held { contender });
                Ok(Round::Renewed(lease))
            }
        }
    }

    /// Leaves a mark for the holder to see.
    async fn mark(&self, name: &str) -> kube::Result<()> {
        let mark = format!(
            "{} {}",
            self.tenure.identity(),
            lease::micro_time(Timestamp::now())
        );
        let body = json!({"metadata": {"annotations": {CONTENDER: mark}}});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.api
            .patch_metadata(name, &params, &Patch::Merge(body))
            .await
            .map(drop)
    }

    async fn release(&self) {
        let Some((_, name)) = self.connector_lease() else {
            return;
        };
        let released = async {
            match self.api.get_opt(&name).await? {
                Some(seen) if lease::holder(&seen) == Some(self.tenure.identity()) => {
                    lease::release(&self.api, MANAGER, &seen).await.map(drop)
                }
                _ => Ok(()),
            }
        };
        if let Err(failure) = pace::request(FAREWELL, released).await {
            tracing::warn!(%failure, "the Lease could not be let go: it expires by itself");
        }
    }

    /// The Connector's UID and its Lease's name.
    fn connector_lease(&self) -> Option<(String, String)> {
        let known = self.connector.borrow();
        let object = known.as_ref()?.as_ref()?;
        let seen = Seen(object.as_ref().clone());
        Some((seen.uid().to_owned(), seen.lease().to_owned()))
    }

    fn other_key(&self) -> bool {
        let known = self.connector.borrow();
        let object: Option<&Arc<_>> = known.as_ref().and_then(Option::as_ref);
        object.is_some_and(|object| {
            let seen = Seen(object.as_ref().clone());
            seen.key().is_some_and(|key| key != self.key)
        })
    }

    /// Another Connector, or another Lease of it.
    async fn changed(&mut self, from: &Option<(String, String)>) {
        while self.connector.changed().await.is_ok() {
            if self.connector_lease() != *from {
                return;
            }
        }
        std::future::pending().await
    }

    fn set(&self, standing: Standing) {
        self.standing.send_if_modified(|old| {
            let news = *old != standing;
            *old = standing;
            news
        });
    }
}

//! One Connector's records by signed updates.

use std::time::{Duration, Instant};

use adit_api::networking::Connector;
use adit_wire::EndpointId;
use kube::{Api, ResourceExt as _};

use super::{
    super::kept::Key,
    Connectors,
    publish::{ATTEMPTS, FOREIGN, PublishError, Published, Publisher, Verdict, Wanted, ask},
    ready::{self, Class},
};
use crate::dns::{
    Layout, RecordSet, Server,
    claim::{Claim, Decision, Found, Owner, decide},
    rfc2136::ServerError,
};

/// What was right is looked at again after this time: somebody may have
/// emptied the zone.
const RECHECK: Duration = Duration::from_secs(3600);

impl Connectors {
    pub(super) async fn update(
        &self,
        publisher: &Publisher,
        layout: &Layout,
        server: &Server,
        key: &Key,
        connector: Option<&Connector>,
    ) -> Result<(Option<Verdict>, Option<Duration>), PublishError> {
        let wanted = self.wanted(layout, connector);
        let uid = connector.and_then(|c| c.uid()).unwrap_or_default();
        let before = publisher.memory().published.get(key).cloned();
        if let Some(before) = before {
            let same = match &wanted {
                Some(Wanted::Records(id, records)) => {
                    let same_name = before.claim.uid == uid && before.id == *id;
                    if same_name && before.records == *records {
                        let age = before.checked.elapsed();
                        if age < RECHECK {
                            return Ok((Some(said(server, records)), Some(RECHECK - age)));
                        }
                    }
                    same_name
                }
                _ => false,
            };
            if !same {
                self.remove(layout, server, before.id, &before.claim)
                    .await?;
                publisher.memory().published.remove(key);
            }
        }
        let (id, records) = match wanted {
            None => return Ok((None, None)),
            Some(Wanted::Nothing(why)) => return Ok((Some(Verdict::pending(why)), None)),
            Some(Wanted::Records(id, records)) => (id, records),
        };
        let claim = Claim {
            uid,
            cluster: self.cluster(publisher).await?,
            namespace: key.namespace.clone(),
            connector: key.name.clone(),
        };
        if self.context.config.dry_run {
            tracing::info!(object = %key, ?records, "dry run: would publish");
            return Ok((Some(Verdict::pending("This is a dry run.")), None));
        }
        if let Some(owner) = self.write(layout, server, id, &claim, &records).await? {
            let verdict = Verdict::deferred(&records.name, &owner);
            return Ok((Some(verdict), Some(FOREIGN)));
        }
        let verdict = said(server, &records);
        let published = Published {
            claim,
            id,
            records,
            checked: Instant::now(),
        };
        publisher.memory().published.insert(key.clone(), published);
        Ok((Some(verdict), Some(RECHECK)))
    }

    /// Brings the server to have these records; who has the name if not us.
    async fn write(
        &self,
        layout: &Layout,
        server: &Server,
        id: EndpointId,
        claim: &Claim,
        records: &RecordSet,
    ) -> Result<Option<Owner>, PublishError> {
        let claim_name = layout.claim_name(id);
        for _ in 0..ATTEMPTS {
            let found = server.find(&records.name, &claim_name).await?;
            self.may_update()?;
            let done = match decide(&found, claim, Some(records)) {
                Decision::Nothing | Decision::Remove => return Ok(None),
                Decision::Leave(owner) => return Ok(Some(owner)),
                Decision::Create => server.create(&claim_name, claim, records).await,
                Decision::Replace => server.replace(&claim_name, &found, claim, records).await,
                Decision::AskAbout(other) => {
                    if self.publishes(&other, id).await? {
                        return Ok(Some(Owner::Connector(other)));
                    }
                    tracing::info!(
                        name = records.name,
                        "taking over from a Connector that is gone"
                    );
                    server.replace(&claim_name, &found, claim, records).await
                }
            };
            match done {
                Ok(()) => {
                    tracing::info!(name = records.name, "published in DNS");
                    self.context.metrics.wrote("DNS", "update");
                    return Ok(None);
                }
                Err(ServerError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PublishError::Restless)
    }

    /// Removes what a claim of ours covers.
    pub(super) async fn remove(
        &self,
        layout: &Layout,
        server: &Server,
        id: EndpointId,
        claim: &Claim,
    ) -> Result<(), PublishError> {
        let (name, claim_name) = (layout.name(id), layout.claim_name(id));
        for _ in 0..ATTEMPTS {
            let found: Found = server.find(&name, &claim_name).await?;
            if decide(&found, claim, None) != Decision::Remove {
                return Ok(());
            }
            if self.context.config.dry_run {
                tracing::info!(name, "dry run: would remove from DNS");
                return Ok(());
            }
            self.may_update()?;
            match server.remove(&name, &claim_name, &found).await {
                Ok(()) => {
                    tracing::info!(name, "removed from DNS");
                    self.context.metrics.wrote("DNS", "remove");
                    return Ok(());
                }
                Err(ServerError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PublishError::Restless)
    }

    /// Whether this process still leads: the zone asks nobody.
    fn may_update(&self) -> Result<(), PublishError> {
        match self.context.writer.may_write() {
            true => Ok(()),
            false => Err(PublishError::NotLeading),
        }
    }

    /// Whether the Connector of a claim is there and still has that key: asked
    /// live, because a watch may be behind.
    pub(super) async fn publishes(
        &self,
        claim: &Claim,
        id: EndpointId,
    ) -> Result<bool, PublishError> {
        let what = format!("for Connector {}/{}", claim.namespace, claim.connector);
        let client = self.context.writer.client().clone();
        let api: Api<Connector> = Api::namespaced(client, &claim.namespace);
        let answer = ask(what, api.get_opt(&claim.connector)).await?;
        let Some(connector) = answer.filter(|c| c.uid().as_deref() == Some(&claim.uid)) else {
            return Ok(false);
        };
        let class = self.class(&connector);
        let hint = ready::details(&connector);
        Ok(class == Class::Ours
            && connector.metadata.deletion_timestamp.is_none()
            && hint.is_ok_and(|h| h.endpoint_id == id))
    }
}

fn said(server: &Server, records: &RecordSet) -> Verdict {
    Verdict::published(format!(
        "{} records at {} on DNS server {}",
        records.texts.len(),
        records.name,
        server.addr()
    ))
}

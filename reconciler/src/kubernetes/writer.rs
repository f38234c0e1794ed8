//! All that is written to the API server goes through here: server-side apply
//! as one field manager, deletes of exactly the object that was seen, and
//! nothing that belongs to somebody else.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use adit_api::ResourceExt as _;
use adit_control::{Class, apply};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
    core::ObjectMeta,
};
use serde_json::{Value, json};

use super::{
    kept::{Kept, Key},
    leader::Fence,
    metrics::Metrics,
    written::{Written, body, same_maker},
};

/// Who writes.
pub const MANAGER: &str = "adit-reconciler";
/// For one request. The API server's own limit is 60 s; what takes that long
/// is better tried again.
const TIME: Duration = Duration::from_secs(15);

/// Writes objects.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    fence: Fence,
    dry_run: bool,
}

/// What was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused, or could not be reached.
    #[error("{verb} {kind} {key}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On what.
        kind: String,
        /// On which.
        key: Key,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{verb} {kind} {key}: the API server did not answer within {} s; trying again", TIME.as_secs())]
    Silent {
        /// What was tried.
        verb: &'static str,
        /// On what.
        kind: String,
        /// On which.
        key: Key,
    },
    /// Another reconciler leads, or may soon.
    #[error("{kind} {key} not written: this reconciler does not lead any more")]
    NotLeading {
        /// Its kind.
        kind: String,
        /// Which.
        key: Key,
    },
    /// An object of this name exists, and it is somebody else's.
    #[error(
        "{kind} {key} exists and was not made by Adit for this object; rename or remove it: it is left alone"
    )]
    Foreign {
        /// Its kind.
        kind: String,
        /// Which.
        key: Key,
    },
}

/// What came of making an object.
enum Created<K> {
    /// It was made; `None` in a dry run.
    Made(Option<K>),
    /// There is one already.
    There(Box<ObjectMeta>),
}

impl WriteError {
    /// For back-off and metrics.
    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => Class::of(source),
            Self::Silent { .. } | Self::NotLeading { .. } => Class::Unreachable,
            Self::Foreign { .. } => Class::Invalid,
        }
    }
}

impl Writer {
    /// A writer, as long as the fence is open. In a dry run it says what it
    /// would write.
    pub fn new(client: Client, metrics: Arc<Metrics>, fence: Fence, dry_run: bool) -> Self {
        Self {
            client,
            metrics,
            fence,
            dry_run,
        }
    }

    /// The client, for what is read.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Applies an object that is made here: all of it, without its status.
    /// `None` in a dry run.
    ///
    /// # Errors
    /// When it could not be written, or is somebody else's.
    pub async fn apply<K: Written>(
        &self,
        kept: &Kept<K>,
        object: &K,
    ) -> Result<Option<K>, WriteError> {
        let key = Key::of(object);
        let mut body = body(object);
        let known = match kept.get(&key) {
            Some(known) => known.meta().clone(),
            None => match self.create(kept, &key, &body).await? {
                Created::Made(made) => return Ok(made),
                Created::There(found) => *found,
            },
        };
        if !same_maker(object.meta(), &known) {
            return Err(WriteError::Foreign {
                kind: K::kind(&()).into_owned(),
                key,
            });
        }
        // Not another object of that name, made meanwhile.
        body["metadata"]["uid"] = json!(known.uid);
        self.apply_part(kept, &key, body).await
    }

    /// Makes an object of which nothing is known; says what is there if there
    /// is one.
    async fn create<K: Written>(
        &self,
        kept: &Kept<K>,
        key: &Key,
        body: &Value,
    ) -> Result<Created<K>, WriteError> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let refused = match self.dry_run {
            true => None,
            false => {
                let _writing = kept.writing(key);
                let request = apply::new_object(&api, MANAGER, body, &key.name);
                match self.ask::<K, _>("create", key, request).await {
                    Ok(made) => {
                        self.metrics.wrote(&K::kind(&()), "apply");
                        kept.wrote(&made);
                        return Ok(Created::Made(Some(made)));
                    }
                    Err(error) if error.class() == Class::Conflict => Some(error),
                    Err(error) => return Err(error),
                }
            }
        };
        // Most watches hold only what has our label.
        let found = api.get_metadata_opt(&key.name);
        match (self.ask::<K, _>("get", key, found).await?, refused) {
            (Some(found), _) => Ok(Created::There(Box::new(found.metadata))),
            // It was there a moment ago.
            (None, Some(refused)) => Err(refused),
            (None, None) => {
                self.dry("create", K::kind(&()).as_ref(), key, body);
                Ok(Created::Made(None))
            }
        }
    }

    /// Applies fields of an object that exists: of exactly the one whose UID
    /// the body names. `None` in a dry run.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn apply_part<K: Written>(
        &self,
        kept: &Kept<K>,
        key: &Key,
        body: Value,
    ) -> Result<Option<K>, WriteError> {
        if self.dry("apply", K::kind(&()).as_ref(), key, &body) {
            return Ok(None);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let _writing = kept.writing(key);
        let request = apply::object(&api, MANAGER, &body, &key.name);
        let answer = self.ask::<K, _>("apply", key, request).await?;
        self.metrics.wrote(&K::kind(&()), "apply");
        kept.wrote(&answer);
        Ok(Some(answer))
    }

    /// Applies this process's part of an object's status. `status` holds that
    /// part only.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn apply_status<K: Written>(
        &self,
        kept: &Kept<K>,
        key: &Key,
        uid: &str,
        status: Value,
    ) -> Result<(), WriteError> {
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "status": status,
        });
        if self.dry("apply status of", K::kind(&()).as_ref(), key, &body) {
            return Ok(());
        }
        // What others wrote of the answer may be malformed.
        let api = guarded::<K>(&self.client, key);
        let _writing = kept.writing(key);
        let request = apply::status(&api, MANAGER, &body, &key.name);
        let answer = self.ask::<K, _>("apply status of", key, request).await?;
        self.metrics.wrote(&K::kind(&()), "apply_status");
        if let Ok(object) = answer.0 {
            kept.wrote(&object);
        }
        Ok(())
    }

    /// Deletes exactly the object that was seen: not one of the same name that
    /// was made meanwhile, and not one that changed hands. One that is gone
    /// already is fine.
    ///
    /// # Errors
    /// When it could not be deleted.
    pub async fn delete<K: Written>(&self, kept: &Kept<K>, seen: &K) -> Result<(), WriteError> {
        let key = Key::of(seen);
        let uid = seen.uid().unwrap_or_default();
        if self.dry("delete", K::kind(&()).as_ref(), &key, &Value::Null) {
            return Ok(());
        }
        let api: Api<kube::core::DeserializeGuard<K>> = guarded(&self.client, &key);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let _writing = kept.writing(&key);
        let gone = match self
            .ask::<K, _>("delete", &key, api.delete(&key.name, &params))
            .await
        {
            // Something holds it; the watch will say when it is gone.
            Ok(answer) => answer.is_right(),
            Err(WriteError::Api { source, .. }) if Class::of(&source) == Class::NotFound => true,
            Err(error) => return Err(error),
        };
        self.metrics.wrote(&K::kind(&()), "delete");
        if gone {
            kept.deleted(&key, &uid);
        }
        Ok(())
    }

    /// Whether anything may be written now: for what is written past this.
    pub fn may_write(&self) -> bool {
        !self.dry_run && self.fence.open()
    }

    /// Reads, within the same time limit.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn read<K: Written, T>(
        &self,
        key: &Key,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        self.ask::<K, T>("get", key, request).await
    }

    fn dry(&self, verb: &str, kind: &str, key: &Key, body: &Value) -> bool {
        if self.dry_run {
            tracing::info!(kind, object = %key, body = %body, "dry run: would {verb}");
        }
        self.dry_run
    }

    async fn ask<K: Written, T>(
        &self,
        verb: &'static str,
        key: &Key,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let kind = || K::kind(&()).into_owned();
        if !self.fence.open() {
            return Err(WriteError::NotLeading {
                kind: kind(),
                key: key.clone(),
            });
        }
        match tokio::time::timeout(TIME, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(WriteError::Api {
                verb,
                kind: kind(),
                key: key.clone(),
                source: Box::new(source),
            }),
            Err(_) => Err(WriteError::Silent {
                verb,
                kind: kind(),
                key: key.clone(),
            }),
        }
    }
}

fn guarded<K: Written>(client: &Client, key: &Key) -> Api<kube::core::DeserializeGuard<K>> {
    Api::namespaced(client.clone(), &key.namespace)
}

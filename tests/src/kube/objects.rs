//! Applies, reads, waits for and deletes objects, all as JSON.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::Kind;
use crate::client::PATIENCE;

/// How often an object is looked at again.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
/// Who the tests' own writes belong to.
const MANAGER: &str = "adit-tests";

/// A user's view of the API server. It belongs to the runtime it was made in, as
/// any connection: every test makes its own.
#[derive(Clone)]
pub struct Objects {
    /// For everything that is not here.
    pub client: Client,
}

impl Objects {
    /// With the credentials of a kubeconfig file.
    pub async fn open(kubeconfig: &Path) -> Result<Self> {
        let config = Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("read {}", kubeconfig.display()))?;
        let mut config =
            Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        // A list of a thousand objects on two busy cores.
        config.read_timeout = Some(PATIENCE);
        Ok(Self {
            client: Client::try_from(config)?,
        })
    }

    /// The untyped API of a kind; `namespace` is empty for all of them.
    pub fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = kind.resource();
        if kind.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    /// Server-side apply of every document in this YAML. An object without a
    /// namespace goes to `namespace`.
    pub async fn apply_yaml(&self, namespace: &str, yaml: &str) -> Result<Vec<Value>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("read the YAML")?;
        let mut applied = Vec::new();
        for document in documents.into_iter().filter(|d| !d.is_null()) {
            applied.push(self.apply(namespace, document).await?);
        }
        Ok(applied)
    }

    /// Server-side apply of one object; what the server made of it.
    pub async fn apply(&self, namespace: &str, object: Value) -> Result<Value> {
        self.apply_as(MANAGER, namespace, object).await
    }

    /// As [`Objects::apply`], as another field manager.
    pub async fn apply_as(
        &self,
        manager: &str,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let name = text(&object["metadata"]["name"]);
        let kind = Kind::of(&version, &kind)
            .with_context(|| format!("{version} {kind} is not in kube/kind.rs"))?;
        if kind.namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let namespace = text(&object["metadata"]["namespace"]);
        let applied = self
            .api(kind, &namespace)
            .patch(
                &name,
                &PatchParams::apply(manager).force(),
                &Patch::Apply(&object),
            )
            .await
            .with_context(|| format!("apply {} {namespace}/{name}", kind.kind))?;
        Ok(serde_json::to_value(applied)?)
    }

    /// A JSON merge patch of an object, or of one of its subresources.
    pub async fn merge(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Value> {
        let api = self.api(kind, namespace);
        let params = PatchParams::default();
        let merged = match subresource {
            None => api.patch(name, &params, &Patch::Merge(patch)).await,
            Some(part) => {
                api.patch_subresource(part, name, &params, &Patch::Merge(patch))
                    .await
            }
        };
        let merged = merged.with_context(|| format!("patch {} {namespace}/{name}", kind.kind))?;
        Ok(serde_json::to_value(merged)?)
    }

    /// An object, if there is one.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let found = self.api(kind, namespace).get_opt(name).await?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    /// All objects of a kind, `selector` as in `a=b,c`; empty is no selector, and
    /// an empty namespace is all of them.
    pub async fn list(&self, kind: Kind, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let params = ListParams::default().labels(selector);
        let list = self.api(kind, namespace).list(&params).await?;
        let objects = list.items.into_iter().map(serde_json::to_value);
        Ok(objects.collect::<Result<_, _>>()?)
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str) -> Result<()> {
        let deleted = self
            .api(kind, namespace)
            .delete(name, &DeleteParams::background())
            .await;
        match deleted {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("delete {} {namespace}/{name}", kind.kind))
            }
            Ok(_) => Ok(()),
        }
    }

    /// Waits until an object is as wanted, and returns it; if it does not become
    /// so, the error shows it as it was last.
    pub async fn until(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // An error may be of the moment, as while a CRD is being set up.
            let seen = self.get(kind, namespace, name).await;
            if let Ok(Some(object)) = &seen
                && wanted(object)
            {
                return Ok(object.clone());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} {namespace}/{name}: no {what} within {} s; last: {}",
                    kind.kind,
                    PATIENCE.as_secs(),
                    brief(seen)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the list of a kind is as wanted, and returns it.
    pub async fn until_list(
        &self,
        kind: Kind,
        namespace: &str,
        selector: &str,
        what: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.list(kind, namespace, selector).await;
            match seen {
                Ok(objects) if wanted(&objects) => return Ok(objects),
                _ if Instant::now() > deadline => {
                    let seen = seen.map(|all| Some(Value::Array(all)));
                    bail!(
                        "{} in {namespace:?} with {selector:?}: no {what} within {} s; last: {}",
                        kind.plural,
                        PATIENCE.as_secs(),
                        brief(seen)
                    );
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, kind: Kind, namespace: &str, name: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.get(kind, namespace, name).await;
            if let Ok(None) = seen {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} {namespace}/{name} is still there after {} s: {}",
                    kind.kind,
                    PATIENCE.as_secs(),
                    brief(seen)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether this user may do `verb` to an object; `resource` as in
    /// `connectors` or `connectors/status`.
    pub async fn may(
        &self,
        verb: &str,
        (group, resource): (&str, &str),
        (namespace, name): (&str, &str),
    ) -> Result<bool> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": {
                "group": group, "resource": resource, "subresource": subresource,
                "verb": verb, "namespace": namespace, "name": name,
            }},
        });
        let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&review)?)?;
        let answer: Value = self.client.request(request).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// A namespace with these labels.
    pub async fn make_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        });
        self.apply("", namespace).await.map(drop)
    }

    /// Deletes a namespace and waits until it and all that was in it is gone.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        self.delete(Kind::NAMESPACE, "", name).await?;
        self.until_gone(Kind::NAMESPACE, "", name).await
    }
}

/// A condition of an object's status, or of one of `parents`, `ancestors` or
/// `listeners` in it: the first of that type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let status = &object["status"];
    let nested = ["parents", "ancestors", "listeners"]
        .into_iter()
        .filter_map(|list| status[list].as_array())
        .flatten()
        .map(|entry| &entry["conditions"]);
    std::iter::once(&status["conditions"])
        .chain(nested)
        .filter_map(Value::as_array)
        .flatten()
        .find(|condition| condition["type"] == kind)
}

/// Whether a condition is `True` for the object's present generation.
pub fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| {
        condition["status"] == "True"
            && condition["observedGeneration"] == object["metadata"]["generation"]
    })
}

/// What was seen last, without the bookkeeping of field managers.
fn brief(seen: Result<Option<Value>>) -> String {
    match seen {
        Err(error) => format!("{error:#}"),
        Ok(None) => "it does not exist".to_owned(),
        Ok(Some(mut object)) => {
            let each = match &mut object {
                Value::Array(all) => all.iter_mut().collect(),
                one => vec![one],
            };
            for object in each {
                if let Some(meta) = object["metadata"].as_object_mut() {
                    meta.remove("managedFields");
                }
            }
            format!("{object:#}")
        }
    }
}

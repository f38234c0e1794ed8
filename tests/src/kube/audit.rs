//! What was written to the API server, by whom: its audit log.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One request that wrote, or tried to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`; of
    /// ServiceAccounts with a token also `get`, `list` and `watch`.
    pub verb: String,
    /// As in `gateway.networking.k8s.io`; empty for the core.
    pub group: String,
    /// As in `httproutes`.
    pub resource: String,
    /// As in `status`; empty for the object itself.
    pub subresource: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Who wrote.
    pub user: String,
    /// The answer's status code.
    pub code: u64,
}

impl Write {
    /// Whether it is to what Envoy Gateway programs Envoy from. What Envoy
    /// Gateway itself writes there are statuses.
    pub fn reprograms(&self) -> bool {
        let kinds = [
            "envoypatchpolicies",
            "envoyextensionpolicies",
            "backendtrafficpolicies",
            "backends",
            "httproutes",
            "gateways",
        ];
        kinds.contains(&self.resource.as_str()) && self.subresource.is_empty()
    }
}

/// A place in the audit log: what comes later was written later.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);

/// The policy: every write to the kinds that matter here, once it is answered.
pub(super) fn policy() -> Value {
    let writes = ["create", "update", "patch", "delete", "deletecollection"];
    let groups = [
        "networking.datumapis.com",
        "gateway.networking.k8s.io",
        "gateway.envoyproxy.io",
        "coordination.k8s.io",
        "externaldns.k8s.io",
    ];
    let groups = groups.map(|group| json!({"group": group}));
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "verbs": writes, "resources": groups},
            // Whoever comes with a ServiceAccount's token: what of its role it uses.
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    })
}

/// The end of the log now.
pub(super) fn mark(log: &Path) -> Mark {
    Mark(fs::metadata(log).map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(usize::MAX)))
}

/// The writes after a mark, in order.
pub(super) fn since(log: &Path, mark: Mark) -> Result<Vec<Write>> {
    let bytes = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let new = bytes.get(mark.0..).unwrap_or_default();
    let mut writes = Vec::new();
    // The last line may be half written.
    for line in new
        .split_inclusive(|b| *b == b'\n')
        .filter(|l| l.ends_with(b"\n"))
    {
        let event: Value = serde_json::from_slice(line).context("an event of the audit log")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        writes.push(Write {
            verb: text(&event["verb"]),
            group: text(&object["apiGroup"]),
            resource: text(&object["resource"]),
            subresource: text(&object["subresource"]),
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            user: text(&event["user"]["username"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        });
    }
    Ok(writes)
}

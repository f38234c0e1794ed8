//! The reconciler with exactly the rights that the chart renders, at everything
//! it can do: none is missing, and none is there that it never uses.

use std::{collections::BTreeSet, path::Path};

use adit_tests::{
    helm::{self, Document},
    kube::{
        Kind, Objects, Write, external_dns,
        objects::condition,
        pod, reconciler,
        site::{rule, tunnel},
    },
    process::{Process, until},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Cluster, connector};

/// What no run of a test brings about, and why it is there all the same.
const UNSEEN: [(&str, &str); 5] = [
    (
        "list",
        "API servers before 1.32 have no lists by watch: the watch lists first",
    ),
    (
        "patch events.k8s.io events",
        "the second event of a series within minutes",
    ),
    (
        "delete gateway.networking.k8s.io gateways",
        "a Gateway of its own goes when an Envoy Gateway serves its routes elsewhere",
    ),
    (
        "get core namespaces",
        "only with signed DNS updates: the UID of kube-system",
    ),
    (
        "get networking.datumapis.com connectors",
        "only with signed DNS updates: whether the Connector of a claim is there",
    ),
];

/// One thing that a role allows, as `verb group resource`.
fn rights(documents: &[Document]) -> BTreeSet<String> {
    let list = |rule: &Value, key: &str| -> Vec<String> {
        let all = rule[key].as_array().into_iter().flatten();
        all.map(|v| v.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let roles = documents
        .iter()
        .filter(|d| ["Role", "ClusterRole"].contains(&d.kind()) && d.name() == "adit-reconciler");
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|d| d.object["rules"].as_array().into_iter().flatten()) {
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                for verb in list(rule, "verbs") {
                    rights.insert(right(&verb, &group, &resource));
                }
            }
        }
    }
    rights
}

fn right(verb: &str, group: &str, resource: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("{verb} {group} {resource}")
}

/// What a request needs. A server-side apply that makes an object needs both
/// verbs.
fn used(request: &Write) -> Vec<String> {
    let resource = match request.subresource.as_str() {
        "" => request.resource.clone(),
        sub => format!("{}/{sub}", request.resource),
    };
    let mut all = vec![right(&request.verb, &request.group, &resource)];
    if request.verb == "patch" && request.code == 201 {
        all.push(right("create", &request.group, &resource));
    }
    all
}

fn proxy(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": name},
        "spec": {"hostnames": [format!("{name}.example.com")], "rules": rules},
    })
}

pub async fn the_reconcilers_rights_are_neither_short_nor_wide() -> Result<()> {
    let Some((plane, cluster)) = Cluster::with_plane().await? else {
        return Ok(());
    };
    let objects = plane.admin().await?;
    external_dns::install(&objects).await?;
    for namespace in [helm::NAMESPACE, helm::ENVOY_GATEWAY, "adit-dialers", "shop"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    let dir = tempfile::tempdir()?;
    let values = dir.path().join("values.yaml");
    let publish = json!({"reconciler": {"dns": {"publish": "endpoint", "origin": "t.example"}}});
    std::fs::write(&values, publish.to_string())?;
    let documents = cluster.helm.template(&values)?;
    let wanted = [
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConnectorClass",
    ];
    for document in &documents {
        let hook = document.hook();
        if wanted.contains(&document.kind()) && (hook.is_empty() || !hook.contains("delete")) {
            objects.apply("", document.object.clone()).await?;
        }
    }
    for file in ["gateway.yaml"] {
        let file = adit_tests::binaries::root()
            .join("envoy/kubernetes")
            .join(file);
        let text = std::fs::read_to_string(file)?;
        objects.apply_yaml("", &text).await?;
    }
    let account = pod::kubeconfig(&plane, helm::NAMESPACE, "adit-reconciler").await?;
    let mark = plane.mark();
    // As the chart has it with a Gateway; with one of its own making; and what
    // is left of that is removed by one that is given a Gateway.
    let given = Some("envoy-gateway-system/adit");
    let done = everything(&objects, &account, given).await?;
    end(&objects, done).await?;
    let done = everything(&objects, &account, None).await?;
    leave(&objects, done).await?;
    let done = start(&account, given).await?;
    end(&objects, done).await?;
    dry(&objects, &account).await?;
    let requests = plane.writes_since(mark)?;
    let name = "system:serviceaccount:adit-system:adit-reconciler";
    let own: Vec<_> = requests.iter().filter(|r| r.user == name).collect();
    let refused: Vec<_> = own.iter().filter(|r| r.code == 403).collect();
    ensure!(refused.is_empty(), "rights are missing: {refused:#?}");
    let used: BTreeSet<String> = own.iter().flat_map(|r| used(r)).collect();
    let unseen = |right: &&String| {
        let known = UNSEEN
            .iter()
            .any(|(known, _)| known == right || (*known == "list" && right.starts_with("list ")));
        !known
    };
    let rights = rights(&documents);
    let wide: Vec<_> = rights.difference(&used).filter(unseen).collect();
    ensure!(wide.is_empty(), "rights that were not used: {wide:#?}");
    Ok(())
}

/// A reconciler that has done all it can but to take away.
struct Done {
    reconciler: Process,
    _dir: TempDir,
    made: [(Kind, &'static str); 6],
}

/// A reconciler's work, as this user.
async fn everything(objects: &Objects, account: &Path, gateway: Option<&str>) -> Result<Done> {
    let done = start(account, gateway).await?;
    let (reconciler, made) = (&done.reconciler, done.made);
    connector(objects, "shop").await?;
    let policies = made[0].1;
    let web = |port: u16| {
        let endpoint = format!("http://127.0.0.1:{port}");
        proxy("web", &json!([rule("/", "box", &endpoint)]))
    };
    // Something that a person is told.
    objects.apply("shop", web(99)).await?;
    let refused =
        |o: &Value| condition(o, "Accepted").is_some_and(|c| c["reason"] == "NotAdvertised");
    objects
        .until(Kind::HTTP_PROXY, "shop", "web", "NotAdvertised", refused)
        .await
        .with_context(|| reconciler.last_words())?;
    objects.apply("shop", web(80)).await?;
    let tcp = proxy("tcp", &json!([tunnel("box", "tcp://127.0.0.1:81")]));
    objects.apply("shop", tcp).await?;
    let kinds = made.map(|(kind, _)| kind);
    for (kind, namespace) in made {
        objects
            .until_list(kind, namespace, OURS, "made", is_there)
            .await
            .with_context(|| reconciler.last_words())?;
    }
    // What somebody changes in each is put right, and so `patch` is used.
    for kind in kinds {
        spoil(objects, kind, policies)
            .await
            .with_context(|| reconciler.last_words())?;
    }
    if gateway.is_some() {
        let kind = Kind::REFERENCE_GRANT;
        objects
            .until_list(kind, "shop", OURS, "made", is_there)
            .await?;
        spoil(objects, kind, policies).await?;
    }
    // Records of a connector that is reached no more are taken away.
    let nowhere = json!({"status": {"connectionDetails": null}});
    let kind = Kind::CONNECTOR;
    objects
        .merge(kind, "shop", "box", Some("status"), &nowhere)
        .await?;
    objects
        .until_list(Kind::DNS_ENDPOINT, "shop", OURS, "gone", is_gone)
        .await
        .with_context(|| reconciler.last_words())?;
    Ok(done)
}

async fn start(account: &Path, gateway: Option<&str>) -> Result<Done> {
    let dir = tempfile::tempdir()?;
    let started = reconciler::start(dir.path(), account, helm::NAMESPACE, &flags(gateway)).await;
    let (reconciler, _admin) = started?;
    let policies = match gateway {
        Some(_) => helm::ENVOY_GATEWAY,
        None => "shop",
    };
    let made = [
        (Kind::ENVOY_PATCH_POLICY, policies),
        (Kind::ENVOY_EXTENSION_POLICY, policies),
        (Kind::HTTP_ROUTE, "shop"),
        (Kind::BACKEND, "shop"),
        (Kind::BACKEND_TRAFFIC_POLICY, "shop"),
        (Kind::DNS_ENDPOINT, "shop"),
    ];
    Ok(Done {
        reconciler,
        _dir: dir,
        made,
    })
}

/// The process ends, and what it made stays; the next one, which is given a
/// Gateway, takes away the one that this made.
async fn leave(objects: &Objects, mut done: Done) -> Result<()> {
    let gateways = objects.list(Kind::GATEWAY, "shop", OURS).await?;
    ensure!(!gateways.is_empty(), "{}", done.reconciler.last_words());
    let status = done.reconciler.terminate().await?;
    ensure!(status.success(), "{}", done.reconciler.last_words());
    Ok(())
}

async fn end(objects: &Objects, mut done: Done) -> Result<()> {
    let said = || done.reconciler.last_words();
    for (kind, name) in [
        (Kind::HTTP_PROXY, "web"),
        (Kind::HTTP_PROXY, "tcp"),
        (Kind::CONNECTOR, "box"),
    ] {
        objects.delete(kind, "shop", name).await?;
    }
    objects
        .until_list(Kind::GATEWAY, "shop", OURS, "gone", is_gone)
        .await
        .with_context(said)?;
    for (kind, namespace) in done.made {
        objects
            .until_list(kind, namespace, OURS, "gone", is_gone)
            .await
            .with_context(said)?;
    }
    let status = done.reconciler.terminate().await?;
    ensure!(status.success(), "{}", done.reconciler.last_words());
    Ok(())
}

const OURS: &str = "app.kubernetes.io/managed-by=adit";

/// Changes an object of ours, and waits until it is as it was.
async fn spoil(objects: &Objects, kind: Kind, policies: &str) -> Result<()> {
    let namespace = match kind {
        Kind::ENVOY_PATCH_POLICY | Kind::ENVOY_EXTENSION_POLICY => policies,
        _ => "shop",
    };
    let hash = "/metadata/annotations/networking.datumapis.com~1hash";
    let (place, spoilt) = match kind {
        Kind::DNS_ENDPOINT => ("/spec/endpoints", json!([])),
        _ => (hash, json!("spoilt")),
    };
    let all = objects.list(kind, namespace, OURS).await?;
    let one = all.first().context("one")?;
    let name = one["metadata"]["name"].as_str().unwrap_or_default();
    let was = one.pointer(place).context(place)?;
    let mut path: Vec<_> = place.split('/').skip(1).collect();
    let mut patch = spoilt;
    while let Some(key) = path.pop() {
        patch = json!({ key.replace("~1", "/"): patch });
    }
    objects.merge(kind, namespace, name, None, &patch).await?;
    until(&format!("{} put right", kind.kind), async || {
        let now = objects.get(kind, namespace, name).await.ok()??;
        (now.pointer(place) == Some(was)).then_some(())
    })
    .await
}

/// What has a name that is wanted is asked for: when it turns up in between,
/// or in a dry run.
async fn dry(objects: &Objects, account: &Path) -> Result<()> {
    connector(objects, "shop").await?;
    let web = proxy("web", &json!([rule("/", "box", "http://127.0.0.1:80")]));
    let tcp = proxy("tcp", &json!([tunnel("box", "tcp://127.0.0.1:81")]));
    for object in [web, tcp] {
        objects.apply("shop", object).await?;
    }
    let without = ["Gateway", "DNSEndpoint"];
    let with = [
        "EnvoyPatchPolicy",
        "EnvoyExtensionPolicy",
        "HTTPRoute",
        "Backend",
        "BackendTrafficPolicy",
        "ReferenceGrant",
    ];
    for (gateway, kinds) in [
        (None, &without[..]),
        (Some("envoy-gateway-system/adit"), &with),
    ] {
        let dir = tempfile::tempdir()?;
        let mut flags = flags(gateway);
        flags.push("--dry-run");
        let (mut reconciler, _admin) =
            reconciler::start(dir.path(), account, helm::NAMESPACE, &flags).await?;
        for kind in kinds {
            until(&format!("word of a {kind}"), async || {
                let log = reconciler.log();
                let told = |line: &str| {
                    line.contains("would create") && line.contains(&format!("kind=\"{kind}\""))
                };
                log.lines().any(told).then_some(())
            })
            .await
            .with_context(|| reconciler.last_words())?;
        }
        let status = reconciler.terminate().await?;
        ensure!(status.success(), "{}", reconciler.last_words());
    }
    Ok(())
}

fn flags(gateway: Option<&str>) -> Vec<&str> {
    let mut flags = vec!["--dialer-namespace", "adit-dialers"];
    flags.extend(["--dns-publish", "endpoint", "--dns-origin", "t.example"]);
    if let Some(gateway) = gateway {
        flags.extend(["--gateway", gateway]);
    }
    flags
}

fn is_there(all: &[Value]) -> bool {
    !all.is_empty()
}

fn is_gone(all: &[Value]) -> bool {
    all.is_empty()
}

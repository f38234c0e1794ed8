//! The reconciler and the objects it makes, on a real Kubernetes API with a
//! real Envoy Gateway. Requests are `kube_e2e`'s matter; here it is about what
//! is written, when, and what is left alone.

use std::{path::Path, process::Command};

use adit_tests::{
    admin::Admin,
    binaries,
    keys::Key,
    kube::{
        Class, ControlPlane, Kind, Objects, Stack, Write,
        objects::{condition, is_true},
    },
    on_the_stack,
    process::{Process, until},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

on_the_stack!(
    objects_applied_in_any_order_become_the_same_route,
    a_malformed_proxy_is_told_so_and_stops_nobody,
    what_is_as_wanted_is_not_written_and_one_change_is_one_look,
    what_others_change_is_put_right_and_what_is_theirs_is_left_alone,
    a_gateway_elsewhere_is_used_as_long_as_it_allows_it,
    a_proxy_without_a_gateway_gets_one_of_its_own,
    a_gateway_without_the_module_gets_nothing,
    a_deleted_proxy_and_a_deleted_namespace_leave_nothing,
    the_role_in_the_manifests_is_enough,
    envoy_gateway_may_be_installed_later,
);

/// The label of everything that is made.
const OURS: &str = "app.kubernetes.io/managed-by=adit";
/// What is made for an HTTPProxy.
const MADE: [Kind; 4] = [
    Kind::HTTP_ROUTE,
    Kind::BACKEND,
    Kind::ENVOY_PATCH_POLICY,
    Kind::BACKEND_TRAFFIC_POLICY,
];

/// A namespace and the reconciler that watches it.
struct Place {
    namespace: String,
    objects: Objects,
    reconciler: Process,
    admin: Admin,
    dir: TempDir,
}

impl Place {
    async fn start(plane: &ControlPlane, namespace: &str, flags: &[&str]) -> Result<Self> {
        Self::start_as(plane, &plane.kubeconfig(), namespace, flags).await
    }

    async fn start_as(
        plane: &ControlPlane,
        kubeconfig: &Path,
        namespace: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let objects = plane.admin().await?;
        objects.make_namespace(namespace, &[]).await?;
        let dir = tempfile::Builder::new().prefix("reconcile-").tempdir()?;
        let socket = dir.path().join("admin.sock");
        let mut command = Command::new(binaries::adit()?);
        command
            .arg("reconciler")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", namespace, "--watch-namespace", namespace])
            .arg("--admin")
            .arg(format!("unix:{}", socket.display()))
            .args(flags)
            .env_clear();
        let mut reconciler = Process::start("reconciler", dir.path(), &mut command)?;
        let admin = Admin::Unix(socket);
        reconciler
            .until("ready reconciler", async || admin.get("/readyz").await.ok())
            .await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            objects,
            reconciler,
            admin,
            dir,
        })
    }

    async fn apply(&self, object: Value) -> Result<Value> {
        self.objects.apply(&self.namespace, object).await
    }

    /// A connector that advertises ports 80 and 81 of `localhost`.
    async fn connector(&self, name: &str) -> Result<()> {
        for object in connector(name) {
            self.apply(object).await?;
        }
        let key = Key::new(self.dir.path(), name)?;
        self.connect(name, &key.id, "192.0.2.1").await
    }

    /// What an agent says of itself.
    async fn connect(&self, name: &str, id: &str, address: &str) -> Result<()> {
        let status = details(id, address);
        let kind = Kind::CONNECTOR;
        self.objects
            .merge(kind, &self.namespace, name, Some("status"), &status)
            .await
            .map(drop)
    }

    async fn until(
        &self,
        kind: Kind,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.objects
            .until(kind, &self.namespace, name, what, wanted)
            .await
            .with_context(|| self.reconciler.last_words())
    }

    async fn programmed(&self, proxy: &str) -> Result<Value> {
        let wanted = |object: &Value| is_true(object, "Programmed");
        self.until(Kind::HTTP_PROXY, proxy, "Programmed", wanted)
            .await
    }

    async fn refused(&self, proxy: &str, type_: &str, reason: &str) -> Result<Value> {
        let what = format!("{type_}=False/{reason}");
        self.until(Kind::HTTP_PROXY, proxy, &what, |object| {
            condition(object, type_)
                .is_some_and(|c| c["status"] == "False" && c["reason"] == reason)
        })
        .await
    }

    /// How often HTTPProxies were looked at, when nothing waits any more.
    async fn looks(&self) -> Result<u64> {
        let mut before = u64::MAX;
        let mut calm = 0;
        until("a calm reconciler", async || {
            let now = self.count().await.ok()?;
            calm = if now == before { calm + 1 } else { 0 };
            before = now;
            (calm >= 10).then_some(now)
        })
        .await
    }

    async fn count(&self) -> Result<u64> {
        let text = self.admin.get("/metrics").await?;
        let name = "adit_reconciler_reconciles_total{kind=\"HTTPProxy\"} ";
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    async fn names(&self, kind: Kind) -> Result<Vec<String>> {
        let all = self.objects.list(kind, &self.namespace, OURS).await?;
        let mut names: Vec<_> = all.iter().map(name_of).collect();
        names.sort();
        Ok(names)
    }

    async fn end(mut self) -> Result<()> {
        self.objects
            .delete_namespace(&self.namespace)
            .await
            .with_context(|| self.reconciler.last_words())?;
        let status = self.reconciler.terminate().await?;
        ensure!(status.success(), "{}", self.reconciler.last_words());
        Ok(())
    }
}

fn name_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str();
    name.unwrap_or_default().to_owned()
}

fn class() -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorClass",
        "metadata": {"name": "datum-connect"}, "spec": {},
    })
}

fn connector(name: &str) -> [Value; 2] {
    let version = "networking.datumapis.com/v1alpha1";
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let services = json!([{"address": "localhost", "ports": ports}]);
    [
        json!({
            "apiVersion": version, "kind": "Connector", "metadata": {"name": name},
            "spec": {"connectorClassName": "datum-connect"},
        }),
        json!({
            "apiVersion": version, "kind": "ConnectorAdvertisement", "metadata": {"name": name},
            "spec": {
                "connectorRef": {"name": name},
                "layer4": [{"name": "all", "services": services}],
            },
        }),
    ]
}

fn details(id: &str, address: &str) -> Value {
    json!({"status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
        "id": id, "homeRelay": "https://relay.example.com/", "discoveryMode": "DNS",
        "addresses": [{"address": address, "port": 4242}],
    }}}})
}

fn proxy(name: &str, host: &str, port: u16) -> Value {
    let endpoint = format!("http://localhost:{port}");
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": name},
        "spec": {"hostnames": [host], "rules": [{
            "backends": [{"endpoint": endpoint, "connector": {"name": "box"}}],
        }]},
    })
}

/// Writes to what programs Envoy Gateway.
fn programming(writes: &[Write]) -> Vec<&Write> {
    let made = [
        "httproutes",
        "backends",
        "envoypatchpolicies",
        "envoyextensionpolicies",
    ];
    let more = ["backendtrafficpolicies", "gateways", "referencegrants"];
    let all = writes.iter().filter(|w| w.subresource.is_empty());
    all.filter(|w| made.contains(&w.resource.as_str()) || more.contains(&w.resource.as_str()))
        .collect()
}

async fn objects_applied_in_any_order_become_the_same_route(stack: &Stack) -> Result<()> {
    let gateway = stack.make_gateway(Class::Envoy140, "orders-gw", "edge");
    stack
        .admin()
        .await?
        .make_namespace("orders-gw", &[])
        .await?;
    gateway.await?;
    let place = Place::start(&stack.plane, "orders", &["--gateway", "orders-gw/edge"]).await?;
    let id = Key::new(place.dir.path(), "box")?.id;
    let [connector, advertisement] = connector("box");
    // Each order has its own host name, connector and proxy.
    let parts = |n: usize| {
        let rename = |mut object: Value| {
            object["metadata"]["name"] = json!(format!("box{n}"));
            object
        };
        let mut advertisement = rename(advertisement.clone());
        advertisement["spec"]["connectorRef"]["name"] = json!(format!("box{n}"));
        let mut proxy = proxy(&format!("web{n}"), &format!("web{n}.test"), 80);
        let backend = &mut proxy["spec"]["rules"][0]["backends"][0];
        backend["connector"]["name"] = json!(format!("box{n}"));
        [class(), rename(connector.clone()), advertisement, proxy]
    };
    let orders = [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [2, 3, 0, 1],
        [1, 3, 0, 2],
        [3, 1, 2, 0],
    ];
    for (n, order) in orders.iter().enumerate() {
        place
            .objects
            .delete(Kind::CONNECTOR_CLASS, "", "datum-connect")
            .await?;
        let parts = parts(n);
        for part in order {
            let object = parts[*part].clone();
            place.apply(object).await?;
            if *part == 1 {
                place.connect(&format!("box{n}"), &id, "192.0.2.1").await?;
            }
        }
    }
    for n in 0..orders.len() {
        let programmed = place.programmed(&format!("web{n}")).await?;
        ensure!(is_true(&programmed, "Accepted"), "{programmed:#}");
        ensure!(
            programmed["status"]["hostnames"] == json!([format!("web{n}.test")]),
            "{programmed:#}"
        );
        let ready = condition(&programmed, "ConnectorsReady").context("ConnectorsReady")?;
        ensure!(
            ready["status"] == "False",
            "no agent renews the Lease: {ready}"
        );
    }
    ensure!(place.names(Kind::HTTP_ROUTE).await?.len() == orders.len());
    ensure!(place.names(Kind::BACKEND).await?.len() == orders.len());
    let policies = place
        .objects
        .list(Kind::ENVOY_PATCH_POLICY, "orders-gw", OURS)
        .await?;
    ensure!(policies.len() == orders.len());
    // One for the Gateway, and leave for it to select routes over here.
    let extensions = place
        .objects
        .list(Kind::ENVOY_EXTENSION_POLICY, "orders-gw", OURS)
        .await?;
    ensure!(
        extensions.len() == 1 && is_true(&extensions[0], "Accepted"),
        "{extensions:#?}"
    );
    ensure!(place.names(Kind::REFERENCE_GRANT).await?.len() == 1);
    let objects = place.objects.clone();
    place.end().await?;
    objects.delete_namespace("orders-gw").await
}

async fn a_malformed_proxy_is_told_so_and_stops_nobody(_: &Stack) -> Result<()> {
    // An API of its own, whose CRD is an older one: with hardly a schema.
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let name = "httpproxies.networking.datumapis.com";
    let mut crd = objects.get(Kind::CRD, "", name).await?.context("the CRD")?;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"] = anything.clone();
    schema
        .as_object_mut()
        .context("a schema")?
        .remove("x-kubernetes-validations");
    let patch = json!({"spec": {"versions": crd["spec"]["versions"]}});
    objects.merge(Kind::CRD, "", name, None, &patch).await?;
    objects.apply("", class()).await?;
    let place = Place::start(&plane, "malformed", &[]).await?;
    place.connector("box").await?;
    until("the older CRD", async || {
        let mut spoilt = proxy("spoilt", "spoilt.test", 80);
        spoilt["spec"]["rules"] = json!("none");
        place.apply(spoilt).await.ok()
    })
    .await?;
    place.apply(proxy("good", "good.test", 80)).await?;
    let spoilt = place.refused("spoilt", "Accepted", "Invalid").await?;
    let message = condition(&spoilt, "Accepted").context("Accepted")?;
    ensure!(
        message["message"]
            .as_str()
            .is_some_and(|m| m.contains("cannot be read")),
        "{message}"
    );
    // The good one gets its Gateway, and says that nobody looks after it: there
    // is no GatewayClass here.
    place
        .refused("good", "Programmed", "GatewayNotReady")
        .await?;
    place.until(Kind::GATEWAY, "good", "made", |_| true).await?;
    // Corrected, it goes on.
    place.apply(proxy("spoilt", "spoilt.test", 80)).await?;
    let wanted = |object: &Value| is_true(object, "Accepted");
    place
        .until(Kind::HTTP_PROXY, "spoilt", "Accepted", wanted)
        .await?;
    place.end().await
}

async fn what_is_as_wanted_is_not_written_and_one_change_is_one_look(stack: &Stack) -> Result<()> {
    let place = one_proxy(stack, "calm").await?;
    place.apply(proxy("other", "other.test", 81)).await?;
    place.programmed("other").await?;
    let id = Key::new(place.dir.path(), "box")?.id;
    let before = place.looks().await?;
    let mark = stack.plane.mark();
    // The agent is elsewhere; somebody touches what nobody reads.
    place.connect("box", &id, "192.0.2.77").await?;
    place
        .objects
        .merge(
            Kind::HTTP_PROXY,
            "calm",
            "web",
            None,
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await?;
    ensure!(
        place.looks().await? == before,
        "{}",
        place.reconciler.last_words()
    );
    let writes = stack.plane.writes_since(mark)?;
    let own = |w: &&Write| w.namespace == "calm" && w.resource != "leases";
    let own: Vec<_> = writes.iter().filter(own).collect();
    // Those two, and nothing else.
    ensure!(own.len() == 2, "{own:#?}");
    // Another host name: a new wish of one of two HTTPProxies.
    place.apply(proxy("other", "else.test", 81)).await?;
    place.programmed("other").await?;
    let web = place
        .objects
        .get(Kind::HTTP_PROXY, "calm", "web")
        .await?
        .context("web")?;
    ensure!(is_true(&web, "Programmed"), "{web:#}");
    let writes = stack.plane.writes_since(mark)?;
    let web = writes.iter().filter(|w| w.name.starts_with("web-"));
    ensure!(web.count() == 0, "{writes:#?}");
    // Restarted, it finds all as it should be.
    let mut place = place;
    place.looks().await?;
    place.reconciler.terminate().await?;
    let mark = stack.plane.mark();
    let (again, objects) = (
        Place::start(&stack.plane, "calm", EDGE).await?,
        place.objects,
    );
    ensure!(again.looks().await? >= 2);
    let writes = stack.plane.writes_since(mark)?;
    ensure!(programming(&writes).is_empty(), "{writes:#?}");
    let statuses = writes.iter().filter(|w| w.resource == "httpproxies");
    ensure!(statuses.count() == 0, "{writes:#?}");
    drop(objects);
    again.end().await
}

const EDGE: &[&str] = &["--gateway", "calm/edge"];

/// A place with a Gateway of its own named `edge` and the HTTPProxy `web`.
async fn one_proxy(stack: &Stack, namespace: &str) -> Result<Place> {
    let objects = stack.admin().await?;
    objects.make_namespace(namespace, &[]).await?;
    stack
        .make_gateway(Class::Envoy140, namespace, "edge")
        .await?;
    objects.apply("", class()).await?;
    let gateway = format!("{namespace}/edge");
    let place = Place::start(&stack.plane, namespace, &["--gateway", &gateway]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "web.test", 80)).await?;
    place.programmed("web").await?;
    Ok(place)
}

async fn what_others_change_is_put_right_and_what_is_theirs_is_left_alone(
    stack: &Stack,
) -> Result<()> {
    let place = one_proxy(stack, "drift").await?;
    let route = place.names(Kind::HTTP_ROUTE).await?.remove(0);
    let get = async || {
        let found = place.objects.get(Kind::HTTP_ROUTE, "drift", &route).await?;
        found.context("the route")
    };
    let before = get().await?;
    // A field of ours changes, one that is not ours comes.
    let patch = json!({"metadata": {"annotations": {"mine": "kept"}}, "spec": {"hostnames": ["evil.test"]}});
    place
        .objects
        .merge(Kind::HTTP_ROUTE, "drift", &route, None, &patch)
        .await?;
    let right =
        |r: &Value| r["spec"] == before["spec"] && r["metadata"]["annotations"]["mine"] == "kept";
    place
        .until(Kind::HTTP_ROUTE, &route, "put right", right)
        .await?;
    // Deleted, it comes back.
    place
        .objects
        .delete(Kind::HTTP_ROUTE, "drift", &route)
        .await?;
    let back = |r: &Value| r["metadata"]["uid"] != before["metadata"]["uid"];
    place
        .until(Kind::HTTP_ROUTE, &route, "made again", back)
        .await?;
    place.programmed("web").await?;

    // Somebody's own Gateway has the name that would be made.
    let theirs = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "mine"},
        "spec": {"gatewayClassName": "somebodys", "listeners": [
            {"name": "http", "port": 8888, "protocol": "HTTP"},
        ]},
    });
    let mut second = Place::start(
        &stack.plane,
        "drift",
        &[
            "--leader-lease-name",
            "second",
            "--gateway-class",
            "envoy-1-40",
        ],
    )
    .await?;
    second.apply(theirs).await?;
    let theirs = second
        .until(Kind::GATEWAY, "mine", "there", |_| true)
        .await?;
    second.apply(proxy("mine", "mine.test", 80)).await?;
    // The first reconciler uses its own Gateway for it; only the second would
    // make one.
    place.reconciler_ends().await?;
    second.refused("mine", "Programmed", "Conflict").await?;
    let now = second
        .objects
        .get(Kind::GATEWAY, "drift", "mine")
        .await?
        .context("theirs")?;
    ensure!(now["spec"] == theirs["spec"], "{now:#}");
    ensure!(now["metadata"]["labels"].is_null(), "{now:#}");
    second.reconciler.terminate().await?;
    second.objects.delete_namespace("drift").await
}

impl Place {
    async fn reconciler_ends(mut self) -> Result<()> {
        let status = self.reconciler.terminate().await?;
        ensure!(status.success(), "{}", self.reconciler.last_words());
        Ok(())
    }
}

async fn a_gateway_elsewhere_is_used_as_long_as_it_allows_it(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    for namespace in ["far-gw", "near-gw"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    objects.apply("", class()).await?;
    stack.make_gateway(Class::Envoy140, "far-gw", "far").await?;
    let flags = ["--gateway", "far-gw/far"];
    let place = Place::start(&stack.plane, "guest", &flags).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "guest.test", 80)).await?;
    place.programmed("web").await?;
    let there = async |kind| objects.list(kind, "far-gw", OURS).await;
    ensure!(there(Kind::ENVOY_PATCH_POLICY).await?.len() == 1);
    // Not any more.
    let same = json!([{"name": "http", "port": 18080, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Same"}}}]);
    let patch = json!({"spec": {"listeners": same}});
    objects
        .merge(Kind::GATEWAY, "far-gw", "far", None, &patch)
        .await?;
    place
        .refused("web", "Programmed", "NotAllowedByListeners")
        .await?;
    for kind in [Kind::ENVOY_PATCH_POLICY, Kind::ENVOY_EXTENSION_POLICY] {
        objects
            .until_list(kind, "far-gw", OURS, "nothing of a guest", |all| {
                all.is_empty()
            })
            .await
            .with_context(|| place.reconciler.last_words())?;
    }
    for kind in MADE {
        ensure!(place.names(kind).await?.is_empty(), "{kind:?}");
    }
    objects
        .until_list(Kind::REFERENCE_GRANT, "guest", OURS, "no grant", |all| {
            all.is_empty()
        })
        .await?;
    // One that names another Gateway by its annotation, which is not there yet.
    let mut named = proxy("named", "named.test", 80);
    named["metadata"]["annotations"] = json!({"networking.datumapis.com/gateway": "guest-gw"});
    place.apply(named).await?;
    place
        .refused("named", "Programmed", "GatewayNotFound")
        .await?;
    stack
        .make_gateway(Class::Envoy140, "guest", "guest-gw")
        .await?;
    place.programmed("named").await?;
    place.end().await?;
    for namespace in ["far-gw", "near-gw"] {
        objects.delete_namespace(namespace).await?;
    }
    Ok(())
}

async fn a_proxy_without_a_gateway_gets_one_of_its_own(stack: &Stack) -> Result<()> {
    stack.admin().await?.apply("", class()).await?;
    let place = Place::start(&stack.plane, "own", &["--gateway-class", "envoy-1-40"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "own.test", 80)).await?;
    place.programmed("web").await?;
    let gateway = place.until(Kind::GATEWAY, "web", "made", |_| true).await?;
    ensure!(
        gateway["spec"]["gatewayClassName"] == "envoy-1-40",
        "{gateway:#}"
    );
    ensure!(
        gateway["metadata"]["ownerReferences"][0]["name"] == "web",
        "{gateway:#}"
    );
    // With another Gateway the one that was made goes, when the other serves.
    stack.make_gateway(Class::Envoy140, "own", "edge").await?;
    let annotation =
        json!({"metadata": {"annotations": {"networking.datumapis.com/gateway": "edge"}}});
    place
        .objects
        .merge(Kind::HTTP_PROXY, "own", "web", None, &annotation)
        .await?;
    place
        .objects
        .until_gone(Kind::GATEWAY, "own", "web")
        .await?;
    place.programmed("web").await?;
    let policies = place
        .objects
        .list(Kind::ENVOY_PATCH_POLICY, "own", OURS)
        .await?;
    ensure!(policies.len() == 1, "{policies:#?}");
    ensure!(
        policies[0]["spec"]["targetRef"]["name"] == "edge",
        "{policies:#?}"
    );
    place.end().await
}

async fn a_gateway_without_the_module_gets_nothing(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("bare", &[]).await?;
    objects.apply("", class()).await?;
    stack.make_gateway(Class::NoModule, "bare", "edge").await?;
    let place = Place::start(&stack.plane, "bare", &["--gateway", "bare/edge"]).await?;
    place.connector("box").await?;
    place.apply(proxy("web", "bare.test", 80)).await?;
    place
        .refused("web", "Programmed", "ModuleNotInstalled")
        .await?;
    for kind in MADE.into_iter().chain([Kind::ENVOY_EXTENSION_POLICY]) {
        ensure!(place.names(kind).await?.is_empty(), "{kind:?}");
    }
    // A backend without a connector needs no module.
    let mut plain = proxy("plain", "plain.test", 80);
    plain["spec"]["rules"] = json!([{"backends": [{"endpoint": "http://192.0.2.9:80"}]}]);
    place.apply(plain).await?;
    place.programmed("plain").await?;
    ensure!(place.names(Kind::ENVOY_PATCH_POLICY).await?.is_empty());
    place.end().await
}

async fn a_deleted_proxy_and_a_deleted_namespace_leave_nothing(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("left-gw", &[]).await?;
    objects.apply("", class()).await?;
    stack
        .make_gateway(Class::Envoy140, "left-gw", "edge")
        .await?;
    let flags = ["--gateway", "left-gw/edge"];
    let mut place = Place::start(&stack.plane, "left", &flags).await?;
    place.connector("box").await?;
    let gone = async |what: &str| {
        for kind in [Kind::ENVOY_PATCH_POLICY, Kind::ENVOY_EXTENSION_POLICY] {
            objects
                .until_list(kind, "left-gw", OURS, what, |all| all.is_empty())
                .await?;
        }
        for kind in [Kind::HTTP_ROUTE, Kind::BACKEND, Kind::REFERENCE_GRANT] {
            objects
                .until_list(kind, "left", OURS, what, |all| all.is_empty())
                .await?;
        }
        anyhow::Ok(())
    };
    place.apply(proxy("web", "left.test", 80)).await?;
    place.programmed("web").await?;
    objects.delete(Kind::HTTP_PROXY, "left", "web").await?;
    gone("nothing left of web")
        .await
        .with_context(|| place.reconciler.last_words())?;
    // Deleted while nobody looks: found at the next start.
    place.apply(proxy("web", "left.test", 80)).await?;
    place.programmed("web").await?;
    place.reconciler.terminate().await?;
    objects.delete(Kind::HTTP_PROXY, "left", "web").await?;
    objects
        .until_list(Kind::HTTP_ROUTE, "left", OURS, "collected", |all| {
            all.is_empty()
        })
        .await?;
    ensure!(
        objects
            .list(Kind::ENVOY_PATCH_POLICY, "left-gw", OURS)
            .await?
            .len()
            == 1
    );
    let place = Place::start(&stack.plane, "left", &flags).await?;
    gone("nothing left of web, late")
        .await
        .with_context(|| place.reconciler.last_words())?;
    // And the whole namespace at once.
    place.apply(proxy("web", "left.test", 80)).await?;
    place.programmed("web").await?;
    place.end().await?;
    objects
        .until_list(
            Kind::ENVOY_PATCH_POLICY,
            "left-gw",
            OURS,
            "nothing",
            |all| all.is_empty(),
        )
        .await?;
    objects.delete_namespace("left-gw").await
}

async fn the_role_in_the_manifests_is_enough(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    for namespace in ["adit-system", "role-gw"] {
        objects.make_namespace(namespace, &[]).await?;
    }
    objects.apply("", class()).await?;
    let file = binaries::root().join("envoy/kubernetes/rbac-reconciler.yaml");
    objects
        .apply_yaml("", &std::fs::read_to_string(file)?)
        .await?;
    stack
        .make_gateway(Class::Envoy140, "role-gw", "edge")
        .await?;
    let account = stack
        .plane
        .user("system:serviceaccount:adit-system:adit-reconciler")?;
    let flags = ["--gateway", "role-gw/edge", "--namespace", "adit-system"];
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("admin.sock");
    let mut command = Command::new(binaries::adit()?);
    command
        .arg("reconciler")
        .arg("--kubeconfig")
        .arg(&account)
        .args(flags);
    command
        .arg("--admin")
        .arg(format!("unix:{}", socket.display()))
        .env_clear();
    // All namespaces: nothing is left out of what it may ever do.
    let mut reconciler = Process::start("reconciler", dir.path(), &mut command)?;
    let admin = Admin::Unix(socket);
    reconciler
        .until("ready reconciler", async || admin.get("/readyz").await.ok())
        .await?;
    objects.make_namespace("role", &[]).await?;
    for object in connector("box") {
        objects.apply("role", object).await?;
    }
    let id = Key::new(dir.path(), "box")?.id;
    let status = details(&id, "192.0.2.1");
    objects
        .merge(Kind::CONNECTOR, "role", "box", Some("status"), &status)
        .await?;
    let mut first = proxy("web", "role.test", 80);
    first["spec"]["rules"][0]["backends"][0]["endpoint"] = json!("http://localhost:99");
    objects.apply("role", first).await?;
    let refused =
        |o: &Value| condition(o, "Accepted").is_some_and(|c| c["reason"] == "NotAdvertised");
    objects
        .until(Kind::HTTP_PROXY, "role", "web", "NotAdvertised", refused)
        .await?;
    objects.apply("role", proxy("web", "role.test", 80)).await?;
    let wanted = |object: &Value| is_true(object, "Programmed");
    let programmed = objects.until(Kind::HTTP_PROXY, "role", "web", "Programmed", wanted);
    programmed.await.with_context(|| reconciler.last_words())?;
    // A person was told.
    let told = |all: &[Value]| all.iter().any(|e| e["reason"] == "NotAdvertised");
    objects
        .until_list(Kind::EVENT, "role", "", "an event", told)
        .await?;
    objects.delete(Kind::HTTP_PROXY, "role", "web").await?;
    objects
        .until_list(
            Kind::ENVOY_PATCH_POLICY,
            "role-gw",
            OURS,
            "nothing",
            |all| all.is_empty(),
        )
        .await
        .with_context(|| reconciler.last_words())?;
    objects
        .until_list(
            Kind::ENVOY_EXTENSION_POLICY,
            "role-gw",
            OURS,
            "nothing",
            |all| all.is_empty(),
        )
        .await?;
    reconciler.terminate().await?;
    let log = reconciler.log();
    ensure!(!log.contains("orbidden"), "{log}");
    for namespace in ["role", "role-gw", "adit-system"] {
        objects.delete_namespace(namespace).await?;
    }
    Ok(())
}

async fn envoy_gateway_may_be_installed_later(_: &Stack) -> Result<()> {
    let plane = ControlPlane::start().await?;
    let objects = plane.admin().await?;
    let name = "envoypatchpolicies.gateway.envoyproxy.io";
    let crd = objects.get(Kind::CRD, "", name).await?.context("the CRD")?;
    objects.delete(Kind::CRD, "", name).await?;
    objects.until_gone(Kind::CRD, "", name).await?;
    let place = Place::start(&plane, "later", &[]).await?;
    place.apply(proxy("web", "later.test", 80)).await?;
    let said = place
        .refused("web", "Programmed", "GatewayNotReady")
        .await?;
    let message = condition(&said, "Programmed").context("Programmed")?;
    let names_it = |m: &str| m.contains("EnvoyPatchPolicy");
    ensure!(
        message["message"].as_str().is_some_and(names_it),
        "{message}"
    );
    let again = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name}, "spec": crd["spec"],
    });
    objects.apply("", again).await?;
    place
        .until(Kind::HTTP_PROXY, "web", "another reason", |object| {
            let condition = condition(object, "Programmed");
            condition.is_some_and(|c| !c["message"].as_str().is_some_and(names_it))
        })
        .await?;
    place.end().await
}

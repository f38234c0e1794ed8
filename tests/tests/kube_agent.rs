//! `adit connector` at a real API server, with exactly the rights of
//! `envoy/kubernetes/rbac-connector.yaml`. The reconciler's part (the Lease,
//! `allowedDialers`) is played by the tests.
//!
//! | what happens | what must follow |
//! |---|---|
//! | started for the first time | Connector, status and advertisement are there |
//! | nothing | nothing is written but the Lease |
//! | started with other options, elsewhere | the same objects, changed |
//! | targets change in its file | the advertisement follows |
//! | an object is deleted or edited | it is as before |
//! | status writes are refused | the Lease is renewed all the same |
//! | the API server dies and comes back | tunnels go on; the agent is back |
//! | `allowedDialers` changes | tunnels open and are cut, without a restart |
//! | a second agent, same key or same name | one of them writes, both say so |
//! | it ends | the Lease is let go |

use std::{fs, path::PathBuf, process::Command, time::Duration};

use adit_tests::{
    bare::{self, Dialer},
    client::patiently,
    connector::Connector,
    expect_ok,
    keys::Key,
    kube::{ControlPlane, Kind, Objects, enter},
    process::{self, Process, until},
    services::tcp::{Manner, TcpService},
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The name in the role.
const EDGE: &str = "edge";

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        mod at_a_real_api_server {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    adit_tests::expect_ok(super::$name().await);
                }
            )*
        }
    };
}

tests!(
    an_agent_creates_its_objects_and_then_writes_nothing_but_its_lease,
    an_agent_that_starts_again_elsewhere_changes_what_differs,
    objects_that_are_deleted_or_edited_are_made_as_they_were,
    a_lease_is_renewed_while_status_writes_are_refused,
    dialers_are_let_in_and_out_by_the_connectors_status,
    of_two_agents_with_one_key_the_later_one_writes,
    a_name_stays_with_the_device_that_holds_it,
    an_httpproxy_is_applied_when_asked_to,
    the_role_allows_its_own_objects_and_nothing_else,
);

/// A namespace of its own, and the agent in it.
struct Stage {
    objects: Objects,
    namespace: String,
    agent: Connector,
    echo: TcpService,
    dir: TempDir,
}

impl Stage {
    async fn new(namespace: &str) -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        Self::on(plane, namespace).await
    }

    async fn on(plane: &ControlPlane, namespace: &str) -> Result<Self> {
        let objects = plane.admin().await?;
        objects.make_namespace(namespace, &[]).await?;
        let role = rules()?;
        let user = format!("{namespace}-agent");
        let kubeconfig = plane.user_with(&user, namespace, role).await?;
        let dir = tempfile::Builder::new().prefix("adit-agent-").tempdir()?;
        let echo = TcpService::start(Manner::Echo)?;
        let agent = agent(&dir, "agent", &kubeconfig, namespace, &echo)?;
        Ok(Self {
            objects,
            namespace: namespace.to_owned(),
            agent,
            echo,
            dir,
        })
    }

    async fn connector(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = self
            .objects
            .until(Kind::CONNECTOR, &self.namespace, EDGE, what, wanted);
        let found = found.await;
        found.with_context(|| match &self.agent.process {
            Some(process) => process.last_words(),
            None => "the agent does not run".to_owned(),
        })
    }

    /// Plays the reconciler: the Lease, as it makes it.
    async fn make_lease(&self, seconds: u32) -> Result<()> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": EDGE},
            "spec": {"leaseDurationSeconds": seconds},
        });
        self.objects
            .apply_as("adit-reconciler", &self.namespace, lease)
            .await
            .map(drop)
    }

    /// Plays the reconciler: who may connect.
    async fn allow(&self, dialers: &[&str]) -> Result<()> {
        let accepted = json!({
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = json!({"status": {"allowedDialers": dialers, "conditions": [accepted]}});
        self.objects
            .merge(
                Kind::CONNECTOR,
                &self.namespace,
                EDGE,
                Some("status"),
                &status,
            )
            .await
            .map(drop)
    }

    async fn lease(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = self
            .objects
            .until(Kind::LEASE, &self.namespace, EDGE, what, wanted);
        let found = found.await;
        found.with_context(|| match &self.agent.process {
            Some(process) => process.last_words(),
            None => "the agent does not run".to_owned(),
        })
    }
}

/// An agent with a kubeconfig, and no allow-list of its own.
fn agent(
    dir: &TempDir,
    name: &str,
    kubeconfig: &std::path::Path,
    namespace: &str,
    echo: &TcpService,
) -> Result<Connector> {
    let targets = [echo.addr.to_string(), "*.corp.example:443".to_owned()];
    let mut agent = Connector::new(dir.path(), name, &[], &targets)?;
    agent.options.remove("allow");
    agent
        .set("kubeconfig", json!(kubeconfig))
        .set("namespace", json!(namespace))
        .set("name", json!(EDGE))
        .set("label", json!(["site=a"]))
        .set("device-name", json!(format!("{name}-device")));
    Ok(agent)
}

/// The rules of the role that is shipped.
fn rules() -> Result<Value> {
    let text = fs::read_to_string(manifest("rbac-connector.yaml"))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let role = documents.into_iter().find(|d| d["kind"] == "Role");
    Ok(role.context("a Role")?["rules"].take())
}

fn manifest(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../envoy/kubernetes").join(name)
}

fn has_details(connector: &Value) -> bool {
    connector["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"].is_u64()
}

fn renewed(lease: &Value) -> bool {
    lease["spec"]["renewTime"].is_string()
        && lease["spec"]["holderIdentity"]
            .as_str()
            .is_some_and(|h| !h.is_empty())
}

async fn an_agent_creates_its_objects_and_then_writes_nothing_but_its_lease() -> Result<()> {
    let mut stage = Stage::new("create").await?;
    stage.agent.start().await?;
    let connector = stage.connector("connection details", has_details).await?;
    let bound = stage.agent.bound().await?;
    let details = &connector["status"]["connectionDetails"]["publicKey"];
    ensure!(details["id"] == stage.agent.key.id.as_str(), "{details}");
    ensure!(
        details["addresses"] == json!([{"address": "127.0.0.1", "port": bound[0].port()}]),
        "{details} {bound:?}"
    );
    ensure!(connector["spec"]["connectorClassName"] == "datum-connect");
    ensure!(connector["metadata"]["labels"]["site"] == "a");
    ensure!(
        connector["status"]["device"]["name"] == "agent-device"
            && connector["status"]["device"]["os"].is_string(),
        "{}",
        connector["status"]
    );
    let capability = &connector["status"]["capabilities"][0];
    ensure!(
        capability["type"] == "ConnectTCP" && capability["conditions"][0]["status"] == "True",
        "{capability}"
    );
    let advertised = |ad: &Value| ad["spec"]["layer4"][0]["services"][1]["address"] == "127.0.0.1";
    stage
        .objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            "create",
            EDGE,
            "targets",
            advertised,
        )
        .await?;

    // The Lease is made after the Connector, as in life: it is found at once.
    stage.make_lease(6).await?;
    stage.lease("renewal", renewed).await?;
    let plane = ControlPlane::shared().await?;
    let mark = plane.mark();
    let before = stage.connector("the Connector", has_details).await?;
    let renewals = || -> Result<Vec<_>> {
        let writes = plane.writes_since(mark)?;
        let own = writes.into_iter().filter(|w| w.user == "create-agent");
        Ok(own.collect())
    };
    until("three more renewals", async || {
        (renewals().ok()?.len() >= 3).then_some(())
    })
    .await?;
    for write in renewals()? {
        ensure!(write.resource == "leases" && write.code == 200, "{write:?}");
    }
    let after = stage.connector("the Connector", has_details).await?;
    ensure!(before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]);

    let status = stage.agent.status().await?;
    let control = &status["controlPlane"];
    ensure!(control["connected"] == true, "{control}");
    ensure!(control["object"] == "create/edge", "{control}");
    ensure!(control["leaseRenewedSeconds"].is_u64(), "{control}");
    ensure!(control["lastError"].is_null(), "{control}");
    let metrics = stage.agent.admin.get("/metrics").await?;
    ensure!(
        metrics.contains("adit_connector_control_plane_connected 1"),
        "{metrics}"
    );

    // Its end is seen at once, by whoever looks at holder or time.
    let mut process = stage.agent.process.take().context("a process")?;
    process.terminate().await?;
    stage
        .lease("release", |lease| {
            lease["spec"]["renewTime"].is_null()
                && lease["spec"]["holderIdentity"]
                    .as_str()
                    .is_none_or(str::is_empty)
        })
        .await?;
    stage.connector("what stays", has_details).await?;
    Ok(())
}

async fn an_agent_that_starts_again_elsewhere_changes_what_differs() -> Result<()> {
    let mut stage = Stage::new("restart").await?;
    stage.agent.start().await?;
    let first = stage.connector("connection details", has_details).await?;
    stage.make_lease(30).await?;
    stage.lease("renewal", renewed).await?;
    // Killed, as when a device loses power: the Lease stays fresh.
    stage.agent.kill()?;
    stage
        .agent
        .set("label", json!(["line=7"]))
        .set("device-os", json!("Other OS"));
    stage.agent.start().await?;
    let port = stage.agent.bound().await?[0].port();
    let moved = |c: &Value| {
        c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == port
            && c["status"]["device"]["os"] == "Other OS"
            && c["metadata"]["labels"]["line"] == "7"
    };
    let second = stage.connector("the new address", moved).await?;
    ensure!(first["metadata"]["uid"] == second["metadata"]["uid"]);
    ensure!(
        second["metadata"]["labels"]["site"].is_null(),
        "a label that is no longer wanted goes: {}",
        second["metadata"]["labels"]
    );

    // Targets follow the file without a restart.
    stage.agent.set("targets", json!(["db.internal:5432"]));
    stage.agent.reconfigure()?;
    let follows = |ad: &Value| {
        ad["spec"]["layer4"]
            == json!([{"name": "targets-1", "services": [{"address": "db.internal", "ports": [
                {"name": "tcp-5432", "port": 5432, "protocol": "TCP"}]}]}])
    };
    stage
        .objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            "restart",
            EDGE,
            "the new target",
            follows,
        )
        .await?;
    Ok(())
}

async fn objects_that_are_deleted_or_edited_are_made_as_they_were() -> Result<()> {
    let mut stage = Stage::new("repair").await?;
    stage.agent.start().await?;
    let first = stage.connector("connection details", has_details).await?;
    let uid = first["metadata"]["uid"].clone();
    stage
        .objects
        .delete(Kind::CONNECTOR, "repair", EDGE)
        .await?;
    let again = |c: &Value| has_details(c) && c["metadata"]["uid"] != uid;
    stage.connector("a new Connector", again).await?;
    stage
        .objects
        .delete(Kind::CONNECTOR_ADVERTISEMENT, "repair", EDGE)
        .await?;
    let advertised = |ad: &Value| ad["spec"]["layer4"][0]["services"].is_array();
    stage
        .objects
        .until(
            Kind::CONNECTOR_ADVERTISEMENT,
            "repair",
            EDGE,
            "targets",
            advertised,
        )
        .await?;
    let edit =
        json!({"spec": {"connectorClassName": "other"}, "metadata": {"labels": {"mine": "too"}}});
    stage
        .objects
        .merge(Kind::CONNECTOR, "repair", EDGE, None, &edit)
        .await?;
    let repaired = |c: &Value| {
        c["spec"]["connectorClassName"] == "datum-connect"
            && c["metadata"]["labels"]["mine"] == "too"
    };
    stage.connector("its class again", repaired).await?;

    // An administrator forbids TCP: the agent does not undo it, and says so.
    let disable = json!({"spec": {"capabilities": [{"type": "ConnectTCP", "connectTCP": {"disabled": true}}]}});
    stage
        .objects
        .merge(Kind::CONNECTOR, "repair", EDGE, None, &disable)
        .await?;
    let denied = |c: &Value| {
        c["status"]["capabilities"][0]["conditions"][0]["reason"] == "Disabled"
            && c["spec"]["capabilities"][0]["connectTCP"]["disabled"] == true
    };
    stage.connector("the denial", denied).await?;
    Ok(())
}

async fn a_lease_is_renewed_while_status_writes_are_refused() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let mut stage = Stage::new("refused").await?;
    let Value::Array(mut rules) = rules()? else {
        bail!("rules are a list");
    };
    rules.retain(|rule| rule["resources"][0] != "connectors/status");
    let kubeconfig = plane
        .user_with("refused-agent-2", "refused", Value::Array(rules))
        .await?;
    stage.agent.set("kubeconfig", json!(kubeconfig));
    stage.make_lease(6).await?;
    stage.agent.start().await?;
    let first = stage.lease("renewal", renewed).await?;
    let time = first["spec"]["renewTime"].clone();
    stage
        .lease("another renewal", |l| {
            renewed(l) && l["spec"]["renewTime"] != time
        })
        .await?;
    let said = until("what is refused", async || {
        let status = stage.agent.status().await.ok()?;
        let error = status["controlPlane"]["lastError"].as_str()?.to_owned();
        error.contains("status").then_some(error)
    });
    let said = said.await?;
    ensure!(
        said.contains("not permitted") && said.contains("refused-agent-2"),
        "{said}"
    );
    let log = stage.agent.process()?.log();
    let times = log.matches("write the Connector's status").count();
    ensure!(times == 1, "said {times} times, not once:\n{log}");
    Ok(())
}

async fn dialers_are_let_in_and_out_by_the_connectors_status() -> Result<()> {
    let mut stage = Stage::new("dialers").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    let addr = stage.agent.bound().await?[0];
    let key = Key::new(stage.dir.path(), "dialer")?;
    let hints = [(stage.agent.key.id.as_str(), addr)];
    let dialer = Dialer::start(stage.dir.path(), &key, &hints, &[]).await?;
    let service = stage.echo.addr.to_string();
    let target = bare::target(&[&stage.agent.key.id], &service, Duration::from_secs(5))?;
    let tunnel = || dialer.tunnel(&target);
    ensure!(tunnel().await.is_err(), "nobody was let in yet");

    stage.allow(&[&"l".repeat(52), &key.id]).await?;
    let mut stream = until("a tunnel", async || tunnel().await.ok()).await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("while the status names the dialer", &stage))?;

    // The configured list and the status add up, both live.
    stage.agent.set("allow", json!([key.id]));
    // The first reading is of the file as it was at the start.
    let read = async || reloads(&stage).await.filter(|n| *n > 0);
    let before = until("the first reading", read).await?;
    stage.agent.reconfigure()?;
    until("the configured list", async || {
        reloads(&stage).await.filter(|n| *n > before)
    })
    .await?;
    // Another dialer instead, as an unchanged union would not be announced.
    let other = Key::new(stage.dir.path(), "other")?;
    stage.allow(&[&other.id]).await?;
    until("the other dialer", async || {
        let log = stage.agent.process().map(|p| p.log()).unwrap_or_default();
        let told = log.matches("status.allowedDialers is in effect").count();
        (told == 2).then_some(())
    })
    .await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("while the configuration names it", &stage))?;

    // Taken away by both: the tunnel is cut.
    stage.agent.options.remove("allow");
    stage.agent.reconfigure()?;
    let mut rest = Vec::new();
    let cut = patiently("the cut", async { Ok(stream.read_to_end(&mut rest).await) }).await?;
    ensure!(cut.is_err() || rest.is_empty(), "{rest:?}");
    ensure!(tunnel().await.is_err(), "it was let out");
    stage.allow(&[&key.id]).await?;
    let mut stream = until("a tunnel again", async || tunnel().await.ok()).await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("after it was named again", &stage))?;

    // A Connector that is deleted takes no right away: it is made anew, and
    // says nothing about dialers until its controller has spoken.
    stage
        .objects
        .delete(Kind::CONNECTOR, "dialers", EDGE)
        .await?;
    stage
        .connector("connection details again", has_details)
        .await?;
    echoes(&mut stream)
        .await
        .with_context(|| at("with a Connector that was made anew", &stage))?;
    Ok(())
}

async fn of_two_agents_with_one_key_the_later_one_writes() -> Result<()> {
    let mut stage = Stage::new("twins").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    stage.make_lease(6).await?;
    let first = stage.lease("renewal", renewed).await?;
    let kubeconfig = stage.agent.options["kubeconfig"].clone();
    let path = PathBuf::from(kubeconfig.as_str().context("a path")?);
    let mut twin = agent(&stage.dir, "twin", &path, "twins", &stage.echo)?;
    twin.set("key-file", json!(stage.agent.key.file));
    twin.start().await?;
    let port = twin.bound().await?[0].port();
    let moved =
        |c: &Value| c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == port;
    stage.connector("the twin's address", moved).await?;
    let holder = first["spec"]["holderIdentity"].clone();
    stage
        .lease("another holder", |l| {
            renewed(l) && l["spec"]["holderIdentity"] != holder
        })
        .await?;
    // Both say so, and the Connector too; and nobody takes it back.
    let notice = until("the first one's notice", async || {
        let status = stage.agent.status().await.ok()?;
        Some(status["controlPlane"]["notice"].as_str()?.to_owned())
    });
    ensure!(notice.await?.contains("twin-device"));
    let conflict = |c: &Value| {
        let conditions = c["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "AgentConflict" && c["status"] == "True")
        }) && moved(c)
    };
    stage.connector("the conflict", conflict).await?;
    // Killed, the twin's Lease runs out and the first one is there again.
    twin.kill()?;
    let own = stage.agent.bound().await?[0].port();
    let back = |c: &Value| {
        let conditions = c["status"]["conditions"].as_array();
        let conflict =
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "AgentConflict"));
        c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == own && !conflict
    };
    stage.connector("the first one's address", back).await?;
    Ok(())
}

async fn a_name_stays_with_the_device_that_holds_it() -> Result<()> {
    let mut stage = Stage::new("names").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    stage.make_lease(6).await?;
    stage.lease("renewal", renewed).await?;
    let kubeconfig = stage.agent.options["kubeconfig"].clone();
    let path = PathBuf::from(kubeconfig.as_str().context("a path")?);
    let mut other = agent(&stage.dir, "other", &path, "names", &stage.echo)?;
    other.start().await?;
    let notice = until("the notice", async || {
        let status = other.status().await.ok()?;
        Some(status["controlPlane"]["notice"].as_str()?.to_owned())
    });
    let notice = notice.await?;
    ensure!(
        notice.contains("agent-device") && notice.contains("--name"),
        "{notice}"
    );
    let same = |c: &Value| {
        c["status"]["connectionDetails"]["publicKey"]["id"] == stage.agent.key.id.as_str()
            && c["status"]["device"]["name"] == "agent-device"
    };
    let seen = stage.connector("the first device", |_| true).await?;
    ensure!(same(&seen), "{}", seen["status"]);
    // It ends: the name is free at once.
    let mut process = stage.agent.process.take().context("a process")?;
    process.terminate().await?;
    let id = other.key.id.clone();
    let taken = |c: &Value| c["status"]["connectionDetails"]["publicKey"]["id"] == id.as_str();
    stage.connector("the other device", taken).await?;
    Ok(())
}

async fn an_httpproxy_is_applied_when_asked_to() -> Result<()> {
    let mut stage = Stage::new("proxy").await?;
    let file = stage.dir.path().join("proxy.yaml");
    let text = format!(
        "apiVersion: networking.datumapis.com/v1alpha\nkind: HTTPProxy\nmetadata: {{name: {EDGE}}}\n\
         spec:\n  hostnames: [web.example.com]\n  rules:\n  - backends:\n    - endpoint: http://{}\n\
         \x20     connector: {{name: {EDGE}}}\n",
        stage.echo.addr
    );
    fs::write(&file, text)?;
    stage.agent.set("http-proxy", json!(file));
    stage.agent.start().await?;
    let applied = |p: &Value| p["spec"]["hostnames"][0] == "web.example.com";
    stage
        .objects
        .until(Kind::HTTP_PROXY, "proxy", EDGE, "the manifest", applied)
        .await?;
    Ok(())
}

async fn the_role_allows_its_own_objects_and_nothing_else() -> Result<()> {
    let stage = Stage::new("rights").await?;
    let path = stage.agent.options["kubeconfig"].clone();
    let own = Objects::open(path.as_str().context("a path")?.as_ref()).await?;
    let mut wrong = Vec::new();
    for (group, resource) in [
        ("networking.datumapis.com", "connectors"),
        ("networking.datumapis.com", "connectors/status"),
        ("networking.datumapis.com", "connectoradvertisements"),
        ("networking.datumapis.com", "connectoradvertisements/status"),
        ("networking.datumapis.com", "connectorclasses"),
        ("networking.datumapis.com", "httpproxies"),
        ("networking.datumapis.com", "httpproxies/status"),
        ("coordination.k8s.io", "leases"),
        ("gateway.envoyproxy.io", "envoypatchpolicies"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("", "secrets"),
        ("", "pods/exec"),
    ] {
        for verb in [
            "get", "list", "watch", "create", "update", "patch", "delete",
        ] {
            for (namespace, name) in [("rights", EDGE), ("rights", "other"), ("default", EDGE)] {
                let right = name == EDGE && namespace == "rights";
                let expected = right
                    && match resource {
                        "connectors" | "connectoradvertisements" => {
                            ["get", "list", "watch", "create", "patch"].contains(&verb)
                        }
                        "connectors/status" => verb == "patch",
                        "httpproxies" => ["create", "patch"].contains(&verb),
                        "leases" => ["get", "patch"].contains(&verb),
                        _ => false,
                    };
                let allowed = own.may(verb, (group, resource), (namespace, name)).await?;
                if allowed != expected {
                    wrong.push(format!(
                        "{verb} {group}/{resource} {namespace}/{name}: {allowed}"
                    ));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_go_on_while_the_api_server_is_away_and_the_agent_comes_back() {
    expect_ok(away().await);
}

async fn away() -> Result<()> {
    enter()?;
    // One of its own: it is killed.
    let plane = ControlPlane::start().await?;
    let mut stage = Stage::on(&plane, "away").await?;
    stage.agent.start().await?;
    stage.connector("connection details", has_details).await?;
    stage.make_lease(6).await?;
    stage.lease("renewal", renewed).await?;
    let key = Key::new(stage.dir.path(), "dialer")?;
    stage.allow(&[&key.id]).await?;
    let hints = [(stage.agent.key.id.as_str(), stage.agent.bound().await?[0])];
    let dialer = Dialer::start(stage.dir.path(), &key, &hints, &[]).await?;
    let service = stage.echo.addr.to_string();
    let target = bare::target(&[&stage.agent.key.id], &service, Duration::from_secs(5))?;
    let mut stream = until("a tunnel", async || dialer.tunnel(&target).await.ok()).await?;

    let command = kill_api_server(&plane)?;
    let lost = until("the loss in /status", async || {
        let status = stage.agent.status().await.ok()?;
        let control = &status["controlPlane"];
        (control["connected"] == false).then(|| control["lastError"].to_string())
    });
    lost.await?;
    echoes(&mut stream).await?;
    let mut another = dialer.tunnel(&target).await?;
    echoes(&mut another).await?;
    // A restart meanwhile: it serves, with the list in its file only.
    stage.agent.kill()?;
    stage.agent.set("allow", json!([key.id]));
    stage.agent.start().await?;
    ensure!(stage.agent.status().await?["controlPlane"]["connected"] == false);
    let port = stage.agent.bound().await?[0].port();

    let _server = start_again(&plane, command)?;
    let back =
        |c: &Value| c["status"]["connectionDetails"]["publicKey"]["addresses"][0]["port"] == port;
    stage.connector("the new address", back).await?;
    until("the connection in /status", async || {
        let status = stage.agent.status().await.ok()?;
        (status["controlPlane"]["connected"] == true
            && status["controlPlane"]["lastError"].is_null())
        .then_some(())
    })
    .await
}

/// SIGKILL; returns the command that it was.
fn kill_api_server(plane: &ControlPlane) -> Result<Vec<String>> {
    let port = format!("--secure-port={}", plane.api.port());
    let own = process::descendants(std::process::id());
    let found = own.iter().find(|(_, line)| line.contains(&port));
    let (pid, _) = found.with_context(|| format!("an API server among {own:?}"))?;
    let line = fs::read(format!("/proc/{pid}/cmdline"))?;
    let words = line.split(|b| *b == 0).filter(|w| !w.is_empty());
    let words = words.map(|w| String::from_utf8_lossy(w).into_owned());
    let words = words.collect();
    process::signal_pid(*pid, Signal::KILL)?;
    Ok(words)
}

fn start_again(plane: &ControlPlane, command: Vec<String>) -> Result<Process> {
    let mut again = Command::new(command.first().context("a program")?);
    again.args(&command[1..]);
    Process::start("kube-apiserver-again", plane.dir(), &mut again)
}

/// How often the agent has read its file and used it.
async fn reloads(stage: &Stage) -> Option<u32> {
    let metrics = stage.agent.admin.get("/metrics").await.ok()?;
    let name = "adit_connector_reloads_total{result=\"ok\"} ";
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.parse().ok())
}

/// When it was, and what the agent said last.
fn at(when: &str, stage: &Stage) -> String {
    let words = stage.agent.process().map(|p| p.last_words());
    format!("{when}:\n{}", words.unwrap_or_default())
}

async fn echoes(stream: &mut UnixStream) -> Result<()> {
    patiently("an echo", async {
        stream.write_all(b"ping").await?;
        let mut got = [0; 4];
        stream.read_exact(&mut got).await?;
        ensure!(&got == b"ping", "{got:?}");
        Ok(())
    })
    .await
}

//! The order of an update, seen by an Envoy of our own: it answers like the
//! admin interface and looks at the files each time it is asked.

use std::{collections::BTreeSet, path::Path};

use adit_api::{ConnectorHint, DialerState};
use adit_wire::{EndpointId, Protocol, Target};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    task::JoinHandle,
};

use super::*;
use crate::{
    emit::{Setting, resources},
    model::{self, Action, Listener, ListenerKind, Model, RouteOrigin, VirtualHost},
};

/// What the false Envoy does with updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Refuses(Kind),
}

/// Answers until it is dropped, and notes each state of the files.
struct FalseEnvoy {
    seen: Arc<Mutex<Vec<String>>>,
    mood: Arc<Mutex<Mood>>,
    task: JoinHandle<()>,
}

impl Drop for FalseEnvoy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FalseEnvoy {
    fn start(config: &FilesConfig) -> Self {
        let listener = UnixListener::bind(config.admin_socket()).expect("bound");
        let (seen, mood) = (Arc::default(), Arc::new(Mutex::new(Mood::Takes)));
        let (folder, states, moods) = (config.folder.clone(), Arc::clone(&seen), Arc::clone(&mood));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                note(&folder, &states);
                let body = answer(&folder, &request, *lock(&moods));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        Self { seen, mood, task }
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.seen))
    }
}

fn read(folder: &Path, file: &str) -> Value {
    let bytes = fs::read(folder.join(file)).expect("there at any time");
    serde_json::from_slice(&bytes).expect("whole at any time")
}

/// `clusters | routes | targets`, when it differs from the last; and a route
/// must never name a cluster that is not there.
fn note(folder: &Path, seen: &Mutex<Vec<String>>) {
    let cds = read(folder, "cds.json");
    let clusters = cds["resources"].as_array().expect("a list").iter();
    let short = |name: &Value| {
        name.as_str()
            .and_then(|n| n.split('/').nth(1))
            .unwrap_or("?")
            .to_owned()
    };
    let clusters: BTreeSet<String> = clusters.map(|c| short(&c["name"])).collect();
    let rds = read(folder, "rds.json");
    let routes = rds["resources"][0]["virtual_hosts"][0]["routes"]
        .as_array()
        .expect("a list")
        .iter();
    let routes: BTreeSet<String> = routes.map(|r| short(&r["route"]["cluster"])).collect();
    assert!(routes.is_subset(&clusters), "{routes:?} {clusters:?}");
    let state: DialerState = serde_json::from_value(read(folder, "dialer.json")).expect("a state");
    let targets: BTreeSet<String> = state
        .targets
        .expect("managed")
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert!(routes.is_subset(&targets), "{routes:?} {targets:?}");
    let join = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join("+");
    let text = format!(
        "{} | {} | {}",
        join(&clusters),
        join(&routes),
        join(&targets)
    );
    let mut seen = lock(seen);
    if seen.last() != Some(&text) {
        seen.push(text);
    }
}

fn answer(folder: &Path, request: &str, mood: Mood) -> String {
    for kind in [Kind::Clusters, Kind::Routes, Kind::Listeners] {
        if request.contains(kind.stats()) {
            let version = read(folder, kind.file())["version_info"].clone();
            // Whoever refuses has refused whatever is new: each look counts one more.
            static REFUSED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
            return match mood {
                Mood::Refuses(refused) if refused == kind => {
                    let n = REFUSED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    format!("x.update_rejected: {n}\nx.version_text: \"old\"\n")
                }
                _ => format!("x.update_rejected: 0\nx.version_text: {version}\n"),
            };
        }
    }
    "cluster_manager.warming_clusters: 0\n".into()
}

/// A model with one route to one tunnel named `name`.
fn to(name: &str, config: &FilesConfig, address: &str) -> Resources {
    let id = EndpointId::from_bytes([7; 32]);
    let cluster = model::Cluster {
        owner: format!("default/{name}"),
        transport: model::Transport::Adit(Target {
            connectors: vec![id],
            service: format!("{name}:80").parse().expect("valid"),
            protocol: Protocol::Tcp,
            deadline: Duration::from_secs(1),
            name: name.into(),
        }),
        protocol: model::UpstreamProtocol::Http1,
    };
    let backends = vec![model::WeightedCluster {
        cluster: cluster.name(),
        weight: 1,
        request_headers: model::HeaderChanges::default(),
        response_headers: model::HeaderChanges::default(),
    }];
    let route = model::Route {
        origin: RouteOrigin {
            proxy: format!("default/{name}"),
            rule: 0,
            matched: 0,
        },
        matches: model::RouteMatch {
            target: model::RequestTarget::Path {
                kind: adit_api::networking::PathMatchType::PathPrefix,
                value: String::new(),
                method: None,
            },
            headers: vec![],
            query: vec![],
        },
        action: Action::Forward {
            backends,
            rewrite: model::Rewrite::default(),
        },
        request_headers: model::HeaderChanges::default(),
        response_headers: model::HeaderChanges::default(),
    };
    let model = Model {
        listeners: vec![Listener {
            name: "adit".into(),
            address: "127.0.0.1:0".parse().expect("valid"),
            netns: None,
            kind: ListenerKind::Http(vec![VirtualHost {
                hostname: None,
                routes: vec![route],
            }]),
        }],
        clusters: [(cluster.name(), cluster)].into(),
        connectors: vec![ConnectorHint {
            endpoint_id: id,
            relay: None,
            addresses: vec![address.parse().expect("valid")],
        }],
    };
    let setting = Setting {
        module: "/libadit.so".into(),
        dialer_socket: "/dialer.sock".into(),
        routes_file: config.routes(),
        html_page: None,
        access_log: None,
    };
    resources(&model, &setting)
}

fn begin() -> (TempDir, FilesConfig, Files, FalseEnvoy) {
    let folder = TempDir::new().expect("a folder");
    let config = FilesConfig {
        folder: folder.path().to_owned(),
        linger: Duration::ZERO,
    };
    let files = Files::start(config.clone(), to("a", &config, "192.0.2.1:1")).expect("written");
    let envoy = FalseEnvoy::start(&config);
    (folder, config, files, envoy)
}

#[tokio::test]
async fn a_new_target_is_known_before_its_route_and_the_old_one_goes_last() {
    let (_folder, config, mut files, envoy) = begin();
    assert!(
        files
            .emit(to("b", &config, "192.0.2.1:1"))
            .await
            .expect("taken")
    );
    assert!(files.prune_at().is_some());
    files.prune().await.expect("taken");
    note(&config.folder, &envoy.seen);
    assert_eq!(
        envoy.seen(),
        [
            "a | a | a+b",
            "a+b | a | a+b",
            "a+b | b | a+b",
            "b | b | a+b",
            "b | b | b"
        ]
    );
    assert_eq!(files.prune_at(), None);
}

#[tokio::test]
async fn a_connector_that_moves_changes_only_the_dialers_file() {
    let (_folder, config, mut files, _envoy) = begin();
    let before: Vec<_> = ["cds.json", "rds.json", "lds.json"]
        .map(|f| {
            fs::metadata(config.folder.join(f))
                .expect("there")
                .modified()
                .expect("a time")
        })
        .into();
    assert!(
        files
            .emit(to("a", &config, "192.0.2.9:9"))
            .await
            .expect("taken")
    );
    files.prune().await.expect("taken");
    let after: Vec<_> = ["cds.json", "rds.json", "lds.json"]
        .map(|f| {
            fs::metadata(config.folder.join(f))
                .expect("there")
                .modified()
                .expect("a time")
        })
        .into();
    assert_eq!(before, after);
    assert_eq!(
        read(&config.folder, "dialer.json")["connectors"][0]["addresses"][0],
        "192.0.2.9:9"
    );
    assert!(
        !files
            .emit(to("a", &config, "192.0.2.9:9"))
            .await
            .expect("nothing to do")
    );
}

#[tokio::test]
async fn what_envoy_refuses_leaves_everything_as_it_was() {
    for kind in [Kind::Clusters, Kind::Routes] {
        let (_folder, config, mut files, envoy) = begin();
        *lock(&envoy.mood) = Mood::Refuses(kind);
        *lock(&files.refusal()) = None;
        let refusal = files.refusal();
        // As the reader of Envoy's log does.
        let speak = tokio::spawn(async move {
            loop {
                *lock(&refusal) = Some("bad thing".into());
                tokio::task::yield_now().await;
            }
        });
        let error = files
            .emit(to("b", &config, "192.0.2.1:1"))
            .await
            .expect_err("refused");
        speak.abort();
        assert_eq!(
            error.to_string(),
            format!(
                "Envoy refused the new {}, the ones before stay in effect: bad thing",
                kind.what()
            )
        );
        *lock(&envoy.mood) = Mood::Takes;
        files.prune().await.expect("taken");
        envoy.seen();
        note(&config.folder, &envoy.seen);
        assert_eq!(envoy.seen(), ["a | a | a"]);
        // And the next change is as good as any.
        files
            .emit(to("c", &config, "192.0.2.1:1"))
            .await
            .expect("taken");
        files.prune().await.expect("taken");
        envoy.seen();
        note(&config.folder, &envoy.seen);
        assert_eq!(envoy.seen(), ["c | c | c"]);
    }
}

#[tokio::test]
async fn without_an_envoy_the_next_one_finds_everything() {
    let (_folder, config, mut files, envoy) = begin();
    drop(envoy);
    fs::remove_file(config.admin_socket()).expect("removed");
    files
        .emit(to("b", &config, "192.0.2.1:1"))
        .await
        .expect("written");
    files.prune().await.expect("written");
    let seen = Mutex::default();
    note(&config.folder, &seen);
    assert_eq!(*lock(&seen), ["b | b | b"]);
}

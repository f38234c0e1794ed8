//! What a change of the lists does to tunnels that are open.

use std::{fs, io::ErrorKind, path::PathBuf, sync::Arc};

use adit_connector::{Options, Watched};
use adit_wire::{ErrorClass, connect::CLOSE_DENIED};
use iroh::endpoint::ConnectionError;
use tokio::{net::TcpStream, sync::mpsc::Receiver};

use crate::support::*;

const RELOADED: &str = "adit_connector_reloads_total{result=\"ok\"}";
const NOT_RELOADED: &str = "adit_connector_reloads_total{result=\"error\"}";

/// A rig whose lists come from a file.
async fn rig_on_file(path: PathBuf, text: &str) -> Rig {
    fs::write(&path, text).unwrap();
    let read = {
        let path = path.clone();
        move || -> Result<Options, String> {
            let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
            serde_saphyr::from_str(&text).map_err(|e| e.to_string())
        }
    };
    let started = read().unwrap();
    let watched = Watched {
        path,
        read: Arc::new(read),
    };
    rig_with(
        &[],
        |options| {
            options.allow = started.allow;
            options.targets = started.targets;
        },
        |config| config.watched = Some(watched),
    )
    .await
}

fn file(allow: &str, targets: &[&str]) -> String {
    format!("allow: {allow}\ntargets: {targets:?}\n")
}

async fn tunnel_to(
    dialer: &Dialer,
    addr: &str,
    connections: &mut Receiver<TcpStream>,
) -> (Tunnel, TcpStream) {
    let tunnel = dialer.tunnel(addr).await.unwrap();
    (tunnel, within(connections.recv()).await.unwrap())
}

#[tokio::test]
async fn taking_a_target_away_cuts_its_tunnels_and_no_others() {
    let (addr, mut connections) = held().await;
    let (addr, other) = (addr.to_string(), echo().await.to_string());
    let rig = rig(&[&addr, &other]).await;
    let dialer = rig.connect().await;
    let (mut gone, service) = tunnel_to(&dialer, &addr, &mut connections).await;
    let mut stays = dialer.tunnel(&other).await.unwrap();

    rig.connector
        .set_policy(options(&rig.dir, &[&other]).policy().unwrap());
    assert!(gone.is_cut().await);
    assert_eq!(ended(service).await, Err(ErrorKind::ConnectionReset));
    stays.send.write_all(b"x").await.unwrap();
    assert_eq!(stays.next(1).await, b"x");
    assert_eq!(dialer.tunnel(&addr).await.err(), Some(ErrorClass::Denied));
    rig.until_metric("adit_connector_streams_ended_total{result=\"revoked\"} 1")
        .await;
}

#[tokio::test]
async fn a_target_that_leads_elsewhere_now_is_another_target() {
    let (addr, mut connections) = held().await;
    let other = echo().await.to_string();
    let to = |service: &str| format!("app.internal:80={service}");
    let rig = rig(&[&to(&addr.to_string())]).await;
    let dialer = rig.connect().await;
    let (mut gone, _service) = tunnel_to(&dialer, "app.internal:80", &mut connections).await;
    rig.connector
        .set_policy(options(&rig.dir, &[&to(&other)]).policy().unwrap());
    assert!(gone.is_cut().await);
    let mut tunnel = dialer.tunnel("app.internal:80").await.unwrap();
    tunnel.send.write_all(b"x").await.unwrap();
    assert_eq!(tunnel.next(1).await, b"x");
}

#[tokio::test]
async fn a_target_that_only_a_wildcard_allows_now_is_screened_as_one() {
    let addr = echo().await;
    let rig = rig(&[&addr.to_string()]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&addr.to_string()).await.unwrap();
    let wildcard = format!("*:{}", addr.port());
    rig.connector
        .set_policy(options(&rig.dir, &[&wildcard]).policy().unwrap());
    assert!(tunnel.is_cut().await);
}

#[tokio::test]
async fn a_target_taken_away_while_its_name_is_looked_up_is_not_reached() {
    let (addr, mut connections) = held().await;
    let (go, gate) = tokio::sync::watch::channel(false);
    let gated = adit_connector::Resolver::new(move |_, _| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|open| *open).await;
            Ok(vec![addr])
        }
    });
    let rig = rig_with(&["app.internal:80"], |_| {}, |c| c.resolver = gated).await;
    let dialer = rig.connect().await;
    let (answer, ()) = tokio::join!(dialer.tunnel("app.internal:80"), async {
        rig.until(|status| status.streams == 1).await;
        rig.connector
            .set_policy(options(&rig.dir, &["*:80"]).policy().unwrap());
        go.send_replace(true);
    });
    assert_eq!(answer.err(), Some(ErrorClass::Denied));
    drop(rig);
    // Connected to or not: nothing was sent, and it is closed.
    if let Ok(service) = connections.try_recv() {
        assert_eq!(ended(service).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn a_new_order_of_the_lists_cuts_nothing() {
    let service = echo().await.to_string();
    let rig = rig(&["a.internal:1", &service]).await;
    let dialer = rig.connect().await;
    let mut tunnel = dialer.tunnel(&service).await.unwrap();
    rig.connector.set_policy(
        options(&rig.dir, &[&service, "b.internal:2"])
            .policy()
            .unwrap(),
    );
    tunnel.send.write_all(b"x").await.unwrap();
    assert_eq!(tunnel.next(1).await, b"x");
    tunnel.send.finish().unwrap();
    assert!(tunnel.rest().await.is_empty());
}

#[tokio::test]
async fn taking_a_key_away_closes_its_connection_and_cuts_its_tunnels() {
    let (addr, mut connections) = held().await;
    let addr = addr.to_string();
    let rig = rig(&[&addr]).await;
    let dialer = rig.connect().await;
    let (mut gone, service) = tunnel_to(&dialer, &addr, &mut connections).await;
    let mut nobody = options(&rig.dir, &[&addr]);
    nobody.allow = Some(Vec::new());
    rig.connector.set_policy(nobody.policy().unwrap());
    assert!(gone.is_cut().await);
    assert_eq!(ended(service).await, Err(ErrorKind::ConnectionReset));
    let ConnectionError::ApplicationClosed(close) = within(dialer.connection.closed()).await else {
        panic!("closed by the connector");
    };
    assert_eq!(close.error_code, CLOSE_DENIED.into());
}

#[tokio::test]
async fn an_edit_of_the_file_takes_effect_and_a_bad_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("connector.yaml");
    let key = id_of(&dialer_key());
    let list = format!("[\"{key}\"]");
    let (addr, mut connections) = held().await;
    let (first, second) = (addr.to_string(), echo().await.to_string());
    let rig = rig_on_file(path.clone(), &file(&list, &[&first])).await;
    let dialer = rig.connect().await;
    let (mut open, _service) = tunnel_to(&dialer, &first, &mut connections).await;
    assert_eq!(dialer.tunnel(&second).await.err(), Some(ErrorClass::Denied));

    // Each bad file changes nothing, whatever is bad about it.
    let mut errors = 0;
    for bad in [
        "allow: [".to_owned(),
        file("[nonsense]", &[&first]),
        file(&list, &["udp://127.0.0.1:53"]),
        format!("targets: [\"{first}\"]\n"),
        String::new(),
    ] {
        errors += 1;
        fs::write(&path, bad).unwrap();
        rig.until_count(NOT_RELOADED, errors).await;
    }
    let (_another, _held) = tunnel_to(&dialer, &first, &mut connections).await;

    // A good one, put in place as an editor or a ConfigMap does.
    let new = dir.path().join("new");
    fs::write(&new, file(&list, &[&second])).unwrap();
    fs::rename(&new, &path).unwrap();
    assert!(open.is_cut().await);
    assert!(dialer.tunnel(&second).await.is_ok());
}

#[tokio::test]
async fn a_file_that_disappears_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("connector.yaml");
    let service = echo().await.to_string();
    let rig = rig_on_file(path.clone(), &file("any", &[&service])).await;
    rig.until_count(RELOADED, 1).await;
    fs::remove_file(&path).unwrap();
    let dialer = rig.connect().await;
    assert!(dialer.tunnel(&service).await.is_ok());
    fs::write(&path, file("any", &[])).unwrap();
    rig.until_count(RELOADED, 2).await;
    assert_eq!(
        dialer.tunnel(&service).await.err(),
        Some(ErrorClass::Denied)
    );
}

#[tokio::test]
async fn a_hang_up_signal_reads_the_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("connector.yaml");
    let rig = rig_on_file(path, &file("any", &[])).await;
    // The first reading is done by the watch itself: it listens by then.
    rig.until_count(RELOADED, 1).await;
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
    rig.until_count(RELOADED, 2).await;
}

//! Limits on streams, and the queue before them.

use adit_connector::Options;
use adit_wire::ErrorClass;

use crate::support::*;

/// Set for the process that has few file descriptors; its service is here.
const FEW_FILES: &str = "ADIT_TEST_FEW_FILES_SERVICE";

#[tokio::test]
async fn with_256_file_descriptors_every_stream_is_served_in_turn() {
    if let Ok(service) = std::env::var(FEW_FILES) {
        return many_streams_with_few_files(service).await;
    }
    // The limit is the whole process's, so a process of its own has it. The
    // service stays here: its descriptors do not count there.
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("places::with_256_file_descriptors_every_stream_is_served_in_turn")
        .env(FEW_FILES, echo().await.to_string())
        .kill_on_drop(true)
        .output();
    let output = within(child).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

async fn many_streams_with_few_files(service: String) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let few = Rlimit {
        current: Some(256),
        maximum: Some(256),
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let patient = |options: &mut Options| options.queue_timeout = "1m".parse().ok();
    let rig = rig_with(&[&service], patient, |_| {}).await;
    let dialer = std::sync::Arc::new(rig.connect().await);
    let mut running = Vec::new();
    for _ in 0..600 {
        let (dialer, service) = (dialer.clone(), service.clone());
        running.push(tokio::spawn(async move {
            let mut tunnel = dialer.tunnel(&service).await.unwrap();
            tunnel.send.write_all(b"x").await.unwrap();
            tunnel.send.finish().unwrap();
            assert_eq!(tunnel.rest().await, b"x");
        }));
    }
    for task in running {
        within(task).await.unwrap();
    }
    rig.until_metric("adit_connector_streams_ended_total{result=\"clean\"} 600")
        .await;
}

#[tokio::test]
async fn a_stream_over_the_limit_waits_for_one_to_end() {
    let service = echo().await.to_string();
    let one = |options: &mut Options| {
        options.max_streams = Some(1);
        options.queue_timeout = "1h".parse().ok();
    };
    let rig = rig_with(&[&service], one, |_| {}).await;
    let dialer = rig.connect().await;
    let mut first = dialer.tunnel(&service).await.unwrap();
    let (second, ()) = tokio::join!(dialer.tunnel(&service), async {
        rig.until(|status| (status.streams, status.queued) == (1, 1))
            .await;
        first.send.finish().unwrap();
        first.rest().await;
    });
    assert!(second.is_ok());
}

#[tokio::test]
async fn overloaded_is_the_answer_only_when_the_queue_is_full() {
    let service = echo().await.to_string();
    let tight = |options: &mut Options| {
        options.max_streams_per_dialer = Some(1);
        options.max_queue = Some(1);
        options.queue_timeout = "1h".parse().ok();
    };
    let rig = rig_with(&[&service], tight, |_| {}).await;
    let dialer = rig.connect().await;
    // Two connections of one dialer: they share its place.
    let again = rig.connect().await;
    let mut first = dialer.tunnel(&service).await.unwrap();
    let (second, ()) = tokio::join!(dialer.tunnel(&service), async {
        rig.until(|status| status.queued == 1).await;
        let third = again.tunnel(&service).await.err();
        assert_eq!(third, Some(ErrorClass::Overloaded));
        first.send.finish().unwrap();
        first.rest().await;
    });
    assert!(second.is_ok());
}

#[tokio::test]
async fn waiting_ends_after_a_time() {
    let service = echo().await.to_string();
    let tight = |options: &mut Options| {
        options.max_streams = Some(1);
        options.queue_timeout = "200ms".parse().ok();
    };
    let rig = rig_with(&[&service], tight, |_| {}).await;
    let dialer = rig.connect().await;
    let _first = dialer.tunnel(&service).await.unwrap();
    let second = dialer.tunnel(&service).await.err();
    assert_eq!(second, Some(ErrorClass::Timeout));
    assert_eq!(rig.connector.status().queued, 0);
}

#[tokio::test]
async fn five_hundred_tunnels_at_once_are_all_served() {
    let service = echo().await.to_string();
    let rig = rig(&[&service]).await;
    let dialer = std::sync::Arc::new(rig.connect().await);
    let mut running = Vec::new();
    for i in 0..500u32 {
        let (dialer, service) = (dialer.clone(), service.clone());
        running.push(tokio::spawn(async move {
            let mut tunnel = dialer.tunnel(&service).await.unwrap();
            tunnel.send.write_all(&i.to_be_bytes()).await.unwrap();
            assert_eq!(tunnel.next(4).await, i.to_be_bytes());
            tunnel.send.finish().unwrap();
            assert!(tunnel.rest().await.is_empty());
        }));
    }
    for task in running {
        within(task).await.unwrap();
    }
    rig.until(|status| status.streams == 0).await;
    rig.until_metric("adit_connector_streams_ended_total{result=\"clean\"} 500")
        .await;
}

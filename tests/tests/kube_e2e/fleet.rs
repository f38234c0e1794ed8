//! Several Envoys, each with a dialer of its own.

use std::time::Duration;

use adit_tests::{
    bare,
    client::http::get,
    kube::{Class, Kind, Stack},
    process::until,
};
use anyhow::{Context, Result};
use serde_json::json;

use super::scene::Scene;

pub async fn more_envoys_with_dialers_of_their_own_are_let_in(stack: &Stack) -> Result<()> {
    let scene = Scene::start(stack, Class::Envoy140, "fleet").await?;
    let target = bare::target(
        &[&scene.agent.key.id],
        &scene.web.addr.to_string(),
        Duration::from_secs(5),
    )?;
    let mut fleet = Vec::new();
    for (name, version) in [("second", "1.39.3"), ("third", "1.40.0")] {
        let dialer = scene.site.another_dialer(name).await?;
        let dir = scene.site.dir().join(name);
        std::fs::create_dir(&dir)?;
        let route = bare::Route {
            name: "web",
            target: target.clone(),
            h2: false,
            connect: false,
        };
        let envoy = bare::envoy(version, &dir, &dialer.socket, &[route]).await?;
        fleet.push((dialer, envoy));
    }
    let ids = fleet.iter().map(|(dialer, _)| dialer.id.clone());
    let mut expect: Vec<_> = ids.chain([scene.site.dialer.id.clone()]).collect();
    expect.sort();
    scene
        .site
        .until(Kind::CONNECTOR, "edge", "three dialers", |c| {
            c["status"]["allowedDialers"] == json!(expect)
        })
        .await?;
    for (dialer, envoy) in &fleet {
        let addr = envoy.listener("main").await?;
        until("an answer through another Envoy", async || {
            let answer = get(addr, "web.test", "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await
        .with_context(|| dialer.process.last_words())?;
    }
    scene.answers("web.test", 200).await?;

    // One that goes in an orderly way is let in no more.
    let (mut dialer, _envoy) = fleet.remove(0);
    dialer.process.terminate().await?;
    scene
        .site
        .until(Kind::CONNECTOR, "edge", "two dialers", |c| {
            c["status"]["allowedDialers"]
                .as_array()
                .is_some_and(|all| all.len() == 2 && !all.contains(&json!(dialer.id)))
        })
        .await?;
    scene.site.end().await
}

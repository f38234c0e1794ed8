//! What is not advertised any more does not stay programmed, whatever else is
//! wrong.

use adit_tests::kube::{Kind, Stack};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::place::*;

/// Two rules, for the ports 80 and 81 behind a connector.
fn two_rules(connector: &str) -> Value {
    let mut proxy = proxy("web", "web.test", 80);
    let backend = |port: u16| json!([{"endpoint": format!("http://localhost:{port}"), "connector": {"name": connector}}]);
    proxy["spec"]["rules"] = json!([
        {"matches": [{"path": {"type": "PathPrefix", "value": "/b"}}], "backends": backend(81)},
        {"backends": backend(80)},
    ]);
    proxy
}

pub async fn a_withdrawn_target_goes_even_when_the_newest_version_is_invalid(
    stack: &Stack,
) -> Result<()> {
    let place = one_proxy(stack, "withdrawn").await?;
    place.apply(two_rules("box")).await?;
    let routes = async |count: usize| {
        let there = |all: &[Value]| all.len() == count;
        for kind in [Kind::HTTP_ROUTE, Kind::BACKEND, Kind::ENVOY_PATCH_POLICY] {
            let what = format!("{count} of {}", kind.kind);
            place
                .objects
                .until_list(kind, "withdrawn", OURS, &what, there)
                .await
                .with_context(|| place.reconciler.last_words())?;
        }
        place.names(Kind::HTTP_ROUTE).await
    };
    let both = routes(2).await?;
    place.programmed("web").await?;
    // A version that the schema lets pass and Envoy would not, and that names
    // another connector.
    let mut invalid = two_rules("another");
    let pattern = json!({"path": {"type": "RegularExpression", "value": "/("}});
    invalid["spec"]["rules"][0]["matches"] = json!([pattern]);
    place.apply(invalid.clone()).await?;
    place.refused("web", "Programmed", "Invalid").await?;
    ensure!(
        place.names(Kind::HTTP_ROUTE).await? == both,
        "the last one stays"
    );
    // One of the two targets is withdrawn: its route goes, the other stays.
    let [_, mut advertisement] = connector("withdrawn", "box");
    let services = |ports: Value| json!([{"address": "localhost", "ports": ports}]);
    let ports = json!([{"name": "a", "port": 80}]);
    advertisement["spec"]["layer4"][0]["services"] = services(ports);
    place.apply(advertisement).await?;
    let left = routes(1).await?;
    ensure!(both.contains(&left[0]), "{left:?} of {both:?}");
    // And then all of it.
    place
        .objects
        .delete(Kind::CONNECTOR_ADVERTISEMENT, "withdrawn", "box")
        .await?;
    routes(0).await?;
    place.refused("web", "Programmed", "Invalid").await?;
    // A version that is valid serves again, when it is advertised.
    let [_, advertisement] = connector("withdrawn", "box");
    place.apply(advertisement).await?;
    place.apply(two_rules("box")).await?;
    place.programmed("web").await?;
    ensure!(routes(2).await? == both);
    place.end().await
}

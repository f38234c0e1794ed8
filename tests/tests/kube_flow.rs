//! The life of a tunnel, step by step: who does what, and what it leaves in the
//! Kubernetes API. A newcomer's way into the whole.
//!
//! | step | who | what |
//! |---|---|---|
//! | 1 | agent | registers a Connector, says how it is reached, renews a Lease |
//! | 2 | reconciler | publishes discovery records |
//! | 3 | agent | advertises its services |
//! | 4 | a user | writes an HTTPProxy |
//! | 5 | reconciler | validates, and programs Envoy Gateway |
//! | 6 | Envoy, dialer | a request reaches the service |
//!
//! Beside it, what else steps 4 and 5 may be: several connectors of one backend
//! ([`choice`]), and a backend that may not be reached ([`refusals`]).

#[path = "kube_flow/choice.rs"]
mod choice;
#[path = "kube_flow/refusals.rs"]
mod refusals;

use adit_tests::{
    client::http::get,
    kube::{
        Class, Kind, Stack, external_dns,
        objects::{condition, is_true},
        site::{Site, rule},
    },
    on_the_stack,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{choice::*, refusals::*};

on_the_stack!(
    a_service_behind_nat_is_reached_by_its_agents_key,
    all_connectors_of_a_selector_serve_the_oldest_first,
    requests_are_shared_out_by_weight,
    what_may_not_be_reached_is_said_and_not_programmed,
);

async fn a_service_behind_nat_is_reached_by_its_agents_key(stack: &Stack) -> Result<()> {
    // A cluster with Envoy Gateway, a Gateway, a reconciler and a dialer.
    let site = Site::with(
        stack,
        Class::Envoy140,
        "flow",
        &[
            "--dns-publish",
            "endpoint",
            "--dns-origin",
            "{project}.example",
            "--dns-project",
            "flow",
        ],
    )
    .await?;
    let objects = &site.objects;
    external_dns::install(objects).await?;

    // 1. The device starts. Its agent creates the Connector …
    let service = HttpService::start()?;
    let mut agent = site.agent("laptop", &[service.addr.to_string()])?;
    agent.set("label", json!(["site=home"]));
    agent.start().await?;
    let connector = site
        .until(Kind::CONNECTOR, "laptop", "Ready", |c| is_true(c, "Ready"))
        .await?;
    ensure!(
        connector["metadata"]["labels"]["site"] == "home",
        "{connector:#}"
    );
    // … says by which key and where it is reached …
    let details = &connector["status"]["connectionDetails"]["publicKey"];
    ensure!(details["id"] == *agent.key.id, "{details}");
    ensure!(details["addresses"][0]["port"].is_number(), "{details}");
    // … and renews the Lease that the reconciler made for it.
    let lease = connector["status"]["leaseRef"]["name"]
        .as_str()
        .context("leaseRef")?;
    let lease = objects
        .until(Kind::LEASE, "flow", lease, "renewTime", |l| {
            l["spec"]["renewTime"].is_string()
        })
        .await?;
    ensure!(
        lease["metadata"]["ownerReferences"][0]["name"] == "laptop",
        "{lease:#}"
    );
    // The reconciler tells it which dialers may come.
    let expect = json!([site.dialer.id]);
    site.until(Kind::CONNECTOR, "laptop", "allowedDialers", |c| {
        c["status"]["allowedDialers"] == expect
    })
    .await?;

    // 2. The reconciler publishes where the key is found.
    site.until(Kind::CONNECTOR, "laptop", "DNSPublished", |c| {
        is_true(c, "DNSPublished")
    })
    .await?;
    let records = objects.list(Kind::DNS_ENDPOINT, "flow", "").await?;
    let record = &records.first().context("a DNSEndpoint")?["spec"]["endpoints"][0];
    let name = record["dnsName"].as_str().context("dnsName")?;
    ensure!(
        name.starts_with("_iroh.") && name.ends_with(".flow.example"),
        "{record}"
    );
    ensure!(
        record["targets"][0]
            .as_str()
            .is_some_and(|t| t.contains("addr=")),
        "{record}"
    );

    // 3. The agent advertises its service.
    site.until(Kind::CONNECTOR_ADVERTISEMENT, "laptop", "Accepted", |a| {
        is_true(a, "Accepted")
    })
    .await?;

    // 4. A user writes an HTTPProxy: a public name, a service, a connector.
    let endpoint = format!("http://{}", service.addr);
    site.proxy(
        "shop",
        "shop.example",
        json!([rule("/", "laptop", &endpoint)]),
    )
    .await?;

    // 5. The reconciler validates it and programs Envoy Gateway.
    let proxy = site.until_true("shop", "Programmed").await?;
    for wanted in ["Accepted", "ConnectorsReady"] {
        ensure!(
            is_true(&proxy, wanted),
            "{wanted}: {:#}",
            condition(&proxy, wanted).context("missing")?
        );
    }
    // What it cannot see, it says where to look for.
    let said = condition(&proxy, "Programmed").context("Programmed")?["message"].to_string();
    for place in ["log", "xds_nack_total", "error_state", "/config_dump"] {
        ensure!(said.contains(place), "no word of {place}: {said}");
    }
    let ours = "networking.datumapis.com/httpproxy=shop";
    let routes = objects.list(Kind::HTTP_ROUTE, "flow", ours).await?;
    let patches = objects.list(Kind::ENVOY_PATCH_POLICY, "flow", ours).await?;
    ensure!(
        routes.len() == 1 && patches.len() == 1,
        "{routes:#?} {patches:#?}"
    );
    let target = patches[0]["spec"].to_string();
    for said in [
        "datum-node-id",
        "datum-target-host",
        "datum-target-port",
        "datum-target-proto",
    ] {
        ensure!(
            target.contains(said),
            "the patch does not say {said}: {target}"
        );
    }

    // 6. A request reaches the service, through Envoy, the dialer and the agent.
    let answer = get(site.addr(), "shop.example", "/echo").await?;
    ensure!(
        answer.status == 200,
        "{} {}\n{}",
        answer.status,
        answer.text(),
        site.last_words()
    );
    ensure!(service.record.requests().len() == 1, "the service saw it");

    site.end().await
}

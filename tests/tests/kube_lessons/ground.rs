//! What most of these tests stand on: a site, an agent, a web service.

use adit_tests::{
    client::http::{Answer, get},
    connector::Connector,
    kube::{Class, Kind, Stack, site::Site},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A site with the agent `edge` before one web service.
pub struct Ground {
    pub site: Site,
    pub agent: Connector,
    pub web: HttpService,
}

impl Ground {
    pub async fn start(stack: &Stack, namespace: &str) -> Result<Self> {
        let site = Site::start(stack, Class::Envoy140, namespace).await?;
        let web = HttpService::start()?;
        let mut agent = site.agent("edge", &[web.addr.to_string()])?;
        agent.start().await?;
        Ok(Self { site, agent, web })
    }

    /// Another service that the agent serves as well, once that is advertised.
    pub async fn another(&mut self) -> Result<HttpService> {
        let other = HttpService::start()?;
        let targets = json!([self.web.addr.to_string(), other.addr.to_string()]);
        self.agent.set("targets", targets).reconfigure()?;
        let port = other.addr.port().to_string();
        let both = |a: &Value| a["spec"].to_string().contains(&port);
        self.site
            .until(Kind::CONNECTOR_ADVERTISEMENT, "edge", "both", both)
            .await?;
        Ok(other)
    }

    /// The web service as an HTTPProxy names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.web.addr)
    }
}

/// Waits until a GET is answered with this status, and returns the answer.
pub async fn answers(site: &Site, host: &str, status: u16) -> Result<Answer> {
    let mut last = String::new();
    let what = format!("{status} of {host}");
    let found = until(&what, async || {
        let answer = get(site.addr(), host, "/echo").await.ok()?;
        last = format!("{} {}", answer.status, answer.text());
        (answer.status == status).then_some(answer)
    });
    let found = found.await;
    found.with_context(|| format!("last: {last}\n{}", site.last_words()))
}

/// Envoy has refused nothing that it was sent: a configuration of which it
/// refuses a part stays as it was, for everybody.
pub async fn envoy_took_everything(stack: &Stack, site: &Site) -> Result<()> {
    let envoy = stack.proxy(&site.gateway.of).await?;
    let stats = envoy.admin.get("/stats?filter=update_rejected").await?;
    let counted: Vec<_> = stats.lines().filter_map(|l| l.split_once(": ")).collect();
    ensure!(counted.len() > 3, "Envoy counts what it refuses: {stats}");
    let refused: Vec<_> = counted.iter().filter(|(_, n)| *n != "0").collect();
    ensure!(refused.is_empty(), "{refused:?}\n{}", stack.last_words());
    Ok(())
}

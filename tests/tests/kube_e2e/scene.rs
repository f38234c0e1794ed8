//! What every one of these tests stands on.

use adit_tests::{
    client::http::{Answer, get},
    connector::Connector,
    kube::{
        Class, Stack,
        site::{Site, rule, tunnel},
    },
    process::until,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
};
use anyhow::{Context, Result};
use serde_json::json;

/// An agent with a web and an echo service, and an HTTPProxy for each kind of
/// traffic.
pub struct Scene {
    pub site: Site,
    pub agent: Connector,
    pub web: HttpService,
    pub echo: TcpService,
}

impl Scene {
    pub async fn start(stack: &Stack, class: Class, namespace: &str) -> Result<Self> {
        let site = Site::start(stack, class, namespace).await?;
        let web = HttpService::start()?;
        let echo = TcpService::start(Manner::Echo)?;
        let targets = [web.addr.to_string(), echo.addr.to_string()];
        let mut agent = site.agent("edge", &targets)?;
        agent.start().await?;
        let (plain, h2c) = (
            format!("http://{}", web.addr),
            format!("h2c://{}", web.addr),
        );
        site.proxy("web", "web.test", json!([rule("/", "edge", &plain)]))
            .await?;
        site.proxy("h2", "h2.test", json!([rule("/", "edge", &h2c)]))
            .await?;
        let grpc = format!("grpc://{}", web.addr);
        site.proxy("grpc", "grpc.test", json!([rule("/", "edge", &grpc)]))
            .await?;
        let tcp = format!("tcp://{}", echo.addr);
        site.proxy("echo", "echo.test", json!([tunnel("edge", &tcp)]))
            .await?;
        for name in ["web", "h2", "grpc", "echo"] {
            site.until_true(name, "Programmed").await?;
        }
        let scene = Self {
            site,
            agent,
            web,
            echo,
        };
        scene.answers("web.test", 200).await?;
        Ok(scene)
    }

    pub fn authority(&self) -> String {
        format!("echo.test:{}", self.echo.addr.port())
    }

    /// Waits until a GET is answered with this status, and returns the answer.
    pub async fn answers(&self, host: &str, status: u16) -> Result<Answer> {
        until(&format!("{status} of {host}"), async || {
            let answer = get(self.site.addr(), host, "/echo").await.ok()?;
            (answer.status == status).then_some(answer)
        })
        .await
        .with_context(|| self.site.last_words())
    }
}

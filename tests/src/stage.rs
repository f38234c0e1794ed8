//! The usual stage of a test: one connector, one service of each kind, and
//! `adit run` between them and the client.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    connector::Connector,
    gateway::{Gateway, Settings},
    keys::Key,
    manifests::{self, Backend, Manifests},
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
};

/// The name of the connector.
pub const EDGE: &str = "edge";

/// What a test wants beside the usual.
pub struct Plan {
    /// How `adit run` is started.
    pub settings: Settings,
    /// More hosts: `name` is served at `name.test`.
    pub services: Vec<(String, String)>,
    /// More options of the connector's file.
    pub options: Vec<(String, Value)>,
    /// Whether the Connector's manifest holds its addresses.
    pub hints: bool,
    /// The home relay of its manifest.
    pub relay: Option<String>,
}

impl Plan {
    /// The usual stage with this Envoy.
    pub fn of(version: &str) -> Self {
        Self {
            settings: Settings::of(version),
            services: Vec::new(),
            options: Vec::new(),
            hints: true,
            relay: None,
        }
    }

    /// Also serves `endpoint`, a URL, at `name.test`.
    pub fn service(mut self, name: &str, endpoint: String) -> Self {
        self.services.push((name.to_owned(), endpoint));
        self
    }

    /// Sets an environment variable of `adit run`, dialer and Envoy.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.settings = self.settings.env(name, value);
        self
    }

    /// Sets an option of the connector's file.
    pub fn option(mut self, key: &str, value: Value) -> Self {
        self.options.push((key.to_owned(), value));
        self
    }

    /// Starts everything.
    pub async fn start(self) -> Result<Stage> {
        let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
        let web = HttpService::start()?;
        let echo = TcpService::start(Manner::Echo)?;
        let dialer = Key::new(dir.path(), "dialer")?;
        let mut services = vec![
            ("web".to_owned(), format!("http://{}", web.addr)),
            ("h2".to_owned(), format!("h2c://{}", web.addr)),
            ("echo".to_owned(), format!("tcp://{}", echo.addr)),
        ];
        services.extend(self.services);
        let targets: BTreeSet<String> = services
            .iter()
            .filter_map(|(_, url)| Some(url.split_once("://")?.1.to_owned()))
            .collect();
        // Two hosts may share a service.
        let targets: Vec<String> = targets.into_iter().collect();
        let mut connector = Connector::new(dir.path(), EDGE, &[&dialer.id], &targets)?;
        for (key, value) in self.options {
            connector.set(&key, value);
        }
        connector.start().await?;
        let manifests = Gateway::manifests(dir.path())?;
        let hints = if self.hints {
            connector.bound().await?
        } else {
            Vec::new()
        };
        write_connector(&manifests, &connector, self.relay.as_deref(), &hints)?;
        write_advertisement(&manifests, &targets)?;
        for (name, url) in &services {
            let host = format!("{name}.test");
            manifests.proxy(name, &host, &Backend::through(EDGE, url.clone()))?;
        }
        let gateway = Gateway::start(dir.path(), &dialer, &self.settings).await?;
        Ok(Stage {
            gateway,
            connector,
            web,
            echo,
            dialer,
            targets,
            relay: self.relay,
            dir,
        })
    }
}

/// Everything that runs; dropped in this order.
pub struct Stage {
    /// `adit run`.
    pub gateway: Gateway,
    /// The connector.
    pub connector: Connector,
    /// At `web.test` (HTTP/1.1) and `h2.test` (HTTP/2).
    pub web: HttpService,
    /// At `echo.test`, by CONNECT.
    pub echo: TcpService,
    /// The dialer's key.
    pub dialer: Key,
    /// What the connector serves.
    pub targets: Vec<String>,
    /// The home relay of the connector's manifest.
    pub relay: Option<String>,
    /// Where everything is.
    pub dir: TempDir,
}

impl Stage {
    /// Where Envoy listens.
    pub fn addr(&self) -> SocketAddr {
        self.gateway.addr
    }

    /// The authority of a CONNECT to the echo service.
    pub fn echo_authority(&self) -> String {
        format!("echo.test:{}", self.echo.addr.port())
    }

    /// Writes the Connector's manifest anew, with these addresses.
    pub fn hint(&self, addresses: &[SocketAddr]) -> Result<()> {
        let relay = self.relay.as_deref();
        write_connector(&self.gateway.manifests, &self.connector, relay, addresses)
    }

    /// Adds a host that goes through another connector.
    pub fn add_fake(&self, name: &str, id: &str, addr: SocketAddr) -> Result<()> {
        let text = manifests::connector(name, name, id, None, &[addr]);
        let services = [("service.internal.test", 80), ("service.internal.test", 22)];
        let ads = manifests::advertisement(name, name, &services);
        let manifests = &self.gateway.manifests;
        manifests.write(&format!("connector-{name}"), &format!("{text}---\n{ads}"))?;
        let http = Backend::through(name, "http://service.internal.test:80".to_owned());
        manifests.proxy(name, &format!("{name}.test"), &http)?;
        let tcp = Backend::through(name, "tcp://service.internal.test:22".to_owned());
        manifests.proxy(&format!("{name}-tcp"), &format!("{name}-tcp.test"), &tcp)
    }
}

fn write_connector(
    manifests: &Manifests,
    connector: &Connector,
    relay: Option<&str>,
    addresses: &[SocketAddr],
) -> Result<()> {
    let text = manifests::connector(EDGE, EDGE, &connector.key.id, relay, addresses);
    manifests.write("connector-edge", &text)
}

fn write_advertisement(manifests: &Manifests, targets: &[String]) -> Result<()> {
    let mut services = Vec::new();
    for target in targets {
        let authority = target.split('=').next().unwrap_or(target);
        if let Some((host, port)) = authority.rsplit_once(':') {
            services.push((host.trim_matches(['[', ']']), port.parse()?));
        }
    }
    services.sort_unstable();
    services.dedup();
    let text = manifests::advertisement(EDGE, EDGE, &services);
    manifests.write("advertisement-edge", &text)
}

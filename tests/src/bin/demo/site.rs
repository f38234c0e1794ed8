//! Everything the demo talks to.

use std::path::Path;

use adit_tests::{
    connector::Connector,
    gateway::{Gateway, Settings},
    keys::Key,
    manifests::{self, Backend, Via},
    relay::Relay,
    services::{
        http::HttpService,
        nobody,
        tcp::{Manner, TcpService},
        tls::Authority,
    },
};
use anyhow::Result;
use serde_json::json;
use tokio::sync::Mutex;

/// The name in the certificate of the https service.
pub const SHOP: &str = "shop.internal.test";

/// The running stage.
pub struct Site {
    /// `adit run`.
    pub gateway: Gateway,
    /// The connector that is reached by its address.
    pub main: Connector,
    /// The connector that is reached through the relay only.
    pub relayed: Connector,
    /// Two connectors of one target; the first is killed.
    pub pair: Mutex<[Connector; 2]>,
    /// The service of each of the two.
    pub pair_services: [HttpService; 2],
    /// HTTP/1.1 and HTTP/2.
    pub web: HttpService,
    /// HTTPS.
    pub shop: HttpService,
    /// TCP.
    pub echo: TcpService,
    _relay: Relay,
}

impl Site {
    /// Starts services, relay, connectors, and then `adit run`.
    pub async fn start(dir: &Path, version: &str, concurrency: u16) -> Result<Self> {
        let authority = Authority::new()?;
        let ca = dir.join("ca.pem");
        std::fs::write(&ca, authority.pem())?;
        let web = HttpService::start()?;
        let shop = HttpService::start_tls(authority.server(&[SHOP])?)?;
        let echo = TcpService::start(Manner::Echo)?;
        let pair_services = [HttpService::start()?, HttpService::start()?];
        let relay = Relay::start().await?;
        let dialer = Key::new(dir, "dialer")?;

        let allow = [dialer.id.as_str()];
        let targets = [
            web.addr.to_string(),
            echo.addr.to_string(),
            format!("{SHOP}:8443={}", shop.addr),
            format!("other.internal.test:8443={}", shop.addr),
        ];
        let mut main = Connector::new(dir, "main", &allow, &targets)?;
        main.set("relay", json!([relay.url]));
        main.start().await?;

        let mut relayed = Connector::new(dir, "relayed", &allow, &[web.addr.to_string()])?;
        // The dialer has IPv4 only: no direct path can be found.
        relayed.set("relay", json!([relay.url]));
        relayed.set("bind", json!(["[::1]:0"]));
        relayed.start().await?;

        let mut pair = Vec::new();
        for (name, service) in ["pair-1", "pair-2"].into_iter().zip(&pair_services) {
            let target = format!("app.internal.test:80={}", service.addr);
            let mut connector = Connector::new(dir, name, &allow, &[target])?;
            connector.start().await?;
            pair.push(connector);
        }
        let off = Key::new(dir, "asleep")?;

        write_manifests(
            dir,
            &Parts {
                main: &main,
                relayed: &relayed,
                pair: &pair,
                off: &off,
                relay: &relay.url,
                web: &web,
                echo: &echo,
            },
        )
        .await?;
        let mut settings = Settings::of(version)
            .env("ADIT_RELAY", &relay.url)
            .env("ADIT_TLS_CA", ca.display());
        settings.concurrency = concurrency;
        let gateway = Gateway::start(dir, &dialer, &settings).await?;
        let pair: [Connector; 2] = pair
            .try_into()
            .map_err(|_| anyhow::anyhow!("two connectors"))?;
        Ok(Self {
            gateway,
            main,
            relayed,
            pair: Mutex::new(pair),
            pair_services,
            web,
            shop,
            echo,
            _relay: relay,
        })
    }

    /// Tells a person what there is to try.
    pub fn explain(&self) {
        let addr = self.gateway.addr;
        eprintln!("\nEverything runs until Ctrl-C. Envoy listens on http://{addr}; try:");
        for host in ["web.demo.test", "shop.demo.test", "asleep.demo.test"] {
            eprintln!("  curl -i -H 'Host: {host}' http://{addr}/echo");
        }
        eprintln!(
            "  edit {}/*.yaml and see what changes",
            self.gateway.manifests.dir.display()
        );
    }
}

struct Parts<'a> {
    main: &'a Connector,
    relayed: &'a Connector,
    pair: &'a [Connector],
    off: &'a Key,
    relay: &'a str,
    web: &'a HttpService,
    echo: &'a TcpService,
}

async fn write_manifests(dir: &Path, parts: &Parts<'_>) -> Result<()> {
    let to = Gateway::manifests(dir)?;
    let web = parts.web.addr;
    let echo = parts.echo.addr;
    let loopback = "127.0.0.1";
    let main_services = [
        (loopback, web.port()),
        (loopback, echo.port()),
        (SHOP, 8443),
        ("other.internal.test", 8443),
        // Advertised in the manifests, and not by the connector itself.
        ("payroll.internal.test", 80),
    ];
    let connectors = [
        (
            manifests::connector(
                "main",
                "main",
                &parts.main.key.id,
                None,
                &parts.main.bound().await?,
            ),
            manifests::advertisement("main", "main", &main_services),
        ),
        (
            manifests::connector(
                "relayed",
                "relayed",
                &parts.relayed.key.id,
                Some(parts.relay),
                &[],
            ),
            manifests::advertisement("relayed", "relayed", &[(loopback, web.port())]),
        ),
        (
            manifests::connector("asleep", "asleep", &parts.off.id, None, &[nobody()?]),
            manifests::advertisement("asleep", "asleep", &[(loopback, web.port())]),
        ),
    ];
    for (name, (connector, advertisement)) in ["main", "relayed", "asleep"].iter().zip(connectors) {
        to.write(
            &format!("connector-{name}"),
            &format!("{connector}---\n{advertisement}"),
        )?;
    }
    for pair in parts.pair {
        let name = &pair.name;
        let connector =
            manifests::connector(name, "pair", &pair.key.id, None, &pair.bound().await?);
        let advertisement = manifests::advertisement(name, name, &[("app.internal.test", 80)]);
        to.write(
            &format!("connector-{name}"),
            &format!("{connector}---\n{advertisement}"),
        )?;
    }
    let tls = |host: &'static str| Backend {
        tls_hostname: Some(host),
        ..Backend::through("main", format!("https://{host}:8443"))
    };
    for (name, backend) in [
        ("web", Backend::through("main", format!("http://{web}"))),
        ("h2", Backend::through("main", format!("grpc://{web}"))),
        ("echo", Backend::through("main", format!("tcp://{echo}"))),
        ("shop", tls(SHOP)),
        ("other", tls("other.internal.test")),
        (
            "relayed",
            Backend::through("relayed", format!("http://{web}")),
        ),
        (
            "asleep",
            Backend::through("asleep", format!("http://{web}")),
        ),
        (
            "payroll",
            Backend::through("main", "http://payroll.internal.test:80".to_owned()),
        ),
        (
            "unadvertised",
            Backend::through("main", "http://127.0.0.1:9".to_owned()),
        ),
        (
            "pair",
            Backend {
                endpoint: "http://app.internal.test:80".to_owned(),
                via: Some(Via::Site("pair")),
                tls_hostname: None,
            },
        ),
    ] {
        to.proxy(name, &format!("{name}.demo.test"), &backend)?;
    }
    Ok(())
}

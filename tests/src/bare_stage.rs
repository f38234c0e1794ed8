//! Envoy with a hand-made configuration, a dialer and a connector, without
//! `adit run`: no retry hides anything, and each process is ours to limit.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;

use crate::{
    bare::{self, Dialer, Route},
    connector::Connector,
    envoy::Envoy,
    keys::Key,
    process::with_open_files,
    services::{
        http::HttpService,
        tcp::{Manner, TcpService},
    },
};

/// Not advertised, so that a tunnel to it, at `denied.test`, is denied.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// What is wanted beside the usual.
#[derive(Default)]
pub struct Setup {
    /// The dialer's flags.
    pub flags: &'static [&'static str],
    /// Dialer and connector may have so many files open.
    pub open_files: Option<u32>,
    /// The dialer's environment.
    pub dialer: Vec<(String, String)>,
    /// The connector's environment.
    pub connector: Vec<(String, String)>,
}

/// A connector before an echo and a web service, a dialer, and Envoy. Dropped in
/// this order.
pub struct BareStage {
    /// Envoy's listener.
    pub addr: SocketAddr,
    /// Envoy.
    pub _envoy: Envoy,
    /// The dialer.
    pub dialer: Dialer,
    /// The connector.
    pub edge: Connector,
    /// At `echo.test`, by CONNECT.
    pub echo: TcpService,
    _web: HttpService,
    _dir: tempfile::TempDir,
}

impl BareStage {
    /// Starts it.
    pub async fn start(version: &str, setup: Setup) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
        let echo = TcpService::start(Manner::Echo)?;
        let web = HttpService::start()?;
        let key = Key::new(dir.path(), "dialer")?;
        let targets = [echo.addr.to_string(), web.addr.to_string()];
        let mut edge = Connector::new(dir.path(), "edge", &[&key.id], &targets)?;
        edge.open_files = setup.open_files;
        edge.env = setup.connector;
        edge.start().await?;
        let hints = [(edge.key.id.as_str(), edge.bound().await?[0])];
        let mut command = Dialer::command(dir.path(), &key, &hints)?;
        command.args(setup.flags).envs(setup.dialer);
        if let Some(most) = setup.open_files {
            command = with_open_files(&command, most);
        }
        let dialer = Dialer::run(dir.path(), command).await?;
        let route = |name, service: SocketAddr, connect| {
            let deadline = Duration::from_secs(5);
            anyhow::Ok(Route {
                name,
                target: bare::target(&[&edge.key.id], &service.to_string(), deadline)?,
                h2: false,
                connect,
            })
        };
        let routes = [
            route("echo", echo.addr, true)?,
            route("web", web.addr, false)?,
            route("denied", NOBODY, true)?,
        ];
        let envoy = bare::envoy(version, dir.path(), &dialer.socket, &routes).await?;
        Ok(Self {
            addr: envoy.listener("main").await?,
            _envoy: envoy,
            dialer,
            edge,
            echo,
            _web: web,
            _dir: dir,
        })
    }

    /// The authority of a CONNECT to the echo service.
    pub fn echo_authority(&self) -> String {
        format!("echo.test:{}", self.echo.addr.port())
    }
}

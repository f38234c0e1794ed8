//! A real DNS server from Debian for signed updates: Knot or BIND.
//!
//! It is used when it is on PATH, or unpacked in `~/.cache/adit/dns/<any>/`
//! (`apt-get download` and `dpkg -x`, libraries included). A test without one
//! says so plainly; with `ADIT_REQUIRE_DNS=1` it fails.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hickory_server::{
    proto::rr::{RData, RecordType},
    resolver::{
        Resolver, TokioResolver,
        config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
    },
};
use tempfile::TempDir;

use crate::{places, process::Process};

/// The zone that every server has.
pub const ZONE: &str = "adit.test";
/// The key that may update and transfer the zone, as `name:algorithm:base64`.
pub const KEY: &str = "adit-key:hmac-sha256:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Another secret by the same name.
pub const WRONG_SECRET: &str = "adit-key:hmac-sha256:YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=";
/// A key that the server does not know.
pub const UNKNOWN_KEY: &str = "nobody:hmac-sha256:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// A port may be taken between our choosing and the server's listening.
const ATTEMPTS: usize = 3;

/// The programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// Knot DNS: `knotd`.
    Knot,
    /// BIND: `named`.
    Bind,
}

/// A running server.
pub struct NameServer {
    /// Where it listens, UDP and TCP.
    pub addr: SocketAddr,
    process: Process,
    _dir: TempDir,
}

impl Software {
    const fn program(self) -> &'static str {
        match self {
            Self::Knot => "knotd",
            Self::Bind => "named",
        }
    }

    /// The program and the folder it was unpacked in, if it is not installed.
    fn find(self) -> Option<(PathBuf, Option<PathBuf>)> {
        let system = Path::new("/usr/sbin").join(self.program());
        let mut installed = places::on_path(self.program()).chain([system]);
        if let Some(file) = installed.find(|file| file.is_file()) {
            return Some((file, None));
        }
        let unpacked = fs::read_dir(places::base().ok()?.join("dns")).ok()?;
        unpacked
            .filter_map(|entry| Some(entry.ok()?.path()))
            .map(|root| (root.join("usr/sbin").join(self.program()), Some(root)))
            .find(|(file, _)| file.is_file())
    }

    /// Whether it is there. When it is not, the test is left out, and says so.
    pub fn is_there(self) -> bool {
        if self.find().is_some() {
            return true;
        }
        let what = format!(
            "{} is neither on PATH nor unpacked below ~/.cache/adit/dns",
            self.program()
        );
        assert!(env::var("ADIT_REQUIRE_DNS").as_deref() != Ok("1"), "{what}");
        eprintln!("LEFT OUT: {what}");
        false
    }
}

impl NameServer {
    /// Starts one with an empty zone.
    pub async fn start(software: Software) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::try_start(software).await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    async fn try_start(software: Software) -> Result<Self> {
        let (program, root) = software.find().context("the DNS server's program")?;
        let dir = tempfile::Builder::new().prefix("adit-dns-").tempdir()?;
        let addr = free_port()?;
        fs::write(dir.path().join("zone"), zone_file())?;
        let config = dir.path().join("conf");
        let mut command = Command::new(program);
        match software {
            Software::Knot => {
                fs::write(&config, knot(dir.path(), addr))?;
                command.arg("-c").arg(&config);
            }
            Software::Bind => {
                fs::write(&config, bind(dir.path(), addr))?;
                command.arg("-g").arg("-c").arg(&config);
            }
        }
        if let Some(root) = root {
            command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
        }
        let mut process = Process::start(software.program(), dir.path(), &mut command)?;
        process
            .until("answer", async || {
                // Nobody else's answer: only this zone is asked for.
                let found = lookup(addr, ZONE).await;
                found.is_ok().then_some(())
            })
            .await?;
        Ok(Self {
            addr,
            process,
            _dir: dir,
        })
    }

    /// The TXT records of a name, sorted, each as one text, and their time to
    /// live; none when there is no such name.
    pub async fn texts(&self, name: &str) -> Result<(Vec<String>, u32)> {
        lookup(self.addr, name).await
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        self.process.last_words()
    }
}

async fn lookup(addr: SocketAddr, name: &str) -> Result<(Vec<String>, u32)> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = addr.port();
    }
    let server = NameServerConfig::new(addr.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = Duration::from_secs(2);
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.try_tcp_on_error = true;
    let resolver: TokioResolver = builder.build()?;
    let answer = match resolver.lookup(format!("{name}."), RecordType::TXT).await {
        Err(e) if e.is_no_records_found() || e.is_nx_domain() => return Ok((Vec::new(), 0)),
        answer => answer?,
    };
    let (mut texts, mut ttl) = (Vec::new(), 0);
    for record in answer.answers() {
        if let RData::TXT(txt) = &record.data {
            texts.push(String::from_utf8(txt.txt_data.concat())?);
            ttl = record.ttl;
        }
    }
    texts.sort();
    Ok((texts, ttl))
}

/// A port that is free for UDP and TCP.
fn free_port() -> Result<SocketAddr> {
    for _ in 0..32 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = tcp.local_addr()?;
        if UdpSocket::bind(addr).is_ok() {
            return Ok(addr);
        }
    }
    bail!("no port is free for both UDP and TCP")
}

fn zone_file() -> String {
    format!(
        "$ORIGIN {ZONE}.\n@ 60 SOA ns admin 1 3600 600 86400 1\n@ 60 NS ns\nns 60 A 127.0.0.1\n\
         taken 60 TXT \"by hand\"\n"
    )
}

fn key() -> (&'static str, &'static str) {
    let (name, rest) = KEY.split_once(':').expect("a name");
    (name, rest.split_once(':').expect("an algorithm").1)
}

fn knot(dir: &Path, addr: SocketAddr) -> String {
    let (dir, (name, secret)) = (dir.display(), key());
    format!(
        "server:\n  rundir: {dir}\n  listen: {}@{}\n  \
         udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n  storage: {dir}\n  journal-db-max-size: 8M\n\
         key:\n  - id: {name}.\n    algorithm: hmac-sha256\n    secret: {secret}\n\
         acl:\n  - id: adit\n    key: {name}.\n    action: [update, transfer]\n\
         zone:\n  - domain: {ZONE}.\n    storage: {dir}\n    file: zone\n    acl: adit\n    \
         zonefile-sync: -1\n    journal-max-usage: 4M\n",
        addr.ip(),
        addr.port(),
    )
}

fn bind(dir: &Path, addr: SocketAddr) -> String {
    let (dir, (name, secret)) = (dir.display(), key());
    format!(
        "options {{ directory \"{dir}\"; listen-on port {} {{ {}; }}; listen-on-v6 {{ none; }};\n\
         pid-file \"{dir}/pid\"; session-keyfile \"{dir}/session.key\"; recursion no;\n\
         dnssec-validation no; notify no; allow-transfer {{ none; }}; }};\n\
         controls {{ }};\n\
         key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
         zone \"{ZONE}\" {{ type primary; file \"{dir}/zone\";\n\
         allow-update {{ key \"{name}\"; }}; allow-transfer {{ key \"{name}\"; }}; }};\n",
        addr.port(),
        addr.ip(),
    )
}

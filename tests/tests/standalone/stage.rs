//! Connector, dialer, and an Envoy on `envoy/standalone.yaml` byte for byte. Its
//! ports are fixed: the tests of a binary have namespaces of their own, and take
//! turns.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::Mutex,
};

use adit_tests::{
    admin::Admin,
    bare::Dialer,
    binaries,
    client::http::{self, Client},
    connector::Connector,
    keys::Key,
    kube,
    process::Process,
    services::http::HttpService,
};
use anyhow::{Context as _, Result, ensure};

/// The key of the file's connector, RFC 8032's first test vector: its secret half
/// is known to everybody.
const SECRET: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
/// What stands in the file.
const ENVOY: &str = "127.0.0.1:10080";
const ADMIN: &str = "127.0.0.1:9900";
const HOST: &str = "web.example";
const SERVICE: &str = "127.0.0.1:8080";

/// The file.
pub fn file() -> PathBuf {
    binaries::root().join("envoy/standalone.yaml")
}

/// The first call of every test: outside, runs this binary again inside and ends
/// with it.
pub fn enter() -> Result<()> {
    // Tests run in parallel: the others wait here until the process ends.
    static ENTERED: Mutex<bool> = Mutex::new(false);
    let Ok(mut entered) = ENTERED.lock() else {
        anyhow::bail!("another test could not enter the namespaces");
    };
    if !kube::is_inside() {
        let exe = env::current_exe().context("this program's own path")?;
        let status = kube::wrap(&exe, env::args_os().skip(1))?.status()?;
        exit(status.code().unwrap_or(101));
    }
    if !*entered {
        // Envoy's hot restart keeps its shared memory there under a number that
        // any other Envoy of this machine has too.
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs", "/dev/shm"])
            .status()
            .context("run mount")?;
        ensure!(status.success(), "mount /dev/shm: {status}");
        *entered = true;
    }
    Ok(())
}

/// Sends requests through the Envoy that `command` starts. It is run in the folder
/// of the dialer's socket, and a variable tells it where the module is.
pub async fn serves(mut command: Command, dir: &Path) -> Result<()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let web = HttpService::start()?;
    let key = Key::new(dir, "dialer")?;
    let service = format!("{SERVICE}={}", web.addr);
    let mut connector = Connector::new(dir, "connector", &[&key.id], &[service])?;
    let secret = dir.join("known.key");
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    writeln!(options.open(&secret)?, "{SECRET}")?;
    connector.set("key-file", secret.to_string_lossy().into());
    connector.start().await?;
    let at = *connector.bound().await?.first().context("an address")?;
    let _dialer = Dialer::start(dir, &key, &[(ID, at)], &[]).await?;

    let module = binaries::module()?;
    command.current_dir(dir).env(
        "ENVOY_DYNAMIC_MODULES_SEARCH_PATH",
        module.parent().context("a folder")?,
    );
    let mut envoy = Process::start("envoy", dir, &mut command)?;
    let admin = Admin::Tcp(ADMIN.parse()?);
    envoy
        .until("ready Envoy", async || {
            let ready = admin.get("/ready").await.ok()?;
            (ready.trim() == "LIVE").then_some(())
        })
        .await?;

    let mut client = Client::http1(ENVOY.parse()?, HOST).await?;
    let forged = [("x-adit-node", "forged")];
    let answer = client
        .send(::http::Method::GET, "/echo?x=1", &forged, http::empty())
        .await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let seen = answer.json()?;
    assert_eq!(seen["path"], "/echo?x=1");
    // The filter is in the way too, not only the transport socket.
    let headers = seen["headers"].to_string();
    assert!(!headers.contains("forged"), "{headers}");
    client.upload(3, 1 << 20).await?;
    let strange = http::get(ENVOY.parse()?, "other.example", "/").await?;
    assert_eq!(strange.status, 404);

    let status = envoy.terminate().await?;
    ensure!(status.success(), "{status}:\n{}", envoy.last_words());
    Ok(())
}

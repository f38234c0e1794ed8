//! A disk without room, under keys, state and logs.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use adit_tests::{
    binaries,
    client::{connect, http::get},
    connector::Connector,
    gateway::{Gateway, Settings},
    keys::Key,
    manifests::{self, Backend},
    process::until,
    services::http::HttpService,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    load::{self, Load},
    scenario::{Context, LeftOut, Scenario},
};

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "disk-gateway",
        fault: "no room left under state directory and log of adit run, under 500 requests/s; a manifest changes, the dialer is killed",
        promise: "no request fails before the kill, another dialer serves on, and with room again the change is taken",
        quick: false,
        run: |context| Box::pin(under_the_gateway(context)),
    },
    Scenario {
        name: "disk-connector",
        fault: "no room left under the connector's log, under 500 requests/s, while it has much to log",
        promise: "no request fails, and it runs on",
        quick: true,
        run: |context| Box::pin(under_the_connector(context)),
    },
    Scenario {
        name: "disk-key",
        fault: "no room left where a connector's key is to be made",
        promise: "it ends with an error that names the file, and leaves no half a key; with room again it starts",
        quick: true,
        run: |_| Box::pin(under_the_key()),
    },
];

/// A small disk of our own.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts one on an empty directory.
    fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        let said = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
            .arg(at)
            .output()
            .context("run mount")?;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            return Err(LeftOut(format!("no tmpfs can be mounted (root is needed): {why}")).into());
        }
        Ok(Self { at: at.to_owned() })
    }

    /// Takes every byte that is left, the rest of a log's last page included.
    fn fill(&self, log: Option<&str>) -> Result<()> {
        let mut file = File::create(self.at.join("ballast"))?;
        for piece in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![b'x'; piece]).is_ok() {}
        }
        if let Some(log) = log {
            let mut log = File::options().append(true).open(self.at.join(log))?;
            while log.write_all(b"x").is_ok() {}
        }
        let more = fs::write(self.at.join("more"), "x");
        ensure!(more.is_err(), "there is room still");
        Ok(())
    }

    /// Gives it back.
    fn free(&self) -> Result<()> {
        let _ = fs::remove_file(self.at.join("more"));
        Ok(fs::remove_file(self.at.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy: a process that was just killed may hold it for a moment.
        let mut unmount = Command::new("umount");
        let _ = unmount.arg("--lazy").arg(&self.at).status();
    }
}

/// A gateway, a connector and a service; dropped in this order, disks last.
struct Ground {
    gateway: Gateway,
    edge: Connector,
    web: HttpService,
    disk: Disk,
    _dir: tempfile::TempDir,
}

impl Ground {
    /// The disk is at `small` of the directory; `log`, there, becomes a link
    /// to a file on it.
    async fn start(context: &Context, small: &str, log: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
        let disk = Disk::mount(&dir.path().join(small))?;
        std::os::unix::fs::symlink(disk.at.join(log), dir.path().join(log))?;
        let web = HttpService::start()?;
        let dialer = Key::new(dir.path(), "dialer")?;
        let targets = [web.addr.to_string()];
        let mut edge = Connector::new(dir.path(), "edge", &[&dialer.id], &targets)?;
        edge.start().await?;
        let manifests = Gateway::manifests(dir.path())?;
        let text = manifests::connector("edge", "edge", &edge.key.id, None, &edge.bound().await?);
        let services = [("127.0.0.1", web.addr.port()), ("127.0.0.1", 9)];
        let ads = manifests::advertisement("edge", "edge", &services);
        manifests.write("edge", &format!("{text}---\n{ads}"))?;
        let through = Backend::through("edge", format!("http://{}", web.addr));
        manifests.proxy("web", "web.test", &through)?;
        // The connector does not serve this one.
        let denied = Backend::through("edge", "tcp://127.0.0.1:9".to_owned());
        manifests.proxy("denied", "denied.test", &denied)?;
        let settings = Settings::of(&context.version);
        let gateway = Gateway::start(dir.path(), &dialer, &settings).await?;
        let ground = Self {
            gateway,
            edge,
            web,
            disk,
            _dir: dir,
        };
        ground.serves("web.test").await?;
        Ok(ground)
    }

    fn load(&self) -> Load {
        load::Plan::get(self.gateway.addr, "web.test", "/echo").begin()
    }

    async fn serves(&self, host: &str) -> Result<Duration> {
        let begun = Instant::now();
        until(&format!("an answer of {host}"), async || {
            let answer = get(self.gateway.addr, host, "/echo").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        Ok(begun.elapsed())
    }
}

async fn under_the_gateway(context: &Context) -> Result<String> {
    let mut ground = Ground::start(context, "state", "run.log").await?;
    let load = ground.load();
    ground.disk.fill(Some("run.log"))?;
    let through = Backend::through("edge", format!("http://{}", ground.web.addr));
    let manifests = &ground.gateway.manifests;
    for n in 0..5 {
        manifests.proxy("late", &format!("late-{n}.test"), &through)?;
        tokio::time::sleep(Duration::from_millis(context.scale(300, 1000))).await;
    }
    let early = get(ground.gateway.addr, "late-4.test", "/echo").await?;
    let tally = load.end().await?;
    tally.none_lost()?;
    tally.none_failed()?;
    ensure!(
        early.status == 404,
        "the disk was not full: {} of a host that came later",
        early.status
    );
    let dialer = ground.gateway.dialer_pid()?;
    ground.gateway.kill_dialer()?;
    until("another dialer", async || {
        (ground.gateway.dialer_pid().ok()? != dialer).then_some(())
    })
    .await?;
    let again = ground.serves("web.test").await?;
    ensure!(ground.gateway.process.is_running(), "adit run has ended");
    ground.disk.free()?;
    let taken = ground.serves("late-4.test").await?;
    Ok(format!(
        "{} requests answered on a full disk; served {again:.1?} after another dialer was there; the change \
         was in effect {taken:.1?} after there was room",
        tally.ok
    ))
}

async fn under_the_connector(context: &Context) -> Result<String> {
    let mut ground = Ground::start(context, "log", "edge.log").await?;
    let load = ground.load();
    let log = ground.edge.process()?.log().len();
    ground.disk.fill(Some("edge.log"))?;
    let full = ground.edge.process()?.log().len();
    // Each time it has something to say; the dialer rests nobody for that.
    let rounds = context.scale(30, 200);
    for _ in 0..rounds {
        let denied = connect::http1(ground.gateway.addr, "denied.test:9", b"").await?;
        ensure!(denied.status == 502, "{}", denied.head);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let tally = load.end().await?;
    tally.none_lost()?;
    tally.none_failed()?;
    // And its list, replaced twice.
    let allow = ground.edge.options["allow"].clone();
    ground.edge.set("allow", json!([])).reconfigure()?;
    until("end of its tunnels", async || {
        let answer = get(ground.gateway.addr, "web.test", "/echo").await.ok()?;
        (answer.status == 502).then_some(())
    })
    .await?;
    ground.edge.set("allow", allow).reconfigure()?;
    ground.serves("web.test").await?;
    let process = ground.edge.process.as_mut().context("the connector")?;
    ensure!(process.is_running(), "the connector has ended");
    let kept = process.log().len() - full;
    ensure!(kept == 0, "the disk was not full: {kept} bytes more of log");
    ground.disk.free()?;
    Ok(format!(
        "{} requests answered, {rounds} denied, its list replaced twice; of the log {log} bytes before, none more",
        tally.ok
    ))
}

async fn under_the_key() -> Result<String> {
    let dir = tempfile::Builder::new().prefix("adit-").tempdir()?;
    let disk = Disk::mount(&dir.path().join("small"))?;
    let key = disk.at.join("connector.key");
    let file = dir.path().join("connector.yaml");
    let options = json!({
        "key-file": key,
        "bind": ["127.0.0.1:0"],
        "allow": [],
        "targets": [],
        "admin": format!("unix:{}", dir.path().join("admin.sock").display()),
    });
    fs::write(&file, serde_json::to_vec(&options)?)?;
    disk.fill(None)?;
    let start = || -> Result<Output> {
        Ok(Command::new(binaries::adit()?)
            .arg("connector")
            .arg("-c")
            .arg(&file)
            .env_clear()
            .output()?)
    };
    // It must end by itself: it has no key.
    let said = tokio::task::block_in_place(start)?;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(!said.status.success(), "it went on without a key: {error}");
    ensure!(
        error.contains("connector.key") && error.contains("No space left"),
        "the error does not say what is wrong: {error}"
    );
    let names = |at: &Path| -> Result<Vec<String>> {
        let entries = fs::read_dir(at)?.flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|n| n != "ballast" && n != "more").collect())
    };
    let left = names(&disk.at)?;
    ensure!(left.is_empty(), "it left {left:?}");
    disk.free()?;
    let mut connector = Command::new(binaries::adit()?);
    connector.arg("connector").arg("-c").arg(&file).env_clear();
    let mut process = adit_tests::process::Process::start("connector", dir.path(), &mut connector)?;
    let admin = adit_tests::admin::Admin::Unix(dir.path().join("admin.sock"));
    process
        .until("ready connector", async || admin.get("/readyz").await.ok())
        .await?;
    let text = fs::read_to_string(&key)?;
    ensure!(
        text.trim().len() == 64,
        "the key is {} long",
        text.trim().len()
    );
    let mode = fs::metadata(&key)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the key's mode is {mode:o}");
    let line = error.trim().lines().last().unwrap_or_default();
    Ok(format!(
        "it said: {}",
        line.replace(&*disk.at.to_string_lossy(), "DIR")
    ))
}

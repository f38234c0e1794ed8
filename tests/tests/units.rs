//! The units in `systemd/`: systemd finds nothing wrong in them and rates them as
//! little exposed; and what they run starts with their environment, as another
//! user without any capability, says when it is ready, and ends in order.
//!
//! systemd itself runs nowhere in these tests: sandbox, dynamic users and
//! credentials are taken from its word.

#[path = "units/unit.rs"]
mod unit;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use adit_tests::{binaries, client::patiently, expect_ok, process::Process};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::net::UnixDatagram;
use unit::{GROUP, Places, Unit, User};

const UNITS: [&str; 3] = ["adit-connector", "adit-dialer", "adit-run"];
/// In tenths, as `systemd-analyze security --threshold` takes it. "OK" ends at 4.9;
/// what is left is mostly the network, which is what they are for.
const EXPOSURE: &str = "15";

#[test]
fn systemd_finds_nothing_wrong_in_the_units() {
    let Some(dir) = with_systemd() else { return };
    expect_ok(verify(dir.path()));
}

#[test]
fn systemd_rates_the_units_as_little_exposed() {
    let Some(_dir) = with_systemd() else { return };
    for name in UNITS {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={EXPOSURE}"))
            .arg(unit::file(name))
            .output()
            .expect("run systemd-analyze");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{}", said.lines().last().unwrap_or_default());
        assert!(output.status.success(), "{name}: {said}");
    }
}

#[tokio::test]
async fn the_connectors_unit_starts_says_ready_and_ends() {
    expect_ok(starts("adit-connector").await);
}

#[tokio::test]
async fn the_dialers_unit_starts_says_ready_and_ends() {
    expect_ok(starts("adit-dialer").await);
}

#[tokio::test]
async fn the_gateways_unit_starts_says_ready_and_ends() {
    expect_ok(starts("adit-run").await);
}

#[test]
fn a_key_that_the_service_manager_hands_over_is_taken() {
    // Root's, with an access list for the service: the group's bits are its mask.
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("key");
    let show = |credentials: Option<&Path>| {
        let mut command = Command::new(binaries::adit().expect("adit"));
        command.args(["key", "show"]).arg(&key).env_clear();
        command.envs(credentials.map(|path| ("CREDENTIALS_DIRECTORY", path)));
        command.output().expect("run adit")
    };
    let made = Command::new(binaries::adit().expect("adit"))
        .args(["key", "generate"])
        .arg(&key)
        .output()
        .expect("run adit");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).expect("a mode");
    let given = show(Some(dir.path()));
    assert!(given.status.success(), "{given:?}");
    assert_eq!(given.stdout, made.stdout);
    for elsewhere in [None, dir.path().parent()] {
        assert!(!show(elsewhere).status.success(), "{elsewhere:?}");
    }
    // Readable by everybody is exposed, whoever handed it over.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o444)).expect("a mode");
    assert!(!show(Some(dir.path())).status.success());
}

/// A folder, where there is a systemd to ask.
fn with_systemd() -> Option<tempfile::TempDir> {
    let found = Command::new("systemd-analyze").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("LEFT OUT: there is no systemd-analyze on PATH");
        return None;
    }
    Some(tempfile::tempdir().expect("a folder"))
}

/// `systemd-analyze verify` says not a word: of the units, of the manual pages
/// they name, and of the drop-ins in docs/install.md.
fn verify(dir: &Path) -> Result<()> {
    let adit = binaries::adit()?;
    let pages = Command::new(&adit)
        .arg("man")
        .arg(dir.join("man/man1"))
        .status()?;
    ensure!(pages.success(), "adit man: {pages}");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").env("MANPATH", dir.join("man"));
    if Command::new("man").arg("--version").output().is_err() {
        command.arg("--man=no");
    }
    for name in UNITS {
        let text = fs::read_to_string(unit::file(name))?;
        let text = text.replace(unit::PROGRAM, &adit.to_string_lossy());
        let copy = dir.join(format!("{name}.service"));
        fs::write(&copy, text)?;
        command.arg(copy);
    }
    for (file, text) in drop_ins()? {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, text)?;
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output()?;
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        status.success() && said.trim().is_empty(),
        "{status}: {said}"
    );
    Ok(())
}

/// The book's drop-ins: a block that begins with the path it is for.
fn drop_ins() -> Result<Vec<(PathBuf, String)>> {
    let book = fs::read_to_string(binaries::root().join("docs/install.md"))?;
    let mut found = Vec::new();
    for block in book.split("```ini\n").skip(1) {
        let (block, _) = block.split_once("```").context("an open block")?;
        let path = block
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# /etc/systemd/system/"))
            .with_context(|| format!("a block without its path: {block}"))?;
        found.push((path.into(), block.to_owned()));
    }
    ensure!(found.len() >= 2, "the book shows {} drop-ins", found.len());
    Ok(found)
}

async fn starts(name: &str) -> Result<()> {
    let unit = Unit::read(name)?;
    let dir = tempfile::tempdir()?;
    let user = User::other_than_ours(dir.path());
    let places = Places::make(dir.path(), &unit, &user)?;
    configure(name, &places)?;

    for line in unit.all("ExecStartPre") {
        let output = user
            .run(&places.here(line), &unit.environment(&places)?)
            .output()?;
        ensure!(
            output.status.success(),
            "{line}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    let notify = dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify)?;
    fs::set_permissions(&notify, fs::Permissions::from_mode(0o777))?;
    let line = unit.one("ExecStart")?;
    let mut command = user.run(&places.here(line), &unit.environment(&places)?);
    command.env("NOTIFY_SOCKET", &notify);
    let mut process = Process::start(name, dir.path(), &mut command)?;
    let mut told = vec![0; 256];
    let mut hear = async |process: &Process| -> Result<String> {
        let heard = patiently("a word to the service manager", async {
            Ok(manager.recv(&mut told).await?)
        });
        let len = heard.await.with_context(|| process.last_words())?;
        Ok(String::from_utf8_lossy(&told[..len]).into_owned())
    };
    assert_eq!(hear(&process).await?, "READY=1\n");
    match name {
        "adit-dialer" => reachable(&places, &user)?,
        "adit-run" => ensure!(process.log().contains("listening on http://127.0.0.1:")),
        _ => {}
    }
    let status = process.terminate().await?;
    ensure!(status.success(), "{status}:\n{}", process.last_words());
    // The next word is that: of one process, and each once.
    assert_eq!(hear(&process).await?, "STOPPING=1\n");
    let mut more = [0; 64];
    ensure!(manager.try_recv(&mut more).is_err(), "a third word");
    Ok(())
}

/// What a user writes for each unit.
fn configure(name: &str, places: &Places) -> Result<()> {
    let etc = &places.etc;
    let options = match name {
        "adit-connector" => json!({
            "allow": "any", "targets": ["127.0.0.1:8080"], "bind": ["127.0.0.1:0"],
            "admin": format!("unix:{}", places.state.join("admin.sock").display()),
        }),
        "adit-dialer" => json!({
            "bind": ["127.0.0.1:0"], "state": etc.join("dialer.json"),
            "admin": format!("unix:{}", places.state.join("admin.sock").display()),
        }),
        _ => {
            let manifests = etc.join("manifests");
            fs::create_dir(&manifests)?;
            for file in ["connector.yaml", "web.yaml"] {
                let from = binaries::root().join("envoy/manifests").join(file);
                fs::copy(from, manifests.join(file))?;
            }
            let lines = [
                format!(
                    "ENVOY_PATH={}",
                    binaries::envoy(binaries::ENVOYS[1])?.display()
                ),
                format!("ADIT_MODULE={}", binaries::module()?.display()),
                "ADIT_LISTEN=127.0.0.1:0".into(),
                "ADIT_BIND=127.0.0.1:0".into(),
                format!(
                    "ADIT_ADMIN=unix:{}",
                    places.state.join("admin.sock").display()
                ),
            ];
            fs::write(etc.join("run.env"), lines.join("\n"))?;
            return Ok(());
        }
    };
    fs::write(etc.join("dialer.json"), r#"{"connectors": []}"#)?;
    let file = etc.join(format!("{}.yaml", name.trim_start_matches("adit-")));
    fs::write(file, serde_json::to_vec_pretty(&options)?)?;
    Ok(())
}

/// Envoy's user reaches the socket when it is in the group, and else not.
fn reachable(places: &Places, user: &User) -> Result<()> {
    let socket = places.run.join("dialer.sock");
    let mode = fs::metadata(&socket)?.permissions().mode() & 0o777;
    ensure!(mode == 0o660, "{mode:o}");
    if !user.is_other() {
        println!("LEFT OUT: who reaches the socket, which takes root to try");
        return Ok(());
    }
    for (groups, may) in [(vec![GROUP], true), (vec![], false)] {
        let envoy = User::with_groups(&groups);
        let test = format!("/usr/bin/test -w {}", socket.display());
        let status = envoy.run(&test, &[]).status()?;
        ensure!(status.success() == may, "groups {groups:?}: {status}");
    }
    Ok(())
}

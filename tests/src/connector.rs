//! `adit connector` as a child process.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::{
    admin::Admin,
    binaries,
    keys::Key,
    process::{Process, with_open_files},
};

/// A device agent, running or not.
pub struct Connector {
    /// Its name: of its files and its log.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// Its configuration file's content; see [`Connector::reconfigure`].
    pub options: Map<String, Value>,
    /// Its admin server.
    pub admin: Admin,
    /// The process, unless it was stopped.
    pub process: Option<Process>,
    /// The most files it may have open, if that is to be limited.
    pub open_files: Option<u32>,
    /// Its environment, which is empty otherwise.
    pub env: Vec<(String, String)>,
    dir: PathBuf,
}

impl Connector {
    /// A connector for these dialers and targets, on a free UDP port of
    /// loopback; not started yet.
    pub fn new(dir: &Path, name: &str, allow: &[&str], targets: &[String]) -> Result<Self> {
        let key = Key::new(dir, name)?;
        let targets: BTreeSet<_> = targets.iter().collect();
        let admin = dir.join(format!("{name}-admin.sock"));
        let options = json!({
            "key-file": key.file,
            "bind": ["127.0.0.1:0"],
            "allow": allow,
            "targets": targets,
            "admin": format!("unix:{}", admin.display()),
            "grace-period": "1s",
        });
        let Value::Object(options) = options else {
            unreachable!("an object was written above");
        };
        Ok(Self {
            name: name.to_owned(),
            key,
            options,
            admin: Admin::Unix(admin),
            process: None,
            open_files: None,
            env: Vec::new(),
            dir: dir.to_owned(),
        })
    }

    /// Sets an option of its file, by the key's name.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.options.insert(key.to_owned(), value);
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.write()?;
        let mut command = Command::new(binaries::adit()?);
        command
            .arg("connector")
            .arg("-c")
            .arg(self.file())
            .env_clear()
            .envs(self.env.iter().cloned());
        if let Some(most) = self.open_files {
            command = with_open_files(&command, most);
        }
        let mut process = Process::start(&self.name, &self.dir, &mut command)?;
        let admin = self.admin.clone();
        process
            .until("ready connector", async || admin.get("/readyz").await.ok())
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Writes the changed options; the running connector takes `allow` and
    /// `targets` without a restart.
    pub fn reconfigure(&self) -> Result<()> {
        self.write()
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("a running connector")?.kill()
    }

    /// What `/status` says.
    pub async fn status(&self) -> Result<Value> {
        self.admin.json("/status").await
    }

    /// The UDP addresses it is bound to.
    pub async fn bound(&self) -> Result<Vec<SocketAddr>> {
        let status = self.status().await?;
        let list = status["bound"].as_array().context("bound")?;
        let addrs = list.iter().filter_map(Value::as_str);
        Ok(addrs.map(str::parse).collect::<Result<_, _>>()?)
    }

    /// The running process.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("a running connector")
    }

    fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.yaml", self.name))
    }

    fn write(&self) -> Result<()> {
        // JSON is YAML. Replaced whole: a reader never sees half of it.
        let temp = self.dir.join(format!(".{}.tmp", self.name));
        fs::write(&temp, serde_json::to_vec_pretty(&self.options)?)?;
        fs::rename(temp, self.file())?;
        Ok(())
    }
}

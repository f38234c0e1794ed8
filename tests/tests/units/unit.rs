//! A unit file as far as these tests need it, and what stands in for systemd.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use adit_tests::binaries;
use anyhow::{Context as _, Result, ensure};

/// As the units name it.
pub const PROGRAM: &str = "/usr/local/bin/adit";
/// Of a dynamic user, of the group in the dialer's unit, and of Envoy's user:
/// numbers that nobody has (systemd gives dynamic users 61184 to 65519).
const USER: u32 = 61_200;
pub const GROUP: u32 = 61_201;
const ENVOY: u32 = 61_202;

/// Where a unit is.
pub fn file(name: &str) -> PathBuf {
    binaries::root().join(format!("systemd/{name}.service"))
}

/// The settings of a unit.
pub struct Unit {
    name: String,
    settings: Vec<(String, String)>,
}

/// What systemd makes for a unit, and where its configuration is, in a folder of
/// the test's.
pub struct Places {
    pub etc: PathBuf,
    pub state: PathBuf,
    pub run: PathBuf,
    lib: PathBuf,
}

/// Whose process it is.
pub struct User {
    /// `setpriv` and its arguments; nothing for ourselves.
    become_it: Vec<String>,
}

impl Unit {
    pub fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(file(name))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let settings = lines.filter_map(|line| line.split_once('='));
        Ok(Self {
            name: name.to_owned(),
            settings: settings.map(|(k, v)| (k.into(), v.into())).collect(),
        })
    }

    /// All values of a setting.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let of_key = self.settings.iter().filter(move |(k, _)| k == key);
        of_key.map(|(_, value)| value.as_str())
    }

    /// The one value of a setting.
    pub fn one<'a>(&'a self, key: &'a str) -> Result<&'a str> {
        let all: Vec<_> = self.all(key).collect();
        ensure!(all.len() == 1, "{}: {key}={all:?}", self.name);
        Ok(all[0])
    }

    /// `Environment=` and `EnvironmentFile=`, with our places.
    pub fn environment(&self, places: &Places) -> Result<Vec<(String, String)>> {
        let mut lines: Vec<String> = self
            .all("Environment")
            .flat_map(|line| line.split_whitespace().map(str::to_owned))
            .collect();
        for file in self.all("EnvironmentFile") {
            let file = places.here(file.trim_start_matches('-'));
            lines.extend(fs::read_to_string(file)?.lines().map(str::to_owned));
        }
        let pairs = lines.iter().map(|line| {
            let (name, value) = line.split_once('=').context("NAME=VALUE")?;
            Ok((name.to_owned(), places.here(value)))
        });
        pairs.collect()
    }
}

impl Places {
    pub fn make(dir: &Path, unit: &Unit, user: &User) -> Result<Self> {
        let places = Self {
            etc: dir.join("etc"),
            lib: dir.join("lib"),
            state: dir.join("lib").join(unit.one("StateDirectory")?),
            run: dir.join("run"),
        };
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        for folder in [&places.etc, &places.lib] {
            fs::create_dir(folder)?;
        }
        let mut made = vec![(&places.state, unit.one("StateDirectoryMode")?)];
        if let Ok(mode) = unit.one("RuntimeDirectoryMode") {
            made.push((&places.run, mode));
        }
        for (folder, mode) in made {
            let mode = u32::from_str_radix(mode, 8)?;
            fs::DirBuilder::new().mode(mode).create(folder)?;
            if user.is_other() {
                chown(folder, Some(USER), Some(GROUP))?;
            }
        }
        Ok(places)
    }

    /// A line of the unit with our places instead of the system's.
    pub fn here(&self, line: &str) -> String {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        line.replace("/etc/adit", &text(&self.etc))
            .replace("/var/lib", &text(&self.lib))
            .replace("/run/adit", &text(&self.run))
    }
}

impl User {
    /// Somebody else, if we are root and they may use what was built; else we.
    pub fn other_than_ours(dir: &Path) -> Self {
        let other = Self::number(USER, &[]);
        let needed = [binaries::adit(), binaries::module(), Ok(dir.to_owned())];
        let mut may = rustix::process::geteuid().is_root();
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
        for path in needed.into_iter().flatten() {
            let test = format!("/usr/bin/test -r {}", path.display());
            may = may && other.run(&test, &[]).status().is_ok_and(|s| s.success());
        }
        if may {
            return other;
        }
        println!("LEFT OUT: another user without capabilities, which takes root to become");
        Self {
            become_it: Vec::new(),
        }
    }

    /// Envoy's, in these groups besides its own.
    pub fn with_groups(groups: &[u32]) -> Self {
        Self::number(ENVOY, groups)
    }

    pub fn is_other(&self) -> bool {
        !self.become_it.is_empty()
    }

    /// A command line as this user, with this environment and no other.
    pub fn run(&self, line: &str, environment: &[(String, String)]) -> Command {
        let program = binaries::adit().unwrap_or_default();
        let line = line.replace(PROGRAM, &program.to_string_lossy());
        let mut words = self.become_it.iter().cloned().chain(
            // Neither quotes nor variables stand in our units' lines.
            line.split_whitespace().map(str::to_owned),
        );
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env_clear();
        command.envs(environment.iter().map(|(k, v)| (k, v)));
        command
    }

    fn number(id: u32, groups: &[u32]) -> Self {
        let list: Vec<_> = groups.iter().map(u32::to_string).collect();
        let groups = match list.is_empty() {
            true => "--clear-groups".to_owned(),
            false => format!("--groups={}", list.join(",")),
        };
        let gid = if id == USER { GROUP } else { id };
        let words = [
            "/usr/bin/setpriv".to_owned(),
            format!("--reuid={id}"),
            format!("--regid={gid}"),
            groups,
            "--inh-caps=-all".into(),
            "--bounding-set=-all".into(),
            "--no-new-privs".into(),
        ];
        Self {
            become_it: words.into(),
        }
    }
}

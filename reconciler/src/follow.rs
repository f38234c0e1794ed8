//! Follows a directory: looks, compiles, emits, and when Envoy refuses finds
//! out whose fault it was.
//!
//! Validation is meant to stop everything that Envoy would refuse. This is
//! for what slips through: one bad object must not hold up the others.

use std::collections::BTreeMap;

use adit_api::{Problem, Reason, networking::HttpProxy};

use crate::{
    Diagnostic, Kind, ObjectKey, Snapshot,
    compile::{Compiled, Options, compile},
    emit::{Emit, EmitError, Resources, Setting, resources},
    source::{Directory, Scan},
};

/// A directory, what is in effect of it, and what Envoy refused of it.
pub struct Follower {
    /// What is decided outside the objects.
    pub options: Options,
    /// What the resources need to know of the machine.
    pub setting: Setting,
    directory: Directory,
    accepted: Snapshot,
    held: BTreeMap<ObjectKey, Held>,
}

/// A version of an HTTPProxy that Envoy refused.
struct Held {
    refused: HttpProxy,
    reason: String,
}

/// One look at the directory.
pub struct Look {
    /// What is to be emitted.
    pub resources: Resources,
    /// What is wrong, by place.
    pub diagnostics: Vec<Diagnostic>,
    snapshot: Snapshot,
}

/// What became of a [`Look`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was in effect already.
    Nothing,
    /// It is in effect.
    Whole,
    /// It is in effect but for so many HTTPProxies, which the next look names.
    Without(usize),
}

/// Compiles what a scan found; its problems with their places.
pub fn judge(scan: &Scan, options: &Options) -> (Compiled, Vec<Diagnostic>) {
    let compiled = compile(&scan.snapshot, options);
    let mut diagnostics = scan.diagnostics.clone();
    let located = compiled
        .problems
        .iter()
        .map(|(key, problem)| scan.locate(key.clone(), problem.clone()));
    diagnostics.extend(located);
    diagnostics.sort();
    diagnostics.dedup();
    (compiled, diagnostics)
}

impl Follower {
    /// Follows `directory`; nothing of it is in effect yet.
    pub fn new(directory: Directory, options: Options, setting: Setting) -> Self {
        Self {
            options,
            setting,
            directory,
            accepted: Snapshot::default(),
            held: BTreeMap::new(),
        }
    }

    /// Looks at the directory.
    pub fn look(&mut self) -> Look {
        let mut scan = self.directory.scan();
        let refused = self.hold(&mut scan.snapshot);
        let (compiled, mut diagnostics) = judge(&scan, &self.options);
        diagnostics.extend(
            refused
                .into_iter()
                .map(|(key, problem)| scan.locate(key, problem)),
        );
        Look {
            resources: resources(&compiled.model, &self.setting),
            diagnostics,
            snapshot: scan.snapshot,
        }
    }

    /// Says that a look is in effect, for the one that Envoy was started with.
    pub fn accept(&mut self, look: Look) {
        self.accepted = look.snapshot;
    }

    /// Brings a look into effect. What Envoy refuses is left out, if it can
    /// be found out what that is.
    ///
    /// # Errors
    /// When nothing of the look could be brought into effect.
    pub async fn apply(&mut self, look: Look, to: &mut impl Emit) -> Result<Applied, EmitError> {
        match to.emit(look.resources).await {
            Ok(false) => Ok(Applied::Nothing),
            Ok(true) => {
                self.accepted = look.snapshot;
                Ok(Applied::Whole)
            }
            Err(refused @ EmitError::Refused { .. }) => {
                self.isolate(look.snapshot, refused, to).await
            }
            Err(error) => Err(error),
        }
    }

    /// Puts versions that were accepted in the place of refused ones.
    fn hold(&mut self, snapshot: &mut Snapshot) -> Vec<(ObjectKey, Problem)> {
        let mut problems = Vec::new();
        let mut still = BTreeMap::new();
        snapshot.proxies.retain_mut(|proxy| {
            let key = Kind::HttpProxy.key(proxy);
            let Some(held) = self.held.remove(&key).filter(|held| held.refused == *proxy) else {
                return true;
            };
            let before = find(&self.accepted, &key);
            let instead = match before {
                Some(_) => "its last good version stays in effect",
                None => "it has no effect",
            };
            let message = format!("Envoy refused this: {}; {instead}", held.reason);
            problems.push((key.clone(), Problem::error("", Reason::Invalid, message)));
            still.insert(key, held);
            match before {
                Some(good) => {
                    *proxy = good.clone();
                    true
                }
                None => false,
            }
        });
        self.held = still;
        problems
    }

    /// Emits everything but the HTTPProxies that changed, then one after the
    /// other.
    async fn isolate(
        &mut self,
        latest: Snapshot,
        refused: EmitError,
        to: &mut impl Emit,
    ) -> Result<Applied, EmitError> {
        let is_new = |p: &HttpProxy| find(&self.accepted, &Kind::HttpProxy.key(p)) != Some(p);
        let (new, old): (Vec<_>, Vec<_>) = latest.proxies.iter().cloned().partition(is_new);
        // Each new one in the place of its version before, if it had one.
        let order: Vec<_> = latest
            .proxies
            .iter()
            .map(|p| Kind::HttpProxy.key(p))
            .collect();
        let mut proxies: BTreeMap<ObjectKey, HttpProxy> = BTreeMap::new();
        let before = new
            .iter()
            .filter_map(|p| find(&self.accepted, &Kind::HttpProxy.key(p)));
        for proxy in old.iter().chain(before) {
            proxies.insert(Kind::HttpProxy.key(proxy), proxy.clone());
        }
        let assemble = |proxies: &BTreeMap<ObjectKey, HttpProxy>| Snapshot {
            proxies: order
                .iter()
                .filter_map(|key| proxies.get(key).cloned())
                .collect(),
            ..latest.clone()
        };
        let mut base = assemble(&proxies);
        if to.emit(self.compiled(&base)).await.is_err() {
            // It was none of them: nobody can be left out.
            return Err(refused);
        }
        let mut left_out = 0;
        for proxy in new {
            let key = Kind::HttpProxy.key(&proxy);
            let mut with = proxies.clone();
            with.insert(key.clone(), proxy.clone());
            let candidate = assemble(&with);
            match to.emit(self.compiled(&candidate)).await {
                Ok(_) => (proxies, base) = (with, candidate),
                Err(EmitError::Refused { reason, .. }) => {
                    left_out += 1;
                    self.held.insert(
                        key,
                        Held {
                            refused: proxy,
                            reason,
                        },
                    );
                }
                Err(error) => {
                    self.accepted = base;
                    return Err(error);
                }
            }
        }
        self.accepted = base;
        Ok(Applied::Without(left_out))
    }

    fn compiled(&self, snapshot: &Snapshot) -> Resources {
        resources(&compile(snapshot, &self.options).model, &self.setting)
    }
}

fn find<'a>(snapshot: &'a Snapshot, key: &ObjectKey) -> Option<&'a HttpProxy> {
    snapshot
        .proxies
        .iter()
        .find(|p| Kind::HttpProxy.key(*p) == *key)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::compile::Classes;

    /// Takes everything but what holds a word.
    struct Picky(&'static str, Vec<Resources>);

    impl Emit for Picky {
        async fn emit(&mut self, resources: Resources) -> Result<bool, EmitError> {
            if serde_json::to_string(&resources.routes)
                .expect("serializes")
                .contains(self.0)
            {
                return Err(EmitError::Refused {
                    what: "routes",
                    reason: format!("no {}", self.0),
                });
            }
            let new = self.1.last() != Some(&resources);
            self.1.push(resources);
            Ok(new)
        }
    }

    struct Fixture {
        folder: TempDir,
        follower: Follower,
        envoy: Picky,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = TempDir::new().expect("a folder");
            let options = Options {
                listen: "127.0.0.1:0".parse().expect("valid"),
                deadline: Duration::from_secs(1),
                output: crate::compile::Output::Files { ca_file: None },
                classes: Classes::IfAny,
            };
            let setting = Setting {
                module: "/libadit.so".into(),
                dialer_socket: "/dialer.sock".into(),
                routes_file: "/rds.json".into(),
                html_page: None,
                access_log: None,
            };
            let directory = Directory::new(folder.path());
            Self {
                folder,
                follower: Follower::new(directory, options, setting),
                envoy: Picky("poison", vec![]),
            }
        }

        fn write(&self, name: &str, path: &str) {
            let text = format!(
                "apiVersion: networking.datumapis.com/v1alpha\nkind: HTTPProxy\nmetadata: {{name: {name}}}\n\
                 spec: {{hostnames: [{name}.example], rules: [{{matches: [{{path: {{value: {path}}}}}], backends: [{{endpoint: \"http://a:1\"}}]}}]}}\n"
            );
            fs::write(self.folder.path().join(format!("{name}.yaml")), text).expect("written");
        }

        async fn apply(&mut self) -> Result<Applied, EmitError> {
            let look = self.follower.look();
            self.follower.apply(look, &mut self.envoy).await
        }

        /// The paths in effect, by name.
        fn paths(&self) -> String {
            let last = self.envoy.1.last().expect("emitted");
            let json = serde_json::to_value(&last.routes).expect("serializes");
            let hosts = json[0]["virtual_hosts"].as_array().expect("a list");
            let paths = hosts.iter().map(|h| {
                h["routes"][0]["match"]["path_separated_prefix"]
                    .as_str()
                    .unwrap_or("?")
                    .to_owned()
            });
            paths.collect::<Vec<_>>().join(" ")
        }
    }

    #[tokio::test]
    async fn one_proxy_that_envoy_refuses_does_not_hold_up_the_others() {
        let mut it = Fixture::new();
        it.write("a", "/a1");
        it.write("b", "/b1");
        assert_eq!(it.apply().await.expect("taken"), Applied::Whole);
        it.write("a", "/poison");
        it.write("b", "/b2");
        it.write("c", "/c1");
        it.write("d", "/poison");
        assert_eq!(it.apply().await.expect("taken"), Applied::Without(2));
        assert_eq!(it.paths(), "/a1 /b2 /c1");

        let look = it.follower.look();
        let said: Vec<_> = look.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "a.yaml:1: error: HTTPProxy default/a: Envoy refused this: no poison; its last good version stays in effect (Invalid)",
                "d.yaml:1: error: HTTPProxy default/d: Envoy refused this: no poison; it has no effect (Invalid)",
            ]
        );
        // Nothing more to do until the files change.
        assert_eq!(it.apply().await.expect("taken"), Applied::Nothing);
        it.write("b", "/b3");
        assert_eq!(it.apply().await.expect("taken"), Applied::Whole);
        assert_eq!(it.paths(), "/a1 /b3 /c1");
        it.write("a", "/a2");
        it.write("d", "/d1");
        assert_eq!(it.apply().await.expect("taken"), Applied::Whole);
        assert_eq!(it.paths(), "/a2 /b3 /c1 /d1");
        assert!(it.follower.look().diagnostics.is_empty());
    }

    #[tokio::test]
    async fn a_refusal_that_is_no_proxys_fault_is_passed_on() {
        let mut it = Fixture::new();
        it.write("a", "/a");
        assert_eq!(it.apply().await.expect("taken"), Applied::Whole);
        it.write("a", "/b");
        it.envoy.0 = "virtual_hosts";
        assert!(matches!(it.apply().await, Err(EmitError::Refused { .. })));
        assert_eq!(it.paths(), "/a");
    }
}

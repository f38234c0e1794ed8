//! What the operator says about the control plane.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use adit_api::{
    Severity,
    networking::HttpProxy,
    validate::{self, Scope},
};
use adit_control::Meaningless;
use adit_wire::EndpointId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objects::Identity;

/// Facts: existing agents' class.
const DEFAULT_CLASS: &str = "datum-connect";
/// Of a manifest that is applied.
const MAX_MANIFEST: u64 = 1 << 20;
/// The API's bound for device name and system.
const MAX_DEVICE: usize = 253;

/// The options of `adit connector` that concern the Kubernetes API. A flag,
/// its environment variable and its file key have one name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RegisterOptions {
    /// Which API server
    #[command(flatten)]
    #[serde(flatten)]
    pub control: adit_control::Options,
    /// The Connector's name [default: this machine's name]
    #[arg(long, env = "ADIT_NAME", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The Connector's class [default: datum-connect]
    #[arg(long, env = "ADIT_CONNECTOR_CLASS", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector_class: Option<String>,
    /// A label of the Connector, for selectors; may be repeated
    #[arg(
        long,
        env = "ADIT_LABEL",
        value_name = "KEY=VALUE",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub label: Vec<String>,
    /// The device's name for people [default: this machine's name]
    #[arg(long, env = "ADIT_DEVICE_NAME", value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// The device's operating system for people [default: this machine's]
    #[arg(long, env = "ADIT_DEVICE_OS", value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_os: Option<String>,
    /// Keep a ConnectorAdvertisement of `targets` [default: true]
    #[arg(long, env = "ADIT_ADVERTISE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<bool>,
    /// A manifest of an HTTPProxy to apply at each start; its backends must name this Connector
    #[arg(long, env = "ADIT_HTTP_PROXY", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<PathBuf>,
}

/// Checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which API server.
    pub control: adit_control::Options,
    /// What the agent is there.
    pub identity: Identity,
    /// Whether its targets are advertised.
    pub advertise: bool,
    /// An HTTPProxy to apply at the start.
    pub proxy: Option<Value>,
}

/// An option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Options that mean nothing without an API server.
    #[error(transparent)]
    NoControlPlane(#[from] Meaningless),
    /// A name that no Connector can have.
    #[error(
        "--name {0:?}: a Connector's name has at most 63 lowercase letters, digits and hyphens, and \
         neither begins nor ends with a hyphen"
    )]
    Name(String),
    /// Not `key=value` of Kubernetes.
    #[error("--label {0:?}: write KEY=VALUE as Kubernetes has them, each key once")]
    Label(String),
    /// Empty or too long.
    #[error("--{0} must have between 1 and {MAX_DEVICE} characters")]
    Device(&'static str),
    /// The manifest.
    #[error("--http-proxy {path}: {reason}")]
    Proxy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl RegisterOptions {
    /// Checks the options and reads the manifest. `None` without an API
    /// server.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn resolve(self, id: EndpointId) -> Result<Option<Settings>, RegisterError> {
        if !self.control.wanted() {
            let given = [
                ("name", self.name.is_some()),
                ("connector-class", self.connector_class.is_some()),
                ("label", !self.label.is_empty()),
                ("device-name", self.device_name.is_some()),
                ("device-os", self.device_os.is_some()),
                ("http-proxy", self.http_proxy.is_some()),
            ];
            return match given.into_iter().find(|(_, given)| *given) {
                Some((option, _)) => Err(Meaningless(option).into()),
                None => Ok(None),
            };
        }
        let host = host();
        let name = match self.name {
            Some(name) if is_label(&name) => name,
            Some(name) => return Err(RegisterError::Name(name)),
            None => name_of(&host, id),
        };
        let mut labels = BTreeMap::new();
        for pair in self.label {
            let parts = pair.split_once('=');
            let Some((key, value)) = parts.filter(|(k, v)| is_label_key(k) && is_label_value(v))
            else {
                return Err(RegisterError::Label(pair));
            };
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(RegisterError::Label(pair));
            }
        }
        let text = |option, set: Option<String>, default: String| {
            let text = set.unwrap_or(default);
            match (1..=MAX_DEVICE).contains(&text.chars().count()) {
                true => Ok(text),
                false => Err(RegisterError::Device(option)),
            }
        };
        let device_name = text("device-name", self.device_name, or_unknown(host))?;
        let device_os = text("device-os", self.device_os, or_unknown(system()))?;
        let proxy = self.http_proxy.map(|path| {
            read_proxy(&path, &name).map_err(|reason| RegisterError::Proxy { path, reason })
        });
        Ok(Some(Settings {
            control: self.control,
            advertise: self.advertise.unwrap_or(true),
            proxy: proxy.transpose()?,
            identity: Identity {
                name,
                class: self
                    .connector_class
                    .unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
                labels,
                device_name,
                device_os,
            },
        }))
    }
}

/// A name for a Connector from the machine's. Machines without a name of their
/// own share it with thousands of others: the key tells them apart.
fn name_of(host: &str, id: EndpointId) -> String {
    let host = host
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let clean: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    match clean.trim_matches('-') {
        "" | "localhost" => format!("connector-{}", &id.to_string()[..10]),
        name => name.to_owned(),
    }
}

/// RFC 1123, as HTTPProxies refer to Connectors.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= 253 && prefix.split('.').all(is_label) && is_name(name)
        }
        None => is_name(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.bytes().next())
        && ends(text.bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The machine's name as its kernel has it (proc_sys_kernel(5)).
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}

/// As os-release(5) says it for people.
fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|value| value.trim_matches(['"', '\'']).to_owned());
    let pretty: Option<String> = pretty.map(|name| {
        let clean = name.chars().filter(|c| !c.is_control());
        clean.take(MAX_DEVICE).collect()
    });
    pretty
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| std::env::consts::OS.to_owned())
}

fn or_unknown(text: String) -> String {
    match text.is_empty() {
        true => "unknown".to_owned(),
        false => text,
    }
}

/// The manifest, if it is an HTTPProxy for this connector.
fn read_proxy(path: &Path, connector: &str) -> Result<Value, String> {
    let size = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_MANIFEST {
        return Err(format!("has {size} bytes; at most {MAX_MANIFEST} are read"));
    }
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let mut manifest: Value = serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
    let proxy: HttpProxy = match manifest["kind"].as_str() {
        Some("HTTPProxy") => serde_json::from_value(manifest.clone()).map_err(|e| e.to_string())?,
        kind => return Err(format!("holds {kind:?}, not one HTTPProxy")),
    };
    let problems = validate::http_proxy(&proxy, Scope::Shared);
    if let Some(problem) = problems.iter().find(|p| p.severity == Severity::Error) {
        return Err(format!("{}: {}", problem.path, problem.message));
    }
    for backend in proxy.spec.rules.iter().flat_map(|rule| &rule.backends) {
        let named = backend.connector.as_ref().and_then(|c| c.name.as_deref());
        if named != Some(connector) {
            return Err(format!(
                "a backend names the connector {named:?}; all must name this one, {connector:?} (--name)"
            ));
        }
    }
    if let Some(object) = manifest.as_object_mut() {
        object.remove("status");
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EndpointId = EndpointId::from_bytes([0xab; 32]);

    fn wanted() -> RegisterOptions {
        RegisterOptions {
            control: adit_control::Options {
                kubeconfig: Some("/k".into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn a_name_comes_from_the_machine_unless_many_machines_share_it() {
        assert_eq!(name_of("Shop_7.example.net", ID), "shop-7");
        assert_eq!(name_of("localhost", ID), "connector-ababababab");
        assert_eq!(name_of("-_-", ID), "connector-ababababab");
        assert!(is_label(&name_of(&"x".repeat(200), ID)));
    }

    #[test]
    fn options_without_a_control_plane_are_refused_not_ignored() {
        assert!(RegisterOptions::default().resolve(ID).unwrap().is_none());
        let options = RegisterOptions {
            label: vec!["a=b".into()],
            ..Default::default()
        };
        let error = options.resolve(ID).unwrap_err().to_string();
        assert!(
            error.contains("--label") && error.contains("--kubeconfig"),
            "{error}"
        );
    }

    #[test]
    fn what_kubernetes_would_refuse_is_refused_at_the_start() {
        let refused = |change: fn(&mut RegisterOptions)| {
            let mut options = wanted();
            change(&mut options);
            options.resolve(ID).unwrap_err().to_string()
        };
        assert!(refused(|o| o.name = Some("Shop".into())).contains("--name"));
        for label in ["a", "=b", "a=b c", "a/b/c=d", "Ä=b", "-a=b", "a=-"] {
            let mut options = wanted();
            options.label = vec![label.to_owned()];
            let error = options.resolve(ID).unwrap_err().to_string();
            assert!(error.contains("--label"), "{label}: {error}");
        }
        assert!(refused(|o| o.label = vec!["a=b".into(), "a=c".into()]).contains("once"));
        assert!(refused(|o| o.device_name = Some(String::new())).contains("--device-name"));
        assert!(refused(|o| o.http_proxy = Some("/nonexistent".into())).contains("/nonexistent"));
    }

    #[test]
    fn a_manifest_must_be_one_httpproxy_for_this_connector() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.yaml");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_proxy(&path, "shop")
        };
        let manifest = |connector: &str| {
            format!(
                "apiVersion: networking.datumapis.com/v1alpha\nkind: HTTPProxy\nmetadata: {{name: web}}\n\
                 spec:\n  hostnames: [web.example]\n  rules:\n  - backends:\n    - endpoint: http://127.0.0.1:80\n\
                 \x20     connector: {{{connector}}}\nstatus: {{hostnames: [x]}}\n"
            )
        };
        let object = read(&manifest("name: shop")).expect("valid");
        assert_eq!(object["spec"]["hostnames"][0], "web.example");
        assert!(object["status"].is_null(), "{object}");
        for (text, said) in [
            (manifest("name: other"), "other"),
            (
                manifest("selector: {matchLabels: {a: b}}"),
                "all must name this one",
            ),
            ("kind: Gateway".to_owned(), "not one HTTPProxy"),
            (manifest("name: shop").replace("http://", "ftp://"), "ftp"),
        ] {
            let error = read(&text).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn defaults_come_from_the_machine() {
        let settings = wanted().resolve(ID).unwrap().expect("a control plane");
        assert!(settings.advertise);
        assert_eq!(settings.identity.class, "datum-connect");
        assert!(is_label(&settings.identity.name));
        assert!(!settings.identity.device_os.is_empty());
    }
}

//! `adit check DIR`: what is wrong in manifests, and which way a request would
//! take.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use adit_api::{Problem, Reason, ResourceExt as _, validate};
use adit_reconciler::{
    Diagnostic, Kind, ObjectKey, Snapshot,
    compile::{self, Classes, Compiled, Options},
    explain::{self, Explanation, Request},
    follow::judge,
    model::{Action, Cluster, Transport, UpstreamProtocol},
    source::{Directory, Scan},
};
use adit_wire::Protocol;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::run::{DEFAULT_DEADLINE, default_authorities};

#[derive(Args)]
pub(crate) struct ManifestArgs {
    /// The directory of manifests
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Explain which rule, connectors and target a request for this URL would take
    #[arg(long)]
    url: Option<String>,
    /// The request's method; CONNECT for a tunnel
    #[arg(long, default_value = "GET", requires = "url")]
    method: String,
    /// A header of the request
    #[arg(short = 'H', long, value_name = "NAME: VALUE", requires = "url")]
    header: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A directory as `adit run` would take it.
pub(super) struct Loaded {
    scan: Scan,
    compiled: Compiled,
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// What stands in the directory.
    pub fn summary(&self, directory: &Path) -> String {
        let objects = &self.scan.snapshot;
        format!(
            "{}: {} HTTPProxies, {} Connectors, {} ConnectorAdvertisements",
            directory.display(),
            objects.proxies.len(),
            objects.connectors.len(),
            objects.advertisements.len()
        )
    }
}

pub(super) fn main(args: &ManifestArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(
        &args.directory,
        &Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            deadline: DEFAULT_DEADLINE.0,
            output: compile::Output::Files {
                ca_file: default_authorities(),
            },
            classes: Classes::IfAny,
        },
    );
    let request = args
        .url
        .as_ref()
        .map(|url| request(url, &args.method, &args.header))
        .transpose()?;
    let explanation = request
        .as_ref()
        .map(|r| explain::explain(&loaded.compiled.model, r));
    if args.json {
        let mut out = json!({"diagnostics": loaded.diagnostics.iter().map(diagnostic_json).collect::<Vec<_>>()});
        if let (Some(request), Some(explanation)) = (&request, &explanation) {
            out["explanation"] = explanation_json(request, explanation, &loaded);
        }
        println!("{out:#}");
    } else {
        for diagnostic in &loaded.diagnostics {
            println!("{diagnostic}");
        }
        if let (Some(request), Some(explanation)) = (&request, &explanation) {
            print!("{}", explanation_text(request, explanation, &loaded));
        }
        let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
        println!(
            "{}; {errors} errors, {} warnings",
            loaded.summary(&args.directory),
            loaded.diagnostics.len() - errors
        );
    }
    let failed = loaded.diagnostics.iter().any(Diagnostic::is_error);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads and judges a directory.
pub(super) fn load(directory: &Path, options: &Options) -> Loaded {
    let scan = Directory::new(directory).scan();
    let (compiled, diagnostics) = judge(&scan, options);
    Loaded {
        scan,
        compiled,
        diagnostics,
    }
}

fn request(url: &str, method: &str, headers: &[String]) -> anyhow::Result<Request> {
    // A bare authority is what CONNECT asks for.
    let text = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let url = url::Url::parse(&text).with_context(|| format!("--url {url:?}"))?;
    let Some(host) = url.host_str() else {
        bail!("--url {url} has no host");
    };
    let pair = |header: &String| {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("--header {header:?} is not NAME: VALUE"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(Request {
        method: method.to_ascii_uppercase(),
        host: host.to_owned(),
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers: headers.iter().map(pair).collect::<anyhow::Result<_>>()?,
    })
}

fn diagnostic_json(d: &Diagnostic) -> Value {
    json!({
        "file": d.place.as_ref().map(|p| p.file.display().to_string()),
        "line": d.place.as_ref().map(|p| p.line).filter(|l| *l > 0),
        "severity": d.problem.severity.as_str(),
        "reason": d.problem.reason.as_str(),
        "object": d.object.as_ref().map(ToString::to_string),
        "field": d.problem.path,
        "message": d.problem.message,
    })
}

fn explanation_json(request: &Request, found: &Explanation<'_>, loaded: &Loaded) -> Value {
    json!({
        "request": {"method": request.method, "host": request.host, "path": request.path},
        "answer": answer(found),
        "host": found.host.map(|h| h.hostname.as_deref().unwrap_or("*")),
        "proxy": found.route.map(|r| &r.origin.proxy),
        "rule": found.route.map(|r| r.origin.rule),
        "place": found.route.and_then(|r| place(r, loaded)),
        "match": found.route.map(explain::show),
        "passedOver": found.passed,
        "targets": found.clusters.iter().map(|(weight, cluster)| json!({
            "weight": weight,
            "protocol": protocol(cluster),
            "service": service(cluster),
            // For a cluster written by hand: the module's `target`.
            "target": match &cluster.transport {
                Transport::Adit(target) => Some(target.to_base64()),
                Transport::Raw(_) | Transport::Tls { .. } => None,
            },
            "connectors": connectors(cluster, &loaded.scan.snapshot).iter().map(|c| json!({
                "name": c.name, "endpointId": c.id, "relay": c.relay, "addresses": c.addresses,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn explanation_text(request: &Request, found: &Explanation<'_>, loaded: &Loaded) -> String {
    let mut lines = vec![format!(
        "{} {}{}: {}",
        request.method,
        request.host,
        request.path,
        answer(found)
    )];
    if let Some(route) = found.route {
        let place = place(route, loaded)
            .map(|p| format!(" ({p})"))
            .unwrap_or_default();
        lines.push(format!(
            "  rule {} of HTTPProxy {}{place}: {}",
            route.origin.rule,
            route.origin.proxy,
            explain::show(route)
        ));
    }
    for (weight, cluster) in &found.clusters {
        let share = if found.clusters.len() > 1 {
            format!(", weight {weight}")
        } else {
            String::new()
        };
        lines.push(format!(
            "  target {} {}{share}",
            protocol(cluster),
            service(cluster)
        ));
        for c in connectors(cluster, &loaded.scan.snapshot) {
            let relay = c.relay.map(|r| format!(", relay {r}")).unwrap_or_default();
            let addresses = match c.addresses.as_slice() {
                [] => String::new(),
                list => format!(", at {}", list.join(" ")),
            };
            lines.push(format!("    through {} {}{relay}{addresses}", c.name, c.id));
        }
    }
    lines.extend(found.passed.iter().map(|m| format!("  passed over: {m}")));
    lines.join("\n") + "\n"
}

fn answer(found: &Explanation<'_>) -> &'static str {
    match (found.host, found.route.map(|r| &r.action)) {
        (None, _) => "404, no HTTPProxy has this host name",
        (_, None) => "404, no rule of this host name matches",
        (_, Some(Action::Misconfigured)) => "500, the rule cannot be programmed (see the errors)",
        (_, Some(Action::Redirect(_))) => "redirect",
        (_, Some(Action::Forward { .. })) => "forwarded",
    }
}

fn place(route: &adit_reconciler::model::Route, loaded: &Loaded) -> Option<String> {
    let (namespace, name) = route.origin.proxy.split_once('/')?;
    let key = ObjectKey {
        kind: Kind::HttpProxy,
        namespace: namespace.into(),
        name: name.into(),
    };
    let path = format!("spec.rules[{}]", route.origin.rule);
    let found = loaded
        .scan
        .locate(key, Problem::warning(path, Reason::Invalid, ""));
    found.place.map(|p| p.to_string())
}

fn protocol(cluster: &Cluster) -> &'static str {
    let tls = match &cluster.transport {
        Transport::Adit(target) => matches!(target.protocol, Protocol::Tls(_)),
        Transport::Raw(_) => false,
        Transport::Tls { .. } => true,
    };
    match (cluster.protocol, tls) {
        (UpstreamProtocol::Http1, false) => "http",
        (UpstreamProtocol::Http1, true) => "https",
        (UpstreamProtocol::Http2, _) => "h2c",
        (UpstreamProtocol::Bytes, _) => "tcp",
    }
}

fn service(cluster: &Cluster) -> String {
    match &cluster.transport {
        Transport::Adit(target) => target.service.to_string(),
        Transport::Raw(address) | Transport::Tls { address, .. } => address.to_string(),
    }
}

struct Shown {
    name: String,
    id: String,
    relay: Option<String>,
    addresses: Vec<String>,
}

fn connectors(cluster: &Cluster, snapshot: &Snapshot) -> Vec<Shown> {
    let Transport::Adit(target) = &cluster.transport else {
        return Vec::new();
    };
    let shown = |id: &adit_wire::EndpointId| {
        let found = snapshot.connectors.iter().find_map(|c| {
            let hint = validate::connection_details(c).filter(|h| h.endpoint_id == *id)?;
            Some((c, hint))
        });
        let (name, relay, addresses) = match found {
            Some((c, hint)) => (c.name_any(), hint.relay, hint.addresses),
            None => (String::new(), None, Vec::new()),
        };
        Shown {
            name,
            id: id.to_string(),
            relay,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    };
    target.connectors.iter().map(shown).collect()
}

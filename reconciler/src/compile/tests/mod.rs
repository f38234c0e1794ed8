//! Objects in, routes and problems out: one table for each concern. Here are
//! the short ways to write objects and to read what became of them.

mod connectors;
mod gateway;
mod permits;
mod routes;

use serde_json::{Value, json};

use super::*;
use crate::model::Transport;

fn options() -> Options {
    Options {
        listen: "127.0.0.1:0".parse().expect("valid"),
        deadline: Duration::from_secs(5),
        output: Output::Files { ca_file: None },
        classes: Classes::IfAny,
    }
}

fn read<T: serde::de::DeserializeOwned>(kind: Kind, name: &str, mut value: Value) -> T {
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.as_str().into();
    value["metadata"]["name"] = name.into();
    value["metadata"]["namespace"] = "default".into();
    serde_json::from_value(value).expect("well formed")
}

/// A connector whose key is `byte` repeated.
fn connector(name: &str, byte: u8, change: Value) -> adit_api::networking::Connector {
    let mut value = json!({
        "metadata": {"labels": {"site": "north"}},
        "spec": {"connectorClassName": "datum-connect"},
        "status": {"connectionDetails": {"type": "PublicKey", "publicKey": {"id": format!("{byte:02x}").repeat(32)}}},
    });
    merge(&mut value, change);
    read(Kind::Connector, name, value)
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn advertises(
    connector: &str,
    address: &str,
    port: u16,
    protocol: &str,
) -> adit_api::networking::ConnectorAdvertisement {
    read(
        Kind::ConnectorAdvertisement,
        connector,
        json!({"spec": {
            "connectorRef": {"name": connector},
            "layer4": [{"name": "a", "services": [{"address": address, "ports": [{"name": "p", "port": port, "protocol": protocol}]}]}],
        }}),
    )
}

fn proxy(name: &str, spec: Value) -> HttpProxy {
    read(Kind::HttpProxy, name, json!({"spec": spec}))
}

/// One rule to one endpoint behind the connector `c`.
fn simple(endpoint: &str) -> HttpProxy {
    proxy(
        "shop",
        json!({"hostnames": ["shop.example"], "rules": [
        {"backends": [{"endpoint": endpoint, "connector": {"name": "c"}}]}]}),
    )
}

fn reasons(compiled: &Compiled) -> Vec<(&'static str, &str)> {
    compiled
        .problems
        .iter()
        .map(|(_, p)| (p.reason.as_str(), p.path.as_str()))
        .collect()
}

fn routes(compiled: &Compiled) -> Vec<String> {
    let ListenerKind::Http(hosts) = &compiled.model.listeners[0].kind;
    let mut shown = Vec::new();
    for host in hosts {
        for route in &host.routes {
            let action = match &route.action {
                Action::Forward { backends, .. } => {
                    let shares = backends.iter().map(|b| {
                        let cluster = &compiled.model.clusters[&b.cluster];
                        let to = match &cluster.transport {
                            Transport::Adit(t) => format!(
                                "{}@{}",
                                t.service,
                                t.connectors
                                    .iter()
                                    .map(|c| c.short())
                                    .collect::<Vec<_>>()
                                    .join("+")
                            ),
                            Transport::Raw(a) => a.to_string(),
                            Transport::Tls { address, .. } => format!("tls {address}"),
                        };
                        format!("{}x{to}", b.weight)
                    });
                    shares.collect::<Vec<_>>().join(" ")
                }
                Action::Redirect(r) => format!("redirect {}", r.status),
                Action::Misconfigured => "misconfigured".into(),
            };
            let host = host.hostname.as_deref().unwrap_or("*");
            shown.push(format!("{host} {} -> {action}", show_match(&route.matches)));
        }
    }
    shown
}

fn one(
    endpoint: &str,
    connector: adit_api::networking::Connector,
    ad: adit_api::networking::ConnectorAdvertisement,
) -> Compiled {
    let snapshot = Snapshot {
        proxies: vec![simple(endpoint)],
        connectors: vec![connector],
        advertisements: vec![ad],
        classes: vec![],
    };
    compile(&snapshot, &options())
}

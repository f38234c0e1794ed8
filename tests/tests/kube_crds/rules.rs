//! Every rule, both ways: a row is refused with exactly its message, and
//! taken when the one thing that is wrong is put right.

use std::collections::BTreeSet;

use adit_tests::kube::{ControlPlane, Kind};
use anyhow::{Context as _, Result, ensure};
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

/// The message, a wrong value of a pointer, and a right one. `null` takes the
/// field away.
type Row = (&'static str, &'static str, Value, Value);

fn proxy() -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha", "kind": "HTTPProxy",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"hostnames": ["shop.example"], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "filters": [],
            "backends": [{"endpoint": "http://127.0.0.1:8080", "connector": {"name": "laptop"}}],
        }]},
    })
}

fn proxies() -> Vec<Row> {
    const SPEC: &str = "/spec";
    const RULE: &str = "/spec/rules/0";
    const BACKEND: &str = "/spec/rules/0/backends/0";
    const BACKENDS: &str = "/spec/rules/0/backends";
    const ENDPOINT: &str = "/spec/rules/0/backends/0/endpoint";
    const CONNECTOR: &str = "/spec/rules/0/backends/0/connector";
    const FILTERS: &str = "/spec/rules/0/filters";
    let named = |a: &str, b: &str| {
        let backends = json!([{"endpoint": "http://web.internal"}]);
        json!({"rules": [{"name": a, "backends": backends}, {"name": b, "backends": backends}]})
    };
    let matches = |count: usize| {
        let matches: Vec<_> = (0..count)
            .map(|i| json!({"path": {"type": "Exact", "value": format!("/{i}")}}))
            .collect();
        let rule = |matches: &[Value]| json!({"matches": matches, "backends": [{"endpoint": "http://web.internal"}]});
        let rules: Vec<_> = matches.chunks(43).map(rule).collect();
        json!({"rules": rules})
    };
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}});
    let headers =
        json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-a"]}});
    let more_headers =
        json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["x-a"]}});
    let tcp = json!({"endpoint": "tcp://127.0.0.1:22", "connector": {"name": "laptop"}});
    let prefix = |filter: &str, field: &str, matches: Value, redirects: bool| {
        let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"});
        let backends = if redirects {
            json!([])
        } else {
            json!([{"endpoint": "http://web.internal"}])
        };
        json!({"matches": matches, "filters": [{"type": filter, field: {"path": path}}], "backends": backends})
    };
    let one = json!([{"path": {"type": "PathPrefix", "value": "/a"}}]);
    let two = json!([{"path": {"type": "PathPrefix", "value": "/a"}}, {"path": {"type": "PathPrefix", "value": "/b"}}]);
    let exact = json!([{"path": {"type": "Exact", "value": "/a"}}]);
    let mut rows = vec![
        (
            "an HTTPProxy's name is a DNS label",
            "/metadata/name",
            json!("shop.front"),
            json!("shop-front"),
        ),
        (
            "two rules have the same name",
            SPEC,
            named("a", "a"),
            named("a", "b"),
        ),
        ("at most 128 matches", SPEC, matches(129), matches(128)),
        (
            "a host name is listed twice",
            "/spec/hostnames",
            json!(["a.example", "a.example"]),
            json!(["a.example", "b.example"]),
        ),
        (
            "wildcard host names are not allowed",
            "/spec/hostnames",
            json!(["*.example"]),
            json!(["a.example"]),
        ),
        (
            "a host name is a DNS name",
            "/spec/hostnames",
            json!(["Shop.example"]),
            json!(["shop.example"]),
        ),
        (
            "a host name is a DNS name",
            "/spec/hostnames",
            json!(["10.0.0.1"]),
            json!(["xn--bcher-kva.example"]),
        ),
        (
            "a host name is a DNS name",
            "/spec/hostnames",
            json!(["-a.example"]),
            json!(["a"]),
        ),
        // Rules.
        (
            "a rule needs a backend",
            RULE,
            json!({}),
            json!({"filters": [redirect]}),
        ),
        (
            "a rule that redirects has no backends",
            FILTERS,
            json!([redirect]),
            json!([headers]),
        ),
        (
            "every backend has weight 0",
            "/spec/rules/0/backends/0/weight",
            json!(0),
            json!(1),
        ),
        (
            "tcp and HTTP endpoints do not share a rule",
            BACKENDS,
            json!([tcp, {"endpoint": "http://web.internal"}]),
            json!([tcp, tcp]),
        ),
        (
            "serves CONNECT",
            RULE,
            json!({"backends": [tcp], "matches": [{"path": {"type": "PathPrefix", "value": "/x"}}]}),
            json!({"backends": [tcp], "matches": [{"headers": [{"name": "x-a", "value": "1"}]}]}),
        ),
        (
            "serves CONNECT",
            RULE,
            json!({"backends": [tcp], "matches": [{"method": "GET"}]}),
            json!({"backends": [tcp]}),
        ),
        (
            "neither redirects nor rewrites",
            RULE,
            json!({"backends": [tcp], "filters": [rewrite]}),
            json!({"backends": [tcp], "filters": [headers]}),
        ),
        (
            "a RequestRedirect with ReplacePrefixMatch",
            RULE,
            prefix("RequestRedirect", "requestRedirect", two.clone(), true),
            prefix("RequestRedirect", "requestRedirect", one.clone(), true),
        ),
        (
            "a URLRewrite with ReplacePrefixMatch",
            RULE,
            prefix("URLRewrite", "urlRewrite", exact, false),
            prefix("URLRewrite", "urlRewrite", one, false),
        ),
        (
            "a URLRewrite with ReplacePrefixMatch",
            RULE,
            prefix("URLRewrite", "urlRewrite", two, false),
            prefix("URLRewrite", "urlRewrite", Value::Null, false),
        ),
        (
            "CONNECT is served by a rule",
            "/spec/rules/0/matches/0/method",
            json!("CONNECT"),
            json!("POST"),
        ),
        // Filters.
        (
            "only one filter of each type",
            FILTERS,
            json!([headers, headers]),
            json!([headers, more_headers]),
        ),
        (
            "exclude each other",
            RULE,
            json!({"filters": [redirect, rewrite]}),
            json!({"filters": [redirect, headers]}),
        ),
        (
            "a backend's filters are header modifiers only",
            "/spec/rules/0/backends/0/filters",
            json!([rewrite]),
            json!([headers]),
        ),
        (
            "requestHeaderModifier is needed",
            FILTERS,
            json!([{"type": "RequestHeaderModifier"}]),
            json!([headers]),
        ),
        (
            "responseHeaderModifier is needed",
            FILTERS,
            json!([{"type": "ResponseHeaderModifier"}]),
            json!([more_headers]),
        ),
        (
            "requestRedirect is needed",
            RULE,
            json!({"filters": [{"type": "RequestRedirect"}]}),
            json!({"filters": [redirect]}),
        ),
        (
            "urlRewrite is needed",
            FILTERS,
            json!([{"type": "URLRewrite"}]),
            json!([rewrite]),
        ),
        (
            "replaceFullPath is needed",
            FILTERS,
            json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath"}}}]),
            json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}}]),
        ),
        (
            "replacePrefixMatch is needed",
            FILTERS,
            json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch"}}}]),
            json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]),
        ),
        // Backends.
        (
            "a connector needs an endpoint",
            ENDPOINT,
            Value::Null,
            json!("http://127.0.0.1:80"),
        ),
        (
            "an endpoint is needed",
            BACKEND,
            json!({"weight": 1}),
            json!({"endpoint": "http://web.internal"}),
        ),
        (
            "an instance excludes endpoint",
            BACKEND,
            json!({"endpoint": "http://a.internal", "instance": {"name": "i", "port": 1}}),
            json!({"instance": {"name": "i", "port": 1}}),
        ),
        (
            "a tcp endpoint needs a connector",
            BACKEND,
            json!({"endpoint": "TCP://db.internal:5432"}),
            json!({"endpoint": "TCP://db.internal:5432", "connector": {"name": "laptop"}}),
        ),
        (
            "tls is for https endpoints",
            "/spec/rules/0/backends/0/tls",
            json!({"hostname": "a.example"}),
            Value::Null,
        ),
        (
            "an https endpoint given by address",
            BACKEND,
            json!({"endpoint": "https://10.0.0.1:8443"}),
            json!({"endpoint": "https://10.0.0.1:8443", "tls": {"hostname": "a.example"}}),
        ),
        (
            "an https endpoint given by address",
            BACKEND,
            json!({"endpoint": "HTTPS://[2001:db8::1]", "connector": {"name": "laptop"}}),
            json!({"endpoint": "https://a.internal"}),
        ),
        (
            "exactly one of name and selector",
            CONNECTOR,
            json!({}),
            json!({"name": "laptop"}),
        ),
        (
            "exactly one of name and selector",
            CONNECTOR,
            json!({"name": "laptop", "selector": {"matchLabels": {"a": "b"}}}),
            json!({"selector": {"matchLabels": {"a": "b"}}}),
        ),
        (
            "a connector's name is a DNS label",
            CONNECTOR,
            json!({"name": "Laptop"}),
            json!({"name": "laptop-1"}),
        ),
        (
            "an empty selector would select every connector",
            CONNECTOR,
            json!({"selector": {}}),
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
        ),
        (
            "In and NotIn need values",
            CONNECTOR,
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}),
        ),
        (
            "In and NotIn need values",
            CONNECTOR,
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}),
        ),
    ];
    for loopback in [
        "http://localhost:1",
        "http://a.LOCALHOST",
        "https://127.1.2.3:8443",
        "http://[::1]:80",
        "http://[0:0:0:0:0:0:0:1]",
    ] {
        let tls = if loopback.starts_with("https") {
            json!({"hostname": "a.example"})
        } else {
            Value::Null
        };
        let mut wrong = json!({"endpoint": loopback});
        if !tls.is_null() {
            wrong["tls"] = tls;
        }
        let mut right = wrong.clone();
        right["connector"] = json!({"name": "laptop"});
        rows.push((
            "the gateway's own loopback is no backend",
            BACKEND,
            wrong,
            right,
        ));
    }
    for (message, wrong, right) in [
        (
            "known schemes are http, https, h2c, grpc and tcp",
            "ftp://10.0.0.1",
            "h2c://10.0.0.1",
        ),
        (
            "known schemes are http, https, h2c, grpc and tcp",
            "10.0.0.1:80",
            "GRPC://10.0.0.1:80",
        ),
        (
            "a scheme, a host and a port only",
            "http://a.internal/",
            "http://a.internal",
        ),
        (
            "a scheme, a host and a port only",
            "http://a.internal?b",
            "http://a.internal:1",
        ),
        (
            "a scheme, a host and a port only",
            "http://user@a.internal",
            "http://a_b.internal",
        ),
        (
            "a scheme, a host and a port only",
            "http://a.internal#b",
            "http://[2001:db8::1]:80",
        ),
        (
            "as in http://127.0.0.1:8080 or http://[::1]:8080",
            "http://",
            "http://[::1]",
        ),
        (
            "as in http://127.0.0.1:8080 or http://[::1]:8080",
            "http://[::1",
            "http://[::1]:80",
        ),
        (
            "a port is between 1 and 65535",
            "http://a.internal:0",
            "http://a.internal:1",
        ),
        (
            "a port is between 1 and 65535",
            "http://a.internal:65536",
            "http://a.internal:65535",
        ),
        (
            "a port is between 1 and 65535",
            "tcp://10.0.0.1:99999",
            "tcp://10.0.0.1:22",
        ),
        (
            "a port is between 1 and 65535",
            "http://a.internal:",
            "http://a.internal:59999",
        ),
        (
            "a tcp endpoint needs a port",
            "tcp://10.0.0.1",
            "tcp://10.0.0.1:1",
        ),
        (
            "link-local address is no backend",
            "http://169.254.169.254",
            "http://169.253.1.1",
        ),
        (
            "link-local address is no backend",
            "http://0.0.0.0:80",
            "http://10.0.0.0:80",
        ),
        (
            "link-local address is no backend",
            "http://224.0.0.1",
            "http://223.0.0.1",
        ),
        (
            "link-local address is no backend",
            "http://239.1.1.1:1",
            "http://240.0.0.1:1",
        ),
        (
            "link-local address is no backend",
            "http://255.255.255.255",
            "http://25.25.25.25",
        ),
        (
            "link-local address is no backend",
            "http://[::]:80",
            "http://[::2]:80",
        ),
        (
            "link-local address is no backend",
            "http://[fe80::1]",
            "http://[fec0::1]",
        ),
        (
            "link-local address is no backend",
            "http://[FF02::1]:80",
            "http://[fd00::1]:80",
        ),
        // The controller says UnsupportedProtocol.
        (
            "a port is between 1 and 65535",
            "udp://10.0.0.1:0",
            "udp://10.0.0.1:53",
        ),
    ] {
        rows.push((message, ENDPOINT, json!(wrong), json!(right)));
    }
    rows
}

fn advertisement() -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "ConnectorAdvertisement",
        "metadata": {"name": "laptop", "namespace": "default"},
        "spec": {"connectorRef": {"name": "laptop"}, "layer4": [{"name": "a", "services": [
            {"address": "127.0.0.1", "ports": [{"name": "web", "port": 80}]}]}]},
    })
}

fn advertisements() -> Vec<Row> {
    const PROTOCOL: &str = "/spec/layer4/0/services/0/ports/0/protocol";
    let address = "/spec/layer4/0/services/0/address";
    let mut rows = vec![(
        "a protocol is TCP or UDP",
        PROTOCOL,
        json!("SCTP"),
        json!("udp"),
    )];
    for (wrong, right) in [
        ("a b", "*"),
        ("*.", "*.internal"),
        ("a.*.internal", "DB.Internal."),
        ("http://a", "a_b"),
        ("a/8", "10.0.0.1"),
        (".", "::1"),
        ("[x]", "[::1]"),
        ("**", "::ffff:10.0.0.1"),
    ] {
        rows.push((
            "an address is an IP address",
            address,
            json!(wrong),
            json!(right),
        ));
    }
    rows
}

fn connector() -> Value {
    json!({
        "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
        "metadata": {"name": "laptop", "namespace": "default"},
        "spec": {"connectorClassName": "datum-connect"},
        "status": {"connectionDetails": {"type": "PublicKey", "publicKey": {
            "id": "0".repeat(64), "homeRelay": "https://relay.example",
            "addresses": [{"address": "10.0.0.1", "port": 4433}]}}},
    })
}

fn connectors() -> Vec<Row> {
    const KEY: &str = "/status/connectionDetails/publicKey";
    const ID: &str = "/status/connectionDetails/publicKey/id";
    const RELAY: &str = "/status/connectionDetails/publicKey/homeRelay";
    const ADDRESS: &str = "/status/connectionDetails/publicKey/addresses/0/address";
    vec![
        (
            "publicKey is needed",
            KEY,
            Value::Null,
            json!({"id": "a".repeat(64)}),
        ),
        (
            "an EndpointId is 64 hex digits",
            ID,
            json!("abc"),
            json!("AF".repeat(32)),
        ),
        (
            "an EndpointId is 64 hex digits",
            ID,
            json!("g".repeat(64)),
            json!("y".repeat(52)),
        ),
        (
            "a relay is a URL",
            RELAY,
            json!("relay.example"),
            json!("http://relay.example:3340/"),
        ),
        (
            "a relay is a URL",
            RELAY,
            json!("ftp://relay.example"),
            json!(""),
        ),
        ("a relay is a URL", RELAY, json!("https://"), Value::Null),
        (
            "must be an IP address",
            ADDRESS,
            json!("host"),
            json!("2001:db8::1"),
        ),
        (
            "must be an IP address",
            ADDRESS,
            json!("10.0.0.256"),
            json!("10.0.0.255"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_refuses_with_its_words_and_takes_what_is_right() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let objects = plane.admin().await?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut heard = BTreeSet::new();
    let kinds = [
        (Kind::HTTP_PROXY, proxy(), proxies()),
        (
            Kind::CONNECTOR_ADVERTISEMENT,
            advertisement(),
            advertisements(),
        ),
    ];
    for (kind, base, rows) in kinds {
        let api = objects.api(kind, "default");
        for (message, pointer, wrong, right) in rows {
            let row = format!("{pointer} {wrong}");
            let refused = api.create(&dry, &object(&base, pointer, wrong)?).await;
            heard.extend(only(message, &row, refused)?);
            let taken = api
                .create(&dry, &object(&base, pointer, right.clone())?)
                .await;
            taken.with_context(|| format!("{pointer} {right} must pass, beside {row}"))?;
        }
    }
    // A status is written on its own.
    objects.make_namespace("rules", &[]).await?;
    let api = objects.api(Kind::CONNECTOR, "rules");
    let mut base = connector();
    base["metadata"]["namespace"] = json!("rules");
    let stored: DynamicObject = serde_json::from_value(base.clone())?;
    let stored = api.create(&PostParams::default(), &stored).await?;
    base["metadata"]["resourceVersion"] = json!(stored.metadata.resource_version);
    for (message, pointer, wrong, right) in connectors() {
        let row = format!("{pointer} {wrong}");
        let wrong = object(&base, pointer, wrong)?;
        heard.extend(only(
            message,
            &row,
            api.replace_status("laptop", &dry, &wrong).await,
        )?);
        let right = object(&base, pointer, right)?;
        let taken = api.replace_status("laptop", &dry, &right).await;
        taken.with_context(|| format!("right of {row}"))?;
    }
    let untested: Vec<_> = messages()
        .into_iter()
        .filter(|rule| !heard.iter().any(|words| words.contains(rule)))
        .collect();
    ensure!(
        untested.is_empty(),
        "rules that no row breaks: {untested:#?}"
    );
    Ok(())
}

/// The base with one value replaced, or taken away.
fn object(base: &Value, pointer: &str, value: Value) -> Result<DynamicObject> {
    let mut object = base.clone();
    let (parent, field) = pointer.rsplit_once('/').context("a pointer")?;
    let parent = object
        .pointer_mut(parent)
        .with_context(|| format!("{pointer} in the base"))?;
    if value.is_null() {
        parent.as_object_mut().context("an object")?.remove(field);
    } else {
        match (parent, field.parse::<usize>()) {
            (Value::Array(items), Ok(index)) => items[index] = value,
            (parent, _) => parent[field] = value,
        }
    }
    Ok(serde_json::from_value(object)?)
}

/// What the API server said: about this one thing, and nothing else.
fn only(message: &str, row: &str, answer: kube::Result<DynamicObject>) -> Result<Vec<String>> {
    let status = match answer {
        Err(kube::Error::Api(status)) => status,
        other => anyhow::bail!("{row} must be refused: {other:?}"),
    };
    ensure!(status.code == 422, "{row}: {status:?}");
    let causes = status.details.map(|d| d.causes).unwrap_or_default();
    let words: Vec<_> = causes
        .into_iter()
        .map(|c| c.message)
        // Said after any other cause of the same object.
        .filter(|m| !m.starts_with("some validation rules were not checked"))
        .collect();
    ensure!(
        words.len() == 1 && words[0].contains(message),
        "{row}: wanted {message:?}, heard {words:#?}"
    );
    Ok(words)
}

/// The messages of every CEL rule.
fn messages() -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                let rules = map
                    .get("x-kubernetes-validations")
                    .and_then(Value::as_array);
                let said = rules
                    .into_iter()
                    .flatten()
                    .filter_map(|r| r["message"].as_str());
                found.extend(said.map(str::to_owned));
                map.values().for_each(|v| walk(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for crd in adit_api::crds() {
        walk(&serde_json::to_value(crd).expect("JSON"), &mut found);
    }
    found
}

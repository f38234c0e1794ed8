use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::*;

fn options(more: Value) -> Options {
    let mut all = json!({"kubeconfig": "/nowhere"});
    for (key, value) in more.as_object().expect("an object") {
        all[key] = value.clone();
    }
    serde_json::from_value(all).expect("well formed")
}

#[test]
fn without_options_the_defaults_are_those_of_the_book() {
    let config = options(json!({})).resolve().expect("valid");
    assert_eq!(config.gateway, None);
    assert_eq!(config.gateway_class, "adit");
    assert_eq!(config.module_name, "adit");
    assert_eq!(config.dialer_socket, "/run/adit/dialer.sock");
    assert_eq!(config.deadline, Duration::from_secs(5));
    assert_eq!(config.lease_duration, Duration::from_secs(30));
    assert_eq!(config.leader_lease.as_deref(), Some("adit-reconciler"));
    assert_eq!(config.admin.to_string(), "127.0.0.1:9901");
    assert!(config.dns.is_none() && !config.dry_run && config.namespaces.is_empty());
}

#[test]
fn what_is_given_is_kept() {
    let config = options(json!({
        "gateway": "edge/public", "watch-namespace": ["a", "b"], "leader-election": false,
        "dry-run": true, "dialer-socket": "@adit", "deadline": "2s",
    }))
    .resolve()
    .expect("valid");
    let gateway = config.gateway.expect("a Gateway");
    assert_eq!((&*gateway.namespace, &*gateway.name), ("edge", "public"));
    assert_eq!(config.namespaces, ["a", "b"]);
    assert_eq!(config.leader_lease, None);
    assert!(config.dry_run);
    assert_eq!(config.deadline, Duration::from_secs(2));
}

#[test]
fn a_wrong_option_is_refused_by_its_name() {
    for (more, said) in [
        (json!({"gateway": "public"}), "--gateway \"public\""),
        (json!({"gateway": "a/B"}), "--gateway"),
        (json!({"gateway": "a/b/c"}), "--gateway"),
        (json!({"gateway-class": "A"}), "--gateway-class"),
        (json!({"watch-namespace": ["a.b"]}), "--watch-namespace"),
        (json!({"watch-namespace": [""]}), "--watch-namespace"),
        (json!({"dialer-namespace": "-a"}), "--dialer-namespace"),
        (json!({"leader-lease-name": "a b"}), "--leader-lease-name"),
        (json!({"module-name": ""}), "--module-name"),
        (json!({"dialer-socket": "run/x"}), "--dialer-socket"),
        (json!({"dialer-socket": "/"}), "--dialer-socket"),
        (
            json!({"dialer-socket": format!("/{}", "a".repeat(107))}),
            "--dialer-socket",
        ),
        (json!({"deadline": "0s"}), "--deadline must be between 1s"),
        (json!({"lease-duration": "1s"}), "--lease-duration"),
        (json!({"grace-period": "1h"}), "--grace-period"),
        (json!({"dns-ttl": "1s"}), "--dns-publish endpoint"),
        (json!({"dns-publish": "endpoint"}), "needs --dns-origin"),
        (json!({"dns-publish": "rfc2136"}), "needs --dns-server"),
        (
            json!({"dns-server": "127.0.0.1:53"}),
            "needs --dns-tsig-key-file",
        ),
        (
            json!({"dns-publish": "endpoint", "dns-origin": "{project}.example"}),
            "--dns-project",
        ),
    ] {
        let error = options(more.clone()).resolve().expect_err("refused");
        assert!(error.to_string().contains(said), "{more}: {error}");
    }
    let error = Options::default().resolve().expect_err("no API server");
    assert!(error.to_string().contains("--kubeconfig"), "{error}");
}

#[test]
fn updates_need_a_key_and_an_origin_in_their_zone() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    fs::write(&key, "adit:hmac-sha256:MDEyMzQ1Njc4OWFiY2RlZg==").expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    let with = |more: Value| {
        let mut all = json!({"dns-server": "127.0.0.1:53", "dns-tsig-key-file": key});
        for (name, value) in more.as_object().expect("an object") {
            all[name] = value.clone();
        }
        options(all).resolve()
    };
    for fits in [
        json!({"dns-zone": "example"}),
        json!({"dns-origin": "connect.example"}),
        json!({"dns-zone": "Example.", "dns-origin": "{project}.connect.example", "dns-project": "shop"}),
    ] {
        let config = with(fits.clone()).expect("valid");
        let dns = config.dns.expect("published");
        assert!(matches!(dns.publisher, Publisher::Rfc2136(_)), "{fits}");
    }
    for (wrong, said) in [
        (json!({}), "--dns-zone or --dns-origin"),
        (
            json!({"dns-zone": "example", "dns-origin": "notexample"}),
            "is not in --dns-zone",
        ),
        (
            json!({"dns-origin": "{project}.example", "dns-project": "a"}),
            "needs --dns-zone",
        ),
        (
            json!({"dns-zone": "example", "dns-ttl": "0s"}),
            "time to live",
        ),
    ] {
        let error = with(wrong.clone()).expect_err("refused");
        assert!(error.to_string().contains(said), "{wrong}: {error}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).expect("set");
    let error = with(json!({"dns-zone": "example"})).expect_err("others may write it");
    assert!(error.to_string().contains("0666"), "{error}");
}

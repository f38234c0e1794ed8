//! The commands that end by themselves, as a person runs them: what they
//! print, and their exit status.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

fn adit(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(arguments).current_dir(folder).env_clear();
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn manifests() -> TempDir {
    let folder = TempDir::new().unwrap();
    let all = include_str!("../../reconciler/testdata/all.yaml");
    fs::write(folder.path().join("all.yaml"), all).unwrap();
    folder
}

#[test]
fn check_explains_which_way_a_url_would_take() {
    let folder = manifests();
    for (url, method, expected) in [
        (
            "http://shop.example/api/x?q=7",
            "GET",
            "rule 2 of HTTPProxy default/shop (all.yaml:80)",
        ),
        ("http://shop.example/old/x", "GET", "redirect"),
        ("http://shop.example:8080/other", "POST", "through south"),
        ("p.example:22", "CONNECT", "target tcp 127.0.0.1:22"),
        ("http://p.example/tls", "GET", "target https 127.0.0.1:8443"),
        (
            "http://p.example/elsewhere",
            "GET",
            "404, no rule of this host name matches",
        ),
        ("http://shared.example/", "GET", "weight 9"),
        (
            "http://unknown.example/cloud/x",
            "GET",
            "target https cloud.example:443",
        ),
        (
            "http://broken.example/",
            "GET",
            "500, the rule cannot be programmed",
        ),
    ] {
        let output = adit(
            &["check", ".", "--url", url, "--method", method],
            folder.path(),
        );
        let said = text(&output.stdout);
        assert!(said.contains(expected), "{url}: {said}");
        // `broken` is in the same directory.
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(said.contains("all.yaml:131: error: HTTPProxy default/broken: spec.rules[0].backends[0].connector: Connector \"north\" does not advertise 127.0.0.1:9999"), "{said}");
    }
    let headers = [
        "check",
        ".",
        "--url",
        "http://shop.example/api/?q=7",
        "-H",
        "X-Version: 2",
    ];
    let said = text(&adit(&headers, folder.path()).stdout);
    assert!(said.contains("rule 1 of HTTPProxy default/shop"), "{said}");
}

#[test]
fn check_prints_json_for_programs() {
    let folder = manifests();
    let output = adit(
        &[
            "check",
            ".",
            "--json",
            "--url",
            "http://www.shop.example/exact",
        ],
        folder.path(),
    );
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["diagnostics"][0]["reason"], "NotAdvertised");
    assert_eq!(said["diagnostics"][0]["file"], "all.yaml");
    let target = &said["explanation"]["targets"][0];
    assert_eq!(target["connectors"][0]["name"], "north");
    assert_eq!(target["connectors"][0]["addresses"][0], "192.0.2.7:4433");
    assert_eq!(target["connectors"][1]["name"], "south");
    let wire = adit_wire::Target::from_base64(target["target"].as_str().unwrap()).unwrap();
    assert_eq!(wire.connectors.len(), 2);
}

#[test]
fn check_succeeds_when_all_is_well_and_fails_without_a_directory() {
    let folder = TempDir::new().unwrap();
    assert_eq!(adit(&["check", "."], folder.path()).status.code(), Some(0));
    let missing = adit(&["check", "nowhere"], folder.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stdout).contains("cannot read this folder"),
        "{missing:?}"
    );
}

#[test]
fn a_key_is_made_once_with_a_mode_of_its_own_and_never_printed() {
    let folder = TempDir::new().unwrap();
    let first = adit(&["key", "generate", "a.key"], folder.path());
    let again = adit(&["key", "generate", "a.key"], folder.path());
    assert_eq!(text(&first.stdout), text(&again.stdout));
    let file = folder.path().join("a.key");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let secret = fs::read_to_string(&file).unwrap();
    assert!(!text(&first.stdout).contains(secret.trim()));
    let shown = adit(&["key", "show", "--z32", "a.key"], folder.path());
    let z32: adit_wire::EndpointId = text(&shown.stdout).trim().parse().unwrap();
    assert_eq!(z32.to_string(), text(&first.stdout).trim());

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = adit(&["key", "show", "a.key"], folder.path());
    assert_eq!(exposed.status.code(), Some(1));
    assert!(text(&exposed.stderr).contains("chmod 600"), "{exposed:?}");
}

#[test]
fn crds_are_printed_as_yaml_documents() {
    let folder = TempDir::new().unwrap();
    let output = adit(&["crds"], folder.path());
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text(&output.stdout)).unwrap();
    let kinds: Vec<_> = documents
        .iter()
        .map(|d| d["spec"]["names"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "ConnectorClass",
            "Connector",
            "ConnectorAdvertisement",
            "HTTPProxy"
        ]
    );
    let again: Vec<Value> = adit_api::crds()
        .iter()
        .map(|c| serde_json::to_value(c).unwrap())
        .collect();
    assert_eq!(documents, again, "YAML says what the types say");
}

#[test]
fn status_without_a_process_says_what_to_look_at() {
    let folder = TempDir::new().unwrap();
    let output = adit(&["status", "--admin", "unix:none.sock"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--admin"), "{output:?}");
}

#[test]
fn run_without_what_it_needs_says_so_in_one_sentence() {
    let folder = manifests();
    let said = |arguments: &[&str]| {
        let output = adit(arguments, folder.path());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = text(&output.stderr);
        assert_eq!(
            said.lines().filter(|l| l.starts_with("adit: ")).count(),
            1,
            "{said}"
        );
        said
    };
    assert!(said(&["run", "-c", "nowhere"]).contains("no directory of manifests"));
    let text = said(&["run", "-c", "."]);
    assert!(
        text.contains("func-e") && text.contains("cargo xtask envoy"),
        "{text}"
    );
    assert!(said(&["run", "-c", ".", "--envoy", "/bin/true"]).contains("names no version"));
    fs::write(folder.path().join("o.yaml"), "listen: 1\nlisen: 2\n").unwrap();
    assert!(
        said(&["run", "-c", ".", "--options-file", "o.yaml"])
            .contains("o.yaml:2: unknown option \"lisen\"")
    );
    fs::write(folder.path().join("o.yaml"), "\nmax-idle-timeout: soon\n").unwrap();
    let text = said(&["run", "-c", ".", "--options-file", "o.yaml"]);
    assert!(
        text.contains("o.yaml:2: max-idle-timeout:") && text.contains("soon"),
        "{text}"
    );
}

//! Every bad input of a directory: said with file and line, nothing lost.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;
use crate::Kind;

const PROXY: &str = "\
apiVersion: networking.datumapis.com/v1alpha
kind: HTTPProxy
metadata:
  name: shop
spec:
  hostnames: [shop.example]
  rules:
    - backends:
        - endpoint: http://127.0.0.1:3000
";

struct Fixture {
    folder: TempDir,
    directory: Directory,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let directory = Directory::new(folder.path());
        Self { folder, directory }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// `file:line reason` of every diagnostic.
    fn said(&mut self) -> Vec<String> {
        let scan = self.directory.scan();
        let show = |d: &Diagnostic| {
            let place = d.place.as_ref().expect("a place");
            format!("{place} {} {}", d.problem.severity, d.problem.reason)
        };
        scan.diagnostics.iter().map(show).collect()
    }

    fn names(&mut self) -> Vec<String> {
        let scan = self.directory.scan();
        scan.snapshot.proxies.iter().map(|p| p.name_any()).collect()
    }

    fn endpoint(&mut self) -> String {
        let scan = self.directory.scan();
        scan.snapshot.proxies[0].spec.rules[0].backends[0]
            .endpoint
            .clone()
            .unwrap_or_default()
    }
}

#[test]
fn good_manifests_are_read_from_all_files_and_documents() {
    let mut it = Fixture::new();
    it.write(
        "b/two.yml",
        format!(
            "# a comment\n---\n{PROXY}---\n{}",
            PROXY.replace("shop", "cafe")
        ),
    );
    it.write("a.json", r#"{"apiVersion":"networking.datumapis.com/v1alpha1","kind":"Connector","metadata":{"name":"c"},"spec":{"connectorClassName":"datum-connect"}}"#);
    it.write(".hidden.yaml", "nonsense: [");
    it.write("notes.txt", "nonsense: [");
    assert_eq!(it.said(), [""; 0]);
    assert_eq!(it.names(), ["shop", "cafe"]);
    assert_eq!(it.directory.scan().snapshot.connectors.len(), 1);
}

#[test]
fn each_fault_names_its_file_and_line() {
    for (text, said) in [
        (
            PROXY.replace("hostnames", "hostname"),
            "x.yaml:6 error UnknownField",
        ),
        (
            PROXY.replace("  name: shop", "  name: shop\n  lables: {}"),
            "x.yaml:5 error UnknownField",
        ),
        (
            PROXY.replace("- endpoint", "- conector: {}\n          endpoint"),
            "x.yaml:9 error UnknownField",
        ),
        (
            PROXY.replace("[shop.example]", "[\"*.example\"]"),
            "x.yaml:6 error Invalid",
        ),
        (
            PROXY.replace("http://127", "ftp://127"),
            "x.yaml:9 error Invalid",
        ),
        (
            PROXY.replace("[shop.example]", "7"),
            "x.yaml:6 error Invalid",
        ),
        (
            PROXY.replace("kind: HTTPProxy", "kind: HTTPRoxy"),
            "x.yaml:2 error UnknownKind",
        ),
        (PROXY.replace("v1alpha", "v2"), "x.yaml:1 error UnknownKind"),
        (
            PROXY.replace("  name: shop", "  labels: {}"),
            "x.yaml:3 error Unreadable",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n".into(),
            "x.yaml:2 warning UnknownKind",
        ),
        ("just text\n".into(), "x.yaml:1 error Unreadable"),
        ("a: 1\na: 2\n".into(), "x.yaml:2 error Unreadable"),
        (
            PROXY.replace("  rules:", " rules:"),
            "x.yaml:7 error Unreadable",
        ),
    ] {
        let mut it = Fixture::new();
        it.write("x.yaml", &text);
        assert_eq!(it.said(), [said], "{text}");
    }
}

#[test]
fn a_message_reads_as_a_sentence_with_its_place() {
    let mut it = Fixture::new();
    it.write(
        "x.yaml",
        PROXY.replace("http://127.0.0.1:3000", "gopher://a"),
    );
    let scan = it.directory.scan();
    assert_eq!(
        scan.diagnostics[0].to_string(),
        "x.yaml:9: error: HTTPProxy default/shop: spec.rules[0].backends[0].endpoint: \
         unknown scheme \"gopher\"; known are http, https, h2c, grpc and tcp (Invalid)"
    );
}

#[test]
fn a_bad_new_version_keeps_the_last_good_one() {
    for bad in [
        PROXY.replace("3000", "99999"),
        PROXY.replace("endpoint", "endpiont"),
        PROXY.replace("kind: HTTPProxy", "kind: HTTPRoxy"),
        PROXY.replace("  name: shop", "  nam: shop"),
        "[".into(),
        "\u{0}".into(),
    ] {
        let mut it = Fixture::new();
        it.write("x.yaml", PROXY);
        assert_eq!(it.said(), [""; 0]);
        it.write("x.yaml", &bad);
        let said = it.said();
        assert!(
            said.contains(&"x.yaml warning Unreadable".to_owned()),
            "{said:?} {bad}"
        );
        assert!(said.iter().any(|s| s.contains("error")), "{said:?} {bad}");
        assert_eq!(it.endpoint(), "http://127.0.0.1:3000", "{bad}");
        it.write("x.yaml", PROXY.replace("3000", "4000"));
        assert_eq!(it.endpoint(), "http://127.0.0.1:4000");
        assert_eq!(it.said(), [""; 0]);
    }
}

#[test]
fn what_is_removed_is_gone_and_a_moved_object_stays() {
    let mut it = Fixture::new();
    it.write("x.yaml", PROXY);
    assert_eq!(it.names(), ["shop"]);
    fs::rename(
        it.folder.path().join("x.yaml"),
        it.folder.path().join("y.yaml"),
    )
    .expect("moved");
    assert_eq!(it.names(), ["shop"]);
    it.write("y.yaml", "");
    assert_eq!(it.names(), [""; 0]);
}

#[test]
fn the_same_object_twice_is_said_and_the_first_file_wins() {
    let mut it = Fixture::new();
    it.write("b.yaml", PROXY.replace("3000", "4000"));
    it.write("a.yaml", PROXY);
    assert_eq!(it.said(), ["b.yaml:1 error Duplicate"]);
    assert_eq!(it.endpoint(), "http://127.0.0.1:3000");
}

#[test]
fn unreadable_files_are_said_and_stop_nothing() {
    let mut it = Fixture::new();
    it.write("good.yaml", PROXY);
    it.write("binary.yaml", b"a: \xff\n");
    it.write("huge.yaml", vec![b'#'; 5 << 20]);
    symlink("loop.yaml", it.folder.path().join("loop.yaml")).expect("linked");
    symlink("nowhere.yaml", it.folder.path().join("dangling.yaml")).expect("linked");
    it.write("sub/more.yaml", PROXY.replace("shop", "cafe"));
    symlink("..", it.folder.path().join("sub/up")).expect("linked");
    fs::create_dir(it.folder.path().join("folder.yaml")).expect("made");
    assert_eq!(
        it.said(),
        [
            "binary.yaml error Unreadable",
            "dangling.yaml error Unreadable",
            "huge.yaml error Unreadable",
            "loop.yaml error Unreadable",
            "sub/up error Unreadable",
        ]
    );
    assert_eq!(it.names(), ["shop", "cafe"]);
}

#[test]
fn a_folder_that_vanishes_takes_nothing_with_it() {
    let mut it = Fixture::new();
    it.write("x.yaml", PROXY);
    assert_eq!(it.names(), ["shop"]);
    fs::remove_dir_all(it.folder.path()).expect("removed");
    assert!(it.said().iter().any(|s| s.contains("error")));
    assert_eq!(it.names(), ["shop"]);
    fs::create_dir(it.folder.path()).expect("made");
    assert_eq!(it.names(), [""; 0]);
}

#[test]
fn proxies_stand_by_age_then_by_file() {
    let mut it = Fixture::new();
    let dated = |name: &str, time: &str| {
        PROXY.replace(
            "  name: shop",
            &format!("  name: {name}\n  creationTimestamp: \"{time}\""),
        )
    };
    it.write("a.yaml", PROXY.replace("shop", "undated"));
    it.write("b.yaml", dated("young", "2026-02-01T00:00:00Z"));
    it.write("c.yaml", dated("old", "2026-01-01T00:00:00Z"));
    assert_eq!(it.names(), ["old", "young", "undated"]);
}

#[test]
fn a_later_problem_is_given_the_line_of_its_field() {
    let mut it = Fixture::new();
    it.write("x.yaml", PROXY);
    let scan = it.directory.scan();
    let key = Kind::HttpProxy.key(&scan.snapshot.proxies[0]);
    let problem = Problem::error("spec.rules[0].backends[0].connector", Reason::Invalid, "");
    let place = scan.locate(key, problem).place.expect("a place");
    assert_eq!(place.to_string(), "x.yaml:9");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut it = Fixture::new();
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..10 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    it.write("bomb.yaml", text);
    let said = it.said();
    assert!(
        said[0].starts_with("bomb.yaml") && said[0].ends_with("error Unreadable"),
        "{said:?}"
    );
}

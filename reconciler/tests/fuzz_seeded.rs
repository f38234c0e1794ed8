//! The fuzz body of manifests, on the corpus and on mutations of the examples:
//! see `fuzz/seeded.rs`. And files that are large instead of strange.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, time::Duration};

use adit_reconciler::source::Directory;

#[path = "../../fuzz/bodies/manifests.rs"]
mod bodies;
#[path = "../../fuzz/seeded.rs"]
mod seeded;

/// The shipped examples and the tests' own, each object by itself too.
fn examples() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        "testdata/all.yaml",
        "../envoy/manifests/connector.yaml",
        "../envoy/manifests/web.yaml",
    ];
    let texts = files.map(|file| fs::read_to_string(root.join(file)).unwrap());
    let alone = texts.iter().flat_map(|text| text.split("\n---\n"));
    let all = texts.iter().map(String::as_str).chain(alone);
    all.map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn manifests_keep_their_promises() {
    let fuzz = seeded::Fuzz {
        name: "manifests",
        seed: 0xad17_0008,
        messages: examples(),
        longest: 12 * 1024,
        least: 200,
    };
    fuzz.run(bodies::manifests);
}

/// A file of the size that is read at most, made of one piece again and again.
fn whole_file(head: &str, piece: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    let mut i = 0;
    while text.len() < (4 << 20) - 4096 {
        text += &piece(i);
        i += 1;
    }
    text
}

/// Each of these once took, or in a naive reader would take, time or memory
/// with the square of its length or with its depth.
#[test]
fn a_file_of_four_mebibytes_is_read_or_refused_in_seconds_whatever_is_in_it() {
    let proxy =
        "apiVersion: networking.datumapis.com/v1alpha\nkind: HTTPProxy\nmetadata:\n  name: a\n";
    let connector =
        "apiVersion: networking.datumapis.com/v1alpha1\nkind: Connector\nmetadata:\n  name: a\n";
    let bomb: String = ('b'..='j')
        .map(|c| {
            let before = char::from(c as u8 - 1);
            format!("{c}: &{c} [{}]\n", vec![format!("*{before}"); 9].join(","))
        })
        .collect();
    let files = [
        ("keys", whole_file(proxy, |i| format!("k{i}: 1\n"))),
        (
            "labels",
            whole_file(&format!("{connector}  labels:\n"), |i| {
                format!("    k{i}: x\n")
            }),
        ),
        (
            "bad labels",
            whole_file(
                &format!(
                    "{proxy}spec:\n  rules:\n  - backends:\n    - endpoint: http://127.0.0.1:80\n      connector:\n        selector:\n          matchLabels:\n"
                ),
                |i| format!("            k/{i}: /\n"),
            ),
        ),
        (
            "unknown fields",
            whole_file(&format!("{proxy}spec:\n"), |i| format!("  k{i}: 1\n")),
        ),
        ("anchors", whole_file("", |i| format!("k{i}: &a{i} x\n"))),
        ("documents", whole_file("", |_| "---\na: 1\n".into())),
        ("open brackets", "[".repeat(4 << 20)),
        (
            "closed brackets",
            "[".repeat(1 << 20) + &"]".repeat(1 << 20),
        ),
        ("question marks", "? ".repeat(2 << 20)),
        ("dashes", "- ".repeat(2 << 20)),
        (
            "one string",
            format!("{proxy}spec: \"{}\"\n", "x".repeat(4_000_000)),
        ),
        ("a tag", "!!".to_owned() + &"a".repeat(4_000_000)),
        ("folded lines", whole_file("a: >\n", |_| "  x\n\n".into())),
        ("nine to the ninth", format!("a: &a [x]\n{bomb}")),
        (
            "hostnames",
            whole_file(&format!("{proxy}spec:\n  rules: []\n  hostnames:\n"), |i| {
                format!("  - h{i}.example\n")
            }),
        ),
        (
            "rules",
            whole_file(&format!("{proxy}spec:\n  rules:\n"), |i| {
                format!(
                    "  - matches: [{{path: {{value: /{i}}}}}]\n    backends: [{{endpoint: \"http://127.0.0.1:80\"}}]\n"
                )
            }),
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join("m.yaml"), &text[..text.len().min(4 << 20)]).unwrap();
        let before = cpu();
        let scan = Directory::new(dir.path()).scan();
        let took = cpu().saturating_sub(before);
        println!("{name}: {took:.2?}, {} diagnostics", scan.diagnostics.len());
        // Half a second, and three times that on a slow machine. Before keys were
        // hashed, the first took 14 s.
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
    }
}

/// What this thread has had of a processor: others may be busy.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

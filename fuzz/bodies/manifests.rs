//! What must hold for any file in the directory that `adit run -c DIR` and
//! `adit check DIR` read: shared by the fuzz target and by
//! `reconciler/tests/fuzz_seeded.rs`.
//!
//! From bytes to Envoy's configuration:
//! * nothing panics, however far the file is right;
//! * the same directory gives the same words and the same bytes, every time;
//! * what is in effect stays when the file can no longer be read;
//! * every request can be asked about, and gets the same answer;
//! * a diagnostic is one line.

use std::{
    cell::RefCell,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use adit_reconciler::{
    compile::{Classes, Compiled, Options, Output},
    emit::{self, Resources, Setting},
    explain::{self, Request},
    follow::judge,
    source::Directory,
};

/// Any bytes, as the one file of a directory.
pub fn manifests(data: &[u8]) {
    PLACE.with_borrow_mut(|place| {
        let place = place.get_or_insert_with(Place::new);
        place.write(data);
        let mut directory = Directory::new(&place.dir);
        let scan = directory.scan();
        for output in [Output::Files { ca_file: None }, Output::EnvoyGateway] {
            let options = options(output);
            let (first, said) = judge(&scan, &options);
            for line in &said {
                assert!(!line.to_string().contains(char::is_control), "{line:?}");
            }
            let resources = emit::resources(&first.model, &setting());
            assert_eq!(bytes(&resources), bytes(&resources));
            ask(&first);

            // From the start again, as another process would.
            let again = Directory::new(&place.dir).scan();
            let (second, said_again) = judge(&again, &options);
            assert_eq!(said, said_again);
            let resources_again = emit::resources(&second.model, &setting());
            assert_eq!(bytes(&resources), bytes(&resources_again));
        }
        // An editor's half-written file: no YAML, and no UTF-8 either.
        place.write(b"{\xff");
        let kept = directory.scan();
        assert_eq!(scan.snapshot, kept.snapshot);
    });
}

fn options(output: Output) -> Options {
    Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
        deadline: Duration::from_secs(5),
        output,
        classes: Classes::IfAny,
    }
}

fn setting() -> Setting {
    Setting {
        module: "/lib/libadit.so".into(),
        dialer_socket: "/run/dialer.sock".into(),
        routes_file: "/run/routes.json".into(),
        html_page: None,
        access_log: None,
    }
}

/// As Envoy and the dialer get them.
fn bytes(resources: &Resources) -> String {
    let show = |value: serde_json::Result<String>| value.expect("resources can be written");
    [
        show(serde_json::to_string(&resources.listeners)),
        show(serde_json::to_string(&resources.routes)),
        show(serde_json::to_string(&resources.clusters)),
        show(serde_json::to_string(&resources.dialer)),
    ]
    .concat()
}

/// Requests that touch each kind of match.
fn ask(compiled: &Compiled) {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (method, host, path) in [
        ("GET", "shop.example", "/api/1"),
        ("CONNECT", "p.example", ""),
        ("POST", "", "/%2e%2e/\u{e4}\u{20ac}"),
    ] {
        let request = Request {
            method: method.into(),
            host: host.into(),
            path: path.into(),
            query: vec![pair("q", "12"), pair("q", "")],
            headers: vec![pair("x-version", "2"), pair("", "")],
        };
        let show = || format!("{:?}", explain::explain(&compiled.model, &request));
        assert_eq!(show(), show());
    }
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A directory in memory where there is one, with one file.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let base = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let dir = base.join(format!("adit-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        Self { dir }
    }

    fn write(&self, data: &[u8]) {
        fs::write(self.dir.join("m.yaml"), data).expect("the temporary directory takes a file");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

//! Where programs of others are that tests start: `KUBEBUILDER_ASSETS`, `PATH`,
//! or the cache that `cargo xtask kube build` fills. Only the standard library:
//! xtask and the end-to-end tests compile this same file.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::places::{base, on_path};

/// A program of the control plane, and where its source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its file name.
    pub name: &'static str,
    /// The folder under `xtask/go` whose `go.mod` pins it.
    pub module: &'static str,
    /// The Go package.
    pub package: &'static str,
}

/// All that `cargo xtask kube` needs.
pub const PROGRAMS: [Program; 4] = [
    Program {
        name: "etcd",
        module: "kubernetes",
        package: "go.etcd.io/etcd/server/v3",
    },
    Program {
        name: "kube-apiserver",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
    },
    Program {
        name: "kube-controller-manager",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    Program {
        name: "envoy-gateway",
        module: "envoy-gateway",
        package: "github.com/envoyproxy/gateway/cmd/envoy-gateway",
    },
];

/// Tools that some tests need and no control plane does. Each has a folder of
/// its own in the cache: another pin of one builds nothing else anew.
pub const TOOLS: [Program; 4] = [
    Program {
        name: "func-e",
        module: "func-e",
        package: "github.com/tetratelabs/func-e/cmd/func-e",
    },
    Program {
        name: "helm",
        module: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
    },
    Program {
        name: "kubectl",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kubectl",
    },
    Program {
        name: "h2spec",
        module: "h2spec",
        package: "github.com/summerwind/h2spec/cmd/h2spec",
    },
];

/// The release that `xtask/go/kubernetes/go.mod` pins; the API server reports it.
pub const KUBERNETES: &str = "1.36.3";

/// What is added to `go build`: smaller binaries, and the same on every machine.
pub const FLAGS: [&str; 1] = ["-trimpath"];

/// What the linker gets for a program.
pub fn linker_flags(program: &Program) -> String {
    let mut flags = "-s -w".to_owned();
    if program.package.starts_with("k8s.io/") {
        let (major, minor) = ("1", "36");
        let at = "k8s.io/component-base/version";
        flags += &format!(
            " -X {at}.gitVersion=v{KUBERNETES} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"
        );
    }
    flags
}

/// The control plane's cache for what this checkout pins; another pin is another
/// folder.
pub fn home(root: &Path) -> Result<PathBuf, String> {
    home_for(root, "kube", &PROGRAMS)
}

/// The cache that a program belongs to.
pub fn home_of(root: &Path, program: &Program) -> Result<PathBuf, String> {
    match TOOLS.contains(program) {
        true => home_for(root, program.name, &[*program]),
        false => home(root),
    }
}

fn home_for(root: &Path, folder: &str, programs: &[Program]) -> Result<PathBuf, String> {
    let mut hash = Fnv::new();
    for program in programs {
        hash.add(program.package.as_bytes());
        hash.add(linker_flags(program).as_bytes());
        for file in ["go.mod", "go.sum"] {
            let path = module(root, program).join(file);
            hash.add(&fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?);
        }
    }
    hash.add(env::consts::ARCH.as_bytes());
    hash.add(FLAGS.concat().as_bytes());
    let pins = format!("{:016x}", hash.0);
    Ok(base()?.join(folder).join(pins))
}

/// The folder of a program's Go module.
pub fn module(root: &Path, program: &Program) -> PathBuf {
    root.join("xtask/go").join(program.module)
}

/// A program that can be started, if there is one.
pub fn find(root: &Path, program: &Program) -> Option<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let cached = home_of(root, program).ok().map(|home| home.join("bin"));
    let in_folder = |dir: PathBuf| dir.join(program.name);
    let mut files = assets
        .map(in_folder)
        .into_iter()
        .chain(on_path(program.name))
        .chain(cached.map(in_folder));
    files.find(|file| file.is_file())
}

/// The folder of the CRDs of Envoy Gateway and Gateway API, once it is filled.
pub fn crds(root: &Path) -> Option<PathBuf> {
    let dir = home(root).ok()?.join("crds");
    dir.is_dir().then_some(dir)
}

/// What is not there yet, by name; empty means that everything can start.
pub fn missing(root: &Path) -> Vec<&'static str> {
    let programs = PROGRAMS.iter().filter(|p| find(root, p).is_none());
    let mut missing: Vec<_> = programs.map(|p| p.name).collect();
    if crds(root).is_none() {
        missing.push("the CRDs of Envoy Gateway");
    }
    missing
}

/// The tools that are neither installed nor in their cache.
#[allow(dead_code, reason = "the tests name each tool where they need it")]
pub fn missing_tools(root: &Path) -> Vec<&'static str> {
    let tools = TOOLS.iter().filter(|tool| find(root, tool).is_none());
    tools.map(|tool| tool.name).collect()
}

/// FNV-1a, 64 bits: names a folder, guards nothing.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length first, so that moving a byte between two files shows.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

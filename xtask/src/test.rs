//! `cargo xtask test`: everything CI checks, each step even when one before it
//! failed, and at the end what was found and what was left out.

use anyhow::Result;

use crate::{abi, chaos, docs, envoy, images, kube, name_servers, prometheus, root, step};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Also what is left out by default: more rounds of the heavy tests, all of the
    /// chaos table, each end-to-end test with one Envoy worker as well as with
    /// two, the chart and the tests on a real Kubernetes API, whose binaries it
    /// builds when they are missing (Go), and the container images
    #[arg(long)]
    all: bool,
}

/// Runs every step; true if all are green.
pub fn run(options: &Options) -> Result<bool> {
    let root = root();
    let cargo = |args: &[&str]| {
        let mut command = crate::cargo();
        command.args(args);
        if options.all {
            command.env("ADIT_TEST_ALL", "1");
        }
        command
    };
    let mut steps = Vec::new();
    if options.all {
        steps.push(step::function(
            "control plane: find or build",
            kube::build::run,
        ));
        steps.push(step::function("tools: find or build", || {
            for tool in &kube::cache::TOOLS {
                println!("{}", kube::build::tool(tool.name)?.display());
            }
            Ok(true)
        }));
    }
    steps.push(step::function("DNS servers: find or unpack", || {
        match name_servers::PROGRAMS.fetch() {
            // Elsewhere than on Debian the rest of the tests is worth having.
            Err(error) if !options.all => println!("left out: {error:#}"),
            found => return found,
        }
        Ok(true)
    }));
    steps.push(step::function("Prometheus: find or unpack", || {
        match prometheus::PROGRAMS.fetch() {
            Err(error) if !options.all => println!("left out: {error:#}"),
            found => return found,
        }
        Ok(true)
    }));
    let without = kube::cache::missing(&root);
    let no_tools = kube::cache::missing_tools(&root);
    let no_dns = name_servers::PROGRAMS.missing();
    let no_prometheus = prometheus::PROGRAMS.missing();
    steps.extend([
        step::function("envoy: find or download every tested version", || {
            for version in envoy::ABI {
                let path = envoy::find(Some(version))?;
                println!("{version} {}", path.display());
            }
            Ok(true)
        }),
        step::command("format", &mut cargo(&["fmt", "--all", "--check"])),
        step::command(
            "clippy",
            &mut cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        step::command(
            "docs",
            cargo(&["doc", "--workspace", "--no-deps", "--locked"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        ),
        // The end-to-end tests start target/debug/adit and load libadit.so,
        // and `cargo test` alone would leave older ones there.
        step::command("build", &mut cargo(&crate::BUILD)),
        step::command(
            "tests",
            // A minute for the seven fuzz bodies (fuzz/README.md).
            cargo(&["test", "--workspace", "--locked", "--no-fail-fast"])
                .env("ADIT_FUZZ_SECONDS", "9")
                // What this run says was not left out, no test may leave out.
                .env(
                    "ADIT_REQUIRE_DNS",
                    if no_dns.is_empty() { "1" } else { "0" },
                )
                .env(
                    "ADIT_REQUIRE_PROMETHEUS",
                    if no_prometheus.is_empty() { "1" } else { "0" },
                ),
        ),
        step::function("chaos: find or unpack tools", chaos::tools),
        step::command("chaos", &mut chaos::table(options.all)),
        step::function("abi", abi::run),
        // Its links and its commands are tests above.
        step::function("book", || docs::make(options.all)),
    ]);
    let no_book = docs::mdbook::find()?.is_none();
    if options.all {
        let once_more = [
            "test",
            "--package",
            "adit-tests",
            "--locked",
            "--no-fail-fast",
        ];
        steps.push(step::function(
            "images",
            || images::run(&Default::default()),
        ));
        steps.push(step::command(
            "end-to-end tests with one Envoy worker",
            cargo(&once_more).env("ADIT_TEST_CONCURRENCY", "1"),
        ));
    }

    let ok = step::summary(&steps);
    println!("{}", if ok { "all green" } else { "NOT green" });
    if !without.is_empty() {
        println!(
            "left out (cargo xtask kube build, which needs Go): all of {}, because these are \
             missing: {}",
            kube::test_targets()?.join(", "),
            without.join(", ")
        );
    }
    if !no_tools.is_empty() {
        println!(
            "left out (cargo xtask helm, func-e or docs, which need Go): the tests of what needs {}",
            no_tools.join(", ")
        );
    }
    if !no_dns.is_empty() {
        println!(
            "left out (install them): signed DNS updates on real \
             servers, because these are missing: {}",
            no_dns.join(", ")
        );
    }
    if !no_prometheus.is_empty() {
        println!(
            "left out (install them): the dashboard's and the alerts' queries, because these \
             are missing: {}",
            no_prometheus.join(", ")
        );
    }
    if no_book {
        println!("left out (cargo xtask docs): the book as HTML, because mdBook is missing");
    }
    if !options.all {
        println!(
            "left out (cargo xtask test --all): end-to-end tests with one Envoy worker \
             (two were used), ten times the rounds of the heavy tests, the rest of the chaos table, \
             the chart on a real Kubernetes API (cargo xtask helm), the container images"
        );
    } else if [without, no_tools, no_dns, no_prometheus]
        .iter()
        .all(Vec::is_empty)
        && !steps.iter().any(|step| step.closing.leaves_out())
    {
        println!("nothing was left out");
    }
    Ok(ok)
}

//! What a command would say at its start, and more of it at once.

use std::path::Path;

use adit_reconciler::compile::{Classes, Options as CompileOptions, Output};
use adit_tunnel::options::EndpointOptions;
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    findings::Findings,
    manifests,
    places::{self, Key},
};
use crate::{
    ConfigFile, causes,
    options::{entries, merge, object},
    reconciler::ReconcilerOptions,
    role::{ConnectorOptions, DialerOptions},
    run::{self, DEFAULT_DEADLINE, RunArgs},
};

pub(super) fn dialer(args: ConfigFile<DialerOptions>) -> anyhow::Result<Findings> {
    let file = args.config.as_deref();
    let mut findings = Findings::of("adit dialer");
    let Some(options) = merged(&args.options, file, &mut findings) else {
        return Ok(findings);
    };
    common(&options.options.endpoint, &mut findings);
    if let Some(state) = &options.options.state {
        places::state(state, &mut findings);
    }
    let nowhere = options.options.state.is_none()
        && options.options.dns_origin.is_none()
        && !options.control.control.wanted();
    if nowhere {
        findings.warning("none of --state, --dns-origin, --kubeconfig and --in-cluster is given: it will not know where connectors are",
        );
    }
    let mut checked = options.options.clone();
    let _key = Key::stand_in(&mut checked.endpoint.key_file, &mut findings)?;
    match checked.resolve() {
        Err(error) => findings.error(error),
        Ok(config) => {
            places::admin(&config.admin, &mut findings);
            if let adit_dialer::SocketPath::File(path) = &config.socket.path {
                places::socket("socket", path, &mut findings);
            }
        }
    }
    match options.control.clone().resolve() {
        Err(error) => findings.error(error),
        Ok(_) => control(&options.control.control, &mut findings)?,
    }
    Ok(findings)
}

pub(super) fn connector(args: ConfigFile<ConnectorOptions>) -> anyhow::Result<Findings> {
    let file = args.config.as_deref();
    let mut findings = Findings::of("adit connector");
    let Some(options) = merged(&args.options, file, &mut findings) else {
        return Ok(findings);
    };
    common(&options.options.endpoint, &mut findings);
    let mut checked = options.options.clone();
    let _key = Key::stand_in(&mut checked.endpoint.key_file, &mut findings)?;
    match checked.resolve() {
        Err(error) => {
            // The file may hold the wrong entry itself.
            let text = file.and_then(|path| std::fs::read_to_string(path).ok());
            let place = match (file, error.entry(), &text) {
                (Some(path), Some(entry), Some(text)) if !entry.is_empty() => {
                    let line = text.lines().position(|line| line.contains(entry));
                    line.map(|line| format!("{}:{}", path.display(), line + 1))
                }
                _ => None,
            };
            match place {
                Some(place) => findings.error_at(Some(&place), error),
                None => findings.error(error),
            }
        }
        Ok(config) => places::admin(&config.admin, &mut findings),
    }
    control(&options.options.register.control, &mut findings)?;
    Ok(findings)
}

pub(super) fn reconciler(args: ConfigFile<ReconcilerOptions>) -> anyhow::Result<Findings> {
    let mut findings = Findings::of("adit reconciler");
    let Some(options) = merged(&args.options, args.config.as_deref(), &mut findings) else {
        return Ok(findings);
    };
    match options.options.clone().resolve() {
        Err(error) => findings.error(error),
        Ok(config) => places::admin(&config.admin, &mut findings),
    }
    control(&options.options.control, &mut findings)?;
    Ok(findings)
}

pub(super) fn run(args: RunArgs) -> anyhow::Result<Findings> {
    let mut findings = Findings::of("adit run");
    let file = args.options_file.as_deref();
    let Some(options) = merged(&args.options, file, &mut findings) else {
        return Ok(findings);
    };
    let mut ca_file = None;
    match options.authorities() {
        Err(error) => findings.error(causes::line(&error)),
        Ok(found) => ca_file = found,
    }
    let ca_known = ca_file.is_some();
    let compile = CompileOptions {
        listen: options.listen(),
        deadline: options.deadline.unwrap_or(DEFAULT_DEADLINE).0,
        output: Output::Files { ca_file },
        classes: Classes::IfAny,
    };
    if args.config.is_dir() {
        let loaded = manifests::load(&args.config, &compile);
        for diagnostic in &loaded.diagnostics {
            findings.diagnostic(diagnostic.is_error(), diagnostic);
        }
        findings.subject = format!("adit run: {}", loaded.summary(&args.config));
    } else {
        let what = "is no directory of manifests";
        findings.error_at(Some(&args.config.display().to_string()), what);
    }
    places::listen("listen", options.listen(), &mut findings);
    common(&options.dialer.endpoint, &mut findings);
    let runtime = runtime()?;
    if let Err(error) = runtime.block_on(run::find_envoy(options.envoy.as_deref())) {
        findings.error(causes::line(&error));
    }
    if let Err(error) = options.module() {
        findings.error(causes::line(&error));
    }
    if let Err(error) = options.html_page() {
        findings.error(causes::line(&error));
    }
    match options.access_log() {
        Err(error) => findings.error(causes::line(&error)),
        Ok(Some(path)) => places::file_to_write("access-log", &path, &mut findings),
        Ok(None) => {}
    }
    match options.state_dir() {
        Err(error) => findings.error(causes::line(&error)),
        Ok(folder) => {
            places::directory_to_make("state-dir", &folder, &mut findings);
            let mut dialer = options.dialer.clone();
            // Said already.
            dialer.tls_ca = dialer.tls_ca.filter(|_| ca_known);
            let default = folder.join("dialer.sock").to_string_lossy().into_owned();
            dialer.socket.get_or_insert(default);
            // Its folder is made with the state directory.
            let mut stand_in = dialer.endpoint.key_file.take();
            let _key = match &stand_in {
                Some(_) => Key::stand_in(&mut stand_in, &mut findings)?,
                None => Key::nowhere(&mut stand_in)?,
            };
            dialer.endpoint.key_file = stand_in;
            match dialer.resolve() {
                Err(error) => findings.error(error),
                Ok(config) => places::admin(&config.admin, &mut findings),
            }
        }
    }
    Ok(findings)
}

/// The options of a command; `None` when the file is wrong, for then the rest
/// would be too.
fn merged<O>(given: &O, file: Option<&Path>, findings: &mut Findings) -> Option<O>
where
    O: Args + Serialize + DeserializeOwned,
{
    let read = file.map(entries::<O>).transpose();
    let merged = read.and_then(|entries| Ok((merge(given, file)?, entries)));
    let (options, entries) = match merged {
        Ok(found) => found,
        Err(error) => {
            let shown = file.map(|f| f.display().to_string()).unwrap_or_default();
            for line in causes::line(&error).lines() {
                // `FILE:LINE: what`
                match line.split_once(": ") {
                    Some((place, what)) if place.starts_with(&shown) => {
                        findings.error_at(Some(place), what);
                    }
                    _ => findings.error(line),
                }
            }
            return None;
        }
    };
    findings.entries = entries.unwrap_or_default();
    let outranking = object(given).unwrap_or_default();
    let unused: Vec<_> = findings
        .entries
        .iter()
        .filter(|e| {
            outranking
                .get(&e.key)
                .is_some_and(|given| *given != e.value)
        })
        .map(|e| e.key.clone())
        .collect();
    for key in unused {
        let variable = key.replace('-', "_").to_uppercase();
        findings.warning(format_args!(
            "{key} is not used: --{key} or a variable such as ADIT_{variable} outranks the file"
        ));
    }
    Some(options)
}

/// What all endpoints have.
fn common(endpoint: &EndpointOptions, findings: &mut Findings) {
    places::bind(&endpoint.bind, findings);
}

/// The Kubernetes API's options; nothing is sent to it.
fn control(options: &adit_control::Options, findings: &mut Findings) -> anyhow::Result<()> {
    if let Err(error) = runtime()?.block_on(options.access()) {
        findings.error(error);
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

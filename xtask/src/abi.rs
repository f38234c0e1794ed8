//! `cargo xtask abi`: whether `libadit.so` fits every supported Envoy.
//!
//! Envoy itself only warns about another ABI version. What really gates a
//! module is the dynamic linker: a callback that Envoy does not export makes
//! the load fail, and an export that Envoy requires is looked up by name.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol};

use crate::{envoy, root};

const CALLBACK: &str = "envoy_dynamic_module_callback_";
const EXPORT: &str = "envoy_dynamic_module_on_";

/// The exports without which Envoy refuses a module that has an HTTP filter
/// (found by blanking each symbol, same on 1.39 and 1.40) …
const HTTP_FILTER: [&str; 22] = [
    "program_init",
    "http_filter_config_new",
    "http_filter_config_destroy",
    "http_filter_per_route_config_new",
    "http_filter_per_route_config_destroy",
    "http_filter_new",
    "http_filter_destroy",
    "http_filter_request_headers",
    "http_filter_request_body",
    "http_filter_request_trailers",
    "http_filter_response_headers",
    "http_filter_response_body",
    "http_filter_response_trailers",
    "http_filter_stream_complete",
    "http_filter_http_callout_done",
    "http_filter_scheduled",
    "http_filter_downstream_above_write_buffer_high_watermark",
    "http_filter_downstream_below_write_buffer_low_watermark",
    "http_filter_http_stream_headers",
    "http_filter_http_stream_data",
    "http_filter_http_stream_trailers",
    "http_filter_http_stream_complete",
];
/// … one more, optional for Envoy, which we need to rewrite failed connects …
const HTTP_FILTER_MORE: [&str; 2] = ["http_filter_http_stream_reset", "http_filter_local_reply"];
/// … and a transport socket.
const TRANSPORT_SOCKET: [&str; 13] = [
    "transport_socket_factory_config_new",
    "transport_socket_factory_config_destroy",
    "transport_socket_new",
    "transport_socket_destroy",
    "transport_socket_set_callbacks",
    "transport_socket_on_connected",
    "transport_socket_do_read",
    "transport_socket_do_write",
    "transport_socket_close",
    "transport_socket_get_protocol",
    "transport_socket_get_failure_reason",
    "transport_socket_can_flush_close",
    "transport_socket_start_secure_transport",
];

/// What a module needs and offers.
struct Module {
    needs: BTreeSet<String>,
    exports: BTreeSet<String>,
}

/// Builds the module and compares it; true if it fits every Envoy.
pub fn run() -> Result<bool> {
    let status = crate::cargo()
        .args(crate::BUILD)
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "libadit.so could not be built");
    let module = module(&root().join("target/debug/libadit.so"))?;
    let mut ok = true;
    for name in missing_exports(&module.exports) {
        println!("libadit.so does not export {name}, which Envoy requires");
        ok = false;
    }
    for version in envoy::ABI {
        let exported = exports(&envoy::find(Some(version))?, CALLBACK)?;
        ensure!(
            !exported.is_empty(),
            "Envoy {version} exports no {CALLBACK}*: it cannot load modules"
        );
        let lacking: Vec<_> = module.needs.difference(&exported).collect();
        for name in &lacking {
            println!("libadit.so needs {name}, which Envoy {version} lacks");
        }
        ok &= lacking.is_empty();
        println!(
            "Envoy {version}: {} of the {} callbacks that libadit.so needs, of {} offered",
            module.needs.len() - lacking.len(),
            module.needs.len(),
            exported.len()
        );
    }
    Ok(ok)
}

fn missing_exports(exports: &BTreeSet<String>) -> Vec<String> {
    let required = HTTP_FILTER.iter().chain(&HTTP_FILTER_MORE);
    required
        .chain(&TRANSPORT_SOCKET)
        .map(|name| format!("{EXPORT}{name}"))
        .filter(|name| !exports.contains(name))
        .collect()
}

fn module(path: &Path) -> Result<Module> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("parse {}", path.display()))?;
    let mut module = Module {
        needs: BTreeSet::new(),
        exports: BTreeSet::new(),
    };
    for symbol in file.dynamic_symbols() {
        let name = symbol.name().unwrap_or_default();
        if symbol.is_undefined() && name.starts_with(CALLBACK) {
            module.needs.insert(name.to_owned());
        } else if symbol.is_definition() && name.starts_with(EXPORT) {
            module.exports.insert(name.to_owned());
        }
    }
    ensure!(
        !module.needs.is_empty() && !module.exports.is_empty(),
        "{} is no Envoy module: it imports {} callbacks and exports {} hooks",
        path.display(),
        module.needs.len(),
        module.exports.len()
    );
    Ok(module)
}

fn exports(path: &Path, prefix: &str) -> Result<BTreeSet<String>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("parse {}", path.display()))?;
    Ok(file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| Some(symbol.name().ok()?.to_owned()))
        .filter(|name| name.starts_with(prefix))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_is_missing_is_named() {
        let all: BTreeSet<String> = HTTP_FILTER
            .iter()
            .chain(&HTTP_FILTER_MORE)
            .chain(&TRANSPORT_SOCKET)
            .map(|name| format!("{EXPORT}{name}"))
            .collect();
        assert!(missing_exports(&all).is_empty());
        let mut one_less = all;
        one_less.remove("envoy_dynamic_module_on_transport_socket_do_read");
        assert_eq!(
            missing_exports(&one_less),
            ["envoy_dynamic_module_on_transport_socket_do_read"]
        );
    }
}

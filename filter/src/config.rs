//! What Envoy's configuration may say to the module. Everything is checked
//! when Envoy loads it; nothing is left to the first request.

use adit_wire::{Target, TargetError, preface::PrefaceError};
use serde::Deserialize;

use crate::http::page::{Page, PageError};

/// The name of the filter and of the transport socket within the module.
pub const NAME: &[u8] = b"adit";
/// The longest configuration taken: a page of [`crate::http::page::MAX_LEN`]
/// with every character escaped, and room for the rest.
const MAX_CONFIG: usize = 512 * 1024;

/// Why a configuration is refused. The text is the one line an operator gets.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Another filter or transport socket than ours.
    #[error("{field} is {found:?}; this module has only \"adit\"")]
    Name {
        /// The field in Envoy's configuration.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// As a listener's transport socket.
    #[error("it belongs on a cluster, not on a listener")]
    Downstream,
    /// Over [`MAX_CONFIG`].
    #[error("it is {0} bytes long, over the limit of {MAX_CONFIG}")]
    TooLong(usize),
    /// Another kind of value than a Struct.
    #[error("it is no object; write it as a google.protobuf.Struct")]
    NoObject,
    /// Not JSON, an unknown key, or a value of the wrong type.
    #[error(
        "{0}; the transport socket takes {{\"target\": \"<base64>\"}}, the filter {{\"html_page\": \"<text>\"}}"
    )]
    Json(#[from] serde_json::Error),
    /// `target` is no Target.
    #[error("the key target: {0}")]
    Target(#[from] TargetError),
    /// `target` does not fit a preface.
    #[error("the key target: {0}")]
    Preface(PrefaceError),
    /// `html_page`.
    #[error("the key html_page: {0}")]
    Page(#[from] PageError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transport {
    target: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    html_page: Option<String>,
}

/// Checks the name that selects a part of the module.
pub fn check_name(field: &'static str, name: &[u8]) -> Result<(), ConfigError> {
    if name == NAME {
        return Ok(());
    }
    Err(ConfigError::Name {
        field,
        found: String::from_utf8_lossy(name).into_owned(),
    })
}

/// `transport_socket_config`.
pub fn transport(config: &[u8]) -> Result<Target, ConfigError> {
    let parsed: Transport = serde_json::from_slice(limited(config)?)?;
    Ok(Target::from_base64(&parsed.target)?)
}

/// `filter_config`, of the filter or of a route; absent is empty. The answer is
/// the page, where one is given.
pub fn http(config: &[u8]) -> Result<Option<Page>, ConfigError> {
    let config = limited(config)?;
    if config.trim_ascii().is_empty() {
        return Ok(None);
    }
    // serde would take an array for a struct, too.
    if !config.trim_ascii_start().starts_with(b"{") {
        return Err(ConfigError::NoObject);
    }
    let parsed: Http = serde_json::from_slice(config)?;
    Ok(parsed.html_page.map(Page::new).transpose()?)
}

fn limited(config: &[u8]) -> Result<&[u8], ConfigError> {
    if config.len() > MAX_CONFIG {
        return Err(ConfigError::TooLong(config.len()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_wire::{EndpointId, Protocol};

    use super::*;
    use crate::transport::Factory;

    fn target() -> String {
        Target {
            connectors: vec![EndpointId::from_bytes([1; 32])],
            service: "127.0.0.1:8080".parse().unwrap(),
            protocol: Protocol::Tcp,
            deadline: Duration::from_secs(5),
            name: "default/shop".into(),
        }
        .to_base64()
    }

    fn refusal(config: &str) -> String {
        Factory::new(b"adit", config.as_bytes(), true)
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn a_target_is_taken() {
        let config = format!("{{\"target\": \"{}\"}}", target());
        assert!(Factory::new(b"adit", config.as_bytes(), true).is_ok());
    }

    #[test]
    fn a_refusal_names_the_reason_in_one_line() {
        let unknown = format!("{{\"target\": \"{}\", \"tarjet\": 1}}", target());
        for (config, reason) in [
            ("", "EOF"),
            ("{}", "missing field `target`"),
            (r#"{"target": 7}"#, "invalid type"),
            (&unknown, "unknown field `tarjet`"),
            (r#"{"target": "%%"}"#, "not base64"),
            (r#"{"target": ""}"#, "empty"),
            (r#"{"target": "AAAA"}"#, "the key target"),
        ] {
            let text = refusal(config);
            assert!(text.contains(reason), "{config}: {text}");
            assert!(!text.contains('\n'), "{text}");
        }
        assert!(refusal(&" ".repeat(MAX_CONFIG + 1)).contains("over the limit"));
    }

    #[test]
    fn a_listener_and_another_name_are_refused() {
        let config = format!("{{\"target\": \"{}\"}}", target());
        let no = |name: &[u8], up| Factory::new(name, config.as_bytes(), up).expect_err("refused");
        assert!(matches!(no(b"adit", false), ConfigError::Downstream));
        assert!(matches!(no(b"iroh", true), ConfigError::Name { .. }));
    }

    #[test]
    fn the_filter_needs_no_configuration_and_knows_its_keys() {
        assert!(matches!(http(b""), Ok(None)));
        assert!(matches!(http(b"{}"), Ok(None)));
        assert!(matches!(
            http(br#"{"html_page": "<p>{{title}}"}"#),
            Ok(Some(_))
        ));
        assert!(http(br#"{"htmlPage": ""}"#).is_err());
        assert!(http(b"[]").is_err());
    }
}

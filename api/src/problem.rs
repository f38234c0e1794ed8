//! One breach of one rule.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; the object takes effect as written.
    Warning,
    /// The object, or the part named, does not take effect.
    Error,
}

/// Why, as one word that a program may compare and a status condition carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A value that the schema or a rule forbids.
    Invalid,
    /// A feature of the API that this program does not have.
    Unsupported,
    /// A protocol that is not carried: UDP.
    UnsupportedProtocol,
    /// Text that cannot be read as a manifest.
    Unreadable,
    /// A field that the kind does not have.
    UnknownField,
    /// A kind or version that is not ours.
    UnknownKind,
    /// The same object twice.
    Duplicate,
    /// Two objects that claim the same thing.
    Conflict,
    /// No connector of that name, or none that the selector selects.
    ConnectorNotFound,
    /// The connector's class does not exist.
    ConnectorClassNotFound,
    /// The connector has not said how to reach it: no connection details.
    ConnectorNotReady,
    /// The connector's class or spec forbids this kind of tunnel.
    CapabilityDisabled,
    /// No advertisement of the connector covers the endpoint.
    NotAdvertised,
    /// The proxy has nothing that could be programmed.
    NoBackends,
}

/// Where in an object, why, and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The field, like `spec.rules[0].backends[1].endpoint`.
    pub path: String,
    /// How bad it is.
    pub severity: Severity,
    /// Why.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub message: String,
}

impl Severity {
    /// `warning` or `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Reason {
    /// The word, in the style of Kubernetes conditions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::Unsupported => "Unsupported",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::Unreadable => "Unreadable",
            Self::UnknownField => "UnknownField",
            Self::UnknownKind => "UnknownKind",
            Self::Duplicate => "Duplicate",
            Self::Conflict => "Conflict",
            Self::ConnectorNotFound => "ConnectorNotFound",
            Self::ConnectorClassNotFound => "ConnectorClassNotFound",
            Self::ConnectorNotReady => "ConnectorNotReady",
            Self::CapabilityDisabled => "CapabilityDisabled",
            Self::NotAdvertised => "NotAdvertised",
            Self::NoBackends => "NoBackends",
        }
    }
}

impl Problem {
    /// An error.
    pub fn error(path: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            severity: Severity::Error,
            reason,
            message: message.into(),
        }
    }

    /// A warning.
    pub fn warning(path: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(path, reason, message)
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

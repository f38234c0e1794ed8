//! All objects at one moment.

use std::fmt;

use adit_api::{
    ResourceExt as _,
    networking::{Connector, ConnectorAdvertisement, ConnectorClass, HttpProxy},
};

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `HTTPProxy`
    HttpProxy,
    /// `Connector`
    Connector,
    /// `ConnectorAdvertisement`
    ConnectorAdvertisement,
    /// `ConnectorClass`
    ConnectorClass,
}

/// What makes an object the same object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a [`Kind::ConnectorClass`], which has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All objects, each valid by itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// In order of precedence: where two claim the same, the earlier wins.
    pub proxies: Vec<HttpProxy>,
    /// In any order.
    pub connectors: Vec<Connector>,
    /// In any order.
    pub advertisements: Vec<ConnectorAdvertisement>,
    /// In any order.
    pub classes: Vec<ConnectorClass>,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::HttpProxy,
        Self::Connector,
        Self::ConnectorAdvertisement,
        Self::ConnectorClass,
    ];

    /// As `kind:` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HttpProxy => "HTTPProxy",
            Self::Connector => "Connector",
            Self::ConnectorAdvertisement => "ConnectorAdvertisement",
            Self::ConnectorClass => "ConnectorClass",
        }
    }

    /// As `apiVersion:` writes it.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::HttpProxy => "networking.datumapis.com/v1alpha",
            _ => "networking.datumapis.com/v1alpha1",
        }
    }

    /// The key of an object of this kind.
    pub fn key(self, object: &impl adit_api::ResourceExt) -> ObjectKey {
        ObjectKey {
            kind: self,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

impl Snapshot {
    /// A connector by namespace and name.
    pub fn connector(&self, namespace: &str, name: &str) -> Option<&Connector> {
        self.connectors
            .iter()
            .find(|c| c.namespace().as_deref() == Some(namespace) && c.name_any() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

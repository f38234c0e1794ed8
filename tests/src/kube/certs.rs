//! The certificates of a control plane, and kubeconfig files.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::json;

/// The one authority for servers and clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, both PEM.
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// The key, PKCS 8.
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "adit-tests-ca");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for these names and addresses.
    pub fn server(&self, names: &[&str]) -> Result<Signed> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        self.sign(names, "server", &[], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate: the API server takes CN as the user and each O as a
    /// group.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Signed> {
        self.sign(
            Vec::new(),
            user,
            groups,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    fn sign(
        &self,
        names: Vec<String>,
        common_name: &str,
        organizations: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Signed> {
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        for organization in organizations {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *organization);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Signed {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Writes a kubeconfig for a user that this authority signs.
    pub fn kubeconfig(
        &self,
        dir: &Path,
        api: SocketAddr,
        user: &str,
        groups: &[&str],
    ) -> Result<PathBuf> {
        let signed = self.client(user, groups)?;
        let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "adit",
            "contexts": [{"name": "adit", "context": {"cluster": "adit", "user": "adit"}}],
            "clusters": [{"name": "adit", "cluster": {
                "server": format!("https://{api}"),
                "certificate-authority-data": base64(&self.pem),
            }}],
            "users": [{"name": "adit", "user": {
                "client-certificate-data": base64(&signed.cert),
                "client-key-data": base64(&signed.key),
            }}],
        });
        // JSON is YAML.
        let path = dir.join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
        fs::write(&path, serde_json::to_vec_pretty(&config)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

//! Who signs certificates in one test, for a server and for clients.
//!
//! Owns: their files. Does not own: who believes them. Start reading at [`Authority`].
//! Invariant: no two have the same name.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use vencejo_client::Tls;

use crate::TempFolder;

/// An authority, with its files.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) folder: TempFolder,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = TempFolder::new();
        let name = folder.path().file_name().unwrap().to_string_lossy();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, name.into_owned());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        folder.write("ca.pem", &certificate.pem());
        Self {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    /// A certificate for `name` and its key.
    pub(crate) fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The same in files.
    pub(crate) fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.sign(name);
        let chain = self
            .folder
            .write(&format!("{name}.pem"), &certificate.pem());
        let key = self
            .folder
            .write(&format!("{name}.key"), &key.serialize_pem());
        (chain, key)
    }

    pub(crate) fn root_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn roots(&self) -> Tls {
        Tls::new().root_file(self.root_file()).unwrap()
    }
}

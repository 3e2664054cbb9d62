//! Certificates made for one test, in files.
//!
//! Owns: [`Authority`]. Does not own: who believes it. Start reading at [`Authority::new`].
//! Invariant: its folder is gone with it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use vencejo_server::config::CertificateFiles;

/// Who signs the certificates of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
    folder: PathBuf,
    serial: AtomicU64,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vencejo-tls-test-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.join("ca.pem"), root.pem()).expect("a file");
        Self {
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
            folder,
            serial: AtomicU64::new(1),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A certificate for `name` and its serial number; it is good for very long, if `change` leaves it so.
    fn sign(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certificate, KeyPair, SerialNumber) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let serial = SerialNumber::from(self.serial.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(serial.clone());
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer);
        (certificate.expect("a certificate"), key, serial)
    }

    /// The same in files that begin with `file`.
    pub(crate) fn files(&self, file: &str, name: &str) -> CertificateFiles {
        self.write(file, self.sign(name, |_| ()))
    }

    pub(crate) fn expired_files(&self, file: &str, name: &str) -> CertificateFiles {
        self.files_until(file, name, 1_000_000_000)
    }

    /// One that ends at this second since 1970.
    pub(crate) fn files_until(&self, file: &str, name: &str, until: u64) -> CertificateFiles {
        let signed = self.sign(name, |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until);
        });
        self.write(file, signed)
    }

    /// A certificate that is on a revocation list; the list is `crl.pem`.
    pub(crate) fn revoked_files(&self, file: &str, name: &str) -> CertificateFiles {
        let signed = self.sign(name, |_| ());
        self.list(&signed.2, 2124);
        self.write(file, signed)
    }

    /// A revocation list that has to be renewed before `year`, as `crl.pem`.
    pub(crate) fn list_until(&self, year: i32) {
        self.list(&SerialNumber::from(u64::MAX), year);
    }

    fn list(&self, revoked: &SerialNumber, year: i32) {
        let revoked = RevokedCertParams {
            serial_number: revoked.clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        let pem = list.pem().expect("PEM");
        std::fs::write(self.path("crl.pem"), pem).expect("a file");
    }

    fn write(
        &self,
        file: &str,
        (certificate, key, _): (Certificate, KeyPair, SerialNumber),
    ) -> CertificateFiles {
        let files = CertificateFiles {
            certificate: self.path(&format!("{file}.pem")),
            key: self.path(&format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).expect("a file");
        std::fs::write(&files.key, key.serialize_pem()).expect("a file");
        files
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

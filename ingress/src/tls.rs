//! The certificate of the HTTPS listener.

use std::{io, path::PathBuf, time::Duration};

use axum_server::tls_rustls::RustlsConfig;
use process::hangup::Hangup;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::{config::Config, preflight::certificate};

/// Names that the certificate is good for which is made where none is configured.
const SELF_SIGNED_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Time between two looks at the dates of the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The files cannot be read, hold something else, or do not fit each other.
    #[error("failed to use the certificate {certificate} with the key {key}")]
    Use {
        /// File of the certificate chain.
        certificate: PathBuf,
        /// File of the private key.
        key: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The configured certificate, or a self-signed one for localhost.
///
/// # Errors
/// The files cannot be read or do not fit each other.
pub async fn config(config: &Config) -> anyhow::Result<RustlsConfig> {
    match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => RustlsConfig::from_pem_file(certificate, key)
            .await
            .map_err(|source| {
                CertificateError::Use {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    source,
                }
                .into()
            }),
        _ => {
            tracing::warn!("HTTPS with a self-signed certificate made now: for development only");
            let (certificate, key) = self_signed()?;
            Ok(RustlsConfig::from_pem(certificate.into(), key.into()).await?)
        }
    }
}

/// A certificate and its key, as PEM.
fn self_signed() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let names = CertificateParams::new(SELF_SIGNED_NAMES.map(str::to_owned))?;
    Ok((names.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Reads the configured certificate and its key again at every SIGHUP, for ever; new connections get it.
/// Files that cannot be used change nothing. Says when the certificate has expired, or soon does.
pub async fn follow(tls: RustlsConfig, config: Config, mut hangup: Hangup) {
    let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return;
    };
    loop {
        if let Some(trouble) = certificate::trouble(certificate) {
            tracing::warn!(certificate = %certificate.display(), "the certificate {trouble}");
        }
        tokio::select! {
            () = hangup.next() => {}
            () = tokio::time::sleep(LOOK_EVERY) => continue,
        }
        match tls.reload_from_pem_file(certificate, key).await {
            Ok(()) => {
                tracing::info!(certificate = %certificate.display(), "certificate read again");
            }
            Err(error) => tracing::error!(
                %error,
                certificate = %certificate.display(),
                key = %key.display(),
                "failed to reload the certificate"
            ),
        }
    }
}

//! The certificate of the HTTPS listener.

use std::{io, path::PathBuf, time::Duration};

use axum_server::tls_rustls::RustlsConfig;
use process::hangup::Hangup;
use proto::ambient::WallClock;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::{config::Config, preflight::certificate};

/// Names that the certificate is good for which is made where none is configured.
const SELF_SIGNED_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Time between two looks at the dates of the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);

/// The files of a certificate cannot be read, hold something else, or do not fit each other.
#[derive(Debug, thiserror::Error)]
#[error("failed to use the certificate {certificate} with the key {key}")]
pub struct CertificateError {
    certificate: PathBuf,
    key: PathBuf,
    source: io::Error,
}

/// The configured certificate, or a self-signed one for localhost.
///
/// # Errors
/// The files cannot be read or do not fit each other.
pub async fn config(config: &Config) -> anyhow::Result<RustlsConfig> {
    match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => {
            let config = RustlsConfig::from_pem_file(certificate, key).await;
            Ok(config.map_err(|source| CertificateError {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })?)
        }
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
pub async fn follow(tls: RustlsConfig, config: Config, clock: WallClock, mut hangup: Hangup) {
    let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return;
    };
    loop {
        if let Some(trouble) = certificate::trouble(certificate, &clock) {
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

//! The certificate of the HTTPS listener.

use anyhow::Context;
use axum_server::tls_rustls::RustlsConfig;

use crate::{config::Config, devkeys};

/// The configured certificate, or a self-signed one for localhost.
///
/// # Errors
/// The files cannot be read or do not fit each other.
pub async fn config(config: &Config) -> anyhow::Result<RustlsConfig> {
    match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => RustlsConfig::from_pem_file(certificate, key)
            .await
            .context("the certificate cannot be used"),
        _ => {
            tracing::warn!("HTTPS with a self-signed certificate made now: for development only");
            let (certificate, key) = devkeys::self_signed()?;
            Ok(RustlsConfig::from_pem(certificate.into(), key.into()).await?)
        }
    }
}

//! Keys, certificates and tokens for development and tests: what a real installation has from an identity
//! provider and a certificate authority. No program of Hearth's uses this crate.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode, get_current_timestamp,
    jwk::{Jwk, JwkSet, ThumbprintHash},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Serialize;

/// Names that the development certificate is good for.
pub const CERTIFICATE_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a token says.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArguments {
    /// Signing key (PEM).
    #[arg(long)]
    pub key: PathBuf,
    /// Claim `iss`.
    #[arg(long)]
    pub issuer: String,
    /// Claim `aud`.
    #[arg(long, default_value = "https://dynamicsessions.io")]
    pub audience: String,
    /// Life of the token in seconds.
    #[arg(long, default_value_t = 43_200)]
    pub ttl_seconds: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Writes `signing-key.pem` and `jwks.json` unless they exist.
///
/// # Errors
/// The files cannot be written or the existing key cannot be read.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let (key_file, set_file) = (
        directory.join("signing-key.pem"),
        directory.join("jwks.json"),
    );
    if !key_file.exists() {
        write_secret(&key_file, KeyPair::generate()?.serialize_pem().as_bytes())?;
    }
    if !set_file.exists() {
        let key = EncodingKey::from_ec_pem(&fs::read(&key_file)?)?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        jwk.common.key_id = Some(key_id(&key)?);
        fs::write(
            &set_file,
            serde_json::to_vec_pretty(&JwkSet { keys: vec![jwk] })?,
        )?;
    }
    Ok(())
}

/// Writes `cert.pem` and `key.pem` unless they exist.
///
/// # Errors
/// The files cannot be written.
pub fn certificate(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let (certificate_file, key_file) = (directory.join("cert.pem"), directory.join("key.pem"));
    if certificate_file.exists() && key_file.exists() {
        return Ok(());
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let names = CertificateParams::new(CERTIFICATE_NAMES.map(str::to_owned))?;
    fs::write(certificate_file, names.self_signed(&key)?.pem())?;
    Ok(write_secret(&key_file, key.serialize_pem().as_bytes())?)
}

/// Signs a token.
///
/// # Errors
/// The key cannot be read.
#[expect(
    clippy::disallowed_methods,
    reason = "a command of developers' that does nothing else"
)]
pub fn token(arguments: &TokenArguments) -> anyhow::Result<String> {
    let key = EncodingKey::from_ec_pem(&fs::read(&arguments.key)?)?;
    let header = Header {
        kid: Some(key_id(&key)?),
        ..Header::new(Algorithm::ES256)
    };
    let now = get_current_timestamp();
    let claims = Claims {
        iss: &arguments.issuer,
        aud: &arguments.audience,
        sub: "development",
        iat: now,
        exp: now + arguments.ttl_seconds,
    };
    Ok(encode(&header, &claims, &key)?)
}

/// Id of a development key: its thumbprint (RFC 7638), so that another key has another one.
///
/// # Errors
/// It is no ES256 key.
pub fn key_id(key: &EncodingKey) -> jsonwebtoken::errors::Result<String> {
    Jwk::from_encoding_key(key, Algorithm::ES256)?.thumbprint(ThumbprintHash::SHA256)
}

fn write_secret(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents)
}

//! The key set (JWKS) that tokens are signed with, from a file or a URL, kept fresh.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use futures_util::StreamExt;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm},
};
use tokio::time::Instant;

/// An unknown key id makes the key set be read anew at most this often.
const UNKNOWN_KEY_REFRESH: Duration = Duration::from_secs(30);
/// Time between two regular refreshes.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Time for one fetch.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Largest key set in bytes.
const SET_BYTES: usize = 1024 * 1024;

/// Where the key set comes from.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Url(reqwest::Client, url::Url),
}

/// One verification key with the only algorithm that it is good for.
#[expect(missing_debug_implementations, reason = "keys do not belong in logs")]
pub struct Key {
    id: Option<String>,
    /// Its algorithm, from the key itself.
    pub algorithm: Algorithm,
    /// Its material.
    pub key: DecodingKey,
}

/// A key set at one moment.
#[expect(missing_debug_implementations, reason = "keys do not belong in logs")]
pub struct KeySet {
    generation: u64,
    keys: Vec<Key>,
}

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("failed to read the key set")]
    Read(#[from] std::io::Error),
    /// The URL did not answer.
    #[error("failed to fetch the key set")]
    Fetch(#[from] reqwest::Error),
    /// Longer than a key set can be.
    #[error("the key set is longer than 1 MiB")]
    TooLong,
    /// Not a JWKS.
    #[error("the key set is malformed")]
    Malformed(#[from] serde_json::Error),
    /// Nothing in it can verify a token.
    #[error("the key set holds no RS256, ES256 or EdDSA key")]
    Empty,
}

/// The key set of now.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    current: RwLock<Arc<KeySet>>,
    raw: Mutex<Vec<u8>>,
    refreshing: tokio::sync::Mutex<Option<Instant>>,
}

impl KeySet {
    /// Rises with every change of the key set.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The key with this id; without an id, the only key.
    #[must_use]
    pub fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    fn parse(bytes: &[u8], generation: u64) -> Result<Self, KeyError> {
        let set: JwkSet = serde_json::from_slice(bytes)?;
        let keys: Vec<Key> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            Err(KeyError::Empty)
        } else {
            Ok(Self { generation, keys })
        }
    }
}

/// A key that can verify tokens here, or nothing. Symmetric keys never can.
fn usable(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(parameters)
            if parameters.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(parameters)
            if parameters.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let said = jwk.common.key_algorithm;
    let agrees = match (said, algorithm) {
        (None, _)
        | (Some(KeyAlgorithm::RS256), Algorithm::RS256)
        | (Some(KeyAlgorithm::ES256), Algorithm::ES256)
        | (Some(KeyAlgorithm::EdDSA), Algorithm::EdDSA) => true,
        (Some(_), _) => false,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    agrees.then(|| Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key,
    })
}

impl Keys {
    /// Reads the key set for the first time.
    ///
    /// # Errors
    /// It cannot be had or holds no usable key.
    pub async fn open(source: &str) -> Result<Self, KeyError> {
        let source = match url::Url::parse(source) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                let client = reqwest::Client::builder()
                    .timeout(FETCH_WITHIN)
                    .redirect(reqwest::redirect::Policy::none())
                    .build()?;
                Source::Url(client, url)
            }
            _ => Source::File(source.into()),
        };
        let raw = source.read().await?;
        let current = KeySet::parse(&raw, 0)?;
        let inner = Inner {
            source,
            current: RwLock::new(Arc::new(current)),
            raw: Mutex::new(raw),
            refreshing: tokio::sync::Mutex::new(None),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The key set of now.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.inner
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the key set anew, unless that was done in the last 30 seconds.
    ///
    /// # Errors
    /// It cannot be had; the old one stays in use.
    pub async fn refresh_for_unknown_key(&self) -> Result<Arc<KeySet>, KeyError> {
        // Callers with unknown keys wait for the one refresh that helps them all.
        let mut last = self.inner.refreshing.lock().await;
        if last.is_none_or(|last| last.elapsed() >= UNKNOWN_KEY_REFRESH) {
            *last = Some(Instant::now());
            self.refresh().await?;
        }
        Ok(self.current())
    }

    /// Keeps the key set fresh for ever.
    pub async fn keep_fresh(self) {
        let mut tick = tokio::time::interval(REFRESH_EVERY);
        tick.tick().await;
        loop {
            tick.tick().await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to refresh the key set"
                );
            }
        }
    }

    async fn refresh(&self) -> Result<(), KeyError> {
        let raw = self.inner.source.read().await?;
        let mut old = self
            .inner
            .raw
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *old != raw {
            let mut current = self
                .inner
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(KeySet::parse(&raw, current.generation + 1)?);
            *old = raw;
            tracing::info!(generation = current.generation, "key set changed");
        }
        Ok(())
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::File(path) => {
                let bytes = tokio::fs::read(path).await?;
                if bytes.len() <= SET_BYTES {
                    Ok(bytes)
                } else {
                    Err(KeyError::TooLong)
                }
            }
            Self::Url(client, url) => {
                let response = client.get(url.clone()).send().await?.error_for_status()?;
                let mut stream = response.bytes_stream();
                let mut bytes = vec![];
                while let Some(part) = stream.next().await {
                    bytes.extend_from_slice(&part?);
                    if bytes.len() > SET_BYTES {
                        return Err(KeyError::TooLong);
                    }
                }
                Ok(bytes)
            }
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("generation", &self.current().generation)
            .finish()
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tokens are checked by a library that reads this clock"
)]
mod tests;

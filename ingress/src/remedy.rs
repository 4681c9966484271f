//! What an operator does about errors that only an ingress has. All others are in [`process::remedy`].

use process::remedy::{HasRemedy, Known, Remedy, known};

use crate::{auth::keys::KeyError, config::ClusterKeyError, tls::CertificateError};

/// The types of these errors.
pub const KNOWN: &[Known] = &[
    known::<ClusterKeyError>,
    known::<KeyError>,
    known::<CertificateError>,
];

impl HasRemedy for ClusterKeyError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(..) => Some(Remedy::ClusterKeyFile),
            Self::Malformed(..) => Some(Remedy::ClusterKey),
            // Its text says it.
            Self::Readable(_) => None,
        }
    }
}

impl HasRemedy for KeyError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(_) | Self::Fetch(_) => Some(Remedy::KeySetSource),
            Self::TooLong | Self::Malformed(_) | Self::Empty => Some(Remedy::KeySetContent),
        }
    }
}

impl HasRemedy for CertificateError {
    fn remedy(&self) -> Option<Remedy> {
        Some(Remedy::Certificate)
    }
}

#[cfg(test)]
mod tests {
    use process::remedy::of;

    use super::*;

    #[test]
    fn an_error_of_an_ingress_alone_has_a_remedy() {
        let error = anyhow::Error::new(KeyError::Empty).context("failed to open the key set");
        assert_eq!(of(&error, KNOWN), Some(Remedy::KeySetContent));
    }
}

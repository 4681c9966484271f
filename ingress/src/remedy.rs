//! What an operator does about an ingress that does not start.

use fleet::FleetFailure;
use process::log::LogError;
use routing::bus::{AuthError, BusError, rights::RightsError};
use store::OpenError;

use crate::{auth::keys::KeyError, config::ConfigError, tls::CertificateError};

/// What to do about the first cause that is known; nothing where the text says it already.
#[must_use]
pub fn of(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(of_one)
}

fn of_one(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    fn known<'a, T: std::error::Error + 'static>(
        cause: &'a (dyn std::error::Error + 'static),
        remedy: impl FnOnce(&'a T) -> Option<&'static str>,
    ) -> Option<&'static str> {
        cause.downcast_ref().and_then(remedy)
    }
    known(cause, LogError::remedy)
        .or_else(|| known(cause, AuthError::remedy))
        .or_else(|| known(cause, BusError::remedy))
        .or_else(|| known(cause, RightsError::remedy))
        .or_else(|| known(cause, OpenError::remedy))
        .or_else(|| known(cause, of_fleet))
        .or_else(|| known(cause, of_configuration))
        .or_else(|| known(cause, of_keys))
        .or_else(|| known(cause, of_certificates))
        .or_else(|| known(cause, of_listening))
}

fn of_fleet(error: &FleetFailure) -> Option<&'static str> {
    match error {
        FleetFailure::Store(_) => {
            Some("check that --store can be reached and that its credentials may read `fleet/`")
        }
        FleetFailure::Bus(_) => Some(
            "start the servers of --nats with JetStream, and give this process's user the rights of \
             infra/nats/hearth.conf.template",
        ),
        // Its text says it.
        FleetFailure::OtherStore(_) => None,
    }
}

fn of_configuration(error: &ConfigError) -> Option<&'static str> {
    match error {
        ConfigError::Read(..) => Some("give the path of a file that this process can read"),
        ConfigError::Pools { .. } => Some("the README describes every field of a pool"),
        ConfigError::ClusterKey(..) => Some(
            "give --cluster-key a file with 64 hexadecimal digits, the same for every ingress of the fleet",
        ),
        _ => None,
    }
}

fn of_keys(error: &KeyError) -> Option<&'static str> {
    match error {
        KeyError::Read(_) | KeyError::Fetch(_) => {
            Some("give --jwks a file or a URL that this process can read now")
        }
        KeyError::TooLong | KeyError::Malformed(_) | KeyError::Empty => {
            Some("give --jwks the key set (JWKS) of whoever issues tokens")
        }
    }
}

fn of_certificates(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::Use { .. } => Some(
            "give --tls-cert a certificate chain (PEM) and --tls-key the private key (PEM) that belongs to it",
        ),
    }
}

/// An address that is taken shows as nothing but its number.
pub(crate) fn of_listening(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Some(
            "another process listens there: end it or give --listen, --tls-listen or --admin-listen another address",
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            Some("give --listen, --tls-listen and --admin-listen addresses that this host has")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_remedy_is_found_behind_what_was_being_done() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let error = anyhow::Error::new(taken).context("failed to listen at 127.0.0.1:1");
        assert!(of(&error).unwrap().contains("--listen"));
        let error = anyhow::Error::new(KeyError::Empty).context("key set");
        assert!(of(&error).unwrap().contains("--jwks"));
    }

    #[test]
    fn what_is_not_known_gets_no_advice() {
        assert_eq!(of(&anyhow::anyhow!("odd")), None);
        assert_eq!(of(&io::Error::other("odd").into()), None);
    }
}

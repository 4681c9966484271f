//! The certificate of the HTTPS listener: whether it fits its key, and for how long it is good.

use std::path::Path;

use axum_server::tls_rustls::RustlsConfig;
use process::{
    preflight::{Finding, Outcome},
    remedy::Remedy,
};
use proto::ambient::WallClock;
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use crate::config::Config;

const CERTIFICATE: &str = "certificate";

/// Time to renew a certificate in.
const SOON: Duration = Duration::days(14);

const RENEW: &str = "renew it, and send the process SIGHUP if it runs";

/// What is to be said of it; nothing where HTTPS is not served.
pub(super) async fn look(config: &Config, clock: &WallClock) -> Option<Finding> {
    config.tls_listen?;
    let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Some(Finding::warn(
            CERTIFICATE,
            "HTTPS with a self-signed certificate that is made at every start",
            "give --tls-cert and --tls-key: it is for development only",
        ));
    };
    Some(match RustlsConfig::from_pem_file(certificate, key).await {
        Err(error) => Finding::fail(
            CERTIFICATE,
            format!("{} and {}: {error}", certificate.display(), key.display()),
            Remedy::Certificate,
        ),
        Ok(_) => match validity(certificate) {
            Ok(validity) => judge(validity, clock.now().into()),
            Err(error) => Finding::fail(CERTIFICATE, error, "give a chain of X.509 certificates"),
        },
    })
}

/// What is wrong with the dates of this chain today; nothing of one that cannot be read.
pub(crate) fn trouble(chain: &Path, clock: &WallClock) -> Option<String> {
    let validity = validity(chain).ok()?;
    let finding = judge(validity, clock.now().into());
    let remedy = finding.remedy.unwrap_or_default();
    (finding.outcome != Outcome::Ok).then(|| format!("{}: {remedy}", finding.what))
}

/// From when until when something is good.
type Validity = (OffsetDateTime, OffsetDateTime);

/// The time in which every certificate of a chain is good.
fn validity(chain: &Path) -> Result<Validity, String> {
    let text = std::fs::read(chain).map_err(|error| error.to_string())?;
    let mut whole: Option<Validity> = None;
    for block in Pem::iter_from_buffer(&text) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block.parse_x509().map_err(|error| error.to_string())?;
        let one = certificate.validity();
        let (from, until) = (one.not_before.to_datetime(), one.not_after.to_datetime());
        let (first, last) = whole.unwrap_or((from, until));
        whole = Some((first.max(from), last.min(until)));
    }
    whole.ok_or_else(|| "no certificate is in it".to_owned())
}

fn judge((from, until): Validity, now: OffsetDateTime) -> Finding {
    let date = until.date();
    if now < from {
        Finding::fail(
            CERTIFICATE,
            format!("is not good before {from}"),
            "set the host's clock, or wait",
        )
    } else if now > until {
        Finding::fail(CERTIFICATE, format!("expired on {date}"), RENEW)
    } else if until - now < SOON {
        let days = (until - now).whole_days();
        let what = format!("expires on {date}, in {days} days");
        Finding::warn(CERTIFICATE, what, RENEW)
    } else {
        Finding::ok(CERTIFICATE, format!("fits its key, good until {date}"))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_dates() {
        let validity = (
            datetime!(2026-01-01 00:00:00 UTC),
            datetime!(2026-12-31 00:00:00 UTC),
        );
        for (now, outcome) in [
            (datetime!(2025-12-31 23:59:59 UTC), Outcome::Fail),
            (datetime!(2026-06-01 00:00:00 UTC), Outcome::Ok),
            (datetime!(2026-12-17 00:00:00 UTC), Outcome::Ok),
            (datetime!(2026-12-17 00:00:01 UTC), Outcome::Warn),
            (datetime!(2026-12-31 00:00:01 UTC), Outcome::Fail),
        ] {
            assert_eq!(judge(validity, now).outcome, outcome, "{now}");
        }
    }

    #[test]
    fn the_shortest_life_of_a_chain_counts() {
        let made = |from, until| {
            let mut parameters = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            (parameters.not_before, parameters.not_after) = (from, until);
            let key = rcgen::KeyPair::generate().unwrap();
            parameters.self_signed(&key).unwrap().pem()
        };
        let (early, late) = (
            datetime!(2026-01-01 00:00:00 UTC),
            datetime!(2026-02-01 00:00:00 UTC),
        );
        let chain = made(early, late + Duration::DAY) + &made(early + Duration::DAY, late);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), chain).unwrap();
        assert_eq!(
            validity(file.path()).unwrap(),
            (early + Duration::DAY, late)
        );
        std::fs::write(file.path(), "nothing").unwrap();
        assert!(validity(file.path()).is_err());
    }
}

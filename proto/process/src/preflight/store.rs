//! The object store as a process will meet it.

use std::time::Duration;

use proto::ambient::Ids;
use store::{ProbeError, Store};
use tokio::time::timeout;

use super::{Finding, Outcome};

const STORE: &str = "store";

/// Longest look.
const WITHIN: Duration = Duration::from_secs(60);

/// Writes, reads, lists and deletes small objects, and tries that only one of many creators of a key
/// succeeds. A directory that is not there is not made. With the finding comes the store, if it can be used.
pub async fn look(address: &str, ids: &Ids) -> (Finding, Option<Store>) {
    if let Some(directory) = Store::directory_to_make(address) {
        let finding = Finding::warn(
            STORE,
            format!("directory {} is not there", directory.display()),
            "mount it if it should be; a start makes it, empty",
        );
        return (finding, None);
    }
    match Store::open(address, ids.clone()) {
        Ok(store) => {
            let finding = of_probe(timeout(WITHIN, store.probe()).await.ok());
            let usable = finding.outcome == Outcome::Ok;
            (finding, usable.then_some(store))
        }
        Err(error) => (Finding::refused(STORE, &error), None),
    }
}

fn of_probe(probed: Option<Result<(), ProbeError>>) -> Finding {
    match probed {
        Some(Ok(())) => Finding::ok(
            STORE,
            "takes, gives, lists and deletes objects; conditional creates hold",
        ),
        Some(Err(error)) => Finding::refused(STORE, &error),
        None => Finding::fail(
            STORE,
            format!("no answer within {WITHIN:?}"),
            "check its address and the network",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store");
        let address = format!("file://{}", place.display());
        assert_eq!(
            look(&address, &Ids::random()).await.0.outcome,
            Outcome::Warn
        );
        assert!(!place.exists());
        std::fs::create_dir(&place).unwrap();
        assert_eq!(look(&address, &Ids::random()).await.0.outcome, Outcome::Ok);
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_fails() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("probe"), b"").unwrap();
        let address = format!("file://{}", directory.path().display());
        let (finding, store) = look(&address, &Ids::random()).await;
        assert!(store.is_none());
        assert_eq!(finding.outcome, Outcome::Fail, "{finding:?}");
        assert_eq!(look("s3:/", &Ids::random()).await.0.outcome, Outcome::Fail);
    }
}

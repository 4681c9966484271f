//! How often the store did not do as asked, for metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::StoreError;

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Write an object.
    Put,
    /// Read one.
    Get,
    /// List objects.
    List,
    /// Delete some.
    Delete,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Put, Self::Get, Self::List, Self::Delete];

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// Requests that failed, by operation. All clones count together.
#[derive(Clone, Debug, Default)]
pub struct Errors(Arc<[AtomicU64; Operation::ALL.len()]>);

impl Errors {
    /// Names of the operations, and how many requests of each failed. An object that is not there, or is there
    /// already, is an answer.
    #[must_use]
    pub fn by_operation(&self) -> [(&'static str, u64); Operation::ALL.len()] {
        Operation::ALL.map(|operation| {
            let count = self.counter(operation).load(Ordering::Relaxed);
            (operation.name(), count)
        })
    }

    /// Counts a result if it is the store's failure, and passes it on.
    pub(crate) fn count<T>(
        &self,
        operation: Operation,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Err(StoreError::Store(_) | StoreError::Slow) = &result {
            self.note(operation);
        }
        result
    }

    /// Counts a failure.
    pub(crate) fn note(&self, operation: Operation) {
        self.counter(operation).fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, operation: Operation) -> &AtomicU64 {
        let [put, get, list, delete] = &*self.0;
        match operation {
            Operation::Put => put,
            Operation::Get => get,
            Operation::List => list,
            Operation::Delete => delete,
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ambient::Ids;

    use crate::Store;

    #[tokio::test]
    async fn what_the_store_fails_at_is_counted_by_operation() {
        let directory = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(directory.path()).unwrap();
        let store = Store::open(url.as_str(), Ids::random()).unwrap();
        let missing = object_store::path::Path::from("none");
        assert!(store.get(&missing, 1).await.unwrap().is_none());
        assert!(store.errors().by_operation().iter().all(|(_, n)| *n == 0));
        // A file where a directory is needed.
        std::fs::write(directory.path().join("file"), b"").unwrap();
        let below = object_store::path::Path::from("file/below");
        for _ in 0..2 {
            store.put(&below, "x".into()).await.unwrap_err();
        }
        let expected = [("put", 2), ("get", 0), ("list", 0), ("delete", 0)];
        assert_eq!(store.errors().by_operation(), expected);
    }
}

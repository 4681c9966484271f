//! The kinds of object stores that the same tests run on. Servers are shared by all tests of the binary.

use std::sync::OnceLock;

use loadtest::{
    cluster::{Cluster, ClusterBuilder},
    object_server::ObjectServer,
};

/// Where a stack's objects are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ObjectStore {
    /// A directory of the stack's own.
    Directory,
    /// moto, a server of the S3 protocol.
    S3,
    /// Azurite, a server of the protocol of Azure Blob Storage.
    Azure,
}

impl ObjectStore {
    /// A stack over a part of the store that no other stack has.
    pub(crate) fn builder(self) -> ClusterBuilder {
        static S3: OnceLock<ObjectServer> = OnceLock::new();
        static AZURE: OnceLock<ObjectServer> = OnceLock::new();
        let (server, kind) = match self {
            Self::Directory => return Cluster::builder(),
            Self::S3 => (&S3, "moto"),
            Self::Azure => (&AZURE, "azurite"),
        };
        let server = server.get_or_init(|| ObjectServer::start(kind).unwrap());
        let (url, environment) = server.part();
        Cluster::builder().store_url(url, environment)
    }
}

/// Makes each of these functions, which take the kind of object store, a test on every kind.
macro_rules! on_every_object_store {
    ($($test:ident),+ $(,)?) => {
        mod on_a_directory {
            use crate::object_store::ObjectStore;
            $(#[tokio::test] async fn $test() { super::$test(ObjectStore::Directory).await; })+
        }
        mod on_s3 {
            use crate::object_store::ObjectStore;
            $(#[tokio::test] async fn $test() { super::$test(ObjectStore::S3).await; })+
        }
        mod on_azure {
            use crate::object_store::ObjectStore;
            $(#[tokio::test] async fn $test() { super::$test(ObjectStore::Azure).await; })+
        }
    };
}
pub(crate) use on_every_object_store;

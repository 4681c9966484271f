//! Real stores, a directory, Azurite and moto, and the model of one. Servers are shared by all tests of the binary.

use std::sync::{Arc, OnceLock};

use loadtest::object_server::ObjectServer;
use proto::ambient::Ids;

use crate::Store;

/// A store for one test.
pub(super) struct Opened {
    pub(super) store: Store,
    _directory: Option<tempfile::TempDir>,
}

/// A new directory.
pub(super) fn local() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    Opened {
        store: Store::open(&url, Ids::random()).unwrap(),
        _directory: Some(directory),
    }
}

/// The model that simulations have.
pub(super) fn model() -> Opened {
    let objects = store_model::Objects::default();
    Opened {
        store: Store::over(Arc::new(objects.connect(1)), Ids::random()),
        _directory: None,
    }
}

pub(super) fn azurite() -> Opened {
    static SERVER: OnceLock<ObjectServer> = OnceLock::new();
    part_of(SERVER.get_or_init(|| ObjectServer::start("azurite").unwrap()))
}

pub(super) fn moto() -> Opened {
    static SERVER: OnceLock<ObjectServer> = OnceLock::new();
    part_of(SERVER.get_or_init(|| ObjectServer::start("moto").unwrap()))
}

fn part_of(server: &ObjectServer) -> Opened {
    let (url, environment) = server.part();
    Opened {
        store: Store::open_with(&url, environment, Ids::random()).unwrap(),
        _directory: None,
    }
}

//! Real stores: a directory, Azurite and moto. Servers are shared by all tests of the binary.

use std::sync::OnceLock;

use loadtest::object_server::ObjectServer;

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
        store: Store::open(&url).unwrap(),
        _directory: Some(directory),
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
        store: Store::open_with(&url, environment).unwrap(),
        _directory: None,
    }
}

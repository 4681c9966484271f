//! `worker check`: looks at this host and the settings of a worker without starting one. It takes no lock,
//! sweeps nothing and makes no stream, so that it may run beside a worker of the same id.

mod demand;
mod host;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use process::{
    failure::causes,
    preflight::{Finding, Preflight, bus, store},
};
use proto::{pool::Pools, subject};
use routing::bus::rights;
use ulid::Ulid;

pub use demand::{TooLittleMemory, require_memory};

use crate::{config::Config, remedy, sandbox};

const POOLS: &str = "pools";
const ROOT: &str = "root";
const IMAGE: &str = "image";
const LIBRARY: &str = "zygote-library";
const DIRECTORIES: &str = "directories";
const PORTS: &str = "ports";

/// Where the superblock of an erofs image begins, and how.
const EROFS: (usize, [u8; 4]) = (1024, 0xE0F5_E1E2_u32.to_le_bytes());

/// Everything that can be known of them before a start. Changes nothing but some small objects in the
/// store, which it removes again.
pub async fn look(config: &Config) -> Preflight {
    let mut findings = vec![];
    let sandbox = config.sandbox();
    findings.push(match sandbox::require_root() {
        Ok(()) => Finding::ok(ROOT, "this process is root"),
        Err(error) => refused(ROOT, error),
    });
    findings.extend(host::look());
    findings.push(sandbox::host::cgroups());
    findings.push(sandbox::host::loops());
    findings.push(sandbox::host::uids(config.max_sessions));
    let pools = config.read_pools();
    findings.push(match &pools {
        Ok(Pools { pool }) if pool.is_empty() => Finding::warn(
            POOLS,
            format!("{} holds no pool", config.pools.display()),
            "add a [[pool]]: without one this worker has nothing to do",
        ),
        Ok(Pools { pool }) => Finding::ok(POOLS, format!("pools: {}", pool.len())),
        Err(error) => Finding::fail(
            POOLS,
            causes(error),
            remedy::of_configuration(error).unwrap_or_default(),
        ),
    });
    if let Ok(pools) = &pools {
        findings.extend(demand::look(pools, config.max_sessions));
    }
    findings.push(image(&sandbox.image));
    findings.push(library(&sandbox.zygote_library));
    findings.push(directories(&[sandbox.state_dir, sandbox.data_dir]));
    findings.extend(
        config
            .admin_listen
            .map(|address| match TcpListener::bind(address) {
                Ok(_) => Finding::ok(PORTS, "free"),
                Err(error) => {
                    let what = format!("failed to listen at {address}: {error}");
                    Finding::fail(
                        PORTS,
                        what,
                        remedy::of_listening(&error).unwrap_or_default(),
                    )
                }
            }),
    );
    // Another name than that of a worker that may be running.
    let inbox = format!("_INBOX_worker.check-{}", Ulid::new());
    let visitor = bus::Visitor {
        servers: &config.nats,
        auth: &config.nats_auth,
        inbox: &inbox,
        rights: rights::WORKER,
        stream: subject::WORKERS_STREAM,
    };
    findings.extend(bus::look(visitor).await);
    findings.push(store::look(&config.store).await);
    Preflight::of(findings)
}

fn refused(name: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Finding {
    let what = causes(&error);
    Finding::fail(name, what, remedy::of(&error.into()).unwrap_or_default())
}

fn image(path: &Path) -> Finding {
    let remedy = "give --image the session image that `make image` made";
    let mut head = vec![0; EROFS.0 + EROFS.1.len()];
    let read = fs::File::open(path).and_then(|file| {
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0)?;
        file.metadata()
    });
    match read {
        Ok(file) if is_erofs(&head) => {
            let mebibytes = file.len() >> 20;
            Finding::ok(IMAGE, format!("erofs, {mebibytes} MiB"))
        }
        Ok(_) => Finding::fail(
            IMAGE,
            format!("{} is not an erofs image", path.display()),
            remedy,
        ),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Finding::fail(
            IMAGE,
            format!("{} is not an erofs image", path.display()),
            remedy,
        ),
        Err(error) => Finding::fail(IMAGE, format!("{}: {error}", path.display()), remedy),
    }
}

fn is_erofs(head: &[u8]) -> bool {
    head.get(EROFS.0..)
        .is_some_and(|rest| rest.starts_with(&EROFS.1))
}

fn library(path: &Path) -> Finding {
    match fs::read(path) {
        Ok(bytes) if bytes.starts_with(b"\x7fELF") => Finding::ok(LIBRARY, "it is there"),
        Ok(_) => Finding::fail(
            LIBRARY,
            format!("{} is no library", path.display()),
            "give --zygote-library the libzygote.so of the worker's own build",
        ),
        Err(error) => Finding::fail(
            LIBRARY,
            format!("{}: {error}", path.display()),
            "put libzygote.so beside the worker, or give --zygote-library its path",
        ),
    }
}

/// Directories that are not there are made at the start, so the nearest that is there counts.
fn directories(directories: &[PathBuf]) -> Finding {
    for directory in directories {
        let there = directory.ancestors().find(|one| one.exists());
        let there = there.unwrap_or_else(|| Path::new("/"));
        let access = rustix::fs::access(there, rustix::fs::Access::WRITE_OK);
        if let Err(error) = access {
            return Finding::fail(
                DIRECTORIES,
                format!("{} cannot be written: {error}", there.display()),
                "give --state-dir and --data-dir directories that root can write",
            );
        }
        if !there.is_dir() {
            return Finding::fail(
                DIRECTORIES,
                format!("{} is not a directory", there.display()),
                "give --state-dir and --data-dir directories",
            );
        }
    }
    Finding::ok(DIRECTORIES, "can be written")
}

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    #[test]
    fn an_image_is_known_by_its_superblock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let outcome = |bytes: &[u8]| {
            fs::write(file.path(), bytes).unwrap();
            image(file.path()).outcome
        };
        assert_eq!(outcome(b"short"), Outcome::Fail);
        let mut bytes = vec![0; 4096];
        assert_eq!(outcome(&bytes), Outcome::Fail);
        bytes.splice(1024..1028, [0xE2, 0xE1, 0xF5, 0xE0]);
        assert_eq!(outcome(&bytes), Outcome::Ok);
        assert_eq!(image(Path::new("/none")).outcome, Outcome::Fail);
    }

    #[test]
    fn a_directory_below_a_file_cannot_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = [file.path().join("state")];
        assert_eq!(directories(&below).outcome, Outcome::Fail);
        let directory = tempfile::tempdir().unwrap();
        let below = [directory.path().join("a/b")];
        assert_eq!(directories(&below).outcome, Outcome::Ok);
        assert!(!directory.path().join("a").exists());
    }
}

//! `worker check`: looks at this host and the settings of a worker without starting one. It takes no lock,
//! sweeps nothing and makes no stream, so that it may run beside a worker of the same id.

mod demand;
mod host;
mod id;

use std::{fs, path::Path};

use process::{
    failure::causes,
    preflight::{
        Finding, Preflight, ports,
        visit::{self, Visitor},
    },
    remedy::Remedy,
};
use proto::pool::Pools;
use records::execution::Stamps;
use routing::{bus::Bus, disagreement};

pub use demand::{TooLittleMemory, require_memory};

use crate::{config::Config, sandbox};

const POOLS: &str = "pools";
const ROOT: &str = "root";
const IMAGE: &str = "image";
const LIBRARY: &str = "zygote-library";
const DIRECTORIES: &str = "directories";

/// Where the superblock of an erofs image begins, and how.
const EROFS: (usize, [u8; 4]) = (1024, 0xE0F5_E1E2_u32.to_le_bytes());

/// Everything that can be known of them before a start. Changes nothing but some small objects in the
/// store, which it removes again.
pub async fn look(config: &Config) -> Preflight {
    let stamps = Stamps::real();
    let visit = visit::look(&config.fleet, Visitor::Worker, &stamps).await;
    let mut findings = vec![];
    let sandbox = config.sandbox();
    findings.push(match sandbox::require_root() {
        Ok(()) => Finding::ok(ROOT, "this process is root"),
        Err(error) => Finding::refused(ROOT, &error),
    });
    findings.extend(host::look());
    findings.push(sandbox::host::cgroups());
    findings.push(sandbox::host::loops());
    findings.push(sandbox::host::uids(config.max_sessions));
    let pools = config.fleet.read_pools();
    findings.push(match &pools {
        Ok(pools) => known_alike(pools, visit.reached_bus()).await,
        Err(error) => Finding::refused(POOLS, error),
    });
    if let Ok(pools) = &pools {
        findings.extend(demand::look(pools, config.max_sessions));
    }
    findings.push(image(&sandbox.image));
    findings.push(library(&sandbox.zygote_library));
    findings.push(directories(&sandbox));
    if let Some(address) = config.admin.admin_listen {
        let held = ports::answers_as_hearth;
        findings.push(ports::look(&[address], held).await);
    }
    findings.extend(visit.bus);
    if let Some((client, _)) = &visit.connection {
        findings.push(id::look(client, &config.id, &stamps.ids).await);
    }
    findings.push(visit.store);
    findings.push(visit.fleet);
    Preflight::of(findings)
}

fn image(path: &Path) -> Finding {
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
            Remedy::Image,
        ),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Finding::fail(
            IMAGE,
            format!("{} is not an erofs image", path.display()),
            Remedy::Image,
        ),
        Err(error) => Finding::fail(IMAGE, format!("{}: {error}", path.display()), Remedy::Image),
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

/// Whether other workers and the ingresses know these pools as this worker does.
async fn known_alike(pools: &Pools, bus: Option<&Bus>) -> Finding {
    let (workers, ingresses) = match bus {
        Some(bus) => (
            bus.workers().await.unwrap_or_default(),
            bus.known_pools().await.unwrap_or_default(),
        ),
        None => Default::default(),
    };
    let wrong = disagreement::Own::from(pools).with_others(&workers, &ingresses);
    if wrong.is_empty() {
        Finding::ok(POOLS, format!("pools: {}", pools.pool.len()))
    } else {
        Finding::warn(POOLS, wrong.join("; "), Remedy::PoolsDiffer)
    }
}

/// Directories that are not there are made at the start, so the nearest that is there counts. Those that are
/// there must be this worker's to empty.
fn directories(config: &sandbox::Config) -> Finding {
    for directory in [&config.state_dir, &config.data_dir] {
        let there = directory.ancestors().find(|one| one.exists());
        let there = there.unwrap_or_else(|| Path::new("/"));
        let access = rustix::fs::access(there, rustix::fs::Access::WRITE_OK);
        if let Err(error) = access {
            return Finding::fail(
                DIRECTORIES,
                format!("{} cannot be written: {error}", there.display()),
                Remedy::Directories,
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
    match config.inspect_directories() {
        Ok(()) => Finding::ok(DIRECTORIES, "this worker's own, and can be written"),
        Err(error) => Finding::fail(
            DIRECTORIES,
            causes(&error),
            "give --state-dir and --data-dir directories that are empty or this worker's own",
        ),
    }
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

    fn of(directory: &Path, owner: &str) -> sandbox::Config {
        let id = owner.parse().unwrap();
        let mut config = sandbox::Config::new(id, "/none/image".into(), "/none/library".into());
        config.state_dir = directory.join("state");
        config.data_dir = directory.join("data");
        config
    }

    #[test]
    fn a_directory_below_a_file_cannot_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = of(file.path(), "w1");
        assert_eq!(directories(&below).outcome, Outcome::Fail);
        let directory = tempfile::tempdir().unwrap();
        let below = of(&directory.path().join("a"), "w1");
        assert_eq!(directories(&below).outcome, Outcome::Ok);
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn a_directory_that_is_not_this_workers_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let config = of(directory.path(), "w1");
        fs::create_dir(&config.data_dir).unwrap();
        let marker = config.data_dir.join(".hearth-worker");
        fs::write(&marker, "fleet = \"\"\nworker = \"w1\"\n").unwrap();
        assert_eq!(directories(&config).outcome, Outcome::Ok);
        let finding = directories(&of(directory.path(), "w2"));
        assert_eq!(finding.outcome, Outcome::Fail);
        fs::rename(marker, config.data_dir.join("backup")).unwrap();
        let finding = directories(&config);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(finding.what.contains("backup"), "{finding:?}");
    }
}

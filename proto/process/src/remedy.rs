//! What an operator does about a process that does not start: all of it, in one list. The last words of a
//! process ([`crate::failure`]) and the findings of `check` ([`crate::preflight`]) take it from here. What only
//! `check` can find has its advice beside it, often with figures of the host.

use std::{error::Error, io};

use async_nats::ConnectErrorKind;
use fleet::FleetFailure;
use routing::bus::{AuthError, BusError, ConnectError, rights::RightsError};
use store::{OpenError, ProbeError};

use crate::{log::LogError, settings::PoolsError};

macro_rules! remedies {
    ($($name:ident: $text:literal,)*) => {
        /// Something that an operator can do; its name says about what.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Remedy {
            $(#[doc = $text] $name,)*
        }

        impl Remedy {
            /// All that there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What an operator is told.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

remedies! {
    // Settings.
    LogFilter: "give --log a level (error, warn, info, debug, trace, off) or pairs TARGET=LEVEL, separated by commas",
    LogFilterFile: "make the file of --log-filter-file readable",
    PoolFile: "give --pools the pool file, readable by this process",
    PoolFileSyntax: "docs/settings.md describes every field of a pool",
    PoolsDiffer: "compare --pools of ingresses and workers",
    AddressTaken: "another process listens there: end it, or give --admin-listen (of an ingress also --listen or --tls-listen) another address",
    AddressForeign: "give --admin-listen (of an ingress also --listen and --tls-listen) an address that this host has",

    // The bus.
    BusAuthFile: "give --nats-auth a file that this process can read",
    BusAuthContent: "write `user:password` into it and `chmod 600` it",
    BusCredentials: "put the user and password of the server's configuration into the file of --nats-auth",
    BusAddress: "give --nats the addresses of the servers, such as nats://10.0.0.1:4222",
    BusSilent: "start nats-server there, or give --nats the addresses where it is",
    BusTooOld: "upgrade nats-server",
    BusWithoutJetStream: "turn JetStream on in the configuration of nats-server, as in infra/nats/hearth.conf.template",
    BusRights: "give this process's user the rights of infra/nats/hearth.conf.template",
    BusFirst: "mend the bus first",

    // The object store, and the fleet that store and bus make.
    StoreAddress: "give --store file:///DIRECTORY, s3://BUCKET, az://CONTAINER or gs://BUCKET",
    StoreDirectory: "give --store a directory that this process can make or write",
    StoreCredentials: "set the credentials in the environment: AWS_…, AZURE_… or GOOGLE_…, as docs/settings.md says",
    StoreConditionalWrites: "use a local directory, Amazon S3, Azure Blob Storage, Google Cloud Storage, or a server that honours it",
    FleetInStore: "check that --store can be reached and that its credentials may read `fleet/`, and write it for a worker",
    FleetOnBus: "start the servers of --nats with JetStream, and give this process's user the rights of infra/nats/hearth.conf.template",

    // An ingress.
    ClusterKeyFile: "give --cluster-key a file that this process can read",
    ClusterKey: "give --cluster-key a file with 64 hexadecimal digits, the same for every ingress of the fleet",
    ClusterKeyOfFleet: "give --cluster-key the fleet's key",
    KeySetSource: "give --jwks a file or a URL that this process can read now",
    KeySetContent: "give --jwks the key set (JWKS) of whoever issues tokens",
    Certificate: "give --tls-cert a certificate chain (PEM) and --tls-key the private key (PEM) that belongs to it",

    // A worker.
    NotRoot: "start the worker as root, as a system service for example",
    Directories: "give --state-dir and --data-dir directories that root can write",
    UidDirectory: "let root write /run/hearth",
    TooManyWorkers: "run fewer workers on this host, with more --max-sessions each",
    Cgroups: "mount cgroups writable with the controllers memory, pids and cpu (a container needs --privileged or a delegated hierarchy)",
    CgroupDelegation: "give the worker's cgroup the controllers memory, pids and cpu, with its processes in a group inside it (systemd: Delegate=yes)",
    Image: "give --image the session image that `make image` made",
    ImageMount: "give --image the session image that `make image` made, an erofs file, and have the kernel support erofs (`modprobe erofs`)",
    WorkerMemory: "give it 400 MiB (192 MiB at the very least); sessions have control groups of their own",
    ZygoteMemory: "give the worker more memory than its zygote needs, about 400 MiB besides its sessions' limits",
    ZygoteBuild: "its own words are above; --zygote-library and --image must be of one build",
    WorkerCheck: "`worker check` looks at what the host must have",
    SessionMemory: "give the pools' sessions more memory (limits.memory_bytes), or the host",
    LoopModule: "load the kernel module `loop`; a container needs the host's /dev/loop-control and the right to use block devices of major number 7",
    LoopDevices: "detach loop devices that are not used (`losetup -D`)",
    LoopForVolume: "load the kernel module `loop`, or detach loop devices that are not used",
    Mkfs: "install mkfs.ext4 (package e2fsprogs)",
    DataDiskFull: "make room on the disk of --data-dir",
    MachineryFailed: "its own words are above; look at the kernel's log for lack of memory, and start the worker again",
    IdTakenOver: "stop one of both, or give it another `--id`, and look for what cuts this host off",
}

impl AsRef<str> for Remedy {
    fn as_ref(&self) -> &str {
        self.text()
    }
}

/// An error about which an operator can do something.
pub trait HasRemedy: Error + 'static {
    /// What; nothing where the error's text says it already, or nobody knows.
    fn remedy(&self) -> Option<Remedy>;
}

/// Looks for the remedy of errors of one type: [`known`] of that type.
pub type Known = fn(&(dyn Error + 'static)) -> Option<Remedy>;

/// The remedy of a cause, if it is an error of this type and has one.
pub fn known<E: HasRemedy>(cause: &(dyn Error + 'static)) -> Option<Remedy> {
    cause.downcast_ref::<E>().and_then(E::remedy)
}

/// Errors that any process may end with.
const SHARED: &[Known] = &[
    known::<LogError>,
    known::<PoolsError>,
    known::<AuthError>,
    known::<BusError>,
    known::<ConnectError>,
    known::<RightsError>,
    known::<OpenError>,
    known::<ProbeError>,
    known::<FleetFailure>,
    known::<io::Error>,
];

/// What to do about the first cause that has a remedy, among the errors that all processes know and those
/// of this program alone.
#[must_use]
pub fn of(error: &anyhow::Error, own: &[Known]) -> Option<Remedy> {
    let of_cause = |cause| own.iter().chain(SHARED).find_map(|known| known(cause));
    error.chain().find_map(of_cause)
}

impl HasRemedy for AuthError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(..) => Some(Remedy::BusAuthFile),
            Self::Refused(_) => Some(Remedy::BusAuthContent),
        }
    }
}

impl HasRemedy for ConnectError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Connect(_, error) => Some(match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    Remedy::BusCredentials
                }
                ConnectErrorKind::ServerParse | ConnectErrorKind::Dns => Remedy::BusAddress,
                _ => Remedy::BusSilent,
            }),
            Self::TooOld(_) => Some(Remedy::BusTooOld),
        }
    }
}

impl HasRemedy for BusError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Connect(error) => error.remedy(),
            _ => None,
        }
    }
}

impl HasRemedy for RightsError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Connect(error) => error.remedy(),
            Self::Missing(_) => Some(Remedy::BusRights),
        }
    }
}

impl HasRemedy for OpenError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Url(_) | Self::Kind | Self::Directory => Some(Remedy::StoreAddress),
            Self::Create(_) => Some(Remedy::StoreDirectory),
            Self::Settings(_) | Self::Credentials(_) => Some(Remedy::StoreCredentials),
            // Their texts say it.
            Self::Option | Self::Password => None,
        }
    }
}

impl HasRemedy for ProbeError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Refuses => Some(Remedy::StoreConditionalWrites),
            // Their texts say it.
            Self::Store(_) | Self::NotExclusive { .. } | Self::Overwrites | Self::Inconsistent => {
                None
            }
        }
    }
}

impl HasRemedy for FleetFailure {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Store(_) => Some(Remedy::FleetInStore),
            Self::Bus(_) => Some(Remedy::FleetOnBus),
            // Its text says it.
            Self::OtherStore(_) => None,
        }
    }
}

/// An address that cannot be listened at shows as nothing but its number.
impl HasRemedy for io::Error {
    fn remedy(&self) -> Option<Remedy> {
        match self.kind() {
            io::ErrorKind::AddrInUse => Some(Remedy::AddressTaken),
            io::ErrorKind::AddrNotAvailable => Some(Remedy::AddressForeign),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("own")]
    struct Own;

    impl HasRemedy for Own {
        fn remedy(&self) -> Option<Remedy> {
            Some(Remedy::Image)
        }
    }

    #[test]
    fn each_remedy_is_one_line_of_its_own() {
        let texts: HashSet<_> = Remedy::ALL.iter().map(|remedy| remedy.text()).collect();
        assert_eq!(texts.len(), Remedy::ALL.len());
        for text in texts {
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_remedy_is_found_behind_what_was_being_done() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let error = anyhow::Error::new(taken).context("failed to listen at 127.0.0.1:1");
        assert_eq!(of(&error, &[]), Some(Remedy::AddressTaken));
        let error = anyhow::Error::new(Own).context("start");
        assert_eq!(of(&error, &[]), None);
        assert_eq!(of(&error, &[known::<Own>]), Some(Remedy::Image));
    }

    #[test]
    fn a_fleet_that_cannot_be_read_has_a_remedy() {
        let bus = records::cas::BusError::new("stream was not described", "timed out");
        let error = anyhow::Error::new(FleetFailure::from(bus));
        assert_eq!(of(&error, &[]), Some(Remedy::FleetOnBus));
    }

    #[test]
    fn what_is_not_known_gets_no_advice() {
        assert_eq!(of(&anyhow::anyhow!("odd"), &[]), None);
        assert_eq!(of(&io::Error::other("odd").into(), &[]), None);
    }
}

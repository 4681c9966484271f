//! A pool: a named set of identical sandboxes with limits.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    execution::Language,
    fleet::PoolDigest,
    id::{PoolId, PoolName},
    limits, wire,
};

/// What every sandbox of a pool may use. All of it is enforced from outside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of all processes of a session, scratch space included, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads of a session.
    pub processes: u32,
    /// Processor time: 1000 is one core.
    pub cpu_millis: u32,
    /// Size of the filesystem behind `/mnt/data`, in bytes.
    pub data_bytes: u64,
    /// Size of each private in-memory directory (`/tmp`, the home directory), in bytes.
    pub scratch_bytes: u64,
    /// Ceiling and default of one execution, in seconds.
    pub execution_seconds: u32,
    /// Ceiling of one asynchronous execution, in seconds.
    pub async_execution_seconds: u32,
    /// Kept of stdout and of stderr of one execution, in bytes each; the rest is read and dropped.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            processes: 128,
            cpu_millis: 1000,
            data_bytes: 1 << 30,
            scratch_bytes: 256 << 20,
            execution_seconds: limits::EXECUTION_SECONDS,
            async_execution_seconds: limits::EXECUTION_SECONDS,
            output_bytes: 1 << 20,
        }
    }
}

/// The kind of code that a pool runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ContainerType {
    /// Python cells.
    #[default]
    PythonLTS,
    /// Commands of a shell.
    Shell,
    /// Accepted by name only to be refused with a clear message: not built yet.
    NodeLTS,
}

impl ContainerType {
    /// What runs in its sandboxes; `None` for what is not built yet.
    #[must_use]
    pub fn language(self) -> Option<Language> {
        match self {
            Self::PythonLTS => Some(Language::Python),
            Self::Shell => Some(Language::Shell),
            Self::NodeLTS => None,
        }
    }
}

/// Whether sandboxes may open connections to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Network {
    /// No route out.
    #[default]
    EgressDisabled,
    /// Accepted by name only to be refused with a clear message: not built yet.
    EgressEnabled,
}

/// A pool as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Given once at creation, so that a re-created pool never sees old data.
    pub id: PoolId,
    /// First part of the address.
    pub subscription: String,
    /// Second part of the address.
    pub resource_group: String,
    /// Third part of the address.
    pub name: PoolName,
    /// What runs in the sandboxes.
    #[serde(default)]
    pub container_type: ContainerType,
    /// Live sessions at once, 1 to 600.
    pub max_sessions: u32,
    /// Idle seconds after which a session ends, 300 to 3600 (development pools: 1 to 3600).
    pub cooldown_seconds: u32,
    /// Egress; closed by default.
    #[serde(default)]
    pub network: Network,
    /// Allows a cooldown below 300 seconds. Never for production: callers expect their sessions to
    /// outlive a pause.
    #[serde(default)]
    pub development: bool,
    /// How long files may be on their way to the object store after the answer that tells of them,
    /// in milliseconds, 100 to 60000. A crash within it loses them. Without it every answer waits
    /// until they are there.
    #[serde(default)]
    pub write_behind_ms: Option<u32>,
    /// Asynchronous executions, which wait or run at once: 1 to 100000. Ingresses look before they
    /// add one, so that those at work at the same moment may go beyond it by one each.
    #[serde(default = "queued_executions")]
    pub queued_executions: u32,
    /// Executions that are recorded (those with an `operation-id`, and asynchronous ones) within
    /// [`limits::RECORD_LIFE`], 1 to 10000000. The bus reserves [`limits::RECORD_BYTES`] for each.
    #[serde(default = "recorded_executions")]
    pub recorded_executions: u32,
    /// Origins whose pages may read this pool's answers in browsers (CORS), such as `https://app.example`, or
    /// `*` alone for all. Only ingresses look at it. It is left out of a file where it is empty, because
    /// versions before it refuse a file with a setting that they do not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cors_origins: Vec<String>,
    /// What one sandbox may use.
    #[serde(default)]
    pub limits: Limits,
}

/// The origin that stands for all.
pub const ANY_ORIGIN: &str = "*";

fn queued_executions() -> u32 {
    limits::QUEUED_OF_POOL
}

fn recorded_executions() -> u32 {
    limits::RECORDED_OF_POOL
}

/// The `[[pool]]` tables of a pool file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pools {
    /// All pools, in file order.
    #[serde(default)]
    pub pool: Vec<Pool>,
}

/// Why a pool description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Outside 1..=600.
    #[error("pool `{0}`: max_sessions must be 1 to 600, not {1}")]
    MaxSessions(PoolName, u32),
    /// Outside 300..=3600, or 1..=3600 in a development pool.
    #[error(
        "pool `{0}`: cooldown_seconds must be 300 to 3600, not {1} (1 to 3600 with development = true)"
    )]
    Cooldown(PoolName, u32),
    /// Outside 100..=60000.
    #[error("pool `{0}`: write_behind_ms must be 100 to 60000, not {1}")]
    WriteBehind(PoolName, u32),
    /// Outside 1..=100000.
    #[error("pool `{0}`: queued_executions must be 1 to 100000, not {1}")]
    QueuedExecutions(PoolName, u32),
    /// Outside 1..=10000000.
    #[error("pool `{0}`: recorded_executions must be 1 to 10000000, not {1}")]
    RecordedExecutions(PoolName, u32),
    /// No origin, or too many.
    #[error(
        "pool `{0}`: cors_origins must be `[\"*\"]` or up to 64 origins as browsers write them, such as \
         \"https://app.example\" or \"http://localhost:5173\" (no path, no final slash, lower case, no usual port), not `{1}`"
    )]
    CorsOrigin(PoolName, String),
    /// Egress is not built yet.
    #[error(
        "pool `{0}`: network = \"EgressEnabled\" is not supported yet; use \"EgressDisabled\" (sandboxes have no network)"
    )]
    Egress(PoolName),
    /// Only Python and a shell are built.
    #[error(
        "pool `{0}`: container_type = \"{1:?}\" is not supported yet; use \"PythonLTS\" or \"Shell\""
    )]
    ContainerType(PoolName, ContainerType),
    /// A limit that no sandbox could be made with.
    #[error("pool `{0}`: limits.{1} must be {2}")]
    Limit(PoolName, &'static str, &'static str),
    /// Empty or with a character that an address cannot hold.
    #[error("pool `{0}`: {1} must be 1 to 90 letters, digits, `-`, `_`, `.`, `(` or `)`")]
    Address(PoolName, &'static str),
    /// A pool file without a pool.
    #[error("there is no pool: add a `[[pool]]` table, see docs/settings.md")]
    Empty,
    /// Two pools share an id or an address.
    #[error("pool `{0}`: its id or address is used twice")]
    Duplicate(PoolName),
}

impl Pool {
    /// Idle time after which a session ends.
    #[must_use]
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds.into())
    }

    /// Longest time between two renewals of a lease in use: what it may be older than the last use.
    #[must_use]
    pub fn renewed_every(&self) -> Duration {
        limits::LEASE_RENEWED.min(self.cooldown() / 10)
    }

    /// Digest of the settings that ingress and workers must agree on; its address and what only ingress
    /// looks at are not among them. What is as it is by default does not count: a version that knows one
    /// setting more has the same digest, unless that is set.
    #[must_use]
    pub fn digest(&self) -> PoolDigest {
        let usual = (ContainerType::default(), Network::default());
        let words = [
            (
                "container_type",
                (self.container_type != usual.0).then(|| format!("{:?}", self.container_type)),
            ),
            (
                "network",
                (self.network != usual.1).then(|| format!("{:?}", self.network)),
            ),
            (
                "write_behind_ms",
                self.write_behind_ms.map(|window| window.to_string()),
            ),
        ];
        let words = words
            .into_iter()
            .filter_map(|(name, set)| Some((name, set?)));
        let limits = self.limits.set().into_iter();
        let limits = limits.map(|(name, value)| (name, value.to_string()));
        let set: Vec<_> = words.chain(limits).collect();
        let settings = (&self.id, self.max_sessions, self.cooldown_seconds, set);
        // None of these is anything that MessagePack cannot hold.
        let encoded = wire::encode(&settings).unwrap_or_default();
        PoolDigest::of_digits(&HEXLOWER.encode(&Sha256::digest(encoded)))
    }

    /// How long files may be on their way after an answer; `None` when answers wait for them.
    #[must_use]
    pub fn write_behind(&self) -> Option<Duration> {
        self.write_behind_ms
            .map(|window| Duration::from_millis(window.into()))
    }

    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn check(&self) -> Result<(), PoolError> {
        let name = || self.name.clone();
        if !(1..=600).contains(&self.max_sessions) {
            return Err(PoolError::MaxSessions(name(), self.max_sessions));
        }
        let shortest = if self.development { 1 } else { 300 };
        if !(shortest..=3600).contains(&self.cooldown_seconds) {
            return Err(PoolError::Cooldown(name(), self.cooldown_seconds));
        }
        if !(1..=limits::QUEUED_OF_POOL_MAX).contains(&self.queued_executions) {
            return Err(PoolError::QueuedExecutions(name(), self.queued_executions));
        }
        if !(1..=limits::RECORDED_OF_POOL_MAX).contains(&self.recorded_executions) {
            let wanted = self.recorded_executions;
            return Err(PoolError::RecordedExecutions(name(), wanted));
        }
        if let Some(window) = self.write_behind_ms
            && !(100..=60_000).contains(&window)
        {
            return Err(PoolError::WriteBehind(name(), window));
        }
        self.check_origins()?;
        if self.network == Network::EgressEnabled {
            return Err(PoolError::Egress(name()));
        }
        if self.container_type.language().is_none() {
            return Err(PoolError::ContainerType(name(), self.container_type));
        }
        if !is_address(&self.subscription) {
            return Err(PoolError::Address(name(), "subscription"));
        }
        if !is_address(&self.resource_group) {
            return Err(PoolError::Address(name(), "resource_group"));
        }
        self.limits
            .check()
            .map_err(|(field, bound)| PoolError::Limit(name(), field, bound))
    }
}

impl Pool {
    fn check_origins(&self) -> Result<(), PoolError> {
        let origins = self.cors_origins.as_slice();
        let refused = |text: &str| PoolError::CorsOrigin(self.name.clone(), text.to_owned());
        if origins.len() > limits::CORS_ORIGINS {
            return Err(refused(&format!("{} of them", origins.len())));
        }
        match origins {
            [any] if any == ANY_ORIGIN => Ok(()),
            some => match some.iter().find(|origin| !is_origin(origin)) {
                Some(wrong) => Err(refused(wrong)),
                None => Ok(()),
            },
        }
    }
}

/// Whether a browser could send this as the origin of a page. They are compared byte for byte, so that what no
/// browser writes would allow nobody. `null` is what pages of many origins send that are not to be told apart.
fn is_origin(text: &str) -> bool {
    let Some((scheme, place)) = text.split_once("://") else {
        return false;
    };
    let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte)
        });
    let (host, port) = match place.rsplit_once(':') {
        // The last colon of an address of version 6.
        Some((_, rest)) if rest.ends_with(']') => (place, None),
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    let host_fits = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(address) => address.is_some_and(|address| {
            address
                .parse::<std::net::Ipv6Addr>()
                .is_ok_and(|parsed| parsed.to_string() == address)
        }),
        None => {
            let fits = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            };
            (1..=253).contains(&host.len()) && host.bytes().all(fits)
        }
    };
    let port_fits = port.is_none_or(|port| {
        let usual = matches!((scheme, port), ("http", "80") | ("https", "443"));
        let number = port.parse::<u16>().is_ok_and(|number| number > 0);
        let plain = !port.starts_with(['0', '+']);
        number && plain && !usual
    });
    scheme_fits && host_fits && port_fits
}

impl Limits {
    /// Those that are not as they are by default, by their names, in a fixed order.
    fn set(&self) -> Vec<(&'static str, u64)> {
        fn all(limits: &Limits) -> [(&'static str, u64); 8] {
            // A limit that is added is added here, too.
            let Limits {
                memory_bytes,
                processes,
                cpu_millis,
                data_bytes,
                scratch_bytes,
                execution_seconds,
                async_execution_seconds,
                output_bytes,
            } = *limits;
            [
                ("memory_bytes", memory_bytes),
                ("processes", processes.into()),
                ("cpu_millis", cpu_millis.into()),
                ("data_bytes", data_bytes),
                ("scratch_bytes", scratch_bytes),
                ("execution_seconds", execution_seconds.into()),
                ("async_execution_seconds", async_execution_seconds.into()),
                ("output_bytes", output_bytes),
            ]
        }
        let usual = all(&Self::default());
        let set = all(self).into_iter().zip(usual);
        set.filter(|(ours, usual)| ours != usual)
            .map(|(ours, _)| ours)
            .collect()
    }

    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let bounds = [
            (
                self.memory_bytes >= 64 << 20,
                "memory_bytes",
                "at least 67108864 (64 MiB)",
            ),
            (
                (8..=32_768).contains(&self.processes),
                "processes",
                "8 to 32768",
            ),
            (
                (50..=256_000).contains(&self.cpu_millis),
                "cpu_millis",
                "50 to 256000",
            ),
            (
                (4 << 20..=1 << 40).contains(&self.data_bytes),
                "data_bytes",
                "4194304 (4 MiB) to 1099511627776 (1 TiB)",
            ),
            (
                self.scratch_bytes >= 1 << 20,
                "scratch_bytes",
                "at least 1048576 (1 MiB)",
            ),
            (
                (1..=limits::EXECUTION_SECONDS).contains(&self.execution_seconds),
                "execution_seconds",
                "1 to 220",
            ),
            (
                (1..=limits::ASYNC_EXECUTION_SECONDS).contains(&self.async_execution_seconds),
                "async_execution_seconds",
                "1 to 43200",
            ),
            (
                (4096..=16 << 20).contains(&self.output_bytes),
                "output_bytes",
                "4096 to 16777216 (16 MiB)",
            ),
        ];
        match bounds.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, bound)) => Err((field, bound)),
            None => Ok(()),
        }
    }
}

impl Pools {
    /// Checks that there are pools, every one of them, and that ids and addresses are unique.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn check(&self) -> Result<(), PoolError> {
        if self.pool.is_empty() {
            return Err(PoolError::Empty);
        }
        for (index, pool) in self.pool.iter().enumerate() {
            pool.check()?;
            let clash = self.pool.iter().take(index).any(|other| {
                other.id == pool.id
                    || (other.name == pool.name
                        && other.subscription.eq_ignore_ascii_case(&pool.subscription)
                        && other
                            .resource_group
                            .eq_ignore_ascii_case(&pool.resource_group))
            });
            if clash {
                return Err(PoolError::Duplicate(pool.name.clone()));
            }
        }
        Ok(())
    }
}

fn is_address(part: &str) -> bool {
    (1..=90).contains(&part.len())
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.()".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool {
            id: "01JDE1KZ0000000000000000PY".parse().unwrap(),
            subscription: "s".into(),
            resource_group: "g".into(),
            name: "python".parse().unwrap(),
            container_type: ContainerType::PythonLTS,
            max_sessions: 600,
            cooldown_seconds: 300,
            network: Network::EgressDisabled,
            development: false,
            write_behind_ms: None,
            queued_executions: limits::QUEUED_OF_POOL,
            recorded_executions: limits::RECORDED_OF_POOL,
            cors_origins: vec![],
            limits: Limits::default(),
        }
    }

    /// A fleet of several versions tells equal pools by it.
    #[test]
    fn the_digest_of_a_pool_is_as_ever() {
        let mut edited = pool();
        edited.limits.processes = 64;
        edited.write_behind_ms = Some(500);
        let shell = Pool {
            container_type: ContainerType::Shell,
            ..pool()
        };
        let digests = [pool(), edited, shell].map(|pool| pool.digest().to_string());
        let known = ["da57d838a2790693", "f883df7bff213fdd", "4fff2bfa435775fe"];
        assert_eq!(digests, known);
    }

    #[test]
    fn every_setting_that_is_set_counts_in_the_digest() {
        let mut digests = vec![pool().digest()];
        let mut with = |change: &dyn Fn(&mut Pool)| {
            let mut pool = pool();
            change(&mut pool);
            digests.push(pool.digest());
        };
        with(&|pool| pool.max_sessions = 5);
        with(&|pool| pool.cooldown_seconds = 301);
        with(&|pool| pool.network = Network::EgressEnabled);
        with(&|pool| pool.container_type = ContainerType::Shell);
        with(&|pool| pool.write_behind_ms = Some(5));
        with(&|pool| pool.limits.memory_bytes = 5);
        with(&|pool| pool.limits.processes = 5);
        with(&|pool| pool.limits.cpu_millis = 5);
        with(&|pool| pool.limits.data_bytes = 5);
        with(&|pool| pool.limits.scratch_bytes = 5);
        with(&|pool| pool.limits.execution_seconds = 5);
        with(&|pool| pool.limits.async_execution_seconds = 5);
        with(&|pool| pool.limits.output_bytes = 5);
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
    }

    #[test]
    fn a_pool_with_defaults_is_fine() {
        assert_eq!(pool().check(), Ok(()));
    }

    #[test]
    fn a_short_cooldown_needs_the_development_override() {
        let short = Pool {
            cooldown_seconds: 2,
            ..pool()
        };
        assert!(matches!(short.check(), Err(PoolError::Cooldown(_, 2))));
        assert_eq!(
            Pool {
                development: true,
                ..short
            }
            .check(),
            Ok(())
        );
    }

    #[test]
    fn a_file_without_pools_is_refused() {
        assert_eq!(Pools { pool: vec![] }.check(), Err(PoolError::Empty));
    }

    #[test]
    fn a_digest_changes_with_what_workers_must_know_and_not_with_the_address() {
        let digest = pool().digest();
        assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
        let moved = Pool {
            subscription: "other".into(),
            queued_executions: 5,
            cors_origins: vec!["https://app.example".to_owned()],
            ..pool()
        };
        assert_eq!(moved.digest(), digest);
        let longer = Pool {
            cooldown_seconds: 301,
            ..pool()
        };
        assert_ne!(longer.digest(), digest);
        let limits = Limits {
            memory_bytes: 1 << 29,
            ..Limits::default()
        };
        assert_ne!(Pool { limits, ..pool() }.digest(), digest);
    }

    #[test]
    fn a_queue_has_a_bound() {
        let of = |queued_executions| {
            Pool {
                queued_executions,
                ..pool()
            }
            .check()
        };
        assert_eq!((of(1), of(100_000)), (Ok(()), Ok(())));
        for outside in [0, 100_001] {
            assert!(matches!(of(outside), Err(PoolError::QueuedExecutions(..))));
        }
    }

    #[test]
    fn records_of_executions_have_a_bound() {
        let of = |recorded_executions| {
            Pool {
                recorded_executions,
                ..pool()
            }
            .check()
        };
        assert_eq!((of(1), of(10_000_000)), (Ok(()), Ok(())));
        for outside in [0, 10_000_001] {
            assert!(matches!(
                of(outside),
                Err(PoolError::RecordedExecutions(..))
            ));
        }
    }

    fn with_origins(origins: &[&str]) -> Pool {
        Pool {
            cors_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            ..pool()
        }
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for origins in [
            &[][..],
            &["*"],
            &["https://app.example"],
            &[
                "http://localhost:5173",
                "https://[::1]:8443",
                "http://127.0.0.1",
            ],
            &[
                "http://a_b.example",
                "chrome-extension://abcdefgh",
                "app://localhost",
            ],
        ] {
            assert_eq!(with_origins(origins).check(), Ok(()), "{origins:?}");
        }
        for wrong in [
            "",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/path",
            "https://App.example",
            "HTTPS://app.example",
            "https://*.app.example",
            "https://user@app.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:0443",
            "https://app.example:",
            "https://app.example:99999",
            "https://[::1",
            "https://[0::1]",
            "https://a b",
            "https://app.example\r\nx: y",
            "://app.example",
        ] {
            let refused = with_origins(&[wrong]).check();
            assert!(matches!(refused, Err(PoolError::CorsOrigin(..))), "{wrong}");
        }
        assert!(with_origins(&["*", "https://app.example"]).check().is_err());
        assert!(with_origins(&["https://app.example"; 65]).check().is_err());
    }

    #[test]
    fn egress_is_refused_in_words() {
        let error = Pool {
            network: Network::EgressEnabled,
            ..pool()
        }
        .check()
        .unwrap_err();
        assert!(error.to_string().contains("not supported yet"));
    }

    #[test]
    fn a_kind_that_is_not_built_is_refused_in_words() {
        let of = |container_type| {
            let pool = Pool {
                container_type,
                ..pool()
            };
            pool.check().map_err(|error| error.to_string())
        };
        assert_eq!(of(ContainerType::Shell), Ok(()));
        let refusal = of(ContainerType::NodeLTS).unwrap_err();
        assert!(
            refusal.contains("\"NodeLTS\" is not supported yet"),
            "{refusal}"
        );
    }

    #[test]
    fn out_of_bounds_numbers_are_refused() {
        assert!(
            Pool {
                max_sessions: 0,
                ..pool()
            }
            .check()
            .is_err()
        );
        assert!(
            Pool {
                max_sessions: 601,
                ..pool()
            }
            .check()
            .is_err()
        );
        let limits = Limits {
            execution_seconds: 221,
            ..Limits::default()
        };
        assert!(matches!(
            Pool { limits, ..pool() }.check(),
            Err(PoolError::Limit(_, "execution_seconds", _))
        ));
        for (seconds, fine) in [(0, false), (1, true), (43_200, true), (43_201, false)] {
            let limits = Limits {
                async_execution_seconds: seconds,
                ..Limits::default()
            };
            assert_eq!(Pool { limits, ..pool() }.check().is_ok(), fine, "{seconds}");
        }
    }

    #[test]
    fn two_pools_cannot_share_an_address_in_another_case() {
        let other = Pool {
            id: "01JDE1KZ0000000000000000PX".parse().unwrap(),
            subscription: "S".into(),
            ..pool()
        };
        assert!(matches!(
            Pools {
                pool: vec![pool(), other]
            }
            .check(),
            Err(PoolError::Duplicate(_))
        ));
    }
}

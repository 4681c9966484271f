//! Pools of a test stack.

use anyhow::Result;
use proto::{
    id::PoolId,
    limits,
    pool::{ContainerType, Limits, Network, Pool, Pools},
};
use ulid::Ulid;

/// Subscription of every test pool.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
/// Resource group of every test pool.
const RESOURCE_GROUP: &str = "hearth";

/// A pool in the making: `python`, 600 sessions, a cooldown of five minutes, default limits.
#[derive(Clone, Debug)]
pub struct PoolSpec(Pool);

impl PoolSpec {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Pool {
            id: Ulid::new().to_string().parse()?,
            subscription: SUBSCRIPTION.to_owned(),
            resource_group: RESOURCE_GROUP.to_owned(),
            name: "python".parse()?,
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
        }))
    }

    /// With another name. A name that no pool can have leaves it as it was.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        if let Ok(name) = name.parse() {
            self.0.name = name;
        }
        self
    }

    /// With this internal name instead of a new one. Text that is no name leaves it as it was.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        if let Ok(id) = id.parse() {
            self.0.id = id;
        }
        self
    }

    /// Whose sessions run commands of a shell.
    #[must_use]
    pub fn shell(mut self) -> Self {
        self.0.container_type = ContainerType::Shell;
        self
    }

    /// With another maximum of live sessions.
    #[must_use]
    pub fn max_sessions(mut self, sessions: u32) -> Self {
        self.0.max_sessions = sessions;
        self
    }

    /// With another cooldown. Below 300 seconds it becomes a development pool.
    #[must_use]
    pub fn cooldown(mut self, seconds: u32) -> Self {
        self.0.cooldown_seconds = seconds;
        self.0.development = seconds < 300;
        self
    }

    /// With room for so many asynchronous executions.
    #[must_use]
    pub fn queued_executions(mut self, most: u32) -> Self {
        self.0.queued_executions = most;
        self
    }

    /// With room for records of so many executions.
    #[must_use]
    pub fn recorded_executions(mut self, most: u32) -> Self {
        self.0.recorded_executions = most;
        self
    }

    /// Whose files may follow their answers within so many milliseconds.
    #[must_use]
    pub fn write_behind(mut self, milliseconds: u32) -> Self {
        self.0.write_behind_ms = Some(milliseconds);
        self
    }

    /// Whose answers pages of these origins may read.
    #[must_use]
    pub fn cors_origins(mut self, origins: &[&str]) -> Self {
        self.0.cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        self
    }

    /// With a way out, which no server accepts yet.
    #[must_use]
    pub fn egress(mut self) -> Self {
        self.0.network = Network::EgressEnabled;
        self
    }

    /// With other limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.0.limits);
        self
    }

    /// Its internal name.
    #[must_use]
    pub fn id(&self) -> &PoolId {
        &self.0.id
    }

    /// Path of its management endpoint.
    #[must_use]
    pub fn path(&self) -> String {
        pool_path(self.0.name.as_str())
    }
}

/// Path of the management endpoint of the test pool called `name`.
#[must_use]
pub fn pool_path(name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/sessionPools/{name}")
}

/// The pool file.
pub(super) fn file(pools: &[PoolSpec]) -> Result<String> {
    let pool = pools.iter().map(|spec| spec.0.clone()).collect();
    Ok(toml::to_string(&Pools { pool })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions before a setting refuse a file that has it.
    #[test]
    fn a_pool_file_has_no_origins_unless_they_are_set() {
        let plain = PoolSpec::new().unwrap();
        let set = plain.clone().cors_origins(&["*"]);
        assert!(!file(&[plain]).unwrap().contains("cors"));
        assert!(file(&[set]).unwrap().contains("cors_origins"));
    }

    #[test]
    fn a_pool_file_reads_as_what_was_built() {
        let spec = PoolSpec::new()
            .unwrap()
            .name("small")
            .max_sessions(5)
            .cooldown(2);
        let spec = spec.limits(|limits| limits.processes = 32);
        let read: Pools = toml::from_str(&file(std::slice::from_ref(&spec)).unwrap()).unwrap();
        assert_eq!(read.pool, [spec.0]);
        assert_eq!(read.check(), Ok(()));
    }
}

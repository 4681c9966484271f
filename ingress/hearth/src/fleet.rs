//! The fleet as an operator reaches it: the bus and the pool file.

use std::time::Duration;

use bytes::Bytes;
use process::settings::read_pools;
use proto::{
    message::{Answer, FrameBody},
    pool::{Pool, Pools},
};
use records::execution::Stamps;
use routing::bus::{
    Bus, BusError, Connected, NatsAuth,
    connect::{self, Peer},
    inbox::{Arrival, Inbox},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{arguments::Arguments, error::CommandError};

/// A fleet and its pools.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// The bus.
    pub(crate) bus: Bus,
    pools: Option<Pools>,
}

impl Fleet {
    /// Connects as the operator.
    ///
    /// # Errors
    /// The credentials or the pool file cannot be read, or the bus cannot be reached.
    pub(crate) async fn connect(arguments: &Arguments) -> anyhow::Result<Self> {
        let pools = arguments.pools.as_deref().map(read_pools).transpose()?;
        let auth = NatsAuth::read(&arguments.bus.nats_auth)?;
        let stamps = Stamps::real();
        let name = stamps.ids.next().to_string().to_lowercase();
        let prefix = format!("_INBOX.{name}");
        let peer = Peer {
            name: format!("hearth {name}"),
            inbox_prefix: prefix.clone(),
            subscription_capacity: 4096,
        };
        let connected = Connected::default();
        let noted = connected.clone();
        let changed = move |link| noted.note(link);
        let client = connect::connect(&arguments.bus.nats, auth, peer, changed).await?;
        Ok(Self {
            bus: Bus::over(client, &prefix, connected, stamps).await?,
            pools,
        })
    }

    /// All pools of the pool file.
    ///
    /// # Errors
    /// None was given.
    pub(crate) fn pools(&self) -> Result<&[Pool], CommandError> {
        let pools = self.pools.as_ref().ok_or(CommandError::NoPoolFile)?;
        Ok(&pools.pool)
    }

    /// The pool of this name or id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn pool(&self, name: &str) -> Result<&Pool, CommandError> {
        choose(self.pools()?, name)
    }

    /// What time it is on the bus.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(crate) async fn time(&self) -> Result<OffsetDateTime, BusError> {
        self.bus.time().await
    }

    /// Tells whoever listens at `subject`, who says at once that it heard.
    ///
    /// # Errors
    /// Nobody said so in time.
    pub(crate) async fn tell(
        &self,
        who: &str,
        subject: String,
        within: Duration,
    ) -> anyhow::Result<()> {
        let mut inbox = self.bus.send(subject, Bytes::new()).await?;
        match timeout(within, inbox.next()).await {
            Ok(Arrival::Frame(_)) => Ok(()),
            Ok(Arrival::Nobody | Arrival::Gap) | Err(_) => {
                Err(CommandError::Silent(who.to_owned(), within).into())
            }
        }
    }

    /// Asks whoever listens at `subject`, for at most so long.
    ///
    /// # Errors
    /// Nobody answered, or with a refusal. `None`: nobody listens there.
    pub(crate) async fn ask(
        &self,
        who: &str,
        subject: String,
        question: Bytes,
        within: Duration,
    ) -> anyhow::Result<Option<Answer>> {
        let mut inbox = self.bus.send(subject, question).await?;
        let answered = timeout(within, last(&mut inbox)).await;
        match answered.map_err(|_| CommandError::Silent(who.to_owned(), within))? {
            Some(FrameBody::Done(answer)) => Ok(Some(answer)),
            Some(FrameBody::Failed(fault)) => Err(CommandError::Refused {
                who: who.to_owned(),
                fault,
            }
            .into()),
            Some(_) => Err(CommandError::Answer(who.to_owned()).into()),
            None => Ok(None),
        }
    }
}

/// The frame that ends an answer; `None` if nobody gives one.
async fn last(inbox: &mut Inbox) -> Option<FrameBody> {
    loop {
        match inbox.next().await {
            Arrival::Frame(frame) => match frame.body {
                FrameBody::Accepted | FrameBody::Heartbeat | FrameBody::Output(_) => {}
                body @ (FrameBody::Done(_) | FrameBody::Failed(_)) => return Some(body),
            },
            Arrival::Nobody | Arrival::Gap => return None,
        }
    }
}

fn choose<'a>(pools: &'a [Pool], name: &str) -> Result<&'a Pool, CommandError> {
    if let Some(pool) = pools.iter().find(|pool| pool.id.as_str() == name) {
        return Ok(pool);
    }
    let named: Vec<_> = pools
        .iter()
        .filter(|pool| pool.name.as_str() == name)
        .collect();
    match named.as_slice() {
        [pool] => Ok(pool),
        [] => {
            let names = pools.iter().map(|pool| pool.name.as_str());
            let names: Vec<_> = names.collect();
            Err(CommandError::NoPool(name.to_owned(), names.join(", ")))
        }
        several => {
            let ids = several.iter().map(|pool| pool.id.as_str());
            let ids: Vec<_> = ids.collect();
            Err(CommandError::ManyPools(name.to_owned(), ids.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(id: &str, name: &str, group: &str) -> Pool {
        let text = format!(
            "id = \"{id}\"\nsubscription = \"s\"\nresource_group = \"{group}\"\nname = \"{name}\"\n\
             container_type = \"PythonLTS\"\nmax_sessions = 1\ncooldown_seconds = 300"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_pool_is_known_by_name_or_id() {
        let (python, shell) = ("01JDE1KZ0000000000000000PY", "01JDE1KZ0000000000000000SH");
        let pools = [
            pool(python, "python", "a"),
            pool(shell, "shell", "a"),
            pool("01JDE1KZ0000000000000000S2", "shell", "b"),
        ];
        assert_eq!(choose(&pools, "python").unwrap().id.as_str(), python);
        assert_eq!(choose(&pools, shell).unwrap().id.as_str(), shell);
        let refused = choose(&pools, "shell").unwrap_err().to_string();
        assert!(refused.contains(shell), "{refused}");
        let refused = choose(&pools, "pyton").unwrap_err().to_string();
        assert!(refused.contains("python, shell"), "{refused}");
    }
}

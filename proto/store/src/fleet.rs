//! What the store knows of its bus: which generation it has and how far it was seen to be. Few small
//! objects below `fleet/`, which no sweep touches.

use std::{collections::HashSet, time::SystemTime};

use object_store::path::Path;
use proto::{
    fleet::{FleetRecord, Generation, KeyFingerprint, Known},
    wire,
};

use crate::{Store, StoreError};

/// What the keys of all these objects start with.
const FLEET: &str = "fleet";
/// No record or mark is longer.
const RECORD_BYTES: u64 = 4096;

/// Why it is not known what the store knows.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something else lies there.
    #[error("failed to decode object {0} of the store")]
    Decode(Path, #[source] wire::WireError),
    /// The record cannot be encoded.
    #[error("failed to encode the fleet's record")]
    Encode(#[source] wire::WireError),
}

impl FleetError {
    /// Whether the store may be down, for everybody alike.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

impl Store {
    /// What the store knows of its bus; `None` in a store that never had one of a version that notes it. It
    /// writes nothing, and so proves to who may only read that the store can be reached.
    ///
    /// # Errors
    /// The store failed, or holds something else there.
    pub async fn known_fleet(&self) -> Result<Option<Known>, FleetError> {
        let Some((record, _)) = self.fleet_record().await? else {
            return Ok(None);
        };
        let mark = self.decoded(&mark_key(&record.generation)).await?;
        let mark = mark.map(|(mark, _)| mark);
        Ok(Some(Known { record, mark }))
    }

    /// Which bus the store belongs to, and since when, by the store's clock.
    ///
    /// # Errors
    /// The store failed, or holds something else there.
    pub async fn fleet_record(&self) -> Result<Option<(FleetRecord, SystemTime)>, FleetError> {
        self.decoded(&record_key()).await
    }

    /// Gives the store its first record unless there is one. Whoever is refused reads it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn create_fleet_record(&self, record: &FleetRecord) -> Result<(), FleetError> {
        let encoded = wire::encode(record).map_err(FleetError::Encode)?;
        self.create(&record_key(), encoded.into()).await?;
        Ok(())
    }

    /// Gives the store another record. Only an operator may ask for it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn replace_fleet_record(&self, record: &FleetRecord) -> Result<(), FleetError> {
        let encoded = wire::encode(record).map_err(FleetError::Encode)?;
        Ok(self.put(&record_key(), encoded.into()).await?)
    }

    /// Notes how far the bus was seen to be, unless it was seen further: workers note one after the other. The
    /// highest mark is returned.
    ///
    /// # Errors
    /// The store failed, or holds something else there.
    pub async fn note_fleet_mark(
        &self,
        generation: &Generation,
        mark: u64,
    ) -> Result<u64, FleetError> {
        let key = mark_key(generation);
        if let Some((noted, _)) = self.decoded::<u64>(&key).await?
            && noted >= mark
        {
            return Ok(noted);
        }
        let encoded = wire::encode(&mark).map_err(FleetError::Encode)?;
        self.put(&key, encoded.into()).await?;
        Ok(mark)
    }

    /// The fingerprint of the fleet's cluster key; `None` until a worker has noted it. It outlives the bus's
    /// generations.
    ///
    /// # Errors
    /// The store failed, or holds something else there.
    pub async fn known_key(&self) -> Result<Option<KeyFingerprint>, FleetError> {
        let found = self.decoded(&cluster_key()).await?;
        Ok(found.map(|(key, _)| key))
    }

    /// Notes the fingerprint of the fleet's cluster key as the bus has it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn note_key(&self, key: &KeyFingerprint) -> Result<(), FleetError> {
        let encoded = wire::encode(key).map_err(FleetError::Encode)?;
        Ok(self.put(&cluster_key(), encoded.into()).await?)
    }

    /// The streams that the bus had in this generation.
    ///
    /// # Errors
    /// The store failed.
    pub async fn known_streams(
        &self,
        generation: &Generation,
    ) -> Result<HashSet<String>, FleetError> {
        let listed = self.list(&streams_key(generation), None).await?;
        let names = listed
            .iter()
            .filter_map(|object| object.location.filename());
        Ok(names.map(str::to_owned).collect())
    }

    /// Notes that the bus has a stream of this name in this generation.
    ///
    /// # Errors
    /// The store failed.
    pub async fn note_stream(
        &self,
        generation: &Generation,
        stream: &str,
    ) -> Result<(), FleetError> {
        let key = streams_key(generation).join(stream);
        Ok(self.put(&key, stream.to_owned().into()).await?)
    }

    async fn decoded<T: serde::de::DeserializeOwned>(
        &self,
        key: &Path,
    ) -> Result<Option<(T, SystemTime)>, FleetError> {
        let Some(object) = self.get(key, RECORD_BYTES).await? else {
            return Ok(None);
        };
        let decoded = wire::decode(&object.bytes);
        let decoded = decoded.map_err(|error| FleetError::Decode(key.clone(), error))?;
        Ok(Some((decoded, object.written)))
    }
}

pub(crate) fn record_key() -> Path {
    Path::from_iter([FLEET, "generation"])
}

fn mark_key(generation: &Generation) -> Path {
    Path::from_iter([FLEET, "mark", generation.as_str()])
}

fn cluster_key() -> Path {
    Path::from_iter([FLEET, "key"])
}

fn streams_key(generation: &Generation) -> Path {
    Path::from_iter([FLEET, "streams", generation.as_str()])
}

#[cfg(test)]
mod tests {
    use proto::ambient::Ids;

    use super::*;

    fn record(generation: char) -> FleetRecord {
        let id = |last: char| format!("01JDE1KZ00000000000000000{last}");
        FleetRecord {
            store: id('A').parse().unwrap(),
            generation: id(generation).parse().unwrap(),
            previous: None,
        }
    }

    #[tokio::test]
    async fn of_two_who_give_a_store_its_record_one_wins_and_marks_are_of_one_generation() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(
            &format!("file://{}", directory.path().display()),
            Ids::random(),
        )
        .unwrap();
        assert_eq!(store.known_fleet().await.unwrap(), None);
        let (first, second) = (record('1'), record('2'));
        store.create_fleet_record(&first).await.unwrap();
        store.create_fleet_record(&second).await.unwrap();
        let known = |record: &FleetRecord, mark| {
            let record = record.clone();
            Some(Known { record, mark })
        };
        assert_eq!(store.known_fleet().await.unwrap(), known(&first, None));
        store.note_fleet_mark(&first.generation, 7).await.unwrap();
        store.note_stream(&first.generation, "S").await.unwrap();
        assert_eq!(store.known_fleet().await.unwrap(), known(&first, Some(7)));
        // Another worker saw less, and says so later.
        let mark = store.note_fleet_mark(&first.generation, 5).await;
        assert_eq!(mark.unwrap(), 7);
        assert_eq!(store.known_fleet().await.unwrap(), known(&first, Some(7)));
        assert_eq!(store.known_key().await.unwrap(), None);
        let key: KeyFingerprint = "0123456789abcdef".repeat(2).parse().unwrap();
        store.note_key(&key).await.unwrap();
        let streams = store.known_streams(&first.generation).await.unwrap();
        assert_eq!(streams, HashSet::from(["S".to_owned()]));
        store.replace_fleet_record(&second).await.unwrap();
        assert_eq!(store.known_fleet().await.unwrap(), known(&second, None));
        let streams = store.known_streams(&second.generation).await.unwrap();
        assert_eq!(streams, HashSet::new());
        // No sweep takes them.
        store.sweep(store.time().await.unwrap()).await.unwrap();
        assert_eq!(store.known_fleet().await.unwrap(), known(&second, None));
        assert_eq!(store.known_key().await.unwrap(), Some(key));
    }
}

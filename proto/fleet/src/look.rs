//! One look at store and bus that changes nothing, for operators.

use proto::fleet::{Known, Loss, Verdict, judge};
use records::fleet::FleetStream;
use store::Store;

use crate::FleetFailure;

/// What the store knows, and how store and bus stand. `streams` has it look for every stream that the store knows
/// of, which ingresses have no right to.
///
/// # Errors
/// Store or bus failed: nothing is known.
pub async fn look(
    store: &Store,
    stream: &FleetStream,
    streams: bool,
) -> Result<(Option<Known>, Verdict), FleetFailure> {
    // The store first: marks rise.
    let known = store.known_fleet().await?;
    let found = stream.find().await?;
    let verdict = judge(known.as_ref(), &found);
    if let Verdict::Same(record) = &verdict
        && streams
    {
        let expected = &record.generation;
        for name in store.known_streams(expected).await? {
            if !stream.has_stream(&name).await? {
                let expected = expected.clone();
                let loss = Loss::Stream {
                    expected,
                    stream: name,
                };
                return Ok((known, Verdict::Lost(loss)));
            }
        }
    }
    Ok((known, verdict))
}

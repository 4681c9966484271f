//! Whether a worker may have its id, from what the bus says of whoever has it.

use std::time::Duration;

use proto::{lease::WorkerClaim, limits};

/// How long a run on this host may still have the id when the host's locks are free already: it gives the id
/// back last.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// What came back from the run that holds the id when it was asked whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered.
    Answer,
    /// It listens, or did a moment ago, and does not answer.
    Silence,
    /// Nobody listens where it would.
    Nobody,
}

/// The claim that is on the bus, and what is known of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it claimed.
    pub claim: WorkerClaim,
    /// The claim's revision.
    pub revision: u64,
    /// What it answers.
    pub sign: Sign,
    /// Whether it has renewed its claim while it was watched.
    pub renewed: bool,
    /// How long it has been watched.
    pub unchanged_for: Duration,
}

/// What to do about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Claim it over exactly this revision (0: none).
    Take(u64),
    /// Another worker of this id lives.
    Refuse,
    /// It may live: its claim has not ended yet.
    Wait,
}

/// Decides for a run that claims `own` and has the locks of its host: of a holder that ran on this host they
/// say that it is gone, or about to go.
#[must_use]
pub fn decide(own: &WorkerClaim, holder: Option<&Holder>) -> Decision {
    let Some(holder) = holder else {
        return Decision::Take(0);
    };
    // This run's own claim, whose acknowledgement was lost.
    if holder.claim.run == own.run {
        return Decision::Take(holder.revision);
    }
    let is_here = holder.claim.boot == own.boot;
    if holder.sign == Sign::Answer || holder.renewed {
        return match is_here && holder.unchanged_for < LEAVES_WITHIN {
            true => Decision::Wait,
            false => Decision::Refuse,
        };
    }
    // That nobody listens is a hint about another host only: it may be cut off.
    let crashed_here = is_here && holder.sign == Sign::Nobody;
    if crashed_here || holder.unchanged_for >= limits::WORKER_TTL {
        return Decision::Take(holder.revision);
    }
    Decision::Wait
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(run: &str, boot: &str) -> WorkerClaim {
        WorkerClaim {
            run: run.parse().unwrap(),
            boot: boot.into(),
        }
    }

    /// A holder of the id that was watched for so long.
    fn holder(run: &str, boot: &str, sign: Sign, unchanged_for: Duration) -> Holder {
        Holder {
            claim: claim(run, boot),
            revision: 7,
            sign,
            renewed: false,
            unchanged_for,
        }
    }

    #[test]
    fn an_id_that_is_not_claimed_or_by_this_run_itself_is_taken() {
        let own = claim("w1-bbbb", "here");
        assert_eq!(decide(&own, None), Decision::Take(0));
        // The acknowledgement was lost.
        let found = holder("w1-bbbb", "here", Sign::Nobody, Duration::ZERO);
        assert_eq!(decide(&own, Some(&found)), Decision::Take(7));
    }

    #[test]
    fn only_a_crash_on_this_host_is_believed_before_the_claim_has_ended() {
        let own = claim("w1-bbbb", "here");
        let early = limits::WORKER_TTL - Duration::from_millis(1);
        for (boot, sign, before) in [
            ("here", Sign::Nobody, Decision::Take(7)),
            ("here", Sign::Silence, Decision::Wait),
            ("there", Sign::Nobody, Decision::Wait),
            ("there", Sign::Silence, Decision::Wait),
        ] {
            let found = |unchanged_for| holder("w1-aaaa", boot, sign, unchanged_for);
            assert_eq!(decide(&own, Some(&found(early))), before, "{boot} {sign:?}");
            let late = found(limits::WORKER_TTL);
            assert_eq!(decide(&own, Some(&late)), Decision::Take(7));
        }
    }

    #[test]
    fn the_id_of_a_run_that_gives_a_sign_of_life_is_refused() {
        let own = claim("w1-bbbb", "here");
        for (boot, watched) in [
            ("here", LEAVES_WITHIN),
            ("here", limits::WORKER_TTL),
            ("there", Duration::ZERO),
            ("there", limits::WORKER_TTL),
        ] {
            let answers = holder("w1-aaaa", boot, Sign::Answer, watched);
            assert_eq!(decide(&own, Some(&answers)), Decision::Refuse);
            let renews = Holder {
                renewed: true,
                ..holder("w1-aaaa", boot, Sign::Nobody, watched)
            };
            assert_eq!(decide(&own, Some(&renews)), Decision::Refuse);
        }
    }

    #[test]
    fn a_run_on_this_host_that_has_given_its_place_back_may_give_its_id_back_next() {
        let own = claim("w1-bbbb", "here");
        let early = LEAVES_WITHIN - Duration::from_millis(1);
        let leaving = holder("w1-aaaa", "here", Sign::Answer, early);
        assert_eq!(decide(&own, Some(&leaving)), Decision::Wait);
    }
}

//! What executions without a record left, for whoever asks for them once more. It is remembered by the
//! session's owner alone, as long as there is room, and gone with it; an `operation-id` is what makes a
//! result last.

use std::collections::VecDeque;

use proto::{execution::Outcome, id::OperationId, limits};

/// The latest outcomes, oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    outcomes: VecDeque<(OperationId, Outcome)>,
    bytes: usize,
}

impl Recent {
    /// Remembers an outcome, unless it is too long for it, and forgets the oldest for it.
    pub fn keep(&mut self, operation: &OperationId, outcome: &Outcome) {
        let bytes = outcome.text_bytes();
        if bytes > limits::RECENT_BYTES {
            return;
        }
        while self.outcomes.len() >= limits::RECENT_EXECUTIONS
            || self.bytes + bytes > limits::RECENT_BYTES
        {
            let Some((_, oldest)) = self.outcomes.pop_front() else {
                break;
            };
            self.bytes -= oldest.text_bytes();
        }
        self.bytes += bytes;
        self.outcomes
            .push_back((operation.clone(), outcome.clone()));
    }

    /// What this execution left, if that is remembered.
    #[must_use]
    pub fn get(&self, operation: &OperationId) -> Option<&Outcome> {
        let mut found = self.outcomes.iter().rev();
        found
            .find(|(known, _)| known == operation)
            .map(|(_, outcome)| outcome)
    }
}

#[cfg(test)]
mod tests {
    use proto::record::cancelled;

    use super::*;

    fn id(number: usize) -> OperationId {
        format!("op-{number}").parse().unwrap()
    }

    fn of(bytes: usize) -> Outcome {
        Outcome {
            stdout: "x".repeat(bytes),
            ..cancelled()
        }
    }

    #[test]
    fn the_oldest_are_forgotten_for_the_latest() {
        let mut recent = Recent::default();
        for number in 0..=limits::RECENT_EXECUTIONS {
            recent.keep(&id(number), &of(1));
        }
        assert_eq!(recent.get(&id(0)), None);
        assert_eq!(recent.get(&id(1)), Some(&of(1)));
    }

    #[test]
    fn all_together_fit_into_a_frame() {
        let half = limits::RECENT_BYTES / 2;
        let mut recent = Recent::default();
        for number in 0..3 {
            recent.keep(&id(number), &of(half));
        }
        recent.keep(&id(3), &of(limits::RECENT_BYTES + 1));
        let known = [0, 1, 2, 3].map(|number| recent.get(&id(number)).is_some());
        assert_eq!(known, [false, true, true, false]);
        recent.keep(&id(4), &of(limits::RECENT_BYTES));
        assert_eq!(recent.get(&id(2)), None);
        assert_eq!(recent.bytes, limits::RECENT_BYTES);
    }
}

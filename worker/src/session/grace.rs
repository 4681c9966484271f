//! What an execution is granted after an interrupt. Pure.
//!
//! Code that waits for its own threads or processes takes one interrupt to begin to, and another one to stop:
//! so there is a second. Once the kernel says that the code has obeyed, it may take as long again to tell so:
//! on a busy machine that alone can be longer than the code was given.

use std::time::Duration;

use proto::limits::INTERRUPT_GRACE;

/// Time between two looks at it.
pub(super) const STEP: Duration = match INTERRUPT_GRACE.checked_div(2) {
    Some(half) => half,
    None => INTERRUPT_GRACE,
};

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grace {
    steps: u32,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another interrupt, and another step.
    Again,
    /// Another step.
    Wait,
    /// Nothing is granted any more.
    Over,
}

impl Grace {
    /// After a step in which the execution has not ended.
    pub(super) fn next(&mut self, obeyed: bool) -> Next {
        self.steps += 1;
        match (self.steps, obeyed) {
            (1, false) => Next::Again,
            (1, true) | (2 | 3, true) => Next::Wait,
            _ => Next::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(obeyed_after: u32) -> Vec<Next> {
        let mut grace = Grace::default();
        let mut course = Vec::new();
        for step in 1.. {
            let next = grace.next(step > obeyed_after);
            course.push(next);
            if next == Next::Over {
                break;
            }
        }
        course
    }

    #[test]
    fn code_that_does_not_obey_is_interrupted_twice_and_ended_in_time() {
        assert_eq!(course(9), [Next::Again, Next::Over]);
        assert_eq!(STEP * 2, INTERRUPT_GRACE);
    }

    #[test]
    fn code_that_has_obeyed_is_left_alone_and_has_as_long_again_to_tell() {
        assert_eq!(course(0), [Next::Wait, Next::Wait, Next::Wait, Next::Over]);
        assert_eq!(course(1), [Next::Again, Next::Wait, Next::Wait, Next::Over]);
        assert_eq!(course(2), [Next::Again, Next::Over]);
    }

    #[test]
    fn the_longest_execution_is_answered_soon_after_its_time() {
        assert!(STEP * 4 < Duration::from_secs(5));
    }
}

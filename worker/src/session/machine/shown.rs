//! How phases and events are shown, in logs and in tests that fail: by their names, without what they hold.

use std::fmt;

use super::{Effects, End, Ended, Ending, Event, Left, Phase, Progress, Running, Saving, Stage};

impl<E: Effects> fmt::Debug for Phase<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<E: Effects> fmt::Debug for Stage<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<E: Effects> fmt::Debug for Running<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").field(&self.stop).finish()
    }
}

impl<E: Effects> fmt::Debug for Saving<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Saving").field(&self.after).finish()
    }
}

impl<E: Effects> fmt::Debug for Ended<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ended").field(&self.verdict).finish()
    }
}

impl<E: Effects> fmt::Debug for Ending<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ending").field(&self.why).finish()
    }
}

impl<E: Effects> fmt::Debug for Left<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening(_) => f.write_str("opening"),
            Self::Open(_, stage) => stage.fmt(f),
            Self::Bare(_) => f.write_str("bare"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl<E: Effects> fmt::Debug for Event<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(end) => end.fmt(f),
            Self::Progress(progress) => progress.fmt(f),
        }
    }
}

impl<E: Effects> fmt::Debug for End<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop(_) => "Stop",
            Self::LeaseLost => "LeaseLost",
            Self::DiskFull => "DiskFull",
        })
    }
}

impl<E: Effects> fmt::Debug for Progress<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opened(_) => "Opened",
            Self::Restarted(_) => "Restarted",
            Self::Failed(_) => "Failed",
            Self::Queued => "Queued",
            Self::Finished(..) => "Finished",
            Self::NotBegun(..) => "NotBegun",
            Self::DiedWith(_) => "DiedWith",
            Self::Died => "Died",
            Self::Saved(_) => "Saved",
            Self::NotSaved(_) => "NotSaved",
            Self::Unkeepable(_) => "Unkeepable",
            Self::Deadline => "Deadline",
            Self::Cancel => "Cancel",
            Self::GraceOver => "GraceOver",
            Self::Expired => "Expired",
            Self::HandOver => "HandOver",
        })
    }
}

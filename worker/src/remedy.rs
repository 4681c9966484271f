//! What an operator does about errors that only a worker has. All others are in [`process::remedy`].

use process::remedy::{HasRemedy, Known, Remedy, known};

use crate::{
    app::Ended,
    preflight::TooLittleMemory,
    sandbox::{LoopError, SandboxError, StartError, UidError, VolumeError},
};

/// The types of these errors.
pub const KNOWN: &[Known] = &[
    known::<TooLittleMemory>,
    known::<StartError>,
    known::<SandboxError>,
    known::<LoopError>,
    known::<Ended>,
];

impl HasRemedy for TooLittleMemory {
    fn remedy(&self) -> Option<Remedy> {
        Some(Remedy::WorkerMemory)
    }
}

impl HasRemedy for StartError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Uids(error) => error.remedy(),
            Self::NotRoot => Some(Remedy::NotRoot),
            Self::Directory { .. } => Some(Remedy::Directories),
            Self::Cgroups(_) | Self::Lock(_) => Some(Remedy::Cgroups),
            Self::HandDown(_) => Some(Remedy::CgroupDelegation),
            Self::Image { .. } => Some(Remedy::Image),
            Self::Mount { .. } => Some(Remedy::ImageMount),
            Self::Killed { .. } => Some(Remedy::ZygoteMemory),
            Self::EndedEarly { .. } => Some(Remedy::ZygoteBuild),
            Self::Refused { .. } => Some(Remedy::WorkerCheck),
            _ => None,
        }
    }
}

/// Of the first sandbox, which is tried at the start.
impl HasRemedy for SandboxError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Volume(error) => error.remedy(),
            Self::EndedEarly(_) | Self::Silent | Self::NoZygote => Some(Remedy::SessionMemory),
            _ => None,
        }
    }
}

impl HasRemedy for UidError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Directory { .. } => Some(Remedy::UidDirectory),
            Self::Exhausted => Some(Remedy::TooManyWorkers),
        }
    }
}

impl HasRemedy for LoopError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Control(_) | Self::Device { .. } => Some(Remedy::LoopModule),
            Self::Taken => Some(Remedy::LoopDevices),
        }
    }
}

impl HasRemedy for VolumeError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Run(_) => Some(Remedy::Mkfs),
            Self::Attach(_) => Some(Remedy::LoopForVolume),
            Self::Image { .. } => Some(Remedy::DataDiskFull),
            _ => None,
        }
    }
}

impl HasRemedy for Ended {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Machinery => Some(Remedy::MachineryFailed),
            Self::Replaced => Some(Remedy::IdTakenOver),
            Self::BusLost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use process::remedy::of;

    use super::*;

    #[test]
    fn a_remedy_is_found_behind_what_was_being_done() {
        let error = anyhow::Error::new(LoopError::Control(io::ErrorKind::NotFound.into()));
        let error = error.context("failed to make a first sandbox");
        assert_eq!(of(&error, KNOWN), Some(Remedy::LoopModule));
    }

    #[test]
    fn last_words_come_with_a_remedy() {
        for ended in [Ended::Machinery, Ended::Replaced] {
            assert!(of(&ended.into(), KNOWN).is_some(), "{ended}");
        }
    }
}

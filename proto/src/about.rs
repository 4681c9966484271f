//! What the sandboxes of a pool hold, as a worker found it in its image.

use serde::{Deserialize, Serialize};

/// The software of a pool's sandboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What code is run by.
    pub runtimes: Vec<Software>,
    /// Libraries that code can import, sorted by name.
    pub packages: Vec<Software>,
    /// What runs cells, where the pool runs cells.
    pub kernel: Option<Kernel>,
}

/// A program or library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What runs cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where its makers tell of it.
    pub project_url: String,
    /// What they say in one line.
    pub description: String,
}

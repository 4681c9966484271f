//! The new contract: api-versions from 2024-10-02-preview on. Bodies are flat, and every operation has
//! a path of its own except those that [`super::files`] shares out.

pub mod executions;
pub mod files;
pub mod metadata;
pub mod resource;
pub mod sessions;

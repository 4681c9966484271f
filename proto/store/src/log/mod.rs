//! The commit log of one incarnation of a session: everything below `/mnt/data`, durable.
//!
//! ```text
//! <pool>/<session>/<incarnation>/c/<seq>     commits, written only with "create"
//!                                k/<seq>     checkpoints: the manifest after commit <seq>
//!                                b/<name>    blobs: contents that no commit carries itself
//! ```
//!
//! A commit is a change of the tree. Whoever takes a session over first writes a commit that holds
//! nothing but its higher epoch, the *fence*: an owner that stalled and wakes collides with it and
//! stops. Every reader folds commits into a [`manifest::Manifest`].

mod checkpoint;
mod codec;
pub mod collect;
pub mod commit;
pub mod content;
mod entry;
mod frame;
pub mod history;
pub mod key;
pub mod manifest;
mod path;
pub mod source;
pub mod upkeep;
pub mod writer;

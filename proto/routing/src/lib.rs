//! Brings jobs to the workers that own their sessions, or to ones that will. Ingresses do it for callers
//! who wait, workers for the executions that wait in the queue: one logic for both.
//!
//! [`placement`] decides and is pure; [`route`] performs; [`reader`] takes output on its way;
//! [`bus`] is the connection as both need it.
#![forbid(unsafe_code)]

pub mod bus;
pub mod disagreement;
pub mod patience;
pub mod placement;
pub mod reader;
pub mod route;
pub mod served;

//! A worker's helper processes, which the harness does not start and so must look for.

use std::fs;

use super::member::Member;
use crate::inventory::{self, children_of, is_zombie, sandboxed};

/// `argv[0]` of the process that makes cages.
const CAGED: &[u8] = b"caged";
/// What the zygote runs once it has put on the image.
const ZYGOTE: &[u8] = b"/opt/hearth/boot.py";

/// The helper of the worker with this process number and id; of several the youngest, because an
/// old zygote lives on until its last session has ended.
pub(super) fn find(helper: Member, worker: u32, id: &str) -> Option<u32> {
    let candidates = children_of(worker).into_iter();
    let helpers: Vec<u32> = candidates
        .filter(|&child| is(child, helper) && !is_zombie(child))
        .collect();
    // A kernel whose zygote has died becomes the worker's child.
    let kernels = if helpers.is_empty() {
        Default::default()
    } else {
        sandboxed(id)
    };
    let helpers = helpers.into_iter().filter(|child| !kernels.contains(child));
    helpers.max_by_key(|&child| inventory::started(child))
}

fn is(process: u32, helper: Member) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let mut arguments = line.split(|&byte| byte == 0);
    match helper {
        Member::Caged(_) => arguments.next() == Some(CAGED),
        Member::Zygote(_) => arguments.any(|argument| argument == ZYGOTE),
        _ => false,
    }
}

//! The kernel's own tests, in Python, where the kernel runs: in the session image. Needs root.

use std::process::Command;

use crate::sandbox::image;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel/tests/run.sh");

#[test]
fn the_kernels_own_tests_pass_in_the_image() {
    let ran = Command::new("sh")
        .arg(SCRIPT)
        .arg(image())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "{}{told}",
        String::from_utf8_lossy(&ran.stdout)
    );
    // What runs no test succeeds too.
    let count = told
        .lines()
        .find_map(|line| line.strip_prefix("Ran ")?.split(' ').next());
    let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(count > 0, "{told}");
    eprintln!("{count} tests of the kernel passed");
}

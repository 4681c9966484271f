//! `loadtest`: benchmarks, load, chaos, and the keeper of test stacks.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    loadtest::command::main()
}

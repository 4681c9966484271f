//! The ingress's binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ingress::command::main()
}
